"""Phased variants: the records of a window and everyone's two alleles at each of them, from VCF or BCF.

Nothing is dropped silently: records and genotypes that cannot be used are counted, and what would make
everyone the reference (an unknown contig, a stale index, a truncated file) is an error.

Glossary: R records · S people · 2 haplotypes.
"""

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from encoders.genetics.contigs import as_spelled, find_contig, header_contigs, no_contig
from encoders.genetics.genotype_text import GenotypeDecoder
from encoders.genetics.htslib import pysam, quiet_htslib
from encoders.genetics.phase_sets import NO_SET, sets_of_record
from encoders.genetics.records import MISSING, Dosages, Records, Site, dosages_of
from encoders.genetics.reference import BGZF_MAGIC
from encoders.genetics.vcf_index import extents, usable_index
from encoders.runs.errors import InputError

__all__ = ["MISSING", "PhasedVariants", "Records"]

BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")  # the empty last block


class PhasedVariants:
    """An open variant file. Close it, or use it as a context manager.

    Args:
        path: bgzipped VCF (.vcf.gz) or BCF, sorted.

    Raises:
        InputError: E_VCF for a file that cannot be read by position, E_INDEX for one that cannot be indexed.
    """

    ref_known = True

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._is_bcf = _check_file(self.path)
        self._scratch = tempfile.TemporaryDirectory(prefix="neurohelix-index-")
        try:
            with quiet_htslib():
                header, present = self._open()
            self.samples = _samples(header, self.path)
        except InputError:
            raise
        except (OSError, ValueError) as cause:
            raise _unreadable(self.path, f"is damaged ({cause})", "copy or download it again") from cause
        listed = as_spelled(header_contigs(header), present)
        self.lengths = {name: length for name, length in listed.items() if length}
        self.contigs = list(dict.fromkeys([*present, *listed]))
        self._present = set(present)
        self._column = {name: k for k, name in enumerate(self.samples)}

    def __enter__(self) -> "PhasedVariants":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def remarks(self) -> list[str]:
        """What a user should know about how it was read: nothing, a VCF says it all."""
        return []

    def close(self) -> None:
        """Close the file and remove its temporary index."""
        self._file.close()
        self._scratch.cleanup()

    def find(self, contig: str, window: str) -> str:
        """The spelling of ``contig`` in this file.

        Raises:
            InputError: E_CONTIG, the file does not have it under any of its names.
        """
        if (found := find_contig(contig, self.contigs)) is None:
            raise no_contig(contig, window, self.path, self.contigs)
        return found

    def fetch(self, contig: str, start: int, end: int, people: list[str]) -> Records:
        """The records that overlap [start, end) of a contig of this file, for ``people`` in their order.

        Raises:
            InputError: E_VCF for a damaged block or a malformed record, E_PLOIDY for more than two alleles.
        """
        return self._decoded(contig, self._lines(contig, start, end), people)

    def _decoded(
        self, contig: str, lines: list[str], people: list[str], *, or_dosage: bool = False
    ) -> Records:
        """Calls of records; with ``or_dosage``, all missing where a record has DS instead of GT."""
        positions, alleles, sets = [], [], {}
        decoder = GenotypeDecoder(len(self.samples), self._columns(people))
        for line in lines:
            cells = line.split("\t", 9)
            if len(cells) < 10 or not cells[1].isdecimal():
                raise self._malformed(contig, cells, len(cells))
            try:
                columns = decoder.add(cells[8], cells[9])
            except ValueError as cause:
                raise InputError(
                    f"{self.path}: the record at {contig}:{cells[1]} holds {cause}; one or two alleles per "
                    f"person were wanted",
                    code="E_PLOIDY",
                ) from None
            if columns is None and or_dosage and "DS" in cells[8].split(":"):
                decoder.add("GT", "\t".join(["./."] * len(self.samples)))
                columns = cells[9].count("\t") + 1
            if columns is None:
                raise InputError(
                    f"{self.path}: the record at {contig}:{cells[1]} has no genotypes (FORMAT {cells[8]}); "
                    f"phased genotypes (GT) were wanted",
                    code="E_VCF",
                )
            if columns != len(self.samples):
                raise self._malformed(contig, cells, 9 + columns)
            positions.append(int(cells[1]) - 1)
            alleles.append(_alleles(cells))
            if "PS" in cells[8] and (found := sets_of_record(cells[8], cells[9].split("\t"))) is not None:
                sets[len(alleles) - 1] = found[self._columns(people)]
        calls, unphased, haploid = decoder.decoded()
        for row, highest in enumerate(calls.max(axis=(1, 2), initial=0).tolist()):
            if highest >= len(alleles[row]):
                raise InputError(
                    f"{self.path}: the record at {contig}:{positions[row] + 1} has {len(alleles[row])} alleles, "
                    f"but a genotype names allele {highest}; repair the file",
                    code="E_VCF",
                )
        in_sets = None
        if sets:
            alone = np.full(len(people), NO_SET, np.int32)
            in_sets = np.stack([sets.get(row, alone) for row in range(len(alleles))])
        return Records(
            positions=positions,
            alleles=alleles,
            calls=calls,
            unphased=unphased,
            haploid=haploid,
            phase_sets=in_sets,
        )

    def dosages(self, contig: str, start: int, end: int, people: list[str]) -> Dosages:
        """Copies of every ALT in [start, end), for ``people`` in their order; needs no phase.

        Imputed dosages (DS) count where a record has them, genotypes where it has not.
        """
        lines = self._lines(contig, start, end)
        records = self._decoded(contig, lines, people, or_dosage=True)
        found = dosages_of(records)
        columns = self._columns(people)
        row = 0
        for line, haploid in zip(lines, records.haploid, strict=True):
            cells = line.split("\t", 9)
            count = len(_alleles(cells)) - 1
            if "DS" in (fields := cells[8].split(":")):
                each = cells[9].split("\t")
                told = [self._dosage(contig, cells[1], each[k], fields.index("DS"), count) for k in columns]
                given = np.asarray(told, np.float32).reshape(len(people), count).T * (1 + haploid)
                found.values[row : row + count] = np.where(
                    np.isnan(given), found.values[row : row + count], given
                )
            row += count
        return found

    def _dosage(self, contig: str, at: str, cell: str, field: int, count: int) -> list[float]:
        told = (cell.split(":") + ["."] * field)[field].split(",")
        if told == ["."]:
            return [np.nan] * count
        try:
            numbers = [np.nan if one == "." else float(one) for one in told]
        except ValueError:
            numbers = []
        if len(numbers) != count or not all(np.isnan(n) or 0 <= n <= 2 for n in numbers):
            raise InputError(
                f"{self.path}: the record at {contig}:{at} holds the dosage {','.join(told)!r}; {count} numbers "
                f"between 0 and 2 were wanted",
                code="E_VCF",
            )
        return numbers

    def extent(self, contig: str) -> tuple[int, int]:
        """A stretch of a contig outside of which no record lies, as far as the index tells."""
        return self._extents.get(contig, (0, 0))

    def first_sites(self, contig: str, limit: int, end: int) -> list[Site]:
        """Positions and alleles of the first ``limit`` records of a contig that begin before ``end``."""
        if contig not in self._present or end <= 0:
            return []
        found = []
        with self._reading(contig, 0, end):
            for record in itertools.islice(self._file.fetch(contig, 0, end), limit):
                cells = str(record).split("\t", 5)
                if len(cells) < 6 or not cells[1].isdecimal():
                    raise self._malformed(contig, cells, len(cells))
                found.append((int(cells[1]) - 1, _alleles(cells)))
        return found

    def _open(self) -> tuple[list[str], list[str]]:
        """Open the file with an index that belongs to it; returns header lines and contigs with records."""
        index, self.index_state = usable_index(self.path, Path(self._scratch.name))
        places = extents(index)
        if self._is_bcf:
            self._file = pysam.VariantFile(str(self.path), index_filename=str(index))
            contigs = list(self._file.header.contigs)
            self._extents = dict(zip(contigs, places, strict=False))
            return str(self._file.header).splitlines(), contigs
        self._file = pysam.TabixFile(str(self.path), index=str(index), encoding="utf-8")
        contigs = list(self._file.contigs)
        self._extents = dict(zip(contigs, places, strict=False))
        return list(self._file.header), contigs

    def _lines(self, contig: str, start: int, end: int) -> list[str]:
        if contig not in self._present or start >= end:
            return []
        with self._reading(contig, start, end):
            return [str(record).rstrip("\n") for record in self._file.fetch(contig, start, end)]

    @contextmanager
    def _reading(self, contig: str, start: int, end: int) -> Iterator[None]:
        try:
            with quiet_htslib():
                yield
        except InputError:
            raise
        except (OSError, ValueError) as cause:
            raise InputError(
                f"{self.path} is damaged near {contig}:{start + 1}-{end} ({cause}); restore it from a copy",
                code="E_VCF",
            ) from cause

    def _columns(self, people: list[str]) -> list[int]:
        return [self._column[name] for name in people]

    def _malformed(self, contig: str, cells: list[str], found: int) -> InputError:
        at = cells[1] if len(cells) > 1 else "?"
        return InputError(
            f"{self.path}: the record at {contig}:{at} has {found} columns, the header has "
            f"{9 + len(self.samples)}; repair the file",
            code="E_VCF",
        )


def _alleles(cells: list[str]) -> tuple[str, ...]:
    return (cells[3], *(cells[4].split(",") if cells[4] != "." else ()))


def _samples(header: list[str], path: Path) -> list[str]:
    titles = [line for line in header if line.startswith("#CHROM")]
    samples = titles[-1].split("\t")[9:] if titles else []
    if not samples:
        raise InputError(
            f"{path} has no people (no sample columns, as in a list of sites); genotypes of people were wanted; pass "
            f"the file that has them",
            code="E_VCF",
        )
    if len(set(samples)) < len(samples):
        twice = next(name for name in samples if samples.count(name) > 1)
        raise InputError(f"{path} has two columns of the same name, {twice!r}; rename one", code="E_VCF")
    return samples


def _check_file(path: Path) -> bool:
    """Refuse what htslib cannot read by position; returns whether the file is BCF."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; phased variants (bgzipped VCF or BCF) were wanted")
    with open(path, "rb") as file:
        head = file.read(18)
        file.seek(max(path.stat().st_size - len(BGZF_END), 0))
        tail = file.read()
    if not head:
        raise _unreadable(path, "is empty", "copy or download it again")
    if head.startswith(b"##fileformat=VCF"):
        raise _unreadable(path, "is a plain text VCF", f"run: bgzip {path} && tabix -p vcf {path}.gz")
    if head[:2] != BGZF_MAGIC[:2]:
        raise _unreadable(path, "is not a VCF or BCF file", "pass a bgzipped VCF")
    if head[:4] != BGZF_MAGIC or head[12:14] != b"BC":
        bare = str(path).removesuffix(".gz")
        raise _unreadable(
            path,
            "is gzipped in one piece",
            f"bgzip it: gunzip {path} && bgzip {bare} && tabix -p vcf {bare}.gz",
        )
    if tail != BGZF_END:
        raise _unreadable(path, "is truncated (no end-of-file block)", "copy or download it again")
    try:
        with pysam.BGZFile(str(path), "rb") as file:
            start = file.read(16)
    except OSError as cause:
        raise _unreadable(path, f"is damaged ({cause})", "copy or download it again") from cause
    if not start.startswith((b"##fileformat=VCF", b"BCF\2")):
        raise _unreadable(path, "is compressed, but holds no variants", "pass a bgzipped VCF")
    return start.startswith(b"BCF")


def _unreadable(path: Path, what: str, advice: str) -> InputError:
    return InputError(f"{path} {what}, but variants are read by position; {advice}", code="E_VCF")
