"""Linear models between two sides, chosen on validation people: ridge CCA and partial least squares.

Glossary: S people · X, Y columns of the two sides · K canonical pairs · C components.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from align.galleries import Gallery
from align.preprocess import Whitener
from align.retrieval import auc2afc, compare, mean
from encoders.stats.components import principal_axes

RIDGES = (
    0.001,
    0.01,
    0.1,
    1.0,
)  # in units of a side's mean component variance; the best on validation is kept
MAX_COMPONENTS = 200
PLS_PAIRS = (2, 5, 10, 20, 50)  # the best on validation is kept


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


@dataclass(kw_only=True)
class PLS:
    """Partial least squares: singular vectors of the cross-covariance of two sides (scikit-learn's PLSSVD).

    Sides are centred, not scaled: vectors of one encoder share a unit. Fitted on principal axes, which changes no
    result, so that wide vectors cost what few people cost.

    Args:
        num_pairs: K, pairs of latent variables kept.
    """

    num_pairs: int

    def fit(self, left: Float[np.ndarray, "S X"], right: Float[np.ndarray, "S Y"]) -> "PLS":
        """Learn directions of greatest covariance from training people."""
        from sklearn.cross_decomposition import PLSSVD

        self._means = left.mean(axis=0, dtype=np.float64), right.mean(axis=0, dtype=np.float64)
        self._axes = tuple(
            principal_axes(side - mean)[0][:, :MAX_COMPONENTS]
            for side, mean in zip((left, right), self._means, strict=True)
        )
        x, y = ((s - m) @ a for s, m, a in zip((left, right), self._means, self._axes, strict=True))
        kept = min(self.num_pairs, x.shape[1], y.shape[1])
        self._model = PLSSVD(n_components=kept, scale=False).fit(x, y)
        return self

    def similarity(
        self, left: Float[np.ndarray, "N X"], right: Float[np.ndarray, "M Y"]
    ) -> Float[np.ndarray, "N M"]:
        """Cosine of the latent variables."""
        x, y = ((s - m) @ a for s, m, a in zip((left, right), self._means, self._axes, strict=True))
        u, v = self._model.transform(x, y)
        return _unit(u) @ _unit(v).T


def ridge_cca_similarity(
    left: Float[np.ndarray, "S X"], right: Float[np.ndarray, "S Y"], **folds: Any
) -> Float[np.ndarray, "N N"]:
    """Similarity of test people by ridge CCA; arguments as of :func:`best_similarity`."""
    return best_similarity([RidgeCCA(ridge=ridge) for ridge in RIDGES], left, right, **folds)


def pls_similarity(
    left: Float[np.ndarray, "S X"], right: Float[np.ndarray, "S Y"], **folds: Any
) -> Float[np.ndarray, "N N"]:
    """Similarity of test people by partial least squares; arguments as of :func:`best_similarity`."""
    return best_similarity([PLS(num_pairs=number) for number in PLS_PAIRS], left, right, **folds)


def best_similarity(
    models: Sequence[RidgeCCA | PLS],
    left: Float[np.ndarray, "S X"],
    right: Float[np.ndarray, "S Y"],
    *,
    train: np.ndarray,
    val: np.ndarray,
    test: np.ndarray,
    gallery: Gallery,
) -> Float[np.ndarray, "N N"]:
    """Similarity of test people by the model that gives the best 2AFC among validation people.

    Args:
        models: Not yet fitted.
        left: One side, all people.
        right: The other side, all people.
        train: Row numbers to fit on.
        val: Row numbers to choose on.
        test: Row numbers to score.
        gallery: Gallery of the validation people.
    """

    def validation(model: RidgeCCA | PLS) -> float:
        scores = model.similarity(left[val], right[val])
        own = np.arange(len(val))[None]
        counts = [compare(s, gallery).paired(own) for s in (scores, scores.T)]
        return float(sum(mean(auc2afc(c), c.weight)[0] for c in counts))

    fitted = [model.fit(left[train], right[train]) for model in models]
    return max(fitted, key=validation).similarity(left[test], right[test])


def _unit(values: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
