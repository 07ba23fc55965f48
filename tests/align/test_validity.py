"""The claims of the evaluation on cohorts with known truth, at vector level with fixed seeds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align.baselines import RidgeCCA
from align.config import Align, Evaluate, ProjectorConfig
from align.evaluate import evaluate, rooms
from align.pairs import join
from align.retrieval import DIRECTIONS, evaluate_gallery
from align.run import align_study
from encoders.cohort import Cohort, ConfoundDesign, Residualizer, groups_of, make_split
from encoders.cohort.config import DEFAULT_TERMS
from encoders.cohort.synthetic import SyntheticCohort, vector_cohort
from encoders.cohort.synthetic.oracle import oracle_similarity
from encoders.runs.devices import accelerator
from encoders.vectors import SubjectVectors

PROJECTOR = ProjectorConfig(output_dim=64, hidden_dim=512)
CONFIG = Align(projector=PROJECTOR, epochs=20, batch_size=256, eval_every=10)


def _joined(arm, people, seed=0, **changes):
    made = vector_cohort(SyntheticCohort(arm=arm, people=people, seed=seed, **changes))
    cohort = Cohort(frame=made.frame, path=Path("participants.tsv"))
    groups = groups_of(cohort, made.related)
    split = make_split(cohort, groups, val_fraction=0.12, test_fraction=0.3, stratify=["site", "sex"], seed=0)
    vectors = {
        "brain": SubjectVectors(ids=made.ids, values=made.brain),
        "genetics": SubjectVectors(ids=made.ids, values=made.gene.astype(np.float32)),
    }
    joined = join(vectors, split=split, cohort=cohort, related=made.related)
    return made, cohort, split, vectors, joined


def _evaluated(tmp_path, arm, people, *, shuffle=False):
    made, cohort, split, vectors, joined = _joined(arm, people)
    if shuffle:  # whose genome is whose is permuted among all people
        order = np.random.default_rng(0).permutation(len(made.ids))
        vectors["genetics"] = replace(vectors["genetics"], values=vectors["genetics"].values[order])
        joined = join(vectors, split=split, cohort=cohort)
    pairs = joined.pair("brain", "genetics")
    aligned = align_study(
        vectors,
        joined,
        cohort=cohort,
        split=split,
        config=CONFIG,
        folder=tmp_path,
        accelerator=accelerator(seed=0),
    ).vectors
    row = {name: k for k, name in enumerate(split.fold_of)}
    test = [row[pairs.ids[k]] for k in pairs.rows("test")]
    similarities = {
        name: dict.fromkeys(DIRECTIONS, aligned[f"brain_{name}"][test] @ aligned[f"genetics_{name}"][test].T)
        for name in ("raw", "adjusted")
    }
    similarities["matched"] = similarities["adjusted"]
    folds = {fold: [pairs.ids[k] for k in pairs.rows(fold)] for fold in ("train", "test")}
    oracle = oracle_similarity(made.truth, folds["train"], folds["test"]) if arm == "signal" else None
    config = Evaluate(permutations=199, bootstraps=200)
    return evaluate(pairs, similarities, confound_terms=list(DEFAULT_TERMS), oracle=oracle, config=config)[0]


def _aucs(content, gallery):
    return [content["galleries"][gallery][d]["auc2afc"] for d in DIRECTIONS]


def test_signal_arm_is_beyond_confounds_and_reaches_half_of_the_oracle(tmp_path):
    content = _evaluated(tmp_path, "signal", 600)
    assert content["verdict"]["label"] == "beyond confounds"
    assert all(auc["p_perm"] <= 0.01 for auc in _aucs(content, "matched"))
    assert content["oracle_share"]["matched"] >= 0.5
    assert content["models"]["confounds_only"]["matched"]["brain_to_gene"]["value"] < 0.6


def test_confounded_arm_is_explained_by_confounds(tmp_path):
    content = _evaluated(tmp_path, "confounded", 2000)
    assert all(auc["value"] > 0.65 and auc["p_perm"] <= 0.01 for auc in _aucs(content, "raw"))
    assert all(abs(auc["value"] - 0.5) < 0.05 for auc in _aucs(content, "matched"))
    assert content["verdict"]["label"] == "explained by confounds"
    assert "explained by confounds" in content["verdict"]["sentence"]


def test_null_arm_is_at_chance_everywhere(tmp_path):
    content = _evaluated(tmp_path, "null", 2000)
    for gallery in ("raw", "adjusted", "matched"):
        assert all(abs(auc["value"] - 0.5) < 0.05 for auc in _aucs(content, gallery))
    assert content["verdict"]["label"] in ("no signal", "inconclusive")


def test_permuting_whose_genome_is_whose_sends_every_metric_to_chance(tmp_path):
    content = _evaluated(tmp_path, "signal", 600, shuffle=True)
    for gallery in ("raw", "adjusted", "matched"):
        for direction in DIRECTIONS:
            for name, metric in content["galleries"][gallery][direction].items():
                assert metric["p_perm"] > 0.005, (gallery, direction, name)
            assert abs(content["galleries"][gallery][direction]["auc2afc"]["value"] - 0.5) < 0.08


@pytest.mark.slow
def test_p_values_of_matched_and_adjusted_galleries_keep_their_level_in_the_confounded_arm():
    """200 cohorts without biology but with confounds, families and sites; the scorer is a linear CCA."""
    p = {"adjusted": [], "matched": []}
    for seed in range(200):
        pairs = _joined("confounded", 400, seed=seed, sibling_fraction=0.3)[-1].pair("brain", "genetics")
        train, test = pairs.rows("train"), pairs.rows("test")
        sides = []
        for values in (pairs.brain, pairs.genetics):
            cleaner = Residualizer(design=ConfoundDesign(terms=DEFAULT_TERMS))
            sides.append(cleaner.fit(values[train], pairs.frame.iloc[train]).transform(values, pairs.frame))
        model = RidgeCCA(ridge=0.1).fit(sides[0][train], sides[1][train])
        similarity = model.similarity(sides[0][test], sides[1][test])
        where = rooms(pairs.frame.iloc[test], pairs.frame.iloc[train], [pairs.groups[i] for i in test])
        for name in p:
            result = evaluate_gallery(
                similarity,
                where.galleries[name],
                permute_within=where.permute_within[name],
                num_permutations=199,
                num_bootstraps=1,
                seed=seed,
                only_auc=True,
            )
            p[name].append(result["brain_to_gene"]["auc2afc"]["p_perm"])
    for name, values in p.items():
        rejected = np.mean(np.array(values) <= 0.05)
        assert 0.01 <= rejected <= 0.095, (name, rejected)  # binomial 99 % interval of 5 % at 200 repeats
