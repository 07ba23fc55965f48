"""Personal haplotypes: reference + phased records -> the sequences of a window, each distinct one built once.

Equal to `bcftools consensus -H 1` and `-H 2` (with `-M N` for missing genotypes) byte for byte, in capitals:
records are applied in file order, and one that overlaps an earlier applied one is skipped on that haplotype
- except an insertion or deletion whose first base is the last base of the earlier record. Sequences keep
their natural length; those of windows on the minus strand are reverse-complemented after building.

Glossary: R records · S people · U distinct sequences, of which the first is the reference.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int16, Int32

from encoders.genetics.records import MISSING, Records
from encoders.genetics.reference import Reference
from encoders.genetics.variant_source import VariantSource
from encoders.genetics.windows import Window
from encoders.runs.errors import InputError

_BASES = re.compile(r"[ACGTN]+", re.IGNORECASE)
_COMPLEMENT = str.maketrans("ACGTUNRYSWKMBDHV", "TGCAANYRSWMKVHDB")


@dataclass(frozen=True, kw_only=True)
class WindowHaplotypes:
    """The distinct sequences of one window and who carries which.

    Two haplotypes are one sequence if both their bases and their focus are the same.

    Args:
        window: Where.
        sequences: U distinct sequences; the first is the reference's, whether anyone carries it or not.
        index: (S, 2) row of ``sequences`` for both haplotypes of each person.
        counts: How many records and calls were used or left out, by name.
        focus: Per sequence the stretch [start, end) of its bases that is pooled, in the direction in which it
            is given to the encoder; all of it if left out.
    """

    window: Window
    sequences: list[str]
    index: Int32[np.ndarray, "S 2"]
    counts: Counter[str]
    focus: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.focus:
            object.__setattr__(self, "focus", [(0, len(bases)) for bases in self.sequences])
        assert len(self.focus) == len(self.sequences)

    @property
    def varies(self) -> bool:
        """Whether two people differ in their pair of sequences."""
        return len(np.unique(np.sort(self.index, axis=1), axis=0)) > 1


@dataclass(kw_only=True)
class RefCheck:
    """Comparison of REF with the reference genome over all windows of a run.

    Args:
        checked: Records compared.
        wrong: "contig:position VCF REF, FASTA bases" of those that differ.
    """

    checked: int = 0
    wrong: list[str] = field(default_factory=list)


def window_haplotypes(
    window: Window,
    reference: Reference,
    variants: VariantSource,
    people: list[str],
    *,
    missing: str,
    check: RefCheck,
) -> WindowHaplotypes:
    """Build both haplotypes of everyone in one window.

    Args:
        window: Where, already placed on ``reference``.
        reference: The reference genome.
        variants: The variants.
        people: Sample names, which gives the row order of ``index``.
        missing: "n": a missing genotype becomes N (on the first base of REF); "reference": it becomes REF.
        check: Collects records whose REF differs from the reference; the caller decides when to stop.

    Raises:
        InputError: E_UNPHASED for heterozygous genotypes without phase.
    """
    contig = variants.find(window.contig, window.name)
    records = variants.fetch(contig, window.start, window.end + window.clipped, people)
    _refuse_unphased(records, window, variants)
    usable, counts = _usable(records, window, reference, check)
    calls = records.calls[usable]
    edits = [[_edit(records.alleles[r], allele) for allele in range(len(records.alleles[r]))] for r in usable]
    positions = [records.positions[r] - window.start for r in usable]
    for row, alleles in enumerate(edits):
        for allele, edit in enumerate(alleles):
            if allele and edit is None:
                carried = calls[row] == allele
                counts["calls_of_symbolic_alleles_skipped"] += int(carried.sum())
                calls[row][carried] = 0
    counts["missing_calls"] += int((calls == MISSING).sum())
    counts["haploid_calls"] += int(records.haploid[usable].sum())
    if missing == "reference":
        calls = np.where(calls == MISSING, np.int16(0), calls)

    bases = reference.fetch(window.contig, window.start, window.end)
    rows, kinds, carriers = _distinct_rows(calls)
    sequences = {_stranded(bases, window.strand): 0}
    which = np.empty(len(kinds), np.int32)
    for kind, alleles in enumerate(kinds):
        chosen = [
            (positions[r], _missing_edit(records.alleles[usable[r]]) if a == MISSING else edits[r][a])
            for r, a in enumerate(alleles)
            if a
        ]
        built, overlapping, before = apply_edits(bases, chosen)
        counts["calls_overlapping_skipped"] += overlapping * carriers[kind]
        counts["calls_cut_at_window_start"] += before * carriers[kind]
        which[kind] = sequences.setdefault(_stranded(built, window.strand), len(sequences))
    return WindowHaplotypes(
        window=window, sequences=list(sequences), index=which[rows].reshape(-1, 2), counts=counts
    )


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What one allele does to the reference.

    Args:
        span: Bases of the reference it replaces.
        bases: What it puts there, in capitals.
        anchored: An insertion or deletion whose first base is unchanged, so that it may begin on the last base
            of the record before it.
    """

    span: int
    bases: str
    anchored: bool


def apply_edits(reference: str, edits: list[tuple[int, Edit]]) -> tuple[str, int, int]:
    """Write edits into a stretch of the reference, in the given order, as bcftools consensus does.

    Args:
        reference: Bases of the window.
        edits: (position relative to the window, edit), in file order.

    Returns:
        The sequence, how many edits were skipped because they overlap an earlier one, and how many begin
        before the window, of which only the part inside is applied.
    """
    pieces: list[str] = []
    done = 0  # next base of the reference that is not written yet
    overlapping = before = 0
    after_insertion = False
    for at, edit in edits:
        if at < 0:  # begins before the window: keep what lies in it
            before += 1
            if edit.span <= -at:
                continue
            edit, at = Edit(span=edit.span + at, bases=edit.bases[-at:], anchored=False), 0
        touches = at == done - 1 and done > 0 and bool(pieces)
        if at < done and not (touches and edit.anchored and not after_insertion):
            overlapping += 1
            continue
        span = min(edit.span, len(reference) - at)
        bases = edit.bases[:span] if span < edit.span else edit.bases
        after_insertion = len(bases) > span
        if touches:
            bases = bases[1:]  # its first base is the other record's, which may have changed it
        else:
            pieces.append(reference[done:at])
        pieces.append(bases)
        done = at + span
    pieces.append(reference[done:])
    return "".join(pieces), overlapping, before


def reverse_complement(bases: str) -> str:
    """The other strand, read in its own direction; IUPAC letters included."""
    return bases.translate(_COMPLEMENT)[::-1]


def diploid_kinds(windows: list[WindowHaplotypes]) -> Int32[np.ndarray, " S"]:
    """A number per person, equal for people with identical pairs of sequences in all the windows."""
    pairs = np.concatenate([np.sort(window.index, axis=1) for window in windows], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)


def tie_rate(kinds: Int32[np.ndarray, " S"]) -> float:
    """Share of people whose diploid genotype is identical to someone else's, 0 to 1."""
    shared = np.bincount(kinds)[kinds] > 1
    return float(shared.mean())


def _edit(alleles: tuple[str, ...], allele: int) -> Edit | None:
    """The edit of one allele; None for symbolic ones (`<DEL>`, `*`, breakends) and for the reference."""
    ref, alt = alleles[0].upper(), alleles[allele].upper()
    if not allele or not _BASES.fullmatch(alt):
        return None
    return Edit(span=len(ref), bases=alt, anchored=_is_pure_indel(ref, alt) and ref[0] == alt[0])


def _is_pure_indel(ref: str, alt: str) -> bool:
    """Whether one allele is the other with some bases taken out of one place (htslib's VCF_INDEL)."""
    short, long = sorted((ref, alt), key=len)
    if len(short) == len(long):
        return False
    prefix = 0
    while prefix < len(short) and short[prefix] == long[prefix]:
        prefix += 1
    return long.endswith(short[prefix:])


def _missing_edit(alleles: tuple[str, ...]) -> Edit:
    """N on the first base of REF; over all of REF where the record has no ALT (as bcftools 1.24 does)."""
    span = len(alleles[0]) if len(alleles) == 1 else 1
    return Edit(span=span, bases="N" * span, anchored=False)


def _distinct_rows(
    calls: Int16[np.ndarray, "R S 2"],
) -> tuple[Int32[np.ndarray, " H"], list[list[int]], list[int]]:
    """For each of H = 2 S haplotypes its kind; for each kind its alleles and how many carry it."""
    columns = np.ascontiguousarray(calls.transpose(1, 2, 0).reshape(2 * calls.shape[1], calls.shape[0]))
    kinds: dict[bytes, int] = {}
    rows = np.fromiter(
        (kinds.setdefault(column.tobytes(), len(kinds)) for column in columns), np.int32, len(columns)
    )
    alleles = [np.frombuffer(kind, calls.dtype).tolist() for kind in kinds]
    return rows, alleles, np.bincount(rows, minlength=len(kinds)).tolist()


def _stranded(bases: str, strand: str) -> str:
    return reverse_complement(bases) if strand == "-" else bases


def _usable(
    records: Records, window: Window, reference: Reference, check: RefCheck
) -> tuple[list[int], Counter[str]]:
    """Which records lie on the reference and agree with it; counts of the others."""
    counts: Counter[str] = Counter(
        records=len(records), records_outside_fasta=0, calls_of_symbolic_alleles_skipped=0
    )
    if not len(records):
        return [], counts
    first = min(records.positions)
    last = max(p + len(a[0]) for p, a in zip(records.positions, records.alleles, strict=True))
    bases = reference.fetch(window.contig, first, last)
    length = reference.lengths[window.contig]
    usable = []
    for row, (position, alleles) in enumerate(zip(records.positions, records.alleles, strict=True)):
        ref = alleles[0].upper()
        if position + len(ref) > length:
            counts["records_outside_fasta"] += 1
            continue
        check.checked += 1
        there = bases[position - first : position - first + len(ref)]
        if there != ref:
            check.wrong.append(f"{window.contig}:{position + 1} {_short(ref)}, FASTA {_short(there)}")
            continue
        usable.append(row)
    return usable, counts


def _refuse_unphased(records: Records, window: Window, variants: VariantSource) -> None:
    if not records.unphased.any():
        return
    het = (records.calls[:, :, 0] != records.calls[:, :, 1]).sum()
    people = int(records.unphased.any(axis=0).sum())
    raise InputError(
        f"{int(records.unphased.sum())} of {int(het)} heterozygous genotypes in window {window.name!r} "
        f"({window.place}), in {people} of {records.calls.shape[1]} people, are unphased (0/1 instead of 0|1) in "
        f"{variants.path}; phase it first, e.g. with SHAPEIT5 or Beagle",
        code="E_UNPHASED",
    )


def _short(bases: str) -> str:
    return bases if len(bases) <= 12 else f"{bases[:12]}... ({len(bases)} bases)"
