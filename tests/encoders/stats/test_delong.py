"""DeLong's covariance against the definition over all pairs, a hand-computed case, and simulations."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from encoders.stats.delong import delong_covariance, delong_interval, delong_test


def by_all_pairs(scores, positive):
    """DeLong et al. 1988, equations 3 to 6, pair by pair."""
    areas, placed_pos, placed_neg = [], [], []
    for model in scores:
        x, y = model[positive], model[~positive]
        psi = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x])
        areas.append(psi.mean())
        placed_pos.append(psi.mean(axis=1))
        placed_neg.append(psi.mean(axis=0))
    s10, s01 = (
        np.array([[((u - u.mean()) * (v - v.mean())).sum() / (len(u) - 1) for v in placed] for u in placed])
        for placed in (placed_pos, placed_neg)
    )
    return np.array(areas), s10 / positive.sum() + s01 / (~positive).sum()


@pytest.mark.parametrize("decimals", [1, 6])
def test_the_fast_form_equals_the_definition_with_and_without_ties(decimals):
    rng = np.random.default_rng(decimals)
    positive = rng.random(43) < 0.4
    scores = np.round(rng.standard_normal((3, 43)) + 0.8 * positive, decimals)
    areas, covariance = delong_covariance(scores, positive)
    wanted_areas, wanted_covariance = by_all_pairs(scores, positive)
    np.testing.assert_allclose(areas, wanted_areas, rtol=1e-12)
    np.testing.assert_allclose(covariance, wanted_covariance, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(areas, [roc_auc_score(positive, model) for model in scores], rtol=1e-12)


def test_a_case_done_by_hand():
    # positives 4, 2, 2 against negatives 3, 1: the pairs won are (1, 1), (0, 1), (0, 1), so the area is 4/6,
    # placements 1, 1/2, 1/2 and 1/3, 1; variances 1/12 and 2/9, hence 1/12/3 + 2/9/2 = 5/36
    scores, positive = np.array([4.0, 2, 2, 3, 1]), np.array([True, True, True, False, False])
    areas, covariance = delong_covariance(scores[None], positive)
    assert areas[0] == pytest.approx(2 / 3) and covariance[0, 0] == pytest.approx(5 / 36)
    found = delong_interval(scores, positive)
    assert found.se == pytest.approx(math.sqrt(5 / 36))
    assert (found.ci_low, found.ci_high) == (0.0, 1.0)  # 2/3 -+ 0.73, cut


def test_the_test_is_the_contrast_of_the_two_areas():
    rng = np.random.default_rng(7)
    positive = rng.random(60) < 0.5
    first, second = rng.standard_normal((2, 60)) + np.array([[1.2], [0.3]]) * positive
    found = delong_test(first, second, positive)
    areas, covariance = by_all_pairs(np.stack([first, second]), positive)
    se = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.value == pytest.approx(areas[0] - areas[1]) and found.se == pytest.approx(se)
    assert found.p == pytest.approx(2 * norm.sf(abs(areas[0] - areas[1]) / se))
    assert delong_test(second, first, positive).p == pytest.approx(found.p)


def test_equal_models_are_told_apart_at_the_nominal_rate_and_the_interval_covers():
    rng = np.random.default_rng(11)
    true_area = norm.cdf(1 / math.sqrt(2))  # two unit normals one apart
    rejected, covered, rounds = 0, 0, 400
    for _ in range(rounds):
        positive = np.arange(90) < 35
        first, second = rng.standard_normal((2, 90)) + 1.0 * positive
        rejected += delong_test(first, second, positive).p <= 0.05
        interval = delong_interval(first, positive)
        covered += interval.ci_low <= true_area <= interval.ci_high
    assert 0.02 <= rejected / rounds <= 0.09
    assert 0.91 <= covered / rounds <= 0.98


def test_folds_are_independent_differences():
    rng = np.random.default_rng(13)
    positive, folds = rng.random(50) < 0.5, np.repeat([0, 1], [20, 30])
    first, second = rng.standard_normal((2, 50)) + 0.7 * positive + 100 * folds
    whole = delong_test(first, second, positive, folds)
    parts = [delong_test(first[folds == k], second[folds == k], positive[folds == k]) for k in (0, 1)]
    assert whole.value == pytest.approx((parts[0].value + parts[1].value) / 2)
    assert whole.se == pytest.approx(math.hypot(parts[0].se, parts[1].se) / 2)


def test_what_cannot_be_said_is_nan():
    positive = np.array([True, False, False, False])
    assert math.isnan(delong_interval(np.arange(4.0), positive).value)
    perfect = np.array([True, True, False, False])
    same = delong_test(np.array([4.0, 3, 2, 1]), np.array([9.0, 8, 2, 1]), perfect)
    assert same.value == 0 and math.isnan(same.p)  # no variance to measure by
