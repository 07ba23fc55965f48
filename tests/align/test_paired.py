"""Paired tests of two models' 2AFC: the linear terms against resampled matrices, and the level on equal models."""

import numpy as np
import pytest
from scipy.stats import binom

from align.galleries import Gallery, everyone
from align.influence import resampled_auc
from align.paired import PairedTests, restricted
from align.retrieval import DIRECTIONS, auc2afc, compare, mean, resampled_counts
from encoders.stats import cluster_weights


def scores(rng, shared, noise, people=None):
    """Similarities of a model that sees the shared part through its own noise."""
    left, right = (shared + noise * rng.standard_normal(shared.shape) for _ in "lr")
    return left @ right.T


def paired_tests(ours, theirs, rows, galleries, **options):
    return PairedTests(ours, galleries, **options).against(theirs, rows)


def gallery(rng, people, *, strict):
    families = [f"f{k}" for k in rng.integers(0, people // 2, people)]
    if not strict:
        return everyone(families)
    strata = [str(k) for k in rng.integers(0, 4, people)]
    return Gallery(strata=strata, families=families, exclude_relatives=True, variables=("sex", "site"))


@pytest.mark.parametrize("strict", [False, True])
def test_linear_resamples_agree_with_resampled_matrices(strict):
    rng = np.random.default_rng(0)
    room = gallery(rng, 160, strict=strict)
    shared = rng.standard_normal((160, 4))
    models = [scores(rng, shared, noise) for noise in (1.0, 1.6)]
    models[1] = models[1].round(1)  # ties
    weights = cluster_weights(room.families, 1000, rng)
    exact, linear = [], []
    for similarity in models:
        observed = compare(similarity, room).paired(np.arange(160)[None])
        counts = resampled_counts(similarity, room, weights)
        exact.append(mean(auc2afc(counts), counts.weight))
        found = resampled_auc(similarity, room, weights)
        assert found.values["auc2afc"] == pytest.approx(
            mean(auc2afc(observed), observed.weight)[0], abs=1e-12
        )
        linear.append(found.resamples["auc2afc"])
        assert np.std(linear[-1]) == pytest.approx(np.std(exact[-1]), rel=0.1)
        assert np.corrcoef(linear[-1], exact[-1])[0, 1] > 0.95
    assert np.std(linear[0] - linear[1]) == pytest.approx(np.std(exact[0] - exact[1]), rel=0.1)


def test_a_better_model_is_told_from_a_worse_one_and_a_model_from_itself_is_not():
    rng = np.random.default_rng(1)
    room = gallery(rng, 300, strict=True)
    shared = rng.standard_normal((300, 4))
    good, bad = ({d: scores(rng, shared, noise) for d in DIRECTIONS} for noise in (0.8, 2.5))
    options = {"num_bootstraps": 500, "seed": 0}
    found = paired_tests({"matched": good}, {"matched": bad}, np.arange(300), {"matched": room}, **options)
    for direction in DIRECTIONS:
        told = found["matched"][direction]
        assert told["p"] == pytest.approx(2 / 501) and 0 < told["ci_low"] < told["value"] < told["ci_high"]
        assert told["value"] == pytest.approx(told["ours"] - told["theirs"])
    same = paired_tests({"matched": good}, {"matched": good}, np.arange(300), {"matched": room}, **options)
    assert all(same["matched"][d]["p"] == 1 and same["matched"][d]["value"] == 0 for d in DIRECTIONS)


def test_a_rival_that_some_people_lack_is_compared_on_those_who_have_it():
    rng = np.random.default_rng(2)
    room = gallery(rng, 120, strict=True)
    ours = {d: scores(rng, rng.standard_normal((120, 3)), 1.0) for d in DIRECTIONS}
    rows = np.sort(rng.choice(120, 80, replace=False))
    theirs = {d: s[np.ix_(rows, rows)] for d, s in ours.items()}  # the same model
    found = paired_tests(
        {"matched": ours}, {"matched": theirs}, rows, {"matched": room}, num_bootstraps=50, seed=0
    )["matched"]
    assert found["people"] == 80 and all(found[d]["value"] == 0 for d in DIRECTIONS)
    part = compare(theirs["brain_to_gene"], restricted(room, rows)).paired(np.arange(80)[None])
    assert found["brain_to_gene"]["ours"] == pytest.approx(mean(auc2afc(part), part.weight)[0])


def test_where_nobody_has_a_distractor_there_is_nothing_to_test():
    alone = Gallery(strata=["a", "b", "c"], families=["1", "2", "3"], exclude_relatives=True)
    same = {"matched": dict.fromkeys(DIRECTIONS, np.eye(3))}
    assert paired_tests(same, same, np.arange(3), {"matched": alone}, num_bootstraps=9, seed=0) == {}


def equal_models(repeats, people=80):
    rng, hits = np.random.default_rng(3), 0
    families = [f"f{i // 2}" for i in range(people)]
    room = everyone(families)
    for k in range(repeats):
        shared = rng.standard_normal((people, 3))
        first, second = (dict.fromkeys(DIRECTIONS, scores(rng, shared, 1.2)) for _ in "ab")
        found = paired_tests(
            {"raw": first}, {"raw": second}, np.arange(people), {"raw": room}, num_bootstraps=199, seed=k
        )
        hits += found["raw"]["brain_to_gene"]["p"] <= 0.05
    return hits


def test_two_equally_good_models_differ_in_about_five_per_cent_of_cohorts():
    hits = equal_models(150)
    assert binom.ppf(0.005, 150, 0.05) <= hits <= binom.ppf(0.995, 150, 0.05)


@pytest.mark.slow
def test_two_equally_good_models_differ_in_five_per_cent_of_many_cohorts():
    hits = equal_models(1500, people=160)
    assert binom.ppf(0.005, 1500, 0.05) <= hits <= binom.ppf(0.995, 1500, 0.05)
