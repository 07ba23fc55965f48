"""REF of every record is compared with the reference genome before its alleles are used."""

from collections import Counter
from dataclasses import dataclass, field

from encoders.genetics.reference import Reference
from encoders.genetics.windows import Window


@dataclass(kw_only=True)
class RefCheck:
    """Comparison of REF with the reference genome over all windows of a run.

    Args:
        checked: Records compared.
        wrong: "contig:position VCF REF, FASTA bases" of those that differ.
    """

    checked: int = 0
    wrong: list[str] = field(default_factory=list)


def usable_rows(
    places: list[tuple[int, str]],
    window: Window,
    reference: Reference,
    check: RefCheck,
    counts: Counter[str],
) -> list[int]:
    """Which records, given as (position, REF), lie on the reference and agree with it; the others are counted."""
    counts.update(records=len(places), records_outside_fasta=0, calls_of_symbolic_alleles_skipped=0)
    if not places:
        return []
    first = min(position for position, _ in places)
    last = max(position + len(ref) for position, ref in places)
    bases = reference.fetch(window.contig, first, last)
    length = reference.lengths[window.contig]
    usable = []
    for row, (position, ref) in enumerate(places):
        if position + len(ref) > length:
            counts["records_outside_fasta"] += 1
            continue
        check.checked += 1
        there = bases[position - first : position - first + len(ref)]
        if there != ref.upper():
            check.wrong.append(f"{window.contig}:{position + 1} {short(ref.upper())}, FASTA {short(there)}")
            continue
        usable.append(row)
    return usable


def short(bases: str) -> str:
    """An allele for messages."""
    return bases if len(bases) <= 12 else f"{bases[:12]}... ({len(bases)} bases)"
