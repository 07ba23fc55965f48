"""What an allele does to the reference, and writing a haplotype's alleles into it as bcftools consensus does.

Rules, checked byte for byte against bcftools 1.24: edits are made in file order; one that begins on a base that
an earlier one has replaced is skipped, except an insertion or deletion whose unchanged first base is the last
base of the earlier one (unless that was an insertion). Alleles that reach beyond either end of the sequence
contribute the part inside.

One rule is only there to be equal: such an insertion takes back what the earlier edit did to their common base
where the VCF and the FASTA spell it in different cases (bcftools compares them letter by letter).

Glossary: a position is 0-based and counted from the start of the stretch that is edited.
"""

import re
from dataclasses import dataclass

_BASES = re.compile(r"[ACGTNRYSWKMBDHV]+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What one allele does to the reference.

    Args:
        span: Bases of the reference it replaces.
        bases: What it puts there, in capitals.
        anchored: An insertion or deletion whose first base is unchanged, so that it may begin on the last base
            of the record before it.
        small: The VCF spells the first base of REF in a small letter.
    """

    span: int
    bases: str
    anchored: bool
    small: bool = False


@dataclass(frozen=True, kw_only=True)
class Edited:
    """A stretch of the reference with edits.

    Args:
        bases: The result, in capitals.
        pieces: (position, bases replaced, position in the result, bases put there) per edit that was made.
        overlapping: How many edits were skipped because they overlap an earlier one.
        cut: How many begin before the stretch, of which only the part inside is applied.
        undone: How many insertions took back what was done to the base they begin on.
    """

    bases: str
    pieces: list[tuple[int, int, int, int]]
    overlapping: int
    cut: int
    undone: int

    def locate(self, start: int, end: int) -> tuple[int, int]:
        """Where the stretch [start, end) of the reference lies in the result; empty if nothing is left of it.

        What is inserted behind its last base belongs to it, what is inserted before its first does not.
        """
        return self._moved(start), self._moved(end)

    def _moved(self, position: int) -> int:
        shift = 0
        for at, span, there, size in self.pieces:
            if position < at:
                break
            if position < at + span:
                return there + min(position - at, size)
            shift = there + size - (at + span)
        return position + shift


def edit_of(ref: str, alt: str) -> Edit | None:
    """The edit of an allele; None for a symbolic one (`<DEL>`, `*`, breakends)."""
    if not _BASES.fullmatch(alt):
        return None
    return Edit(
        span=len(ref),
        bases=alt.upper(),
        anchored=ref[0] == alt[0] and _is_pure_indel(ref.upper(), alt.upper()),
        small=ref[0].islower(),
    )


def missing_edit(alleles: tuple[str, ...]) -> Edit:
    """N on the first base of REF; over all of REF where the record has no ALT (a block of a gVCF)."""
    no_alt = all(alt in ("<*>", "<NON_REF>") for alt in alleles[1:])
    span = len(alleles[0]) if no_alt else 1
    return Edit(span=span, bases="N" * span, anchored=False)


def apply_edits(reference: str, edits: list[tuple[int, Edit]], *, capitals: str | None = None) -> Edited:
    """Write edits into a stretch of the reference, in the given order.

    Args:
        reference: Bases as the FASTA file spells them: small letters matter in one case (see above).
        edits: (position, edit), in file order.
        capitals: ``reference`` in capitals, for callers who edit one stretch many times.
    """
    capitals = reference.upper() if capitals is None else capitals
    parts: list[str] = []
    pieces: list[tuple[int, int, int, int]] = []
    done = written = 0  # next base of the reference that is not written yet; bases written
    overlapping = cut = undone = first = 0
    after_insertion = False
    for at, edit in edits:
        span, bases, anchored = edit.span, edit.bases, edit.anchored
        if at < 0:  # begins before the stretch: keep what lies in it
            cut += 1
            if span <= -at:
                continue
            span, bases, anchored, at = span + at, bases[-at:], False, 0
        touches = at < done
        if touches and not (at == done - 1 and anchored and not after_insertion):
            overlapping += 1
            continue
        if at + span > len(reference):
            span = len(reference) - at
            bases = bases[:span]
        after_insertion = len(bases) > span
        if touches:
            if after_insertion and edit.small != reference[first].islower():
                undone += _overwrite_last(parts, bases[0])
            bases = bases[1:]  # its first base is the other edit's, which may have changed it
            at, span = at + 1, span - 1
        else:
            parts.append(capitals[done:at])
            written += at - done
            first = at
        parts.append(bases)
        pieces.append((at, span, written, len(bases)))
        written += len(bases)
        done = at + span
    parts.append(capitals[done:])
    return Edited(bases="".join(parts), pieces=pieces, overlapping=overlapping, cut=cut, undone=undone)


def _overwrite_last(parts: list[str], base: str) -> bool:
    """Replace the last base written so far, if there is one; returns whether it was another."""
    for k in range(len(parts) - 1, -1, -1):
        if parts[k]:
            before, parts[k] = parts[k][-1], parts[k][:-1] + base
            return before.upper() != base
    return False


def _is_pure_indel(ref: str, alt: str) -> bool:
    """Whether one allele is the other with some bases taken out of one place (htslib's VCF_INDEL)."""
    short, long = sorted((ref, alt), key=len)
    if len(short) == len(long):
        return False
    prefix = 0
    while prefix < len(short) and short[prefix] == long[prefix]:
        prefix += 1
    return long.endswith(short[prefix:])
