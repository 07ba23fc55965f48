"""Probabilities of a BGEN record -> called alleles (phased records) or expected copies (any record).

Glossary: S people · K alleles · C columns, which are, for a phased record, one block of K per haplotype; for
another one, the genotypes 0/0, 0/1, 1/1, 0/2, 1/2, 2/2, ... (haploid people: the alleles, then nothing).
"""

import numpy as np
from jaxtyping import Bool, Float32, Int16, UInt8

from encoders.genetics.records import MISSING

CERTAIN = 0.9  # an allele is called from this probability on, as PLINK does; else it is missing


def called_alleles(
    shares: Float32[np.ndarray, "S C"], ploidy: UInt8[np.ndarray, " S"], num_alleles: int
) -> tuple[Int16[np.ndarray, "S 2"], Bool[np.ndarray, " S"]]:
    """Alleles of a phased record on both haplotypes, -1 where missing or uncertain; and who has only one."""
    by_haplotype = shares.reshape(len(shares), -1, num_alleles)
    best = np.full(by_haplotype.shape[:2], MISSING, np.int16)
    for allele in range(num_alleles):
        best[by_haplotype[:, :, allele] >= CERTAIN] = allele
    if best.shape[1] == 1:
        best = np.repeat(best, 2, axis=1)
    single = ploidy == 1
    best[single, 1] = best[single, 0]
    return best, single & (best[:, 0] != MISSING)


def expected_copies(
    shares: Float32[np.ndarray, "S C"], ploidy: UInt8[np.ndarray, " S"], num_alleles: int, *, phased: bool
) -> Float32[np.ndarray, "S K"]:
    """Expected copies of each allele, 0 to 2; haploid ones count twice; NaN if missing."""
    expected = np.full((len(shares), num_alleles), np.nan, np.float32)
    one, two = ploidy == 1, ploidy == 2
    expected[one] = 2 * shares[one, :num_alleles]
    if phased:
        expected[two] = shares.reshape(len(shares), -1, num_alleles)[two].sum(axis=1)
    elif two.any():
        genotypes = [(low, high) for high in range(num_alleles) for low in range(high + 1)]
        copies = np.zeros((len(genotypes), num_alleles), np.float32)
        for row, alleles in enumerate(genotypes):
            for allele in alleles:
                copies[row, allele] += 1
        expected[two] = shares[two] @ copies
    return expected
