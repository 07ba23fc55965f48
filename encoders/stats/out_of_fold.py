"""How strongly two sides are related in people whom the analysis has not seen: the only effect size worth printing.

Everything that is learned (confounds, principal components, directions) is fitted on the other folds; families are
never cut. The correlation of a mode is computed within each fold and averaged: its sign is the one that was learned,
so without signal it lies around 0, where an in-sample correlation would be 0.9.

Glossary: S people · X, Y columns of the sides · M modes · F folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from encoders.runs.errors import InputError
from encoders.stats.cca_inference import Method, directions, number_of_components
from encoders.stats.components import principal_axes

FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class OutOfFold:
    """Out-of-fold correlations of the modes.

    Args:
        correlations: Mean over folds, of each mode.
        ranges: Smallest and largest value among the folds, of each mode: no interval, folds share training people.
        folds: F.
    """

    correlations: list[float]
    ranges: list[tuple[float, float]]
    folds: int


def out_of_fold_correlations(
    left: Float[np.ndarray, "S X"],
    right: Float[np.ndarray, "S Y"],
    *,
    confounds: Float[np.ndarray, "S C"],
    families: Sequence[str],
    method: Method = "cca",
    modes: int = 10,
    folds: int = FOLDS,
    reduce: bool = True,
) -> OutOfFold:
    """Correlate the two sides' variates of each mode in held-out folds.

    Args:
        left: One side.
        right: The other side.
        confounds: Regressed out of both sides with the coefficients of the other folds.
        families: Family of each person; never cut by a fold.
        method: As in :func:`encoders.stats.cca_inference.mode_inference`.
        modes: Most modes.
        folds: F; fewer if there are fewer families.
        reduce: Analyse principal components by the rule of `cca_inference`, fitted in each fold.

    Raises:
        InputError: fewer than two families, or folds too small to correlate anything.
    """
    from sklearn.model_selection import GroupKFold

    num = min(folds, len(set(families)))
    if num < 2 or len(left) < 3 * num:
        raise InputError(
            f"{len(left)} people of {len(set(families))} families cannot be divided into {folds} folds of at least 3 people"
        )
    found = []
    for inside, outside in GroupKFold(num).split(left, groups=np.asarray(families)):
        sides = [_Side.fit(values[inside], confounds[inside], reduce) for values in (left, right)]
        learned = [
            side.scores(values[inside], confounds[inside])
            for side, values in zip(sides, (left, right), strict=True)
        ]
        turns = directions(*learned, method)
        variates = [
            side.scores(values[outside], confounds[outside]) @ turn[:, :modes]
            for side, values, turn in zip(sides, (left, right), turns, strict=True)
        ]
        found.append([_correlation(a, b) for a, b in zip(variates[0].T, variates[1].T, strict=False)])
    shared = min(map(len, found))
    table = np.array([row[:shared] for row in found])
    return OutOfFold(
        correlations=table.mean(axis=0).tolist(),
        ranges=[(float(low), float(high)) for low, high in zip(table.min(0), table.max(0), strict=True)],
        folds=num,
    )


@dataclass(frozen=True, kw_only=True)
class _Side:
    """What one side learned from the people of the other folds."""

    coefficients: Float[np.ndarray, "C1 D"]
    axes: Float[np.ndarray, "D K"]

    @classmethod
    def fit(
        cls, values: Float[np.ndarray, "S D"], confounds: Float[np.ndarray, "S C"], reduce: bool
    ) -> "_Side":
        design = _design(confounds)
        coefficients, _, rank, _ = np.linalg.lstsq(design, values.astype(np.float64), rcond=None)
        axes, variances = principal_axes(values - design @ coefficients)
        kept = number_of_components(variances, len(values) - int(rank)) if reduce else len(variances)
        return cls(coefficients=coefficients, axes=axes[:, :kept])

    def scores(
        self, values: Float[np.ndarray, "S D"], confounds: Float[np.ndarray, "S C"]
    ) -> Float[np.ndarray, "S K"]:
        return (values - _design(confounds) @ self.coefficients) @ self.axes


def _design(confounds: Float[np.ndarray, "S C"]) -> Float[np.ndarray, "S C1"]:
    return np.concatenate([np.ones((len(confounds), 1)), confounds], axis=1)


def _correlation(a: Float[np.ndarray, " S"], b: Float[np.ndarray, " S"]) -> float:
    """Pearson's r; 0 where one of the two does not vary."""
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length > 0 else 0.0
