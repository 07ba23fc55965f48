"""Personal haplotypes: reference + phased records -> the sequences of a window, each distinct one built once.

Equal to `bcftools consensus -H 1` and `-H 2` (with `-M N` for missing genotypes) byte for byte, in capitals: the
rules are those of :mod:`encoders.genetics.edits`. Symbolic alleles (`<DEL>`, `*`, breakends) are skipped, counted
and listed. Sequences keep their natural length; those of windows on the minus strand are reverse-complemented
after building. A haplotype of which a deletion leaves nothing is empty, and so is the focus of one that has lost it.

Glossary: R records · S people · U distinct sequences, of which the first is the reference · H = 2 S haplotypes.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int16, Int32

from encoders.genetics.edits import Edited, apply_edits, edit_of, missing_edit
from encoders.genetics.ploidy import single_copies
from encoders.genetics.records import MISSING, Records
from encoders.genetics.ref_check import RefCheck, short, usable_rows
from encoders.genetics.reference import Reference
from encoders.genetics.unphased import settle_phase
from encoders.genetics.variant_source import VariantSource
from encoders.genetics.windows import Window

_COMPLEMENT = str.maketrans("ACGTUNRYSWKMBDHV", "TGCAANYRSWMKVHDB")


@dataclass(frozen=True, kw_only=True)
class WindowHaplotypes:
    """The distinct sequences of one window and who carries which.

    Two haplotypes are one sequence if both their bases and their focus are the same.

    Args:
        window: Where.
        sequences: U distinct sequences; the first is the reference's, whether anyone carries it or not.
        index: (S, 2) row of ``sequences`` for both haplotypes of each person; twice the same for a person with
            one copy, so that its mean is itself and its difference 0.
        counts: How many records and calls were used or left out, by name.
        focus: Per sequence the stretch [start, end) of its bases that is pooled, in the direction in which it
            is given to the encoder; all of it if left out.
        haploid: (S,) people with one copy, whose two entries of ``index`` are one haplotype.
        absent: (S,) people without a copy (females and Y); their entries of ``index`` say nothing.
        missing: (S,) missing calls, of 2 per record.
        calls: Calls of all people, missing ones included.
        dosages: (S, U) copies of each sequence's allele, 0 to 2, where variants were taken one by one (see
            :mod:`encoders.genetics.dosage_windows`); the vector of a person is then the sum over sequences of
            dosage / 2 x (vector of the sequence - vector of the reference), and ``index`` says nothing.
        skipped: Records with symbolic alleles that somebody carries, "contig:position REF>ALT".
    """

    window: Window
    sequences: list[str]
    index: Int32[np.ndarray, "S 2"]
    counts: Counter[str]
    focus: list[tuple[int, int]] = field(default_factory=list)
    haploid: Bool[np.ndarray, " S"] | None = None
    absent: Bool[np.ndarray, " S"] | None = None
    missing: Int32[np.ndarray, " S"] | None = None
    calls: int = 0
    dosages: Float32[np.ndarray, "S U"] | None = None
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        people = len(self.index)
        for name, dtype in (("haploid", bool), ("absent", bool), ("missing", np.int32)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.zeros(people, dtype))
        if not self.focus:
            object.__setattr__(self, "focus", [(0, len(bases)) for bases in self.sequences])
        assert len(self.focus) == len(self.sequences)

    @cached_property
    def kinds(self) -> Int32[np.ndarray, " S"]:
        """A number per person, equal for people with the same genome in this window."""
        if self.dosages is not None:
            rows = np.where(self.absent[:, None], -1, self.dosages)
            return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)
        lower, higher = self.index.min(axis=1), self.index.max(axis=1)
        pairs = np.where(self.absent, -1, lower.astype(np.int64) * len(self.sequences) + higher)
        return np.unique(pairs, return_inverse=True)[1].astype(np.int32)

    @property
    def varies(self) -> bool:
        """Whether two people differ in their pair of sequences."""
        return bool(self.kinds.max(initial=0))


def window_haplotypes(
    window: Window,
    reference: Reference,
    variants: VariantSource,
    people: list[str],
    *,
    missing: str,
    check: RefCheck,
    copies: Int8[np.ndarray, " S"] | None = None,
    unphased: str = "refuse",
    heterozygotes: str = "refuse",
) -> WindowHaplotypes:
    """Build both haplotypes of everyone in one window.

    Args:
        window: Where, already placed on ``reference``.
        reference: The reference genome.
        variants: The variants.
        people: Sample names, which gives the row order of ``index``.
        missing: "n": a missing genotype becomes N (on the first base of REF); "reference": it becomes REF.
        check: Collects records whose REF differs from the reference; the caller decides when to stop.
        copies: (S,) how many copies of the window each person has; two each if left out.
        unphased: What becomes of heterozygous genotypes without phase: "refuse", "ref_alt" or "iupac".
        heterozygotes: What becomes of heterozygous genotypes of people with one copy: "refuse" or "missing".

    Raises:
        InputError: E_UNPHASED for heterozygous genotypes without phase, E_PLOIDY for two alleles on one copy.
    """
    contig = variants.find(window.contig, window.name)
    records = variants.fetch(contig, window.start, window.end + window.clipped, people)
    if copies is None:
        copies = np.full(len(people), 2, np.int8)
    records, counts = single_copies(records, copies, heterozygotes=heterozygotes, window=window)
    records = settle_phase(records, window, mode=unphased, path=variants.path, counts=counts)
    places = list(zip(records.positions, (names[0] for names in records.alleles), strict=True))
    usable = usable_rows(places, window, reference, check, counts)
    calls = records.calls if len(usable) == len(records) else records.calls[usable]
    edits, calls, skipped = _edits(records, usable, calls, window, counts)
    per_person = _missing_per_person(calls)
    counts["missing_calls"] += int(per_person.sum())
    haploid = np.zeros(len(people), bool)
    if records.haploid.any():
        haploid = _coded_haploid(records, usable)
        counts["haploid_calls"] += int(records.haploid[usable].sum())
    if missing == "reference" and counts["missing_calls"]:
        calls = np.where(calls == MISSING, np.int16(0), calls)

    written = reference.spelled(window.contig, window.start, window.end)
    capitals = written.upper()
    distinct = DistinctSequences(window, written)
    rows, kinds, carriers = distinct_columns(calls)
    which = np.empty(len(kinds), np.int32)
    for kind, (chosen, alleles) in enumerate(kinds):
        of_kind = [edits[r][a] for r, a in zip(chosen, alleles, strict=True)]
        edited = apply_edits(written, of_kind, capitals=capitals)
        counts["calls_overlapping_skipped"] += edited.overlapping * carriers[kind]
        counts["calls_cut_at_window_start"] += edited.cut * carriers[kind]
        counts["calls_undone_by_an_insertion"] += edited.undone * carriers[kind]
        counts["haplotypes_wholly_deleted"] += (not edited.bases) * carriers[kind]
        which[kind] = distinct.add(edited)
    return WindowHaplotypes(
        window=window,
        sequences=distinct.sequences,
        focus=distinct.focus,
        index=which[rows].reshape(-1, 2),
        counts=counts,
        haploid=(copies == 1) | haploid,
        absent=copies == 0,
        missing=per_person,
        calls=calls.size,
        skipped=skipped,
    )


class DistinctSequences:
    """Sequences of a window in order of first appearance, the reference first, each with its focus.

    Args:
        window: Where; its strand and focus decide how a sequence is given to the encoder.
        written: Reference bases of the window.
    """

    def __init__(self, window: Window, written: str) -> None:
        self._window = window
        self._rows: dict[tuple[str, tuple[int, int]], int] = {}
        self.add(apply_edits(written, []))

    @property
    def sequences(self) -> list[str]:
        return [bases for bases, _ in self._rows]

    @property
    def focus(self) -> list[tuple[int, int]]:
        return [focus for _, focus in self._rows]

    def add(self, edited: Edited) -> int:
        """The row of a sequence, which is new or known."""
        window, bases = self._window, edited.bases
        focus = (0, len(bases))
        if window.focus is not None:
            start, end = window.focus
            focus = edited.locate(start - window.start, end - window.start)
        if window.strand == "-":
            bases = reverse_complement(bases)
            focus = (len(bases) - focus[1], len(bases) - focus[0])
        return self._rows.setdefault((bases, focus), len(self._rows))


def reverse_complement(bases: str) -> str:
    """The other strand, read in its own direction; IUPAC letters included."""
    return bases.translate(_COMPLEMENT)[::-1]


def diploid_kinds(windows: list[WindowHaplotypes]) -> Int32[np.ndarray, " S"]:
    """A number per person, equal for people with identical pairs of sequences in all the windows."""
    if len(windows) == 1:
        return windows[0].kinds
    kinds = np.stack([window.kinds for window in windows], axis=1)
    return np.unique(kinds, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)


def tie_rate(kinds: Int32[np.ndarray, " S"]) -> float:
    """Share of people whose diploid genotype is identical to someone else's, 0 to 1."""
    shared = np.bincount(kinds)[kinds] > 1
    return float(shared.mean())


def distinct_columns(
    calls: Int16[np.ndarray, "R S 2"],
) -> tuple[Int32[np.ndarray, " H"], list[tuple[list[int], list[int]]], list[int]]:
    """The kind of each haplotype; per kind its records that are not REF with their alleles; how many carry it."""
    flat = calls.reshape(calls.shape[0], calls.shape[1] * 2)
    varied = np.flatnonzero(flat.any(axis=1))
    table = flat[varied]
    if table.max(initial=0) < 128:
        table = table.astype(np.int8)
    columns, width = table.T.tobytes(), len(varied) * table.itemsize
    kinds: dict[bytes, int] = {}
    rows = np.fromiter(
        (kinds.setdefault(columns[k * width : (k + 1) * width], len(kinds)) for k in range(flat.shape[1])),
        np.int32,
        flat.shape[1],
    )
    distinct = np.frombuffer(b"".join(kinds), table.dtype).reshape(len(kinds), len(varied))
    kind, at = np.nonzero(distinct)
    records, alleles = varied[at].tolist(), distinct[kind, at].tolist()
    ends = np.searchsorted(kind, np.arange(len(kinds) + 1)).tolist()
    chosen = [(records[a:b], alleles[a:b]) for a, b in pairwise(ends)]
    return rows, chosen, np.bincount(rows, minlength=len(kinds)).tolist()


def _edits(
    records: Records,
    usable: list[int],
    calls: Int16[np.ndarray, "R S 2"],
    window: Window,
    counts: Counter[str],
) -> tuple[list[list], Int16[np.ndarray, "R S 2"], list[str]]:
    """Per record (position in the window, edit) by allele, the last one for a missing call; symbolic calls are REF."""
    edits, skipped, copied = [], [], False
    for row, r in enumerate(usable):
        names, at = records.alleles[r], records.positions[r] - window.start
        of_record: list = [None]
        for allele, name in enumerate(names[1:], 1):
            edit = edit_of(names[0], name)
            of_record.append((at, edit))
            if edit is None and (carried := calls[row] == allele).any():
                if not copied:
                    calls, copied = calls.copy(), True
                calls[row][carried] = 0
                counts["calls_of_symbolic_alleles_skipped"] += int(carried.sum())
                skipped.append(f"{window.contig}:{records.positions[r] + 1} {short(names[0])}>{name}")
        of_record.append((at, missing_edit(names)))  # MISSING is -1
        edits.append(of_record)
    return edits, calls, skipped


def _missing_per_person(calls: Int16[np.ndarray, "R S 2"]) -> Int32[np.ndarray, " S"]:
    """Missing calls of each person; quick where there are few, as in most files."""
    number = np.zeros(calls.shape[1], np.int32)
    if calls.min(initial=0) > MISSING:
        return number
    for row in calls:
        if row.min() == MISSING:
            number += (row == MISSING).sum(axis=1, dtype=np.int32)
    return number


def _coded_haploid(records: Records, usable: list[int]) -> Bool[np.ndarray, " S"]:
    """People all of whose calls, where not missing, are single alleles in the file."""
    calls, haploid = records.calls[usable], records.haploid[usable]
    known = (calls != MISSING).all(axis=2)
    return haploid.any(axis=0) & (haploid | ~known).all(axis=0)
