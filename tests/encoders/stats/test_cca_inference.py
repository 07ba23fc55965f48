"""Permutation inference of CCA and PLS on cohorts with known truth, fixed seeds.

A quick run of each rate stands unmarked, a larger one is marked slow; both hold a nominal 5 % against its binomial
interval, and both show that permuting residuals leaves it, so that the test could fail.
"""

import numpy as np
import pytest
from scipy.stats import binom

from encoders.runs.errors import InputError
from encoders.stats.cca_inference import (
    PEOPLE_PER_COMPONENT,
    directions,
    mode_inference,
    number_of_components,
)
from encoders.stats.components import principal_axes
from encoders.stats.out_of_fold import out_of_fold_correlations


def inference(x, y, z=None, *, strata=None, families=None, permutations=99, seed=0, **options):
    people = len(x)
    return mode_inference(
        x,
        y,
        confounds=np.empty((people, 0)) if z is None else z,
        strata=strata or ["all"] * people,
        families=families or [str(i) for i in range(people)],
        permutations=permutations,
        seed=seed,
        **options,
    )


def residuals(values, z):
    design = np.concatenate([np.ones((len(z), 1)), z], axis=1)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def rejections(people, repeats, *, naive=False, method="cca", permutations=99):
    """How often a true null of 5 x 5 variables that share 30 confounds is rejected at 5 %."""
    rng, hits = np.random.default_rng(people), 0
    for k in range(repeats):
        z = rng.standard_normal((people, 30))
        x, y = (z @ rng.standard_normal((30, 5)) + rng.standard_normal((people, 5)) for _ in "xy")
        if naive:  # permute residuals as if they were independent people
            x, y, z = residuals(x, z), residuals(y, z), None
        found = inference(x, y, z, seed=k, modes=1, reduce=False, method=method, permutations=permutations)
        hits += found.p[0] <= 0.05
    return hits


def interval(repeats):
    """Binomial 99 % interval of a 5 % rate."""
    return binom.ppf(0.005, repeats, 0.05), binom.ppf(0.995, repeats, 0.05)


@pytest.mark.parametrize("people", [100, 300])
@pytest.mark.parametrize("method", ["cca", "pls"])
def test_a_true_null_is_rejected_in_five_per_cent(people, method):
    low, high = interval(150)
    assert low <= rejections(people, 150, method=method) <= high


def test_permuting_residuals_rejects_far_too_often():
    assert rejections(100, 60, naive=True) > interval(60)[1]


@pytest.mark.slow
@pytest.mark.parametrize("people", [100, 300])
def test_the_level_holds_over_many_repeats_and_the_naive_way_breaks_it(people):
    low, high = interval(1000)
    assert low <= rejections(people, 1000, permutations=199) <= high
    assert rejections(people, 1000, naive=True, permutations=199) > high


def sibling_rejections(repeats, *, blocks, people=160):
    """A true null in pairs of siblings whose both sides are alike, with confounds; sites differ in noise."""
    rng, hits = np.random.default_rng(7), 0
    family = [f"f{i // 2}" for i in range(people)]
    for k in range(repeats):
        site = np.repeat(rng.integers(0, 2, people // 2), 2)
        z = np.concatenate([rng.standard_normal((people, 8)), site[:, None]], axis=1)
        sides = []
        for _ in "xy":
            shared = np.repeat(rng.standard_normal((people // 2, 3)), 2, axis=0)
            noise = 0.9 * shared + 0.44 * rng.standard_normal((people, 3))
            sides.append(z @ rng.standard_normal((9, 3)) + noise * (1 + site[:, None]))
        blocked = {"strata": [str(s) for s in site], "families": family} if blocks else {}
        hits += inference(*sides, z, seed=k, modes=1, reduce=False, **blocked).p[0] <= 0.05
    return hits


def test_families_and_sites_kept_together_hold_the_level_and_free_permutations_do_not():
    low, high = interval(200)
    assert low <= sibling_rejections(200, blocks=True) <= high
    assert sibling_rejections(60, blocks=False) > interval(60)[1]


@pytest.mark.slow
def test_families_and_sites_hold_the_level_over_many_repeats():
    low, high = interval(1500)
    assert low <= sibling_rejections(1500, blocks=True) <= high


def test_planted_modes_are_found_and_no_more():
    rng = np.random.default_rng(3)
    z = rng.standard_normal((300, 10))
    shared = rng.standard_normal((300, 2))
    x, y = (
        np.concatenate([shared, np.zeros((300, 4))], axis=1) @ rng.standard_normal((6, 6))
        + 0.7 * rng.standard_normal((300, 6))
        + z @ rng.standard_normal((10, 6))
        for _ in "xy"
    )
    for method in ("cca", "pls"):
        found = inference(x, y, z, permutations=499, method=method, reduce=False)
        assert found.p[0] == 1 / 500 and found.p[1] <= 0.05, (method, found.p)
        assert (np.array(found.p[2:]) > 0.05).all(), (method, found.p)
        assert found.p == sorted(found.p) and (found.people, found.confound_rank) == (289, 11)


def test_stepwise_keeps_a_strong_first_mode_out_of_the_second_ones_p_value():
    rng, hits = np.random.default_rng(4), 0
    for k in range(120):
        x, y = rng.standard_normal((100, 4)), rng.standard_normal((100, 4))
        y[:, 0] = x[:, 0] + 0.3 * rng.standard_normal(100)
        found = inference(x, y, seed=k, modes=2, reduce=False)
        assert found.p[0] == 0.01
        hits += found.p[1] <= 0.05
    assert hits <= interval(120)[1]


def test_p_counts_the_observed_pairing_and_ties_with_it():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((60, 2))
    y = x + 0.1 * rng.standard_normal((60, 2))
    assert inference(x, y, permutations=19, reduce=False).p == [1 / 20, 1 / 20]
    # nobody but two people can move: half of all permutations are the observed pairing
    alone = ["pair" if i in (20, 40) else f"p{i}" for i in range(60)]
    found = inference(x, y, permutations=200, strata=alone, reduce=False)
    assert 0.3 < found.p[0] < 0.7 and found.moved == pytest.approx(2 / 59)


def test_canonical_correlations_are_those_of_scikit_learn():
    from sklearn.cross_decomposition import CCA

    rng = np.random.default_rng(6)
    x = rng.standard_normal((200, 4))
    y = x[:, :3] @ rng.standard_normal((3, 3)) + rng.standard_normal((200, 3))
    sides = [side - side.mean(axis=0) for side in (x, y)]
    sides = [side @ principal_axes(side)[0] for side in sides]
    u, v = (side @ turn for side, turn in zip(sides, directions(*sides, "cca"), strict=True))
    ours = np.abs(np.diagonal(u.T @ v))
    theirs = CCA(n_components=3, max_iter=5000, tol=1e-12).fit(x, y).transform(x, y)
    np.testing.assert_allclose(
        ours, [abs(np.corrcoef(theirs[0][:, k], theirs[1][:, k])[0, 1]) for k in range(3)], 1e-4
    )


def test_in_sample_correlations_of_noise_are_large_and_out_of_fold_ones_are_not():
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((1000, 256)), rng.standard_normal((1000, 256))  # half of 2,000 people x 512
    sides = [side @ principal_axes(side)[0] for side in (x - x.mean(0), y - y.mean(0))]
    u, v = (side @ turn for side, turn in zip(sides, directions(*sides, "cca"), strict=True))
    assert u[:, 0] @ v[:, 0] == pytest.approx(0.87, abs=0.02)
    found = out_of_fold_correlations(
        x, y, confounds=np.empty((1000, 0)), families=[str(i) for i in range(1000)], reduce=False, folds=4
    )
    assert abs(found.correlations[0]) < 0.1 and found.folds == 4


def test_out_of_fold_correlations_find_a_planted_one_without_confounds_and_without_relatives():
    rng = np.random.default_rng(9)
    z = 3 * rng.standard_normal((600, 2))
    shared = rng.standard_normal((600, 1))
    x, y = (shared * 0.8 + 0.6 * rng.standard_normal((600, 1)) + z[:, :1] for _ in "xy")
    people = [str(i) for i in range(600)]
    for method in ("cca", "pls"):
        found = out_of_fold_correlations(x, y, confounds=z, families=people, method=method)
        assert found.correlations == [pytest.approx(0.64, abs=0.06)]  # 0.8 squared; 0.96 with the confound
    # people twice, as twins: noise that is the same within a pair is remembered unless pairs are kept together
    noise = [np.repeat(rng.standard_normal((100, 40)), 2, axis=0) for _ in "xy"]
    twins, none = [f"t{i // 2}" for i in range(200)], np.empty((200, 0))
    apart = [str(i) for i in np.random.default_rng(0).permutation(200)]
    leaky = out_of_fold_correlations(*noise, confounds=none, families=apart, reduce=False)
    kept = out_of_fold_correlations(*noise, confounds=none, families=twins, reduce=False)
    assert leaky.correlations[0] > 0.5 and abs(kept.correlations[0]) < 0.3


def test_components_follow_the_stated_rule():
    flat = np.ones(100)
    assert number_of_components(flat, 100_000) == 50  # at most 50
    assert number_of_components(flat, 400) == 400 // PEOPLE_PER_COMPONENT
    assert number_of_components(np.array([80.0, 10.0, 5.0, 5.0]), 400) == 2  # 90 % of the variance
    assert number_of_components(flat, 5) == 1
    rng = np.random.default_rng(10)
    found = inference(
        rng.standard_normal((210, 512)), rng.standard_normal((210, 30)), rng.standard_normal((210, 9))
    )
    assert found.components == (10, 10) and found.people == 200


def test_what_cannot_be_tested_is_refused_with_the_reason():
    rng = np.random.default_rng(11)
    x, z = rng.standard_normal((60, 3)), rng.standard_normal((60, 2))
    with pytest.raises(InputError, match="second side does not vary between people beyond confounds"):
        inference(x, z @ rng.standard_normal((2, 3)), z)
    with pytest.raises(InputError, match="none of the 60|none of the 59"):
        inference(x, x, strata=[str(i) for i in range(60)])
    with pytest.raises(InputError, match="first side has 40 columns for 59 independent people"):
        inference(rng.standard_normal((60, 40)), x, reduce=False)
    with pytest.raises(InputError, match="60 people of 1 families"):
        out_of_fold_correlations(x, x, confounds=z, families=["one"] * 60)
