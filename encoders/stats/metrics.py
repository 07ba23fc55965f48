"""How good predictions are, in the field's usual numbers, for all people at once or for many resamples of them.

One implementation serves both: a resample is a weight per person (how often the person was drawn), and a plain score
is the resample in which everybody has weight 1. All of it is array arithmetic, because a bootstrap asks for every
metric a thousand times; the tests hold each number against scikit-learn's.

Glossary: S people · C classes · B resamples · G distinct scores.
"""

import numpy as np
from jaxtyping import Float, Int

REGRESSION = ("mse", "mae", "r", "r2")
CLASSIFICATION = ("accuracy", "balanced_accuracy", "auroc", "auprc", "f1", "brier")
FEWEST = 3  # people that a score needs
FLAT = 1e-12  # a standard deviation below this is none
BLOCK = 2**22  # numbers per intermediate array, so that 1,000 resamples of 40,000 people fit in memory


def regression_scores(
    predicted: Float[np.ndarray, " S"], wanted: Float[np.ndarray, " S"]
) -> dict[str, float]:
    """`mse`, `mae`, `r` (Pearson), `r2` (1 - residual / total sum of squares) and `n`.

    NaN where undefined: fewer than three people, `r` of constant predictions, `r2` of constant observations.

    Args:
        predicted: Predictions in the unit of the target.
        wanted: Observed values, all finite.
    """
    scores = resampled_regression(predicted, wanted, np.ones((1, len(wanted))))
    return {name: float(values[0]) for name, values in scores.items()} | {"n": float(len(wanted))}


def classification_scores(
    probabilities: Float[np.ndarray, "S C"], wanted: Int[np.ndarray, " S"]
) -> dict[str, float]:
    """`accuracy`, `balanced_accuracy`, `auroc`, `auprc` (average precision), `f1`, `brier` and `n`.

    Two classes: class 1 is the positive one. More: `auroc`, `auprc` and `f1` are means over the classes that occur,
    each against the rest, and `brier` is summed over classes (0 to 2). NaN where undefined: fewer than three people;
    `auroc` and `auprc` where all people are of one class.

    Args:
        probabilities: Class probabilities; the largest is the predicted class, the first one among equals.
        wanted: Class of each person, 0 to C - 1.
    """
    scores = resampled_classification(probabilities, wanted, np.ones((1, len(wanted))))
    return {name: float(values[0]) for name, values in scores.items()} | {"n": float(len(wanted))}


def resampled_regression(
    predicted: Float[np.ndarray, " S"], wanted: Float[np.ndarray, " S"], weights: Float[np.ndarray, "B S"]
) -> dict[str, Float[np.ndarray, " B"]]:
    """:func:`regression_scores` of every resample.

    Args:
        predicted: Predictions.
        wanted: Observed values, all finite.
        weights: How often each person was drawn.
    """
    p, w = predicted.astype(np.float64), wanted.astype(np.float64)
    if len(w) < FEWEST:
        return {name: np.full(len(weights), np.nan) for name in REGRESSION}
    shift = w.mean()  # keeps sums of squares accurate where the mean is large
    p, w = p - shift, w - shift
    total = weights.sum(axis=1)
    columns = np.stack([p, w, p * p, w * w, p * w, (p - w) ** 2, np.abs(p - w)], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_p, mean_w, pp, ww, pw, mse, mae = (weights @ columns / total[:, None]).T
        var_p, var_w = pp - mean_p**2, ww - mean_w**2
        # rounding leaves about 1e-16 of the mean square where the true variance is 0
        flat_p = var_p <= np.maximum(FLAT**2, 1e-13 * pp)
        flat_w = var_w <= np.maximum(FLAT**2, 1e-13 * ww)
        r = (pw - mean_p * mean_w) / np.sqrt(var_p * var_w)
        r2 = 1 - mse / var_w
    r = np.where(flat_p | flat_w, np.nan, np.clip(r, -1, 1))
    return {"mse": mse, "mae": mae, "r": r, "r2": np.where(flat_w, np.nan, r2)}


def resampled_classification(
    probabilities: Float[np.ndarray, "S C"], wanted: Int[np.ndarray, " S"], weights: Float[np.ndarray, "B S"]
) -> dict[str, Float[np.ndarray, " B"]]:
    """:func:`classification_scores` of every resample; classes that a resample lacks do not count in its means.

    Args:
        probabilities: Class probabilities.
        wanted: Class of each person.
        weights: How often each person was drawn.
    """
    size, classes = probabilities.shape
    if size < FEWEST:
        return {name: np.full(len(weights), np.nan) for name in CLASSIFICATION}
    step = max(1, BLOCK // size)
    if len(weights) > step:
        parts = [
            resampled_classification(probabilities, wanted, weights[k : k + step])
            for k in range(0, len(weights), step)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in CLASSIFICATION}
    p = probabilities.astype(np.float64)
    chosen, total = p.argmax(axis=1), weights.sum(axis=1)
    truth, said = np.eye(classes)[wanted], np.eye(classes)[chosen]  # (S, C)
    positives, called, hits = weights @ truth, weights @ said, weights @ (truth * said)  # (B, C)
    squares = ((p - truth) ** 2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = hits / positives  # NaN where the class does not occur
        f1 = np.where(positives > 0, 2 * hits / (positives + called), np.nan)
        scores = {
            "accuracy": hits.sum(axis=1) / total,
            "balanced_accuracy": _mean(recall),
            "brier": weights @ squares / total / (2 if classes == 2 else 1),
        }
    compared = [1] if classes == 2 else range(classes)
    ranked = [_ranked(p[:, c], wanted == c, weights) for c in compared]
    scores["auroc"] = _mean(np.stack([auroc for auroc, _ in ranked], axis=1))
    scores["auprc"] = _mean(np.stack([auprc for _, auprc in ranked], axis=1))
    # two classes: the positive class alone, 0 where it was never called and never occurs, as scikit-learn has it
    scores["f1"] = np.nan_to_num(f1[:, 1]) if classes == 2 else _mean(f1)
    return {name: scores[name] for name in CLASSIFICATION}


def _ranked(
    score: Float[np.ndarray, " S"], positive: np.ndarray, weights: Float[np.ndarray, "B S"]
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """Area under the ROC curve and average precision of each resample; equal scores are one threshold."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    hits = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)  # (B, G), best scores first
    misses = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    true, false = hits.cumsum(axis=1), misses.cumsum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # a positive beats the negatives that come later, and half of those at its own score
        won = (hits * (false[:, -1:] - false + misses / 2)).sum(axis=1)
        auroc = won / (true[:, -1] * false[:, -1])
        precision = np.nan_to_num(true / (true + false))
        auprc = (hits * precision).sum(axis=1) / true[:, -1]
    return auroc, np.where(false[:, -1] > 0, auprc, np.nan)


def _mean(values: Float[np.ndarray, "B C"]) -> Float[np.ndarray, " B"]:
    """Mean over the classes that have a value; NaN where none has."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=1) / np.where(
            known.any(axis=1), known.sum(axis=1), np.nan
        )
