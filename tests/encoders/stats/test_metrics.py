"""Scores of predictions, held against scikit-learn with and without weights."""

import math
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from encoders.stats.metrics import (
    CLASSIFICATION,
    REGRESSION,
    classification_scores,
    regression_scores,
    resampled_classification,
    resampled_regression,
)


def people(seed, size, classes):
    """Probabilities with ties, and classes that they tell a little about."""
    rng = np.random.default_rng(seed)
    wanted = rng.integers(0, classes, size)
    logits = rng.standard_normal((size, classes)) + 0.8 * np.eye(classes)[wanted]
    probabilities = np.round(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1)
    probabilities[:, 0] += 1 - probabilities.sum(1)  # rounded, they still sum to 1
    return np.clip(probabilities, 0, 1), wanted


def reference(probabilities, wanted, weights):
    """The same numbers by scikit-learn; the classes that occur are averaged."""
    classes = probabilities.shape[1]
    occurring = [c for c in range(classes) if weights[wanted == c].sum() > 0]
    chosen, few = probabilities.argmax(1), {"sample_weight": weights}
    compared = [1] if classes == 2 else occurring
    binary = classes == 2
    return {
        "accuracy": sk.accuracy_score(wanted, chosen, **few),
        "balanced_accuracy": np.mean(
            sk.recall_score(wanted, chosen, labels=occurring, average=None, zero_division=0, **few)
        ),
        "auroc": np.mean([sk.roc_auc_score(wanted == c, probabilities[:, c], **few) for c in compared]),
        "auprc": np.mean(
            [sk.average_precision_score(wanted == c, probabilities[:, c], **few) for c in compared]
        ),
        "f1": sk.f1_score(wanted, chosen, labels=compared, average="macro", zero_division=0, **few),
        "brier": sk.brier_score_loss(wanted, probabilities[:, 1], **few)
        if binary
        else np.average(((probabilities - np.eye(classes)[wanted]) ** 2).sum(1), weights=weights),
    }


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classification_scores_are_those_of_scikit_learn(classes):
    for seed in range(4):
        probabilities, wanted = people(seed, 41, classes)
        ours = classification_scores(probabilities, wanted)
        assert list(ours) == [*CLASSIFICATION, "n"] and ours["n"] == 41
        theirs = reference(probabilities, wanted, np.ones(41))
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_resample_scores_as_if_people_were_repeated(classes):
    probabilities, wanted = people(7, 30, classes)
    weights = np.random.default_rng(1).poisson(1.0, (6, 30)).astype(float)
    scores = resampled_classification(probabilities, wanted, weights)
    for b, weight in enumerate(weights):
        repeated = np.repeat(np.arange(30), weight.astype(int))
        again = classification_scores(probabilities[repeated], wanted[repeated])
        theirs = reference(probabilities, wanted, weight)
        for name in CLASSIFICATION:
            assert scores[name][b] == pytest.approx(again[name], abs=1e-12), name
            assert scores[name][b] == pytest.approx(theirs[name], abs=1e-12), name


def test_regression_scores_are_those_of_scikit_learn_and_numpy():
    rng = np.random.default_rng(3)
    wanted = 1000 + 5 * rng.standard_normal(37)  # a mean that is large beside the spread
    predicted = wanted + 4 * rng.standard_normal(37)
    ours = regression_scores(predicted, wanted)
    assert list(ours) == [*REGRESSION, "n"] and ours["n"] == 37
    assert ours["mse"] == pytest.approx(sk.mean_squared_error(wanted, predicted))
    assert ours["mae"] == pytest.approx(sk.mean_absolute_error(wanted, predicted))
    assert ours["r2"] == pytest.approx(sk.r2_score(wanted, predicted))
    assert ours["r"] == pytest.approx(np.corrcoef(predicted, wanted)[0, 1])

    weights = rng.poisson(1.0, (5, 37)).astype(float)
    scores = resampled_regression(predicted, wanted, weights)
    for b, weight in enumerate(weights):
        repeated = np.repeat(np.arange(37), weight.astype(int))
        again = regression_scores(predicted[repeated], wanted[repeated])
        assert {name: scores[name][b] for name in REGRESSION} == pytest.approx(
            {name: again[name] for name in REGRESSION}
        )


def test_what_is_undefined_is_nan_and_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few = regression_scores(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
        flat = regression_scores(np.full(5, 1e6 + 0.1), np.arange(5.0))
        constant = regression_scores(np.arange(5.0), np.full(5, 2.1))
        alone = classification_scores(np.array([[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]]), np.array([1, 1, 1]))
        two = classification_scores(np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([1, 0]))
    assert all(math.isnan(few[name]) for name in REGRESSION) and few["n"] == 2
    assert math.isnan(flat["r"]) and flat["r2"] < 0
    assert math.isnan(constant["r"]) and math.isnan(constant["r2"]) and constant["mse"] > 0
    assert (
        math.isnan(alone["auroc"])
        and math.isnan(alone["auprc"])
        and alone["accuracy"] == pytest.approx(1 / 3)
    )
    assert all(math.isnan(two[name]) for name in CLASSIFICATION) and two["n"] == 2


def test_large_cohorts_are_scored_in_blocks_to_the_same_numbers(monkeypatch):
    probabilities, wanted = people(5, 20, 3)
    weights = np.random.default_rng(2).poisson(1.0, (9, 20)).astype(float)
    whole = resampled_classification(probabilities, wanted, weights)
    monkeypatch.setattr("encoders.stats.metrics.BLOCK", 40)  # two resamples at a time
    for name, values in resampled_classification(probabilities, wanted, weights).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-12)
