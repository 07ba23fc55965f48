"""Simple rivals on the same split: linear ridge CCA, and confounds in place of one modality.

Glossary: S people · X, Y columns of the two sides · K canonical pairs · C components.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from align.galleries import Gallery
from align.preprocess import Whitener
from align.retrieval import auc2afc, compare, mean

RIDGES = (
    0.001,
    0.01,
    0.1,
    1.0,
)  # in units of a side's mean component variance; the best on validation is kept
MAX_COMPONENTS = 200


@dataclass(kw_only=True)
class RidgeCCA:
    """Canonical correlation analysis with a ridge on both covariances (Vinod 1976).

    Args:
        ridge: Ridge in units of each side's mean component variance.
        num_pairs: K, canonical pairs kept.
    """

    ridge: float
    num_pairs: int = 20

    def fit(self, left: Float[np.ndarray, "S X"], right: Float[np.ndarray, "S Y"]) -> "RidgeCCA":
        """Learn canonical directions from training people."""
        self._left, self._right = (
            Whitener(ridge=self.ridge, components=MAX_COMPONENTS).fit(side) for side in (left, right)
        )
        cross = self._left.transform(left).T @ self._right.transform(right) / len(left)
        u, correlation, v = np.linalg.svd(cross, full_matrices=False)
        self._directions = u[:, : self.num_pairs], v[: self.num_pairs].T
        self._weight = correlation[: self.num_pairs]
        return self

    def similarity(
        self, left: Float[np.ndarray, "N X"], right: Float[np.ndarray, "M Y"]
    ) -> Float[np.ndarray, "N M"]:
        """Cosine of the canonical variates, each weighted by its training correlation."""
        x = self._left.transform(left) @ self._directions[0] * self._weight
        y = self._right.transform(right) @ self._directions[1] * self._weight
        return _unit(x) @ _unit(y).T


def ridge_cca_similarity(
    left: Float[np.ndarray, "S X"],
    right: Float[np.ndarray, "S Y"],
    *,
    train: np.ndarray,
    val: np.ndarray,
    test: np.ndarray,
    gallery: Gallery,
) -> Float[np.ndarray, "N N"]:
    """Similarity of test people under the ridge that gives the best 2AFC among validation people.

    Args:
        left: One side, all people.
        right: The other side, all people.
        train: Row numbers to fit on.
        val: Row numbers to choose the ridge on.
        test: Row numbers to score.
        gallery: Gallery of the validation people.
    """

    def validation(model: RidgeCCA) -> float:
        scores = model.similarity(left[val], right[val])
        own = np.arange(len(val))[None]
        counts = [compare(s, gallery).paired(own) for s in (scores, scores.T)]
        return float(sum(mean(auc2afc(c), c.weight)[0] for c in counts))

    models = [RidgeCCA(ridge=ridge).fit(left[train], right[train]) for ridge in RIDGES]
    return max(models, key=validation).similarity(left[test], right[test])


def _unit(values: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
