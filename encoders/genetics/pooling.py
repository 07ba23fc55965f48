"""From vectors of sequences to vectors of people: token -> window -> gene -> person.

Tokens were averaged by the encoder. Here the vector of the reference haplotype is subtracted (most of a window
is the same in everyone, so the plain mean is mostly locus identity), the two haplotypes of a person are
combined symmetrically, the windows of a gene are averaged, and genes are laid side by side in file order.

Glossary: U distinct sequences · S people · D numbers of a vector · W = D, or 2 D with the absolute difference.
"""

import numpy as np
from jaxtyping import Float32

from encoders.genetics.haplotypes import WindowHaplotypes
from encoders.runs.errors import InputError

VERSION = 1


def strategy(pooling: str, combine: str) -> str:
    """The name of a way of pooling; a name is never redefined, it gets a new version."""
    return f"token-mean_{pooling}_haplotype-{combine}_window-mean_genes-concatenated_v{VERSION}"


def window_vectors(
    haplotypes: WindowHaplotypes, vectors: Float32[np.ndarray, "U D"], *, pooling: str, combine: str
) -> Float32[np.ndarray, "S W"]:
    """One vector per person for one window; swapping a person's haplotypes changes nothing.

    Args:
        haplotypes: Who carries which sequence.
        vectors: Vectors of ``haplotypes.sequences``, the reference first.
        pooling: "difference" (from the reference) or "mean".
        combine: "mean", or "mean_absdiff", which appends the absolute difference of the two haplotypes.
    """
    if pooling == "difference":
        vectors = vectors - vectors[:1]
    one, other = vectors[haplotypes.index[:, 0]], vectors[haplotypes.index[:, 1]]
    mean = (one + other) / 2
    return mean if combine == "mean" else np.concatenate([mean, np.abs(one - other)], axis=1)


def person_vectors(
    windows: list[WindowHaplotypes],
    vectors: list[Float32[np.ndarray, "_ D"]],
    *,
    pooling: str,
    combine: str,
) -> tuple[Float32[np.ndarray, "S G"], dict[str, tuple[int, int]]]:
    """Vectors of people over all genes, G numbers in all, and the columns of each gene.

    Raises:
        InputError: E_DEGENERATE, a gene's vectors are the same for everyone.
    """
    genes: dict[str, list[np.ndarray]] = {}
    for haplotypes, of_window in zip(windows, vectors, strict=True):
        pooled = window_vectors(haplotypes, of_window, pooling=pooling, combine=combine)
        genes.setdefault(haplotypes.window.gene, []).append(pooled)
    parts, blocks, width = [], {}, 0
    for gene, of_windows in genes.items():
        part = np.mean(of_windows, axis=0, dtype=np.float32)
        if not np.ptp(part, axis=0).any():
            raise InputError(
                f"the vectors of {gene!r} do not differ between people, so they say nothing about anyone; "
                f"drop its windows from the BED file or make them wider",
                code="E_DEGENERATE",
            )
        parts.append(part)
        blocks[gene] = (width, width + part.shape[1])
        width += part.shape[1]
    return np.concatenate(parts, axis=1), blocks
