"""Groups of people, calibration of similarity, and the second scan as the brain side's ceiling."""

import numpy as np
import pandas as pd
import pytest

from align.fingerprint import fingerprint
from align.galleries import everyone, matched
from align.retrieval import DIRECTIONS, evaluate_gallery
from align.subgroups import calibration, own_scores, subgroups
from encoders.runs.errors import InputError
from encoders.vectors import SubjectVectors


def cohort(num, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"sex": rng.choice(["F", "M"], num), "site": rng.choice(["a", "b"], num)})
    frame.index = [f"p{k}" for k in range(num)]
    return frame, [f"p{k}" for k in range(num)], rng


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_group_for_which_nothing_works_is_seen():
    frame, families, rng = cohort(240)
    shared = rng.normal(size=(240, 8)) * (frame.sex == "F").to_numpy()[:, None]
    brain, gene = (unit(shared + 0.7 * rng.normal(size=(240, 8))) for _ in range(2))
    similarity = dict.fromkeys(DIRECTIONS, brain @ gene.T)
    gallery = matched(frame, frame, families)
    found = subgroups(similarity, gallery, frame, num_bootstraps=200, seed=0)
    sex = found["sex"]["groups"]
    assert sex["F"]["ci_low"] > 0.75 and sex["M"]["ci_low"] < 0.5 < sex["M"]["ci_high"]
    whole = evaluate_gallery(
        similarity[DIRECTIONS[0]],
        gallery,
        permute_within=gallery.strata,
        num_permutations=1,
        num_bootstraps=1,
        seed=0,
    )
    mean = np.average([g["value"] for g in sex.values()], weights=[g["people"] for g in sex.values()])
    assert mean == pytest.approx(np.mean([whole[d]["auc2afc"]["value"] for d in DIRECTIONS]))


def test_small_groups_are_hidden_with_the_next_smallest():
    frame, families, rng = cohort(200)
    frame["site"] = ["big"] * 100 + ["middle"] * 70 + ["small"] * 25 + ["tiny"] * 5
    vectors = unit(rng.normal(size=(200, 4)))
    gallery = everyone(families)
    found = subgroups(
        dict.fromkeys(DIRECTIONS, vectors @ vectors.T), gallery, frame, num_bootstraps=20, seed=0
    )["site"]
    assert set(found["groups"]) == {"big", "middle"} and found["hidden"] == 2 and found["hidden_people"] == 30


def test_calibrated_similarity_rises_and_hubs_spoil_the_pooled_auc():
    _, families, rng = cohort(150)
    shared = rng.normal(size=(150, 6))
    brain, gene = (unit(shared + 0.5 * rng.normal(size=(150, 6))) for _ in range(2))
    similarity = brain @ gene.T
    good = calibration(dict.fromkeys(DIRECTIONS, similarity), everyone(families))
    assert good["lift"][-1] > 3 and good["lift"][0] < 0.3 and good["pairs"] == 2 * 150 * 150
    auc = np.mean(
        [a.mean() for a, _ in own_scores(dict.fromkeys(DIRECTIONS, similarity), everyone(families)).values()]
    )
    assert good["pooled_auc"] == pytest.approx(auc, abs=0.02)
    hubs = similarity + 3 * rng.normal(size=(150, 1))  # each query on a scale of its own: ranks of rows stay
    bad = calibration(dict.fromkeys(DIRECTIONS, hubs), everyone(families))
    assert bad["pooled_auc"] < auc - 0.2


def test_a_second_scan_finds_the_first_and_one_run_each_finds_nothing():
    frame, ids, rng = cohort(120)
    person = rng.normal(size=(120, 10))
    values = np.concatenate([person + 0.5 * rng.normal(size=person.shape) for _ in range(2)]).astype(
        np.float32
    )
    names = [f"{i}\trun-{k}" for k in (1, 2) for i in ids]
    options = {
        "train": ids[:60],
        "test": ids[60:],
        "families": dict(zip(ids, ids, strict=True)),
        "confound_terms": ["sex", "site"],
        "permutations": 99,
        "bootstraps": 99,
        "seed": 0,
    }
    found = fingerprint(SubjectVectors(ids=names, values=values), frame, **options)
    assert found["people"] == 60
    assert (
        found["raw"]["run_1_to_2"]["auc2afc"]["value"] > 0.97
        and found["raw"]["run_2_to_1"]["R@1"]["value"] > 0.6
    )
    assert found["matched"]["run_1_to_2"]["auc2afc"]["value"] > 0.95
    single = SubjectVectors(ids=names[:120], values=values[:120])
    assert fingerprint(single, frame, **options) == {"people": 0}
    with pytest.raises(InputError, match="person<TAB>run"):
        fingerprint(SubjectVectors(ids=ids, values=values[:120]), frame, **options)
