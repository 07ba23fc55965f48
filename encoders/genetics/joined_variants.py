"""Several files as one source: one per chromosome, or blocks of a chromosome (UK Biobank's pVCF).

All files hold the same people, in any order. A window may span blocks. A record that two overlapping blocks both
hold is taken once if they agree, and is an error if they do not.

Glossary: R records (rows) · S people · 2 haplotypes.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from encoders.genetics.contigs import canonical, find_contig, no_contig
from encoders.genetics.phase_sets import NO_SET
from encoders.genetics.records import Dosages, Records, Site
from encoders.runs.errors import InputError

if TYPE_CHECKING:
    from encoders.genetics.variant_source import VariantSource

MAX_OPEN = 64  # files held open at a time; blocks of a genome are thousands


class JoinedVariants:
    """Several open files. Close it, or use it as a context manager.

    Args:
        paths: The files, at least two.
        opened: Opens one.

    Raises:
        InputError: whatever is wrong with one of them; E_SAMPLE if they do not hold the same people, E_BUILD if
            they give a contig different lengths.
    """

    def __init__(self, paths: Sequence[Path], opened: "Callable[[Path], VariantSource]") -> None:
        self._opened = opened
        self._open: OrderedDict[Path, VariantSource] = OrderedDict()
        self.path = paths[0]
        self._contigs: dict[
            Path, dict[str, tuple[int, int]]
        ] = {}  # of each file, with the extent of its records
        self._remarks: dict[Path, list[str]] = {}
        self._repeated: Counter[str] = Counter()
        self._spanning = 0
        self.lengths: dict[str, int] = {}
        self.contigs: list[str] = []
        self.ref_known = True
        states: list[str] = []
        for path in paths:
            source = self._source(path)
            if path == paths[0]:
                self.samples = source.samples
            elif set(source.samples) != set(self.samples):
                raise _other_people(paths[0], self.samples, path, source.samples)
            self._contigs[path] = {name: source.extent(name) for name in source.contigs}
            self.ref_known &= source.ref_known
            states.append(source.index_state)
            known = {canonical(name): name for name in self.contigs}
            for name in source.contigs:
                self.contigs += [name] if canonical(name) not in known else []
            for name, length in source.lengths.items():
                spelled = find_contig(name, self.contigs) or name
                if self.lengths.setdefault(spelled, length) != length:
                    raise InputError(
                        f"contig {name!r} has {length} bases in {path}, {self.lengths[spelled]} in the files before "
                        f"it ({paths[0].name}, ...); pass files of one genome build",
                        code="E_BUILD",
                    )
        rebuilt = [state for state in states if state != "as found"]
        self.index_state = "as found"
        if rebuilt:
            self.index_state = f"{rebuilt[0]} ({len(rebuilt)} of {len(states)} files)"

    def __enter__(self) -> "JoinedVariants":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and remove what was made temporarily."""
        while self._open:
            self._open.popitem()[1].close()

    @property
    def remarks(self) -> list[str]:
        """What a user should know about how they were read."""
        for path, source in self._open.items():
            self._remarks[path] = source.remarks
        told = [remark for remarks in self._remarks.values() for remark in remarks]
        told = told if len(told) <= 5 else [*told[:5], f"{len(told) - 5} more of this kind"]
        told += [
            f"{number} records of {contig} lie in two files that agree on them; each was used once"
            for contig, number in self._repeated.items()
        ]
        if self._spanning:
            told.append(
                f"{self._spanning} windows reach into several files, whose genotypes count as phased with each other "
                f"unless phase sets (PS) say otherwise"
            )
        return [f"{len(self._contigs)} files of variants were joined", *told]

    def find(self, contig: str, window: str) -> str:
        """The spelling of ``contig`` in these files.

        Raises:
            InputError: E_CONTIG, none of them has it under any of its names.
        """
        if (found := find_contig(contig, self.contigs)) is None:
            raise no_contig(contig, window, self.path.parent, self.contigs)
        return found

    def extent(self, contig: str) -> tuple[int, int]:
        """A stretch of a contig outside of which no record lies, as far as the files tell."""
        names = [(find_contig(contig, extents), extents) for extents in self._contigs.values()]
        places = [extents[name] for name, extents in names if name is not None and extents[name][1]]
        return (min(p[0] for p in places), max(p[1] for p in places)) if places else (0, 0)

    def first_sites(self, contig: str, limit: int, end: int) -> list[Site]:
        """Positions and alleles, as listed, of the first ``limit`` records that begin before ``end``."""
        sites = [
            s for source, name in self._with(contig, 0, end) for s in source.first_sites(name, limit, end)
        ]
        return sorted(sites, key=lambda site: site[0])[:limit]

    def fetch(self, contig: str, start: int, end: int, people: list[str]) -> Records:
        """The records that overlap [start, end), for ``people`` in their order, by position.

        Raises:
            InputError: as the reader of the files; E_DUPLICATE where two files do not agree on a record.
        """
        parts = [source.fetch(name, start, end, people) for source, name in self._with(contig, start, end)]
        parts = [part for part in parts if len(part)]
        if len(parts) == 1:
            return parts[0]
        self._spanning += bool(parts)
        positions = [position for part in parts for position in part.positions]
        alleles = [names for part in parts for names in part.alleles]
        calls = _stacked([part.calls for part in parts], (0, len(people), 2), np.int16)
        keep = self._once(contig, positions, alleles, calls, [len(part) for part in parts])
        sets = None
        if any(part.phase_sets is not None for part in parts):
            without = [np.full(part.unphased.shape, NO_SET, np.int32) for part in parts]
            each = [
                empty if part.phase_sets is None else part.phase_sets
                for part, empty in zip(parts, without, strict=True)
            ]
            sets = np.concatenate(each)[keep]
        return Records(
            positions=[positions[row] for row in keep],
            alleles=[alleles[row] for row in keep],
            calls=calls[keep],
            unphased=_stacked([part.unphased for part in parts], (0, len(people)), bool)[keep],
            haploid=_stacked([part.haploid for part in parts], (0, len(people)), bool)[keep],
            phase_sets=sets,
        )

    def dosages(self, contig: str, start: int, end: int, people: list[str]) -> Dosages:
        """Copies of every ALT in [start, end), for ``people`` in their order, by position.

        Raises:
            InputError: E_DUPLICATE where two files do not agree on a record.
        """
        parts = [source.dosages(name, start, end, people) for source, name in self._with(contig, start, end)]
        parts = [part for part in parts if len(part)]
        if len(parts) == 1:
            return parts[0]
        positions = [position for part in parts for position in part.positions]
        alleles = [names for part in parts for names in part.alleles]
        values = _stacked([part.values for part in parts], (0, len(people)), np.float32)
        keep = self._once(contig, positions, alleles, values, [len(part) for part in parts])
        return Dosages(
            positions=[positions[row] for row in keep],
            alleles=[alleles[row] for row in keep],
            values=values[keep],
        )

    def _once(
        self,
        contig: str,
        positions: list[int],
        alleles: list[tuple[str, ...]],
        values: np.ndarray,
        sizes: list[int],
    ) -> list[int]:
        """Rows by position, without those that an earlier file has too."""
        part = np.repeat(np.arange(len(sizes)), sizes)
        first: dict[tuple[int, tuple[str, ...]], int] = {}
        keep = []
        for row, record in enumerate(zip(positions, alleles, strict=True)):
            earlier = first.setdefault(record, row)
            if part[earlier] == part[row]:
                keep.append(row)
                continue
            if not np.array_equal(values[earlier], values[row], equal_nan=values.dtype.kind == "f"):
                files = [path for path, names in self._contigs.items() if find_contig(contig, names)]
                raise InputError(
                    f"two of the {len(files)} files with contig {contig!r} ({files[0].name}, ...) hold a record at "
                    f"{contig}:{record[0] + 1} {'/'.join(record[1])[:40]} with different genotypes; pass each "
                    f"stretch of the genome once",
                    code="E_DUPLICATE",
                )
            self._repeated[contig] += 1
        return sorted(keep, key=lambda row: positions[row])

    def _with(self, contig: str, start: int = 0, end: int = 2**62) -> "Iterator[tuple[VariantSource, str]]":
        """The files that may have records in a stretch, with the contig's name there, one after the other."""
        for path, extents in self._contigs.items():
            name = find_contig(contig, extents)
            if name is not None and extents[name][0] < end and start < extents[name][1]:
                yield self._source(path), name

    def _source(self, path: Path) -> "VariantSource":
        if path not in self._open:
            while len(self._open) >= MAX_OPEN:
                oldest, source = self._open.popitem(last=False)
                self._remarks[oldest] = source.remarks
                source.close()
            self._open[path] = self._opened(path)
        self._open.move_to_end(path)
        return self._open[path]


def _stacked(parts: list[np.ndarray], empty: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.concatenate([np.empty(empty, dtype), *parts])


def _other_people(first: Path, samples: list[str], other: Path, others: list[str]) -> InputError:
    lacking, extra = len(set(samples) - set(others)), len(set(others) - set(samples))
    return InputError(
        f"{other} does not hold the same people as {first}: {lacking} of {len(samples)} are absent and {extra} are "
        f"new; files that are read together must hold the same people (bcftools view --samples-file, plink2 --keep)",
        code="E_SAMPLE",
    )
