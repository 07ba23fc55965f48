"""Retrieval metrics against a slow count, ties, chance, and honest p-values and intervals."""

import numpy as np
import pytest

from align.galleries import Gallery, everyone
from align.retrieval import (
    DIRECTIONS,
    auc2afc,
    compare,
    evaluate_gallery,
    mean,
    median,
    rank,
    recall_at,
    reciprocal_rank,
)


def _evaluate(similarity, gallery, **changes):
    settings = {"num_permutations": 99, "num_bootstraps": 50, "seed": 0} | changes
    return evaluate_gallery(similarity, gallery, permute_within=gallery.strata, **settings)


def _slow(similarity, gallery, partner):
    """Greater and ties of every query by counting one by one."""
    others = gallery.others()
    greater, ties, size = [], [], []
    for query, own in enumerate(partner):
        rivals = [similarity[query, j] for j in np.flatnonzero(others[own])]
        greater.append(sum(r > similarity[query, own] for r in rivals))
        ties.append(sum(r == similarity[query, own] for r in rivals))
        size.append(len(rivals))
    return np.array(greater), np.array(ties), np.array(size)


def test_counts_equal_a_slow_count_with_strata_relatives_and_ties():
    rng = np.random.default_rng(0)
    strata = list("aaaaaabbbbbc")
    families = ["f1", "f1", "f1", "x", "y", "z", "f2", "f2", "u", "v", "w", "t"]
    gallery = Gallery(strata=strata, families=families, exclude_relatives=True)
    similarity = rng.integers(0, 4, (12, 12)).astype(float)  # many ties
    partner = np.array([1, 0, 5, 2, 3, 4, 6, 8, 7, 10, 9, 11])
    counts = compare(similarity, gallery).paired(partner[None])
    greater, ties, size = _slow(similarity, gallery, partner)
    np.testing.assert_array_equal(counts.greater[0], greater)
    np.testing.assert_array_equal(counts.ties[0], ties)
    np.testing.assert_array_equal(counts.size[0], np.maximum(size, 1))
    np.testing.assert_array_equal(counts.weight[0], size > 0)  # c is alone: left out, and counted
    result = _evaluate(similarity, gallery)
    assert (result["num_anchors"], result["num_without_distractors"]) == (11, 1)


def test_constant_similarity_is_exactly_chance():
    gallery = everyone([str(k) for k in range(60)])
    result = _evaluate(np.zeros((60, 60)), gallery)
    for direction in ("brain_to_gene", "gene_to_brain"):
        for name, metric in result[direction].items():
            assert metric["value"] == pytest.approx(metric["chance"]), name
            assert metric["lift"] == pytest.approx(1)
            assert metric["p_perm"] == 1
        assert result[direction]["R@10"]["chance"] == pytest.approx(10 / 60)
        assert result[direction]["auc2afc"]["chance"] == 0.5


def test_perfect_similarity_and_small_galleries():
    result = _evaluate(np.eye(30), everyone([str(k) for k in range(30)]))["gene_to_brain"]
    assert (result["auc2afc"]["value"], result["R@1"]["value"], result["median_rank"]["value"]) == (1, 1, 1)
    assert result["mrr"]["value"] == pytest.approx(1)
    assert result["R@5"]["p_perm"] == 0.01
    assert "R@10" not in result  # needs a gallery of 50


def test_reciprocal_rank_of_a_tie_is_the_mean_over_the_open_ranks():
    similarity = np.array([[1.0, 1, 1, 0], [0, 1, 2, 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    counts = compare(similarity, everyone(list("abcd"))).paired(np.arange(4)[None])
    expected = [(1 + 1 / 2 + 1 / 3) / 3, (1 / 2 + 1 / 3) / 2, 1, 1]
    np.testing.assert_allclose(reciprocal_rank(counts)[0], expected)
    np.testing.assert_allclose(rank(counts)[0], [2, 2.5, 1, 1])
    np.testing.assert_allclose(recall_at(1)(counts)[0], [1 / 3, 0, 1, 1])
    np.testing.assert_allclose(recall_at(2)(counts)[0], [2 / 3, 1 / 2, 1, 1])
    assert median(rank(counts), counts.weight)[0] == 1.5


def test_p_values_are_uniform_without_signal_and_permuting_genomes_gives_chance():
    rng = np.random.default_rng(1)
    gallery = Gallery(
        strata=["a"] * 20 + ["b"] * 20, families=[str(k // 2) for k in range(40)], exclude_relatives=True
    )
    p = []
    for seed in range(200):
        family = np.repeat(
            rng.standard_normal((20, 8)), 2, axis=0
        )  # siblings are alike in brain and in genome
        brain, gene = family + rng.standard_normal((40, 8)), family[rng.permutation(20).repeat(2) * 2] * 0
        gene = np.repeat(rng.standard_normal((20, 8)), 2, axis=0) + rng.standard_normal((40, 8))
        p.append(
            _evaluate(brain @ gene.T, gallery, seed=seed, num_bootstraps=2)["brain_to_gene"]["auc2afc"][
                "p_perm"
            ]
        )
    rejected = np.mean(np.array(p) <= 0.05)
    assert rejected <= 0.095  # 99 % binomial bound of 5 % at 200 repeats
    assert 0.4 < np.mean(p) < 0.6

    signal = rng.standard_normal((40, 8))
    similarity = signal @ (signal + 0.5 * rng.standard_normal((40, 8))).T
    assert _evaluate(similarity, gallery)["brain_to_gene"]["auc2afc"]["p_perm"] == 0.01
    shuffled = similarity[:, rng.permutation(40)]
    assert abs(_evaluate(shuffled, gallery)["brain_to_gene"]["auc2afc"]["value"] - 0.5) < 0.1


def test_bootstrap_interval_covers_the_population_value():
    rng = np.random.default_rng(2)

    def cohort(num):
        gene = rng.standard_normal((num, 3))
        return (0.5 * gene + rng.standard_normal((num, 3))) @ gene.T

    big = cohort(1500)
    counts = compare(big, everyone([str(k) for k in range(1500)])).paired(np.arange(1500)[None])
    truth = mean(auc2afc(counts), counts.weight)[0]
    inside = 0
    for _ in range(100):
        auc = _evaluate(
            cohort(60), everyone([str(k) for k in range(60)]), num_bootstraps=200, num_permutations=1
        )
        inside += (
            auc["brain_to_gene"]["auc2afc"]["ci_low"] <= truth <= auc["brain_to_gene"]["auc2afc"]["ci_high"]
        )
    assert inside >= 86  # 95 % intervals; 86 is the 0.1 % binomial bound


def test_intervals_of_large_galleries_come_from_influences_and_agree(monkeypatch):
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(300, 4))
    similarity = (shared + rng.normal(size=shared.shape)) @ (shared + rng.normal(size=shared.shape)).T
    gallery = everyone([f"f{k // 2}" if k < 60 else f"g{k}" for k in range(300)])
    options = {"permute_within": gallery.strata, "num_permutations": 9, "num_bootstraps": 2000, "seed": 0}
    whole = evaluate_gallery(similarity, gallery, **options)
    monkeypatch.setattr("align.retrieval.MANY", 0)
    quick = evaluate_gallery(similarity, gallery, **options)
    for direction in DIRECTIONS:
        one, other = whole[direction]["auc2afc"], quick[direction]["auc2afc"]
        assert one["value"] == other["value"] and one["p_perm"] == other["p_perm"]
        width = one["ci_high"] - one["ci_low"]
        assert abs(one["ci_low"] - other["ci_low"]) < 0.1 * width > abs(one["ci_high"] - other["ci_high"])
