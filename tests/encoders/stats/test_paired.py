"""The bootstrap of one model and of a difference of two: coverage, pairing, families, folds."""

import math

import numpy as np
import pytest

from encoders.stats.bootstrap import cluster_weights
from encoders.stats.metrics import classification_scores, regression_scores
from encoders.stats.paired import Resampled, paired_difference, resample_scores


def test_the_interval_of_r2_covers_the_true_one_though_people_come_in_families():
    rng = np.random.default_rng(0)
    true_r2 = 1 - 1 / 2  # residual variance 1 of a total of 2
    families = np.repeat(np.arange(60).astype(str), 3).tolist()
    covered, covered_alone, rounds = 0, 0, 200
    for _ in range(rounds):
        shared = np.repeat(rng.standard_normal((60, 2)), 3, axis=0)  # relatives are the same in all but name
        signal, noise = shared.T
        scores = {}
        for name, groups in (("families", families), ("people", [str(k) for k in range(180)])):
            weights = cluster_weights(groups, 200, rng)
            scores[name] = resample_scores(signal, signal + noise, weights).interval("r2")
        covered += scores["families"][0] <= true_r2 <= scores["families"][1]
        covered_alone += scores["people"][0] <= true_r2 <= scores["people"][1]
    assert 0.88 <= covered / rounds <= 0.99
    assert covered_alone / rounds < 0.85  # resampling relatives one by one is too sure of itself


def test_two_equally_good_models_differ_at_the_nominal_rate():
    rng = np.random.default_rng(1)
    families = [str(k) for k in range(80)]
    rejected, rounds = 0, 200
    for _ in range(rounds):
        wanted = rng.standard_normal(80)
        first, second = 0.4 * wanted + 0.5 * rng.standard_normal((2, 80))
        weights = cluster_weights(families, 199, rng)
        one, two = (resample_scores(model, wanted, weights) for model in (first, second))
        rejected += paired_difference(one, two, "r2").p <= 0.05
    assert 0.01 <= rejected / rounds <= 0.10


def test_pairing_finds_a_difference_that_two_intervals_would_hide():
    rng = np.random.default_rng(2)
    wanted = rng.standard_normal(100)
    noise = rng.standard_normal(100)
    weights = cluster_weights([str(k) for k in range(100)], 499, rng)
    good = resample_scores(0.5 * wanted + 0.5 * noise, wanted, weights)
    less = resample_scores(0.5 * wanted + 0.6 * noise, wanted, weights)
    assert good.interval("mse")[1] > less.interval("mse")[0]  # they overlap
    difference = paired_difference(good, less, "mse")
    assert difference.ci_high < 0 and difference.p <= 0.01
    assert difference.value == pytest.approx(good.values["mse"] - less.values["mse"])
    back = paired_difference(less, good, "mse")
    assert (back.value, back.ci_low, back.ci_high, back.p) == pytest.approx(
        (-difference.value, -difference.ci_high, -difference.ci_low, difference.p)
    )


def test_a_model_does_not_differ_from_itself():
    weights = cluster_weights([str(k) for k in range(20)], 99, np.random.default_rng(3))
    model = resample_scores(np.arange(20.0) % 7, np.arange(20.0), weights)
    difference = paired_difference(model, model, "r2")
    assert (difference.value, difference.ci_low, difference.ci_high, difference.p) == (0, 0, 0, 1)


def test_folds_are_scored_within_and_then_averaged():
    rng = np.random.default_rng(4)
    wanted = rng.standard_normal(30)
    folds = np.repeat([4, 0, 2], [8, 12, 10])
    predicted = wanted + 10.0 * folds  # each fold's model has its own level
    weights = cluster_weights([str(k) for k in range(30)], 50, rng)
    together, within = (resample_scores(predicted, wanted, weights, f) for f in (None, folds))
    assert together.values["r"] < 0.7 and within.values["r"] == pytest.approx(1.0)
    np.testing.assert_allclose(within.resamples["r"], 1.0)
    parts = [regression_scores(predicted[folds == k], wanted[folds == k])["mae"] for k in (0, 2, 4)]
    assert within.values["mae"] == pytest.approx(np.mean(parts)) and within.values["n"] == 30


def test_classes_are_scored_from_probabilities_and_a_fold_without_a_score_is_left_out():
    rng = np.random.default_rng(5)
    wanted = rng.integers(0, 2, 24)
    wanted[:6] = 1
    p = np.clip(0.5 + 0.3 * (2 * wanted - 1) + 0.4 * rng.standard_normal(24), 0.01, 0.99)
    probabilities = np.stack([1 - p, p], axis=1)
    folds = np.repeat([0, 1], [6, 18])
    weights = cluster_weights([str(k) for k in range(24)], 60, rng)
    scored = resample_scores(probabilities, wanted, weights, folds)
    alone = classification_scores(probabilities[6:], wanted[6:])
    assert scored.values["auroc"] == pytest.approx(alone["auroc"])  # fold 0 holds one class only
    assert np.isfinite(scored.interval("auroc")).all()


def test_what_is_undefined_stays_undefined():
    weights = np.ones((9, 2))
    few = resample_scores(np.array([1.0, 2.0]), np.array([1.0, 3.0]), weights)
    assert all(math.isnan(end) for end in few.interval("r2"))
    difference = paired_difference(few, few, "r2")
    assert math.isnan(difference.p) and math.isnan(difference.ci_low)
    mixed = Resampled(values={"r2": 0.5}, resamples={"r2": np.array([0.4, np.nan, 0.6, 0.5])})
    zero = Resampled(values={"r2": 0.0}, resamples={"r2": np.zeros(4)})
    assert paired_difference(mixed, zero, "r2").p == pytest.approx(2 * 1 / 4)  # three resamples count
