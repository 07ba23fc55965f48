"""The ceiling of retrieval: what a reader could score who knows the network maps and the genetic scores.

N people · K latents · R features of the reader. The reader sees the scans as the truth's `oracle_features` (network amplitudes and
couplings through the true maps) and learns from train people only, by ridge, how they follow from the true
genetic scores. It is the same scans and the same gallery that a trained model is scored on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import KFold, cross_val_predict

from encoders.runs.errors import InputError

ALPHAS = np.logspace(-1, 5, 25)
FOLDS = 5


def oracle_similarity(
    truth: Mapping[str, Any], train_ids: Sequence[str], test_ids: Sequence[str]
) -> Float64[np.ndarray, "N N"]:
    """Log likelihood ratio that brain i and genome j belong together: sum_k log p(g_jk | ghat_ik) - log p(g_jk).

    Both densities are normal; the spread of g around its prediction is measured by cross-validation among
    train people, so that a latent which the brain does not show has no say.

    Args:
        truth: Content of `truth.json`: `ids`, `genetic_scores`, `oracle_features`.
        train_ids: People to learn from.
        test_ids: People to match; rows are their brains, columns their genomes.

    Raises:
        InputError: someone is not in the truth, or there are too few people to learn from.
    """
    row = {name: i for i, name in enumerate(truth["ids"])}
    if unknown := [name for name in [*train_ids, *test_ids] if name not in row]:
        raise InputError(f"{len(unknown)} people are not in the truth of this cohort, e.g. {unknown[:3]}")
    if len(train_ids) < 2 * FOLDS:
        raise InputError(f"the oracle learns from {len(train_ids)} people, at least {2 * FOLDS} are needed")
    train, test = [row[name] for name in train_ids], [row[name] for name in test_ids]
    features = reader_features(truth, truth["ids"], train_ids=train_ids)
    scores = np.asarray(truth["genetic_scores"], dtype=np.float64)

    folds = KFold(FOLDS, shuffle=True, random_state=0)
    total = np.zeros((len(test), len(test)))
    for score in scores.T:
        ridge = RidgeCV(ALPHAS).fit(features[train], score[train])
        guessed = cross_val_predict(Ridge(ridge.alpha_), features[train], score[train], cv=folds)
        residual_sd = max(float((score[train] - guessed).std()), 1e-6)
        total += _log_normal(score[test][None, :], ridge.predict(features[test])[:, None], residual_sd)
        total -= _log_normal(score[test], score[train].mean(), max(float(score[train].std()), 1e-6))
    return total


def reader_features(
    truth: Mapping[str, Any], ids: Sequence[str], *, train_ids: Sequence[str]
) -> Float64[np.ndarray, "N R"]:
    """What a reader sees of the scans who knows the network maps, standardised with the train people.

    Args:
        truth: Content of `truth.json`.
        ids: N people; rows of the result.
        train_ids: People whose mean and deviation are taken.
    """
    row = {name: i for i, name in enumerate(truth["ids"])}
    features = np.asarray(truth["oracle_features"], dtype=np.float64)
    train = features[[row[name] for name in train_ids]]
    spread = train.std(axis=0)
    chosen = features[[row[name] for name in ids]]
    return (chosen - train.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _log_normal(value: np.ndarray, mean: np.ndarray | float, sd: float) -> np.ndarray:
    return -0.5 * ((value - mean) / sd) ** 2 - np.log(sd)
