"""One door to the variants of a cohort, whatever the format: the protocol that readers meet, and who reads what.

Glossary: R records (rows) · S people · 2 haplotypes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from encoders.genetics.records import Dosages, Records, Site
from encoders.genetics.reference import Reference
from encoders.genetics.variants import PhasedVariants

__all__ = ["Dosages", "Records", "Site", "VariantSource", "open_variants"]


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

    def first_sites(self, contig: str, limit: int, end: int) -> list[Site]:
        """Positions and alleles, as listed, of the first ``limit`` records of a contig that begin before ``end``."""

    def close(self) -> None:
        """Close the files and remove what was made temporarily."""

    def __enter__(self) -> "VariantSource": ...

    def __exit__(self, *_: object) -> None: ...


def open_variants(
    paths: Path | str | Sequence[Path | str], *, reference: Reference | None = None
) -> VariantSource:
    """Open variants with the reader that fits their content.

    Args:
        paths: A file, or several of one format that hold the same people.
        reference: The reference genome, which decides which allele is REF where the format leaves it open.

    Raises:
        InputError: nothing there, or nothing that can be read.
    """
    several = [paths] if isinstance(paths, (str, Path)) else list(paths)
    return PhasedVariants(Path(several[0]))
