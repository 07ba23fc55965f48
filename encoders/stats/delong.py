"""DeLong's test for two ROC curves of the same people, and DeLong's interval of one.

The area under the ROC curve is the share of (positive, negative) pairs of people that are ordered rightly. Each
person has a placement: the share of the other class that the person is on the right side of. The covariance of two
models' areas follows from the covariances of their placements (DeLong, DeLong and Clarke-Pearson 1988, Biometrics);
with midranks all placements cost one sort (Sun and Xu 2014, IEEE Signal Processing Letters). People count as
independent, so with many relatives the family bootstrap of ``paired`` is the more careful one.

Glossary: S people · M models · P positive people · N negative people.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm, rankdata

from encoders.stats.paired import fold_rows

FEWEST_PER_CLASS = 2  # a variance needs two


@dataclass(frozen=True, kw_only=True)
class DeLong:
    """A difference of two areas under ROC curves, or one area.

    Args:
        value: The difference, or the area.
        se: Its standard error.
        ci_low: Lower end of its normal 95 % interval.
        ci_high: Upper end.
        p: Two-sided, that the difference is 0; NaN for one area, and where the standard error is 0.
    """

    value: float
    se: float
    ci_low: float
    ci_high: float
    p: float


def delong_covariance(
    scores: Float[np.ndarray, "M S"], positive: Bool[np.ndarray, " S"]
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, "M M"]]:
    """Area under the ROC curve of each model, and the covariance of the areas; NaN with fewer than two of a class.

    Args:
        scores: Higher for people that a model takes for positive.
        positive: Who is.
    """
    pos, neg = scores[:, positive], scores[:, ~positive]
    num_pos, num_neg = pos.shape[1], neg.shape[1]
    if min(num_pos, num_neg) < FEWEST_PER_CLASS:
        return np.full(len(scores), np.nan), np.full((len(scores), len(scores)), np.nan)
    together = rankdata(np.concatenate([pos, neg], axis=1), axis=1)
    place_pos = (together[:, :num_pos] - rankdata(pos, axis=1)) / num_neg  # (M, P)
    place_neg = 1 - (together[:, num_pos:] - rankdata(neg, axis=1)) / num_pos  # (M, N)
    covariance = np.cov(place_pos) / num_pos + np.cov(place_neg) / num_neg
    return place_pos.mean(axis=1), covariance.reshape(len(scores), len(scores))


def delong_test(
    first: Float[np.ndarray, " S"],
    second: Float[np.ndarray, " S"],
    positive: Bool[np.ndarray, " S"],
    folds: Int[np.ndarray, " S"] | None = None,
) -> DeLong:
    """The first model's area minus the second's; over folds, the mean of independent differences.

    Args:
        first: Scores of one model.
        second: Scores of the other, of the same people.
        positive: Who is positive.
        folds: Fold of each person in a cross-validation; None for one model each.
    """
    return _contrast(np.stack([first, second]), positive, np.array([1.0, -1.0]), folds)


def delong_interval(
    scores: Float[np.ndarray, " S"],
    positive: Bool[np.ndarray, " S"],
    folds: Int[np.ndarray, " S"] | None = None,
) -> DeLong:
    """The area of one model with its interval, cut at 0 and 1; arguments as in :func:`delong_test`."""
    found = _contrast(scores[None], positive, np.array([1.0]), folds)
    low, high = (
        min(max(end, 0.0), 1.0) if math.isfinite(end) else end for end in (found.ci_low, found.ci_high)
    )
    return DeLong(value=found.value, se=found.se, ci_low=low, ci_high=high, p=math.nan)


def _contrast(
    scores: Float[np.ndarray, "M S"],
    positive: Bool[np.ndarray, " S"],
    sign: Float[np.ndarray, " M"],
    folds: Int[np.ndarray, " S"] | None,
) -> DeLong:
    parts = [delong_covariance(scores[:, rows], positive[rows]) for rows in fold_rows(len(positive), folds)]
    parts = [(areas, covariance) for areas, covariance in parts if np.isfinite(areas).all()]
    if not parts:
        return DeLong(value=math.nan, se=math.nan, ci_low=math.nan, ci_high=math.nan, p=math.nan)
    value = float(np.mean([sign @ areas for areas, _ in parts]))
    variance = float(sum(sign @ covariance @ sign for _, covariance in parts)) / len(parts) ** 2
    se = math.sqrt(max(variance, 0.0))
    half = float(norm.ppf(0.975)) * se
    p = float(2 * norm.sf(abs(value) / se)) if se > 1e-12 else math.nan
    return DeLong(value=value, se=se, ci_low=value - half, ci_high=value + half, p=p)
