"""What every variant reader hands out: the calls of a stretch as haplotypes, or as dosages.

Glossary: R records (rows) · S people · 2 haplotypes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int32

MISSING = -1

Site = tuple[int, tuple[str, ...]]  # 0-based position, alleles as the file lists them


@dataclass(frozen=True, kw_only=True)
class Records:
    """The records that overlap a stretch of a contig, in file order.

    Args:
        positions: 0-based position of the first base of REF, per record.
        alleles: REF first, then ALT, as the file spells them, per record.
        calls: (R, S, 2) index of the allele on each haplotype; -1 if missing.
        unphased: (R, S) heterozygous (or half missing) without phase.
        haploid: (R, S) one allele only, which both haplotypes then carry.
        phase_sets: (R, S) phase set (FORMAT PS) of each genotype, -1 where it has none; None if no record has
            the field: all phased genotypes of a contig then belong together.
    """

    positions: list[int]
    alleles: list[tuple[str, ...]]
    calls: Int16[np.ndarray, "R S 2"]
    unphased: Bool[np.ndarray, "R S"]
    haploid: Bool[np.ndarray, "R S"]
    phase_sets: Int32[np.ndarray, "R S"] | None = None

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True, kw_only=True)
class Dosages:
    """Copies of the ALT allele in a stretch of a contig: one row per ALT, so a multi-allelic record gives several.

    Args:
        positions: 0-based position of the first base of REF, per row.
        alleles: (REF, ALT) as the file spells them, per row.
        values: (R, S) copies of ALT, 0 to 2, fractions where the file holds probabilities; NaN if missing. A
            haploid carrier counts 2, as in PLINK, so that the formats agree.
    """

    positions: list[int]
    alleles: list[tuple[str, str]]
    values: Float32[np.ndarray, "R S"]

    def __len__(self) -> int:
        return len(self.positions)


def dosages_of(records: Records) -> Dosages:
    """Copies of every ALT by the calls; phase does not matter. A half-missing genotype is missing."""
    rows = [(r, allele) for r, names in enumerate(records.alleles) for allele in range(1, len(names))]
    values = np.empty((len(rows), records.calls.shape[1]), np.float32)
    for row, (r, allele) in enumerate(rows):
        calls = records.calls[r]
        values[row] = (calls == allele).sum(axis=1)
        values[row][(calls == MISSING).any(axis=1)] = np.nan
    return Dosages(
        positions=[records.positions[r] for r, _ in rows],
        alleles=[(records.alleles[r][0], records.alleles[r][allele]) for r, allele in rows],
        values=values,
    )
