"""From vectors of sequences to vectors of people: token -> window or exon -> gene -> person.

Tokens were pooled by the encoder. Here the vector of the reference haplotype is subtracted (most of a window
is the same in everyone, so the plain mean is mostly locus identity), the two haplotypes of a person are
combined symmetrically, the windows of a gene are averaged, and genes are laid side by side in file order, or
averaged, or their maximum is taken.

Glossary: U distinct sequences · S people · D numbers of a vector · W = D, or 2 D with the absolute difference ·
G numbers of a person.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float32
from threadpoolctl import threadpool_limits

from encoders.genetics.haplotypes import WindowHaplotypes
from encoders.genetics.strategies import Combine, GenesAs, Pooling
from encoders.runs.errors import InputError

ROUNDING = 1e-6  # relative to the largest number of a window's vectors; fp32 resolves 1e-7


def window_vectors(
    haplotypes: WindowHaplotypes,
    vectors: Float32[np.ndarray, "U D"],
    *,
    pooling: Pooling,
    combine: Combine,
) -> Float32[np.ndarray, "S W"]:
    """One vector per person for one window; swapping a person's haplotypes changes nothing.

    Someone haploid carries one sequence on both sides: its vector counts once, the difference is 0. Someone
    without a copy (a female and Y) gets zeros. Where variants were taken one by one, for want of phase, what each
    allele does to the reference is added up by its dosage.

    Args:
        haplotypes: Who carries which sequence.
        vectors: Vectors of ``haplotypes.sequences``, the reference first.
        pooling: "difference" (from the reference) or "mean".
        combine: "mean", or "mean_absdiff", which appends the absolute difference of the two haplotypes.

    Raises:
        InputError: E_UNPHASED, an absolute difference of haplotypes that nobody knows.
    """
    reference = vectors[:1]
    difference = vectors - reference
    if haplotypes.dosages is not None:
        if combine != "mean":
            raise InputError(
                f"window {haplotypes.window.name!r} has dosages instead of two haplotypes, which have no difference; "
                f"pass --combine=mean",
                code="E_UNPHASED",
            )
        with threadpool_limits(1):  # the same bits on any number of cores
            pooled = haplotypes.dosages @ difference / 2
        pooled = pooled if pooling == "difference" else pooled + reference
    else:
        if pooling == "difference":
            vectors = difference
        one, other = vectors[haplotypes.index[:, 0]], vectors[haplotypes.index[:, 1]]
        pooled = (one + other) / 2
        if combine == "mean_absdiff":
            pooled = np.concatenate([pooled, np.abs(one - other)], axis=1)
    pooled[haplotypes.absent] = 0
    return pooled


def pooled_windows(
    windows: list[WindowHaplotypes],
    vectors: Sequence[Float32[np.ndarray, "_ D"]],
    *,
    pooling: Pooling,
    combine: Combine,
) -> Iterator[tuple[WindowHaplotypes, Float32[np.ndarray, "S W"]]]:
    """Every window with its vector per person, one after the other.

    Raises:
        InputError: E_DEGENERATE, people carry different sequences in a window, but their vectors are the same.
    """
    for haplotypes, of_window in zip(windows, vectors, strict=True):
        pooled = window_vectors(haplotypes, of_window, pooling=pooling, combine=combine)
        if haplotypes.varies and not _differ(pooled, of_window):
            raise InputError(
                f"people differ in window {haplotypes.window.name!r}, but their vectors do not differ by more than rounding, so they say "
                f"nothing about anyone; take another model, or a focus around the variants, or drop the window",
                code="E_DEGENERATE",
            )
        yield haplotypes, pooled


def gene_vectors(
    windows: list[WindowHaplotypes],
    vectors: Sequence[Float32[np.ndarray, "_ D"]],
    *,
    pooling: Pooling,
    combine: Combine,
) -> dict[str, Float32[np.ndarray, "S W"]]:
    """Gene -> mean over its windows, in the order in which genes first appear.

    Raises:
        InputError: E_DEGENERATE, a gene's vectors are the same for everyone.
    """
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    varying: set[str] = set()
    for haplotypes, pooled in pooled_windows(windows, vectors, pooling=pooling, combine=combine):
        gene = haplotypes.window.gene
        sums[gene] = sums[gene] + pooled if gene in sums else pooled
        counts[gene] = counts.get(gene, 0) + 1
        if haplotypes.varies:
            varying.add(gene)
    for gene, total in sums.items():
        if gene not in varying or not np.ptp(total, axis=0).any():
            raise InputError(
                f"the vectors of {gene!r} do not differ between people, so they say nothing about anyone; "
                f"drop its windows from the BED file or make them wider",
                code="E_DEGENERATE",
            )
    return {gene: (total / np.float32(counts[gene])).astype(np.float32) for gene, total in sums.items()}


def together(
    genes: Mapping[str, Float32[np.ndarray, "S _"]], genes_as: GenesAs
) -> tuple[Float32[np.ndarray, "S G"], dict[str, tuple[int, int]]]:
    """One vector per person from those of the genes, and the columns of each gene where they have their own."""
    parts = list(genes.values())
    if genes_as == "max":
        return np.max(parts, axis=0), {}
    if genes_as == "averaged":
        return np.mean(parts, axis=0, dtype=np.float32), {}
    ends = np.cumsum([part.shape[1] for part in parts]).tolist()
    starts = [0, *ends[:-1]]
    return np.concatenate(parts, axis=1), dict(zip(genes, zip(starts, ends, strict=True), strict=True))


def person_vectors(
    windows: list[WindowHaplotypes],
    vectors: Sequence[Float32[np.ndarray, "_ D"]],
    *,
    pooling: Pooling,
    combine: Combine,
    genes_as: GenesAs = "concatenated",
) -> tuple[Float32[np.ndarray, "S G"], dict[str, tuple[int, int]]]:
    """Vectors of people over all genes, and the columns of each gene.

    Raises:
        InputError: E_DEGENERATE, a window's or a gene's vectors are the same for everyone.
    """
    return together(gene_vectors(windows, vectors, pooling=pooling, combine=combine), genes_as)


def _differ(pooled: Float32[np.ndarray, "S W"], vectors: Float32[np.ndarray, "U D"]) -> bool:
    """Whether people's vectors differ by more than rounding."""
    return float(np.ptp(pooled, axis=0).max()) > ROUNDING * float(np.abs(vectors).max())
