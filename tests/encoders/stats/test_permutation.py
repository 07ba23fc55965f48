"""Permutations and bootstraps respect strata and families."""

import numpy as np
import pytest

from encoders.stats import block_permutations, cluster_weights, p_value, percentile_interval

STRATA = ["a"] * 6 + ["b"] * 6 + ["a", "b"] * 3
FAMILIES = ["f1", "f1", "f2", "f2", *"cd", *"efghij", "g1", "g1", "g2", "g2", "g3", "g3"]


def test_people_move_within_their_stratum_and_families_move_whole():
    moved = block_permutations(STRATA, FAMILIES, 500, np.random.default_rng(0))
    assert all(sorted(row) == list(range(len(STRATA))) for row in moved)
    strata, families = np.array(STRATA), np.array(FAMILIES)
    assert (strata[moved] == strata).all()
    for pair in ((0, 1), (2, 3), (12, 13), (14, 15), (16, 17)):
        assert (families[moved[:, pair[0]]] == families[moved[:, pair[1]]]).all()
    assert set(moved[:, 0]) == {0, 1, 2, 3}  # a family of two in stratum a: places and order both change
    assert set(moved[:, 4]) == {4, 5}  # single people move among single people of their stratum
    assert set(moved[:, 12]) == {12, 14, 16}


def test_the_identity_is_as_likely_as_any_other():
    moved = block_permutations(["a"] * 4, list("wxyz"), 24_000, np.random.default_rng(1))
    _, counts = np.unique(moved, axis=0, return_counts=True)
    assert len(counts) == 24
    assert abs(counts - 1000).max() < 150


def test_p_value_counts_itself_and_ties():
    assert p_value(1.0, np.zeros(99)) == pytest.approx(0.01)
    assert p_value(1.0, np.ones(99)) == 1.0


def test_families_are_drawn_whole_and_as_often_as_there_are_families():
    weights = cluster_weights(FAMILIES, 2000, np.random.default_rng(0))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert abs(weights.mean() - 1) < 0.02
    assert percentile_interval(np.append(np.arange(1001.0), np.nan)) == pytest.approx((25.0, 975.0))
