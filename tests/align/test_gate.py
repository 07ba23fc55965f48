"""The escalation gate and the linear inference behind it: each part can pass, fail, or be unknown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align.beyond_retrieval import beyond_retrieval, wanted_phenotypes
from align.config import Evaluate
from align.gate import gate
from align.linear_inference import linear_inference
from align.pairs import join
from encoders.cohort import Cohort, groups_of, make_split
from encoders.cohort.config import DEFAULT_TERMS
from encoders.cohort.synthetic import SyntheticCohort, vector_cohort
from encoders.vectors import SubjectVectors

TERMS = list(DEFAULT_TERMS)


def cca(p, permutations=1999):
    return {"cca": {"p": [p, 0.5], "permutations": permutations}}


def said(linear, *gains):
    phenotypes = {f"d{k}": {"fusion_gain_auroc": gain} for k, gain in enumerate(gains)}
    return gate(linear, phenotypes | {"height": {}}, most_p=0.001, least_gain=0.05)


def test_both_parts_must_hold():
    assert said(cca(0.0005), 0.08).passed is True
    assert said(cca(0.0005), 0.05).passed is False  # more than five points are asked for
    assert said(cca(0.001), 0.08).passed is False
    assert said(cca(0.0005), 0.12, 0.0).fusion_gain == pytest.approx(0.06)
    sentence = said(cca(0.2), 0.08).sentence
    assert sentence.startswith("Escalation gate not passed") and "p = 0.2 (not below 0.001)" in sentence
    assert "+0.080 AUROC" in sentence and "(above 0.05)" in sentence


def test_what_is_unknown_leaves_it_undecided_unless_the_other_part_failed():
    assert said(cca(0.0005)).passed is None and "no diagnosis" in said(cca(0.0005)).sentence
    assert (
        said({"reason": "too few"}, 0.1).passed is None and said({"reason": "too few"}, 0.0).passed is False
    )
    few = said(cca(1 / 100, permutations=99), 0.1)
    assert few.passed is None and "no smaller one is possible with so few permutations" in few.sentence
    assert said(cca(0.0005), float("nan")).passed is None


def make(arm, people=500, **changes):
    made = vector_cohort(SyntheticCohort(arm=arm, people=people, seed=3, **changes))
    cohort = Cohort(frame=made.frame, path=Path("participants.tsv"))
    groups = groups_of(cohort, made.related)
    split = make_split(cohort, groups, val_fraction=0.12, test_fraction=0.3, stratify=["site", "sex"], seed=0)
    vectors = {
        "brain": SubjectVectors(ids=made.ids, values=made.brain),
        "genetics": SubjectVectors(ids=made.ids, values=made.gene),
    }
    return join(vectors, split=split, cohort=cohort, related=made.related).pair("brain", "genetics")


def test_planted_signal_is_found_with_an_effect_out_of_fold_and_confounds_alone_are_not():
    signal = linear_inference(make("signal"), TERMS, permutations=199, seed=0)
    assert signal["people"] == len(make("signal").rows("train"))
    for method in ("cca", "pls"):
        assert signal[method]["p"][0] == 1 / 200 and signal[method]["out_of_fold"][0] > 0.25, method
        assert len(signal[method]["out_of_fold"]) <= len(signal[method]["p"])
    confounded = linear_inference(make("confounded"), TERMS, permutations=199, seed=0)
    for method in ("cca", "pls"):
        assert confounded[method]["p"][0] > 0.01 and abs(confounded[method]["out_of_fold"][0]) < 0.2, method


def test_held_out_people_play_no_part():
    pairs = make("signal", 300)
    before = linear_inference(pairs, TERMS, permutations=49, seed=0)
    brain = pairs.brain.copy()
    brain[pairs.rows("test")] = 0
    assert linear_inference(replace(pairs, brain=brain), TERMS, permutations=49, seed=0) == before


def test_what_cannot_be_tested_is_told_and_stops_nothing():
    pairs = make("signal", 300)
    constant = replace(pairs, brain=np.ones_like(pairs.brain))
    config = Evaluate(permutations=19, bootstraps=20, phenotypes=[])
    found = beyond_retrieval(constant, [], confound_terms=TERMS, config=config)
    assert "does not vary between people beyond confounds" in found["linear"]["reason"]
    assert found["gate"]["passed"] is None and found["gate"]["cca_p"] is None and found["phenotypes"] == {}


def test_traits_of_a_synthetic_cohort_are_predicted_unless_others_are_named():
    pairs = make("signal", 300)

    def names(config, synthetic=True):
        return [one.name for one in wanted_phenotypes(pairs, config, synthetic=synthetic)]

    assert (
        names(Evaluate()) == [f"trait_{k}" for k in range(1, 7)] and names(Evaluate(), synthetic=False) == []
    )
    assert names(Evaluate(phenotypes=["age"])) == ["age"] and names(Evaluate(phenotypes=[])) == []
    config = Evaluate(permutations=19, bootstraps=20)
    found = beyond_retrieval(
        pairs, wanted_phenotypes(pairs, config, synthetic=True)[:1], confound_terms=TERMS, config=config
    )
    assert "brain_linear" in found["phenotypes"]["trait_1"]["models"]
    assert "brain_boosting" not in found["phenotypes"]["trait_1"]["models"]
