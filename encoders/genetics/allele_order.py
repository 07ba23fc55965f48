"""Which allele is REF, where the file format leaves it open: the reference genome decides.

BGEN files list REF first (UK Biobank) or last (plink2's default), and PLINK's .bed lists two alleles of which
either may be REF. Read naively, such a file turns every haplotype inside out, silently. So the first records of
a contig are compared with the FASTA. If all of them that can tell agree on one order, that is the order of the
contig: a record that disagrees later is a wrong REF, which is an error elsewhere. If they do not, each record is
decided by itself.
"""

from collections.abc import Callable
from pathlib import Path

from encoders.genetics.contigs import find_contig
from encoders.genetics.records import Site
from encoders.genetics.reference import Reference
from encoders.runs.errors import InputError

VOTERS = 1000  # records
END = 2**31  # beyond every contig


class AlleleOrder:
    """Puts REF first in the alleles of one file.

    Args:
        path: The file, for messages.
        reference: The reference genome; None: the order cannot be found out.
        stated: "first" or "last" if the user says so; then the FASTA is not asked.
    """

    def __init__(self, path: Path, reference: Reference | None, stated: str | None = None) -> None:
        self.path = path
        self._reference, self._stated = reference, stated
        self._habits: dict[str, str] = {}
        self.remarks: dict[str, str] = {}
        self._undecided: dict[str, set[tuple[int, tuple[str, ...]]]] = {}

    def learn(self, contig: str, sites: Callable[[], list[Site]]) -> None:
        """Find out the order of a contig from its first records, alleles as the file lists them."""
        if contig in self._habits:
            return
        votes = {"first": 0, "last": 0}
        for position, alleles in sites():
            match self._matching(contig, position, alleles):
                case [0] if len(alleles) > 1:
                    votes["first"] += 1
                case [last] if last == len(alleles) - 1 > 0:
                    votes["last"] += 1
        if self._stated:
            self._habits[contig] = self._stated
        elif not any(votes.values()):
            self._habits[contig] = "unknown"
        elif all(votes.values()):
            self._habits[contig] = "mixed"
        else:
            self._habits[contig] = "first" if votes["first"] else "last"
        told = f"{votes['first']} of the first records list REF first, {votes['last']} list it last"
        self.remarks[contig] = f"REF on {contig}: {self._habits[contig]} ({told}, by the FASTA)"

    def ref_of(self, contig: str, position: int, alleles: tuple[str, ...], *, strict: bool) -> int:
        """Index of REF among the alleles as the file lists them; call :meth:`learn` before.

        Args:
            contig: Contig of the file.
            position: 0-based.
            alleles: As listed.
            strict: Refuse what cannot be decided, because haplotypes would be turned inside out; otherwise it
                is the first, and such records are counted in ``remarks``.

        Raises:
            InputError: E_ALLELES, neither the file nor the FASTA says it.
        """
        habit = self._habits[contig]
        if habit in ("first", "last"):
            return 0 if habit == "first" else len(alleles) - 1
        matching = self._matching(contig, position, alleles)
        if len(matching) == 1:
            return matching[0]
        if strict and (matching or self._reference is None):  # if none fits, the REF check says so
            what = f"{contig}:{position + 1} {'/'.join(_short(a) for a in alleles)}"
            why = (
                f"more than one of them fits {self._reference.path}, and other records list REF now first, now last"
                if self._reference
                else "no reference genome was given to look it up"
            )
            raise InputError(
                f"{self.path} does not say which allele of {what} is REF: {why}; pass the FASTA that the file was "
                f"made with, or export it again with REF first in all records "
                f"(plink2 --ref-from-fa --export bgen-1.2 ref-first)",
                code="E_ALLELES",
            )
        if matching:
            undecided = self._undecided.setdefault(contig, set())
            undecided.add((position, alleles))
            self.remarks[f"{contig}, undecided"] = (
                f"REF on {contig}: at {len(undecided)} records more than one allele fits the FASTA, so the first listed "
                f"(of a .bed: A2) counts as REF"
            )
        return 0

    def _matching(self, contig: str, position: int, alleles: tuple[str, ...]) -> list[int]:
        """Which alleles the reference genome has at a position."""
        if self._reference is None or (name := find_contig(contig, self._reference.lengths)) is None:
            return []
        bases = self._reference.fetch(name, position, position + max(map(len, alleles)))
        return [k for k, allele in enumerate(alleles) if allele and bases.startswith(allele.upper())]


def ref_first(alleles: tuple[str, ...], ref: int) -> list[int]:
    """Indices of the alleles with REF first, the others in their order."""
    return [ref, *(k for k in range(len(alleles)) if k != ref)]


def _short(bases: str) -> str:
    return bases if len(bases) <= 12 else f"{bases[:12]}..."
