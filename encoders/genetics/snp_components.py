"""Principal components of standardised dosages, fitted on the training people.

Glossary: V variants · S people, of whom the first N are training people · K components.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from threadpoolctl import threadpool_limits

EXACT = 2**35  # N x V x min(N, V): up to here a full decomposition takes seconds
SAME = 1e-6  # of the largest score: as large as it


@dataclass(frozen=True, kw_only=True)
class Components:
    """What was fitted.

    Args:
        axes: (K, V) loadings, orthonormal rows.
        explained: Share of the training people's variance that each component holds, 0 to 1.
        total: The training people's variance, over all variants.
        most: The largest K that these training people and variants allow.
        solver: "exact" or "randomized".
    """

    axes: Float32[np.ndarray, "K V"]
    explained: Float32[np.ndarray, " K"]
    total: float
    most: int
    solver: str

    def scores(self, values: Float32[np.ndarray, "V S"]) -> Float32[np.ndarray, "S K"]:
        """Everybody's scores."""
        with threadpool_limits(1):
            return (self.axes @ values).T


def fit_components(train: Float32[np.ndarray, "V N"], number: int) -> Components:
    """Principal components of the training people.

    Runs on one thread, so that the same people give the same bits on any number of cores. The sign of a component is such that the training person with the largest score has a positive one, so that it
    does not depend on which allele a file counts.

    Args:
        train: Standardised dosages of the training people.
        number: Components wanted.
    """
    from sklearn.decomposition import PCA

    num_variants, num_people = train.shape
    most = min(num_people - 1, num_variants)
    exact = num_people * num_variants * min(num_people, num_variants) <= EXACT or number > 0.5 * most
    number = min(number, most)
    with threadpool_limits(1):
        if exact:
            pca = PCA(number, copy=False, svd_solver="full").fit(train.T.astype(np.float64))
        else:
            pca = PCA(number, copy=False, svd_solver="randomized", iterated_power=7, random_state=0)
            pca.fit(train.T.copy())  # a copy of ours, which it may then centre in place
        # variants in full linkage leave fewer directions than there are variants
        rank = int((pca.singular_values_ > 1e-6 * pca.singular_values_[0]).sum())
        axes = pca.components_[:rank].astype(np.float32)
        scores = axes @ train
    largest = np.abs(scores).max(axis=1, keepdims=True)
    first = (np.abs(scores) >= (1 - SAME) * largest).argmax(axis=1)
    axes *= np.sign(scores[np.arange(rank), first])[:, None]
    return Components(
        axes=axes,
        explained=pca.explained_variance_ratio_[:rank].astype(np.float32),
        total=float(pca.explained_variance_[0] / pca.explained_variance_ratio_[0]),
        most=most if rank == number else rank,
        solver="exact" if exact else "randomized",
    )
