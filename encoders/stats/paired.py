"""How sure a score is, and a difference of two models' scores: bootstraps in which whole families are drawn.

All models are scored on the same people and on the same resamples, so a difference of two models is paired: what
makes a resample easy or hard is the same for both and cancels. With the folds of a cross-validation a score is
computed within each fold and then averaged, in every resample alike: predictions of different folds come from
different models, whose levels cannot be compared.

Glossary: S people · C classes · B resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from encoders.stats.bootstrap import percentile_interval
from encoders.stats.metrics import (
    FEWEST,
    classification_scores,
    regression_scores,
    resampled_classification,
    resampled_regression,
)


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """Scores of one model, and how they move with the people drawn.

    Args:
        values: Metric -> score of all people; NaN where undefined, `n` is their number.
        resamples: Metric -> (B,) scores of the resamples.
    """

    values: dict[str, float]
    resamples: dict[str, Float[np.ndarray, " B"]]

    def interval(self, metric: str) -> tuple[float, float]:
        """95 % percentile interval of one metric; NaN where the metric is undefined."""
        return _interval(self.resamples[metric])


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One model's score minus another's.

    Args:
        value: The difference on all people.
        ci_low: Lower end of its 95 % interval.
        ci_high: Upper end.
        p: Two-sided; the smallest possible one is 2 / (1 + B).
    """

    value: float
    ci_low: float
    ci_high: float
    p: float


def resample_scores(
    predicted: Float[np.ndarray, "*S"],
    wanted: Shaped[np.ndarray, " S"],
    weights: Float[np.ndarray, "B S"],
    folds: Int[np.ndarray, " S"] | None = None,
) -> Resampled:
    """Scores of one model on all people and on every resample.

    Args:
        predicted: (S,) predictions of a regression, or (S, C) class probabilities.
        wanted: Observed values, or class numbers; all known.
        weights: How often each person is drawn (``cluster_weights``): the same for all models that are compared.
        folds: Fold of each person in a cross-validation; None for one model.
    """
    plain, many = (
        (regression_scores, resampled_regression)
        if predicted.ndim == 1
        else (classification_scores, resampled_classification)
    )
    values, resamples = [], []
    for rows in fold_rows(len(wanted), folds):
        values.append(plain(predicted[rows], wanted[rows]))
        resamples.append(many(predicted[rows], wanted[rows], weights[:, rows]))
    mean = {name: float(_mean(np.array([[v[name]] for v in values]))[0]) for name in values[0]}
    return Resampled(
        values=mean | {"n": float(len(wanted))},
        resamples={name: _mean(np.stack([r[name] for r in resamples])) for name in resamples[0]},
    )


def paired_difference(first: Resampled, second: Resampled, metric: str) -> Difference:
    """``first`` minus ``second`` in one metric, on the same people and resamples.

    p = 2 (1 + resamples on the rarer side of 0) / (1 + resamples), at most 1: the level at which the percentile
    interval would just touch 0. Resamples in which a score is undefined are left out.
    """
    value = first.values[metric] - second.values[metric]
    differences = first.resamples[metric] - second.resamples[metric]
    low, high = _interval(differences)
    known = differences[np.isfinite(differences)]
    if not len(known) or not np.isfinite(value):
        return Difference(value=value, ci_low=np.nan, ci_high=np.nan, p=np.nan)
    rarer = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return Difference(value=value, ci_low=low, ci_high=high, p=min(1.0, 2 * (1 + rarer) / (1 + len(known))))


def fold_rows(size: int, folds: Int[np.ndarray, " S"] | None) -> Iterator[Int[np.ndarray, " R"]]:
    """Rows of the people of each fold; everyone at once where there are no folds."""
    if folds is None:
        yield np.arange(size)
        return
    for fold in np.unique(folds):
        yield np.flatnonzero(folds == fold)


def _interval(values: Float[np.ndarray, " B"]) -> tuple[float, float]:
    """NaN unless at least three resamples have a value."""
    return percentile_interval(values) if np.isfinite(values).sum() >= FEWEST else (np.nan, np.nan)


def _mean(values: Float[np.ndarray, "F B"]) -> Float[np.ndarray, " B"]:
    """Mean over the folds that have a value."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
