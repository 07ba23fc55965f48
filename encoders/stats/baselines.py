"""Unimodal rivals that any deep model should beat: the mean, ridge regression, ridge-penalised logistic regression.

Everything is fitted on training people alone: scales, coefficients, and the strength of the penalty, which is chosen
by an inner cross-validation that keeps families together. More columns than people cost little: features are first
rotated onto the directions in which training people differ, which leaves predictions under a ridge as they are, and
ridge regression gets all penalties from one eigendecomposition per inner fold (a tenth of RidgeCV's time).

Glossary: S training people · N people to predict · F features · C classes · R directions · A penalties.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

ALPHAS = np.logspace(
    -2, 6, 17
)  # of ridge regression, for R standardised directions and a target of variance 1
COSTS = np.logspace(-6, 2, 9)  # of logistic regression, the inverse of a ridge's alpha
INNER_FOLDS = 5
MAX_STEPS = 2000  # of the logistic solver


def mean_prediction(wanted: Float[np.ndarray, " S"], num: int) -> Float[np.ndarray, " N"]:
    """The training people's mean for each of ``num`` people."""
    return np.full(num, float(np.mean(wanted)))


def class_shares(wanted: Int[np.ndarray, " S"], classes: int, num: int) -> Float[np.ndarray, "N C"]:
    """The training people's shares of the classes for each of ``num`` people."""
    return np.tile(np.bincount(wanted, minlength=classes) / len(wanted), (num, 1))


def ridge_prediction(
    train: Float[np.ndarray, "S F"],
    wanted: Float[np.ndarray, " S"],
    others: Float[np.ndarray, "N F"],
    *,
    families: Sequence[str],
) -> Float[np.ndarray, " N"]:
    """Ridge regression on standardised features.

    Args:
        train: Features of training people.
        wanted: Their targets.
        others: Features of the people to predict.
        families: Family of each training person; never cut by the inner folds.
    """
    from sklearn.model_selection import GroupKFold

    mean, sd = float(wanted.mean()), float(wanted.std()) or 1.0
    directions, rotated = _rotate(train, others)
    folds = min(INNER_FOLDS, len(set(families)))
    if folds < 2 or directions.shape[1] == 0:
        return mean_prediction(wanted, len(others))  # one family says nothing about others; nothing varies
    target = (wanted - mean) / sd
    error = np.zeros(len(ALPHAS))
    for inside, outside in GroupKFold(folds).split(directions, groups=np.asarray(families)):
        path = ridge_path(directions[inside], target[inside], directions[outside], ALPHAS)
        error += np.square(path - target[outside]).mean(axis=1)  # folds count alike, as in RidgeCV
    alpha = ALPHAS[[int(error.argmin())]]
    return ridge_path(directions, target, rotated, alpha)[0] * sd + mean


def ridge_path(
    train: Float[np.ndarray, "S F"],
    wanted: Float[np.ndarray, " S"],
    others: Float[np.ndarray, "N F"],
    alphas: Float[np.ndarray, " A"],
) -> Float[np.ndarray, "A N"]:
    """Predictions of ridge regression with a free intercept under every penalty.

    With centred X = U S V' the weights are V S / (S² + alpha) U' y; V and S² come from the smaller of X'X and XX'.
    """
    centre, level = train.mean(axis=0), wanted.mean()
    x, y, other = train - centre, wanted - level, others - centre
    if x.shape[1] <= len(x):
        power, v = np.linalg.eigh(x.T @ x)
        scores, moments = other @ v, v.T @ (x.T @ y)
    else:
        power, u = np.linalg.eigh(x @ x.T)
        scores, moments = (other @ x.T) @ u, u.T @ y
    return level + (moments / (np.maximum(power, 0) + alphas[:, None])) @ scores.T


def logistic_prediction(
    train: Float[np.ndarray, "S F"],
    wanted: Int[np.ndarray, " S"],
    others: Float[np.ndarray, "N F"],
    *,
    classes: int,
    families: Sequence[str],
    cost: float | None = None,
) -> Float[np.ndarray, "N C"]:
    """Class probabilities by logistic regression (multinomial for more than two classes) on standardised features.

    A class without training people gets probability 0. The penalty with the least log loss on the inner folds wins.

    Args:
        train: Features of training people.
        wanted: Their classes, 0 to C - 1.
        others: Features of the people to predict.
        classes: C.
        families: Family of each training person; never cut by the inner folds.
        cost: Inverse of the penalty, where it was chosen before (``logistic_cost``).
    """
    directions, rotated = _rotate(train, others)
    if len(np.unique(wanted)) < 2 or directions.shape[1] == 0:
        return class_shares(wanted, classes, len(others))
    if cost is None:
        cost = _best_cost(directions, wanted, classes, np.asarray(families))
    return _fit_logistic(directions, wanted, rotated, classes, cost)


def logistic_cost(
    train: Float[np.ndarray, "S F"], wanted: Int[np.ndarray, " S"], *, classes: int, families: Sequence[str]
) -> float:
    """The cost that :func:`logistic_prediction` would choose, for fits that are repeated on parts of these people."""
    return _best_cost(_rotate(train, train)[0], wanted, classes, np.asarray(families))


def _best_cost(
    features: Float[np.ndarray, "S R"], wanted: Int[np.ndarray, " S"], classes: int, families: np.ndarray
) -> float:
    """The cost with the least log loss on people of other families; the strongest penalty among equals."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min([INNER_FOLDS, *(len(set(families[wanted == c])) for c in np.unique(wanted))])
    if folds < 2:  # a class of one family: nothing to choose by, so the cost in the middle of the grid
        return float(COSTS[len(COSTS) // 2])
    inner = list(StratifiedGroupKFold(folds).split(features, wanted, families))
    losses = np.zeros(len(COSTS))
    for inside, outside in inner:
        for k, cost in enumerate(COSTS):
            p = _fit_logistic(features[inside], wanted[inside], features[outside], classes, float(cost))
            losses[k] -= np.log(np.clip(p[np.arange(len(outside)), wanted[outside]], 1e-12, 1)).sum()
    return float(COSTS[int(np.argmin(losses))])


def _fit_logistic(
    train: Float[np.ndarray, "S R"],
    wanted: Int[np.ndarray, " S"],
    others: Float[np.ndarray, "N R"],
    classes: int,
    cost: float,
) -> Float[np.ndarray, "N C"]:
    from sklearn.linear_model import LogisticRegression

    known = np.unique(wanted)
    if len(known) < 2:
        return class_shares(wanted, classes, len(others))
    model = LogisticRegression(C=cost, max_iter=MAX_STEPS).fit(train, wanted)
    probabilities = np.zeros((len(others), classes))
    probabilities[:, known] = model.predict_proba(others)
    return probabilities


def _rotate(
    train: Float[np.ndarray, "S F"], others: Float[np.ndarray, "N F"]
) -> tuple[Float[np.ndarray, "S R"], Float[np.ndarray, "N R"]]:
    """Both standardised with the training people, and rotated onto the directions in which those differ."""
    mean, sd = train.mean(axis=0), train.std(axis=0)
    varies = sd > 1e-9 * np.maximum(1.0, np.abs(mean))
    if not varies.any():
        return np.empty((len(train), 0)), np.empty((len(others), 0))
    left, right = ((part[:, varies] - mean[varies]) / sd[varies] for part in (train, others))
    if left.shape[1] <= len(left):
        return left, right
    power, u = np.linalg.eigh(left @ left.T)
    keep = power > 1e-10 * power[-1]
    lengths = np.sqrt(power[keep])
    return u[:, keep] * lengths, (right @ left.T) @ u[:, keep] / lengths
