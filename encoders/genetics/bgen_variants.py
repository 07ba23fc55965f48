"""BGEN 1.2 genotypes: phased ones as haplotypes, unphased ones (probabilities) as dosages only.

The format does not say which allele is REF, and files of phased haplotypes of UK Biobank leave the chromosome
blank: the reference genome and the file name fill in. A sample is missing as a whole, so that a half-missing
genotype cannot be held; haploid ones can.

Glossary: R records (rows) · S people · 2 haplotypes · C columns of probabilities.
"""

import itertools
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from encoders.genetics.allele_order import END, VOTERS, AlleleOrder, ref_first
from encoders.genetics.bgen_index import BgenIndex
from encoders.genetics.bgen_probabilities import called_alleles, expected_copies
from encoders.genetics.contigs import find_contig, no_contig, plink_contig
from encoders.genetics.records import MISSING, Dosages, Records, Site
from encoders.genetics.reference import Reference
from encoders.genetics.sample_file import read_sample_file
from encoders.runs.errors import InputError

if TYPE_CHECKING:
    from bgen import BgenReader, BgenVar

_NAMED = re.compile(r"(?:^|[^a-z])(?:chr|c)_?(\d{1,2}|X|Y|XY|MT|M)(?![0-9a-z])", re.IGNORECASE)


class BgenVariants:
    """An open BGEN file. Close it, or use it as a context manager.

    Args:
        path: .bgen, version 1.2 or later; its .bgi index beside it is used if it belongs to it.
        reference: The reference genome, which decides which allele is REF.
        sample_file: .sample file with the people's names, where the file does not hold them; default: the one
            of the same name.
        contig: The contig of records whose chromosome is blank; default: what the file name says (chr22, _c22_).
        ref_allele: "first" or "last": where REF stands, if it is known; then the FASTA is not asked.

    Raises:
        InputError: E_BGEN for a file that cannot be read, E_SAMPLE without names of people, E_INDEX, or E_CONTIG
            for a blank chromosome that nothing names.
    """

    ref_known = False

    def __init__(
        self,
        path: Path,
        *,
        reference: Reference | None = None,
        sample_file: Path | None = None,
        contig: str | None = None,
        ref_allele: str | None = None,
    ) -> None:
        self.path = Path(path)
        self._scratch = tempfile.TemporaryDirectory(prefix="neurohelix-index-")
        # the library takes the index that lies beside the file it is given
        link = Path(self._scratch.name) / "linked.bgen"
        with _open(self.path, link) as file:
            self.samples = _people(self.path, file, sample_file)
            self._index = BgenIndex(self.path, Path(self._scratch.name), file.header.nvariants)
        self.index_state = self._index.state
        Path(f"{link}.bgi").symlink_to(self._index.path.resolve())
        self._file = _open(self.path, link)
        self._spelled: dict[str, list[str]] = {}  # contig -> chromosomes as the file writes them
        for raw in self._index.chromosomes:
            name = plink_contig(raw) if raw.strip() else _blank(self.path, contig)
            self._spelled.setdefault(name, []).append(raw)
        self.contigs = list(self._spelled)
        self.lengths: dict[str, int] = {}
        self._column = {name: k for k, name in enumerate(self.samples)}
        self._order = AlleleOrder(self.path, reference, ref_allele)

    def __enter__(self) -> "BgenVariants":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and remove its temporary index."""
        self._file.close()
        self._index.close()
        self._scratch.cleanup()

    @property
    def remarks(self) -> list[str]:
        """What a user should know about how it was read."""
        return [f"{self.path.name}: {remark}" for remark in self._order.remarks.values()]

    def find(self, contig: str, window: str) -> str:
        """The spelling of ``contig`` in this file.

        Raises:
            InputError: E_CONTIG, the file does not have it under any of its names.
        """
        if (found := find_contig(contig, self.contigs)) is None:
            raise no_contig(contig, window, self.path, self.contigs)
        return found

    def extent(self, contig: str) -> tuple[int, int]:
        """The stretch of a contig outside of which no record lies."""
        places = [self._index.extent(raw) for raw in self._spelled.get(contig, [])]
        return (min(p[0] for p in places), max(p[1] for p in places)) if places else (0, 0)

    def first_sites(self, contig: str, limit: int, end: int) -> list[Site]:
        """Positions and alleles, as listed, of the first ``limit`` records that begin before ``end``."""
        return [(v.pos - 1, tuple(v.alleles)) for v in self._records(contig, 0, end, limit)]

    def fetch(self, contig: str, start: int, end: int, people: list[str]) -> Records:
        """The records that overlap [start, end) of a contig of this file, for ``people`` in their order.

        Raises:
            InputError: E_UNPHASED for records that hold probabilities of genotypes, E_ALLELES where nothing says
                which allele is REF, E_PLOIDY for more than two haplotypes, E_BGEN for damage.
        """
        columns = np.asarray([self._column[name] for name in people], np.intp)
        positions, alleles, calls, haploid = [], [], [], []
        for record in self._records(contig, start, end):
            listed = tuple(record.alleles)
            order = self._ref_first(contig, record, listed, strict=True)
            if record.pos - 1 + len(listed[order[0]]) <= start:
                continue
            if not record.is_phased:
                raise InputError(
                    f"{self.path}: the record at {contig}:{record.pos} holds probabilities of genotypes (three "
                    f"columns), without phase, so there are no haplotypes in it; phase it (SHAPEIT5, Beagle), pass "
                    f"a phased BGEN such as ukb_hap, or use it for the linear SNP vectors or with --unphased=dosage",
                    code="E_UNPHASED",
                )
            called, single = called_alleles(*self._probabilities(record, contig), len(listed))
            if order[0]:
                moved = np.argsort([*order, len(order)]).astype(np.int16)
                moved[-1] = MISSING  # the last place stands for -1
                called = moved[called]
            positions.append(record.pos - 1)
            alleles.append(tuple(listed[k] for k in order))
            calls.append(called[columns])
            haploid.append(single[columns])
        shape = (len(positions), len(people))
        return Records(
            positions=positions,
            alleles=alleles,
            calls=np.asarray(calls, np.int16).reshape(*shape, 2),
            unphased=np.zeros(shape, bool),
            haploid=np.asarray(haploid, bool).reshape(shape),
        )

    def dosages(self, contig: str, start: int, end: int, people: list[str]) -> Dosages:
        """Expected copies of every ALT in [start, end), for ``people`` in their order; needs no phase."""
        columns = np.asarray([self._column[name] for name in people], np.intp)
        positions, alleles, values = [], [], []
        for record in self._records(contig, start, end):
            listed = tuple(record.alleles)
            order = self._ref_first(contig, record, listed, strict=False)
            if record.pos - 1 + len(listed[order[0]]) <= start:
                continue
            shares, ploidy = self._probabilities(record, contig)
            expected = expected_copies(shares, ploidy, len(listed), phased=record.is_phased)
            for allele in order[1:]:
                positions.append(record.pos - 1)
                alleles.append((listed[order[0]], listed[allele]))
                values.append(expected[columns, allele])
        return Dosages(
            positions=positions,
            alleles=alleles,
            values=np.asarray(values, np.float32).reshape(len(values), len(people)),
        )

    def _records(self, contig: str, start: int, end: int, limit: int | None = None) -> list["BgenVar"]:
        records: list[BgenVar] = []
        if start >= end:
            return records
        try:
            for raw in self._spelled.get(contig, []):
                found = self._file.fetch(raw, start + 2 - self._index.longest(raw), end)
                records += itertools.islice(found, limit)
        except (ValueError, OSError, IndexError) as cause:
            raise self._damaged(contig, start, cause) from cause
        return sorted(records, key=lambda record: (record.pos, record.fileoffset))[:limit]

    def _ref_first(
        self, contig: str, record: "BgenVar", listed: tuple[str, ...], *, strict: bool
    ) -> list[int]:
        if len(listed) < 2:
            return list(range(len(listed)))
        self._order.learn(contig, lambda: self.first_sites(contig, VOTERS, END))
        return ref_first(listed, self._order.ref_of(contig, record.pos - 1, listed, strict=strict))

    def _probabilities(
        self, record: "BgenVar", contig: str
    ) -> tuple[Float32[np.ndarray, "S C"], UInt8[np.ndarray, " S"]]:
        try:
            ploidy = np.asarray(record.ploidy)
            shares = np.asarray(record.probabilities)
        except (ValueError, OSError, IndexError) as cause:
            raise self._damaged(contig, record.pos - 1, cause) from cause
        if ploidy.min() < 1 or ploidy.max() > 2:
            raise InputError(
                f"{self.path}: the record at {contig}:{record.pos} has people with {int(ploidy.max())} haplotypes "
                f"(and {int((ploidy == 0).sum())} with none); one or two were wanted",
                code="E_PLOIDY",
            )
        return shares, ploidy

    def _damaged(self, contig: str, start: int, cause: Exception) -> InputError:
        return InputError(
            f"{self.path} is damaged near {contig}:{start + 1} ({cause}); restore it from a copy",
            code="E_BGEN",
        )


def _open(path: Path, link: Path) -> "BgenReader":
    try:
        from bgen import BgenReader
    except ImportError as cause:
        raise InputError(
            f"bgen is not installed, and it reads {path}; install it with: pip install 'neurohelix[bgen]'"
        ) from cause
    with open(path, "rb") as file:
        head = file.read(20)
    if head[16:20] not in (b"bgen", bytes(4)) or len(head) < 20:
        found = "is empty" if not head else "does not begin like a BGEN file"
        raise InputError(f"{path} {found}; BGEN 1.2 was wanted; copy or export it again", code="E_BGEN")
    if not link.is_symlink():
        link.symlink_to(path.resolve())
    try:
        file = BgenReader(str(link), delay_parsing=True)
    except (ValueError, OSError, IndexError) as cause:
        raise InputError(
            f"{path} cannot be read ({cause}); copy or export it again", code="E_BGEN"
        ) from cause
    if not file.header.nvariants:
        raise InputError(f"{path} holds no records; genotypes were wanted", code="E_BGEN")
    return file


def _people(path: Path, file: "BgenReader", sample_file: Path | None) -> list[str]:
    count = file.header.nsamples
    beside = path.with_suffix(".sample")
    if not count:
        raise InputError(f"{path} has no people; genotypes of people were wanted", code="E_BGEN")
    if sample_file is None and file.header.has_sample_ids:
        samples, source = list(file.samples), path
    elif sample_file is not None or beside.is_file():
        source = Path(sample_file) if sample_file is not None else beside
        samples = read_sample_file(source)
    else:
        raise InputError(
            f"{path} does not hold the names of its {count} people, and there is no {beside.name} beside it; pass "
            f"their .sample file",
            code="E_SAMPLE",
        )
    if len(samples) != count or len(set(samples)) < count:
        raise InputError(
            f"{source} names {len(samples)} people ({len(set(samples))} different names), {path} holds {count}; "
            f"pass the .sample file that belongs to it",
            code="E_SAMPLE",
        )
    return samples


def _blank(path: Path, contig: str | None) -> str:
    """The contig of records without one."""
    told = {plink_contig(name.upper()) for name in _NAMED.findall(path.name)}
    if contig is not None and len(told) == 1 and find_contig(contig, told) is None:
        raise InputError(
            f"{path} leaves the chromosome of its records blank; by its name it is {told.pop()!r}, by --contig "
            f"{contig!r}; leave the option out, or rename the file",
            code="E_CONTIG",
        )
    if contig is None and len(told) != 1:
        raise InputError(
            f"{path} leaves the chromosome of its records blank (as ukb_hap files do), and its name does not say "
            f"which it is; rename it to ..._chr22_... or pass --contig",
            code="E_CONTIG",
        )
    return contig if contig is not None else told.pop()
