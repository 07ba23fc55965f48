"""Ancestry where the table names none: one set of clusters for the galleries and for the confound design."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from align.galleries import match_levels, matched
from align.pairs import join
from align.retrieval import evaluate_gallery
from align.rivals import line_up
from encoders.cohort import Cohort, ConfoundDesign, Residualizer, groups_of, make_split
from encoders.cohort.ancestry import with_ancestry
from encoders.cohort.config import DEFAULT_TERMS
from encoders.cohort.synthetic import SyntheticCohort, vector_cohort
from encoders.vectors import SubjectVectors


@pytest.fixture
def cohort():
    """400 people of 2 ancestries behind noisy components; one person has none of them."""
    rng = np.random.default_rng(0)
    ancestry = rng.integers(0, 2, 400)
    pcs = {f"pcs_{k}": (2 * ancestry - 1) * (k == 1) + 0.3 * rng.standard_normal(400) for k in range(1, 5)}
    frame = pd.DataFrame({"sex": ["F", "M"] * 200} | pcs, index=[f"s{k}" for k in range(400)])
    frame.iloc[3] = ["M", *[np.nan] * 4]
    return Cohort(frame=frame, path=Path("participants.tsv")), ancestry


def test_galleries_and_confound_design_know_the_same_clusters(cohort):
    cohort, ancestry = cohort
    train = cohort.ids[:300]
    found, made = with_ancestry(cohort, [*train, "nobody"])
    assert made and "ancestry" not in cohort.frame
    frame = found.frame
    assert match_levels(frame.loc[cohort.ids[300:]], frame.loc[train])["ancestry"] == list(
        frame["ancestry"].iloc[300:]
    )
    assert frame["ancestry"].isna().sum() == 1
    assert "ancestry" in ConfoundDesign(terms=("ancestry", "pcs_1")).fit(frame.loc[train]).used_
    shared = (2.0 * ancestry - 1)[:, None]
    left = {}
    for name, table in (("components", cohort.frame), ("clusters too", frame)):
        cleaner = Residualizer(design=ConfoundDesign(terms=("ancestry", *[f"pcs_{k}" for k in range(1, 5)])))
        cleaner.fit(shared[:300], table.iloc[:300])
        left[name] = np.var(cleaner.transform(shared[300:], table.iloc[300:]))
    assert left["clusters too"] < 0.2 * left["components"]


def test_what_test_people_look_like_moves_no_cluster(cohort):
    cohort, _ = cohort
    train = cohort.ids[:300]
    moved = cohort.frame.copy()
    moved.loc[cohort.ids[300:], "pcs_2"] += 50
    one, other = (
        with_ancestry(Cohort(frame=frame, path=cohort.path), train)[0].frame["ancestry"]
        for frame in (cohort.frame, moved)
    )
    pd.testing.assert_series_equal(one[:300], other[:300])


def test_a_table_that_names_ancestry_or_has_no_components_is_left_as_it_is(cohort):
    cohort, _ = cohort
    told = Cohort(frame=cohort.frame.assign(ancestry="x"), path=cohort.path)
    assert with_ancestry(told, cohort.ids) == (told, False)
    bare = Cohort(frame=cohort.frame[["sex"]], path=cohort.path)
    assert with_ancestry(bare, cohort.ids) == (bare, False)


@pytest.mark.slow
def test_shared_ancestry_without_a_column_gives_no_matched_signal_once_the_design_knows_the_clusters():
    """With noisy components alone in the design, matched 2AFC of this cohort is 0.55 with p = 0.01."""
    made = vector_cohort(SyntheticCohort(arm="confounded", people=1500, seed=0))
    cohort = Cohort(frame=made.frame.drop(columns="ancestry"), path=Path("participants.tsv"))
    groups = groups_of(cohort, made.related)
    split = make_split(cohort, groups, val_fraction=0.12, test_fraction=0.3, stratify=["site", "sex"], seed=0)
    vectors = {
        "brain": SubjectVectors(ids=made.ids, values=made.brain),
        "genetics": SubjectVectors(ids=made.ids, values=made.gene.astype(np.float32)),
    }
    found = {}
    for name, table in (("alone", cohort), ("clusters", with_ancestry(cohort, split.train)[0])):
        pairs = join(vectors, split=split, cohort=table).pair("brain", "genetics")
        test, train = pairs.rows("test"), pairs.rows("train")
        scores = line_up(pairs, list(DEFAULT_TERMS)).rivals["ridge_cca"].similarities["matched"]
        gallery = matched(pairs.frame.iloc[test], pairs.frame.iloc[train], [pairs.groups[k] for k in test])
        options = {"num_permutations": 199, "num_bootstraps": 9, "seed": 0, "only_auc": True}
        result = evaluate_gallery(scores["brain_to_gene"], gallery, permute_within=gallery.strata, **options)
        found[name] = result["brain_to_gene"]["auc2afc"]["p_perm"]
    assert found["alone"] <= 0.05 < found["clusters"]
