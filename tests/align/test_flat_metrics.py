"""Flat names: those of the statistics' ninth rule, and no recall without its gallery."""

import numpy as np
import pytest

from align.flat_metrics import flat_metrics
from align.galleries import everyone
from align.retrieval import evaluate_gallery


def test_every_name_of_the_rule_is_there_with_its_parts():
    rng = np.random.default_rng(0)
    options = {"permute_within": ["all"] * 60, "num_permutations": 19, "num_bootstraps": 19, "seed": 0}
    galleries = {
        name: evaluate_gallery(
            rng.standard_normal((60, 60)), everyone([str(k) for k in range(60)]), **options
        )
        for name in ("raw", "adjusted", "matched")
    }
    found = flat_metrics(galleries)
    for direction in ("brain_to_gene", "gene_to_brain"):
        for suffix in ("", "_adjusted", "_matched"):
            metrics = ("R@1", "R@5", "R@10", "mean_rank", "median_rank", "mrr", "auc2afc")
            for name in (f"{direction}_{metric}{suffix}" for metric in metrics):
                assert {name, *(f"{name}_{p}" for p in ("ci_low", "ci_high", "p_perm", "n_gallery"))} <= set(
                    found
                )
                assert found[f"{name}_n_gallery"] == 60
            assert found[f"{direction}_lift@5{suffix}"] == pytest.approx(
                found[f"{direction}_R@5{suffix}"] * 60 / 5
            )
    assert found["gene_to_brain_auc2afc_matched"] == galleries["matched"]["gene_to_brain"]["auc2afc"]["value"]


def test_a_gallery_too_small_for_a_recall_has_none():
    few = evaluate_gallery(
        np.eye(12),
        everyone([str(k) for k in range(12)]),
        permute_within=["all"] * 12,
        num_permutations=9,
        num_bootstraps=9,
        seed=0,
    )
    found = flat_metrics({"raw": few, "adjusted": few, "matched": {"median_gallery": 0.0}})
    assert "brain_to_gene_R@1" in found and "brain_to_gene_R@5" not in found
    assert not any("matched" in name for name in found)
