from collections import Counter

import numpy as np
import pandas as pd
import pytest

from encoders.cohort.splits import Split
from encoders.genetics.guards import confounding, confounding_text, overlap, overlap_text
from encoders.genetics.haplotypes import WindowHaplotypes
from encoders.genetics.windows import Window

PEOPLE = [f"p{k}" for k in range(200)]


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    table = {f"pcs_{k}": rng.standard_normal(200) for k in range(1, 11)}
    return pd.DataFrame(table | {"batch": [f"b{k % 20}" for k in range(200)]}, index=PEOPLE)


def test_the_share_that_ancestry_explains_is_found_and_noise_is_not_called_ancestry(frame):
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((200, 3000)).astype(np.float32)
    found = confounding(noise, frame)
    assert found["ancestry"]["share"] < 0.01 and found["batch"]["share"] < 0.01  # R² itself: 5 % and 10 %
    loading = rng.standard_normal(3000)
    mixed = noise + np.outer(frame["pcs_1"], loading).astype(np.float32)
    found = confounding(mixed, frame)
    assert 0.44 < found["ancestry"]["share"] < 0.54  # half of the variance was put there
    assert found["ancestry"]["columns"][0] == "pcs_1" and len(found["ancestry"]["columns"]) == 10
    assert found["batch"]["share"] < 0.03
    assert "pcs_1 to pcs_10; adjusted R²" in confounding_text(found["ancestry"])
    of_batch = np.arange(200) % 20
    shifted = noise + rng.standard_normal((20, 3000)).astype(np.float32)[of_batch]
    assert 0.44 < confounding(shifted, frame)["batch"]["share"] < 0.54


def test_what_cannot_be_known_is_said(frame):
    values = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
    bare = confounding(values, frame[[]])
    assert (
        confounding_text(bare["ancestry"])
        == "unknown: the table of people has no column for genetic PCs or ancestry"
    )
    few = confounding(values[:15], frame.iloc[:15])
    assert "15 people are too few for 10 columns" in confounding_text(few["ancestry"])
    same = confounding(values, frame.assign(batch="b1"))
    assert confounding_text(same["batch"]) == "unknown: everyone has the same batch"
    clusters = frame[[]].assign(ancestry=["x", "y"] * 100)
    assert confounding(values, clusters)["ancestry"]["columns"] == ["ancestry"]


def windows(*parts, **more):
    return [
        WindowHaplotypes(
            window=Window(name=name, contig="1", start=0, end=4),
            sequences=["A", "C", "G", "T"],
            index=np.array(index, np.int32),
            counts=Counter(),
            **more,
        )
        for name, index in parts
    ]


def split(train, val, test):
    groups = {name: name for name in (*train, *val, *test)}
    return Split(train=train, val=val, test=test, groups=groups, seed=0)


def test_haplotypes_that_test_people_share_with_training_people():
    people = ["a", "b", "c", "d"]
    division = split(["a", "b"], ["c"], ["d"])
    # of both haplotypes of d, 3 occurs in nobody and 1 in a
    one = windows(("g", [[0, 1], [0, 0], [3, 3], [1, 3]]))
    found = overlap(one, people, division)
    assert found["overall"] == 0.5 and found["genes"] == {"g": 0.5}
    assert found["split_digest"] == division.digest
    # a haplotype is all windows of a gene on one side: a carries 0-1 and 1-0, d 0-0 and 1-0
    two = windows(("g|t|e1", [[0, 1], [3, 3], [3, 3], [0, 1]]), ("g|t|e2", [[1, 0], [3, 3], [3, 3], [0, 0]]))
    assert overlap(two, people, division)["genes"] == {"g": 0.5}
    both = overlap(one + windows(("h", [[0, 1], [2, 3], [0, 0], [1, 3]])), people, division)
    assert both["overall"] == 0.75
    assert "75.0% of test people's haplotypes" in overlap_text(both) and "(most: h, 100.0%)" in overlap_text(
        both
    )


def test_people_without_a_copy_and_genes_without_haplotypes_have_no_share():
    people = ["a", "b", "c"]
    division = split(["a"], ["b"], ["c"])
    absent = windows(("Y", [[0, 0], [0, 0], [0, 0]]), absent=np.array([True, False, False]))
    assert overlap(absent, people, division)["genes"] == {}
    dosages = windows(("g", [[0, 0]] * 3), dosages=np.ones((3, 4), np.float32))
    assert overlap(dosages, people, division)["overall"] is None
    assert overlap_text(None).startswith("unknown: the study has no split yet")
