"""One door to the variants of a cohort, whatever the format: the protocol that readers meet, and who reads what.

Glossary: R records (rows) · S people · 2 haplotypes.
"""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from encoders.genetics.bgen_variants import BgenVariants
from encoders.genetics.joined_variants import JoinedVariants
from encoders.genetics.plink_variants import BED_MAGIC, PlinkVariants
from encoders.genetics.records import Dosages, Records, Site
from encoders.genetics.reference import BGZF_MAGIC, Reference
from encoders.genetics.variants import PhasedVariants
from encoders.runs.errors import InputError

__all__ = ["Dosages", "Records", "Site", "VariantSource", "open_variants", "variant_files"]

SUFFIXES = (".vcf.gz", ".vcf.bgz", ".bcf", ".pgen", ".bgen", ".bed")
INDEXES = (".tbi", ".csi", ".bgi", ".pgi")
TABLES = {
    ".pvar": ".pgen",
    ".pvar.zst": ".pgen",
    ".psam": ".pgen",
    ".bim": ".bed",
    ".fam": ".bed",
    ".sample": ".bgen",
}


@runtime_checkable
class VariantSource(Protocol):
    """Open variants, from one file or several. Close it, or use it as a context manager.

    Args:
        path: The file, or the first of several.
        samples: Names of the people, in the order of the file.
        lengths: Bases per contig, as far as the file says.
        contigs: Contigs with records, or named by the header.
        index_state: How the index was come by: "as found", "rebuilt: missing", ...
        ref_known: Whether the file says which allele is REF; otherwise the FASTA decides.
    """

    path: Path
    samples: list[str]
    lengths: dict[str, int]
    contigs: list[str]
    index_state: str
    ref_known: bool

    @property
    def remarks(self) -> list[str]:
        """What a user should know about how it was read."""

    def find(self, contig: str, window: str) -> str:
        """The spelling of ``contig`` in this source; ``window`` is for the message.

        Raises:
            InputError: E_CONTIG, it does not have the contig under any of its names.
        """

    def fetch(self, contig: str, start: int, end: int, people: list[str]) -> Records:
        """The records that overlap [start, end) of a contig of this source, for ``people`` in their order.

        Raises:
            InputError: E_UNPHASED from a format that holds no phase; E_VCF, E_PGEN, E_BGEN for damage.
        """

    def dosages(self, contig: str, start: int, end: int, people: list[str]) -> Dosages:
        """Copies of every ALT in [start, end), for ``people`` in their order; needs no phase."""

    def extent(self, contig: str) -> tuple[int, int]:
        """A stretch [start, end) of a contig outside of which no record lies; (0, 0) if there is none at all."""

    def first_sites(self, contig: str, limit: int, end: int) -> list[Site]:
        """Positions and alleles, as listed, of the first ``limit`` records of a contig that begin before ``end``."""

    def close(self) -> None:
        """Close the files and remove what was made temporarily."""

    def __enter__(self) -> "VariantSource": ...

    def __exit__(self, *_: object) -> None: ...


def open_variants(
    paths: Path | str | Sequence[Path | str],
    *,
    reference: Reference | None = None,
    sample_file: Path | None = None,
    contig: str | None = None,
    ref_allele: str | None = None,
) -> VariantSource:
    """Open variants with the reader that fits their content.

    Args:
        paths: As :func:`variant_files` takes it.
        reference: The reference genome, which decides which allele is REF where the format leaves it open.
        sample_file: .sample file with the people of BGEN files that do not name them.
        contig: The contig of BGEN records that leave it blank.
        ref_allele: "first" or "last", where REF stands in BGEN records, if the FASTA shall not decide.

    Raises:
        InputError: nothing there, or nothing that can be read.
    """

    def opened(path: Path) -> VariantSource:
        match _format(path):
            case "bgen":
                return BgenVariants(
                    path, reference=reference, sample_file=sample_file, contig=contig, ref_allele=ref_allele
                )
            case "plink":
                return PlinkVariants(path, reference=reference)
        return PhasedVariants(path)

    files = variant_files(paths)
    return opened(files[0]) if len(files) == 1 else JoinedVariants(files, opened)


def variant_files(paths: Path | str | Sequence[Path | str]) -> list[Path]:
    """The files of variants that are meant, each once.

    Args:
        paths: A file, a folder (all files of variants in it), a pattern such as `chr*.vcf.gz`, several of these
            with commas between them, or a list.

    Raises:
        InputError: E_VARIANTS, nothing there.
    """
    if isinstance(paths, (str, Path)):
        text = str(paths)
        paths = [text] if Path(text).exists() else [part.strip() for part in text.split(",") if part.strip()]
    found: list[Path] = []
    for given in paths:
        found += _files(Path(given))
    return list(dict.fromkeys(found))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [_genotypes_beside(path)]
    if path.is_dir():
        found = [file for file in sorted(path.iterdir(), key=_by_number) if file.name.endswith(SUFFIXES)]
        # gene windows share the suffix of PLINK's genotypes, which never come without their tables
        found = [file for file in found if file.suffix != ".bed" or file.with_suffix(".bim").is_file()]
        if not found:
            plain = [file.name for file in path.glob("*.vcf")]
            hint = f"compress {plain[0]} with: bgzip {plain[0]}" if plain else "pass one that does"
            raise InputError(
                f"the folder {path} holds no files of variants ({', '.join(SUFFIXES)}); {hint}",
                code="E_VARIANTS",
            )
        return found
    if glob.has_magic(str(path)):
        matching = sorted(map(Path, glob.glob(str(path))), key=_by_number)
        found = [file for file in matching if file.is_file()]
        found = list(
            dict.fromkeys(_genotypes_beside(file) for file in found if not file.name.endswith(INDEXES))
        )
        if found:
            return found
    near = sorted(file.name for file in path.parent.glob(f"{path.name}*") if file.name.endswith(SUFFIXES))
    hint = f"pass {path.parent / near[0]}" if near else "pass VCF, BCF, .pgen or .bgen files"
    raise InputError(f"{path} does not exist; files of variants were wanted; {hint}", code="E_VARIANTS")


def _genotypes_beside(path: Path) -> Path:
    """The genotypes, if ``path`` is a table beside them: `cohort.pvar` -> `cohort.pgen`."""
    for table, genotypes in TABLES.items():
        if path.name.endswith(table):
            file = Path(str(path).removesuffix(table) + genotypes)
            if file.is_file():
                return file
            raise InputError(
                f"{path} is a table that lies beside genotypes, but there is no {file.name}; pass the genotypes",
                code="E_VARIANTS",
            )
    if path.name.endswith(INDEXES):
        raise InputError(
            f"{path} is an index; pass the file of variants that it belongs to ({path.stem})",
            code="E_VARIANTS",
        )
    return path


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sorts `chr2` before `chr10`."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _format(path: Path) -> str:
    """ "vcf", "plink" or "bgen", by content; by suffix where the content says nothing."""
    with open(path, "rb") as file:
        head = file.read(20)
    if head[:2] == BED_MAGIC:
        return "plink"
    if head[16:20] == b"bgen":
        return "bgen"
    if head[:2] == BGZF_MAGIC[:2] or head.startswith(b"##fileformat=VCF"):
        return "vcf"
    return {".pgen": "plink", ".bed": "plink", ".bgen": "bgen"}.get(path.suffix, "vcf")
