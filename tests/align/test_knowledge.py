"""What the aligned space knows: confounds that are there are found, noise is not; the gene that carries it is found."""

import numpy as np
import pandas as pd

from align.knowledge import explained_by_confounds, leave_one_gene_out
from align.pairs import Pairs


def people(num, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"sex": rng.choice(["F", "M"], num), "age": rng.normal(60, 8, num)})
    frame.index = [f"p{k}" for k in range(num)]
    return frame, rng


def test_variance_explained_is_that_of_people_not_seen_by_the_regression():
    frame, rng = people(400)
    noise = rng.normal(size=(400, 20))
    train, test = np.arange(250), np.arange(250, 400)
    terms = ["sex", "age", "site"]
    none = explained_by_confounds(noise, frame, train, test, terms=terms)
    assert set(none) == {"all", "sex", "age"} and abs(none["all"]) < 0.05
    sexed = noise + 2 * (frame.sex == "F").to_numpy()[:, None]
    some = explained_by_confounds(sexed, frame, train, test, terms=terms)
    assert 0.4 < some["sex"] < 0.6 and abs(some["age"]) < 0.05 and some["all"] > 0.4


def test_the_gene_that_carries_the_alignment_is_found_and_the_others_are_not():
    frame, rng = people(600)
    genes = {f"G{k}": (4 * k, 4 * k + 4) for k in range(5)}
    genome = rng.normal(size=(600, 20)).astype(np.float32)
    brain = np.concatenate(
        [genome[:, 8:12] + 0.8 * rng.normal(size=(600, 4)), rng.normal(size=(600, 6))], axis=1
    )
    ids = list(frame.index)
    pairs = Pairs(
        ids=ids,
        folds=["train"] * 400 + ["val"] * 100 + ["test"] * 100,
        groups=ids,
        brain=brain.astype(np.float32),
        genetics=genome,
        frame=frame,
        missing={},
    )
    found = leave_one_gene_out(pairs, genes, confound_terms=["sex", "age"])
    assert found["folds"] == 10 and found["whole"] > 0.75
    assert found["genes"]["G2"]["drop"] > 0.2 and found["genes"]["G2"]["q"] < 0.01
    assert all(found["genes"][g]["q"] > 0.05 for g in genes if g != "G2")
    assert "no parts" in leave_one_gene_out(pairs, {}, confound_terms=[])["reason"]
