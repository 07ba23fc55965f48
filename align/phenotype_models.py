"""Models that predict a phenotype from vectors: ridge or logistic regression, gradient boosting, stacking.

Glossary: L training people · V validation people · N people to predict, validation people first · D columns · C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from encoders.stats.baselines import logistic_cost, logistic_prediction, ridge_prediction
from encoders.stats.components import principal_axes

MOST_COLUMNS = (
    50  # principal components (of training people) that boosting sees, and logistic regression beyond it
)
LEARNING_RATES = (0.03, 0.1)
MOST_TREES, LEAVES = 100, 8
STACKING_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Learners:
    """Who is learned from.

    Args:
        wanted: (L,) numbers, or class indices.
        families: Family of each.
        classes: C; 0 for a number.
        validation: (V,) labels of the first people to predict, for what is tuned on them.
        seed: Of boosting.
    """

    wanted: Shaped[np.ndarray, " L"]
    families: list[str]
    classes: int
    validation: Shaped[np.ndarray, " V"]
    seed: int


def linear(
    learners: Learners,
    train: Float[np.ndarray, "L D"],
    others: Float[np.ndarray, "N D"],
    *,
    cost: float | None = None,
) -> Float[np.ndarray, "N *C"]:
    """Ridge regression, or logistic regression; the penalty is chosen by inner folds that keep families together.

    Args:
        learners: Who is learned from.
        train: Their vectors.
        others: Vectors of the people to predict.
        cost: Of logistic regression, where it was chosen before.
    """
    if not learners.classes:
        return ridge_prediction(
            train.astype(np.float64), learners.wanted, others.astype(np.float64), families=learners.families
        )
    train, others = _components(train, others)
    return logistic_prediction(
        train, learners.wanted, others, classes=learners.classes, families=learners.families, cost=cost
    )


def boosted(
    learners: Learners, train: Float[np.ndarray, "L D"], others: Float[np.ndarray, "N D"]
) -> Float[np.ndarray, "N *C"]:
    """Histogram gradient boosting; learning rate and number of trees are those that do best on validation people."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    train, others = _components(train, others)
    num, best, found = len(learners.validation), np.inf, None
    for rate in LEARNING_RATES:
        options = {
            "learning_rate": rate,
            "max_iter": MOST_TREES,
            "max_leaf_nodes": LEAVES,
            "early_stopping": False,
            "random_state": learners.seed,
        }
        kind = HistGradientBoostingClassifier if learners.classes else HistGradientBoostingRegressor
        model = kind(**options).fit(train, learners.wanted)
        steps = model.staged_predict_proba(others) if learners.classes else model.staged_predict(others)
        for predicted in steps:
            loss = _loss(learners, predicted[:num])
            if loss < best:
                best, found = loss, predicted.copy()
    return found


def stacked(
    learners: Learners,
    train: Sequence[Float[np.ndarray, "L _"]],
    predicted: Sequence[Float[np.ndarray, "N *C"]],
) -> Float[np.ndarray, "N *C"]:
    """A linear model of the sides' linear predictions, fitted on predictions for people of other families.

    Args:
        learners: Who is learned from.
        train: Vectors of the training people, one array per side.
        predicted: Predictions of each side for the others, by the model of all training people.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    families = np.asarray(learners.families)
    num = min(STACKING_FOLDS, len(set(learners.families)))
    splitter = (StratifiedGroupKFold if learners.classes else GroupKFold)(num)
    width = learners.classes or 1
    inner = np.zeros((len(families), width * len(train)))
    # one choice of the penalty per side: choosing again in every fold takes five times as long and changes little
    costs = [
        logistic_cost(_components(side, side)[0], learners.wanted, classes=width, families=learners.families)
        if learners.classes
        else None
        for side in train
    ]
    for inside, outside in splitter.split(train[0], learners.wanted, families):
        part = Learners(
            wanted=learners.wanted[inside],
            families=families[inside].tolist(),
            classes=learners.classes,
            validation=learners.validation[:0],
            seed=learners.seed,
        )
        for k, side in enumerate(train):
            found = linear(part, side[inside], side[outside], cost=costs[k])
            inner[outside, k * width : (k + 1) * width] = _columns(found, learners.classes)
    final = np.concatenate([_columns(p, learners.classes) for p in predicted], axis=1)
    return linear(learners, inner, final)


def _columns(predicted: Float[np.ndarray, "N *C"], classes: int) -> Float[np.ndarray, "N K"]:
    """Predictions as columns of a second model: log odds against the mean log probability, or the number itself."""
    if not classes:
        return predicted[:, None]
    log = np.log(np.clip(predicted, 1e-6, 1))
    return log - log.mean(axis=1, keepdims=True)


def _loss(learners: Learners, predicted: Float[np.ndarray, "V *C"]) -> float:
    """Mean squared error, or log loss, on validation people."""
    wanted = learners.validation
    if not learners.classes:
        return float(np.mean((predicted - wanted) ** 2))
    return float(-np.log(np.clip(predicted[np.arange(len(wanted)), wanted], 1e-12, 1)).mean())


def _components(
    train: Float[np.ndarray, "L D"], others: Float[np.ndarray, "N D"]
) -> tuple[Float[np.ndarray, "L K"], Float[np.ndarray, "N K"]]:
    """Principal components of the training people where there are more columns than `MOST_COLUMNS`."""
    train, others = train.astype(np.float64), others.astype(np.float64)
    if train.shape[1] <= MOST_COLUMNS:
        return train, others
    mean = train.mean(axis=0)
    axes = principal_axes(train - mean)[0][:, :MOST_COLUMNS]
    return (train - mean) @ axes, (others - mean) @ axes
