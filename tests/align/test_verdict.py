"""The verdict follows its stated rules."""

import pytest

from align.verdict import people_needed, verdict


def _auc(value, half, p):
    return {"value": value, "ci_low": value - half, "ci_high": value + half, "p_perm": p}


def _galleries(raw, matched):
    def gallery(aucs):
        return {d: {"auc2afc": a} for d, a in zip(("brain_to_gene", "gene_to_brain"), aucs, strict=True)}

    return {
        "raw": gallery(raw),
        "matched": gallery(matched) | {"num_anchors": 150, "variables": ["sex", "mean_fd"]},
    }


STRONG, WEAK, WIDE = _auc(0.8, 0.03, 0.001), _auc(0.51, 0.03, 0.4), _auc(0.53, 0.06, 0.2)


@pytest.mark.parametrize(
    ("raw", "matched", "label"),
    [
        ((STRONG, STRONG), (STRONG, STRONG), "beyond confounds"),
        ((STRONG, STRONG), (STRONG, WEAK), "inconclusive"),  # both directions are asked for
        ((STRONG, STRONG), (STRONG, _auc(0.8, 0.03, 0.06)), "inconclusive"),
        ((STRONG, STRONG), (WEAK, WEAK), "explained by confounds"),
        ((STRONG, WEAK), (WEAK, WEAK), "explained by confounds"),
        ((WEAK, WEAK), (WEAK, WEAK), "no signal"),
        ((STRONG, STRONG), (WIDE, WEAK), "inconclusive"),
        ((WIDE, WIDE), (WEAK, WEAK), "inconclusive"),
    ],
)
def test_labels(raw, matched, label):
    said = verdict(_galleries(raw, matched), {"neurohelix": {}}, None)
    assert said.label == label
    if label == "inconclusive":
        assert "would decide" in said.sentence
    else:
        assert "sex and head motion" in said.sentence or label == "no signal"


def test_people_needed_grows_with_the_square_of_the_interval():
    assert people_needed(_auc(0.52, 0.06, 0.2), 100) == 900
    assert people_needed(_auc(0.6, 0.05, 0.001), 100) == 100
    assert people_needed(_auc(0.49, 0.06, 0.2), 100) is None


def test_nobody_with_a_matched_distractor_is_inconclusive():
    galleries = _galleries((STRONG, STRONG), (STRONG, STRONG))
    galleries["matched"] = {"num_anchors": 0, "variables": []}
    assert verdict(galleries, {"neurohelix": {}}, None).label == "inconclusive"


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.05, "say that it is better)"),
        (-0.05, -0.01, "say that it is worse)"),
        (-0.02, 0.05, "do not both exclude 0)"),
    ],
)
def test_against_linear_cca_the_paired_test_has_the_word(low, high, words):
    both = ("brain_to_gene", "gene_to_brain")
    models = {
        name: {"matched": {d: _auc(v, 0.03, 0.001) for d in both}}
        for name, v in (("neurohelix", 0.8), ("ridge_cca", 0.78))
    }
    paired = {"ridge_cca": {"matched": {d: {"ci_low": low, "ci_high": high} for d in both}}}
    said = verdict(_galleries((STRONG, STRONG), (STRONG, STRONG)), models, None, paired)
    assert (
        "0.800 to 0.780 (0.020 above it; the paired intervals" in said.comparison and words in said.comparison
    )
