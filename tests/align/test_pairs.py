"""Joining modalities: missing people counted, leakage refused, relatives and twins in genotype not pushed apart."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from align.pairs import belonging, join, pair
from encoders.cohort import Cohort, Split
from encoders.runs.errors import InputError
from encoders.vectors import SubjectVectors

IDS = [f"sub-{k}" for k in range(12)]
GROUPS = {i: i for i in IDS} | {"sub-1": "sub-0", "sub-10": "sub-9"}
SPLIT = Split(train=IDS[:6], val=IDS[6:9], test=IDS[9:], groups=GROUPS, seed=0)
COHORT = Cohort(frame=pd.DataFrame({"age": np.arange(12.0)}, index=IDS), path=Path("participants.tsv"))


def _vectors(ids, **provenance):
    values = np.arange(len(ids) * 3, dtype=np.float32).reshape(-1, 3)
    return SubjectVectors(ids=list(ids), values=values, provenance=provenance)


def test_people_without_a_modality_are_counted_by_fold():
    pairs = pair(_vectors(IDS[::-1]), _vectors(IDS[1:11]), split=SPLIT, cohort=COHORT)
    assert pairs.ids == IDS[1:11]
    assert pairs.missing["genetics"] == {"train": ["sub-0"], "val": [], "test": ["sub-11"]}
    assert pairs.missing["brain"] == {"train": [], "val": [], "test": []}
    np.testing.assert_array_equal(pairs.brain[0], _vectors(IDS[::-1]).select(["sub-1"])[0])


@pytest.mark.parametrize("seen", ["sub-11", "sub-10"])
def test_an_encoder_that_saw_test_people_or_their_relatives_is_refused(seen):
    trained_on = {"split_digest": "f" * 64, "ids": [*IDS[:6], seen]}
    with pytest.raises(InputError, match="trained on 1 of the 2 held-out families"):
        pair(_vectors(IDS, trained_on=trained_on), _vectors(IDS), split=SPLIT, cohort=COHORT)
    allowed = _vectors(IDS, trained_on=trained_on | {"ids": IDS[:9]})
    pair(allowed, _vectors(IDS, trained_on=None), split=SPLIT, cohort=COHORT)


def test_an_encoder_that_does_not_say_whom_it_saw_is_refused_unless_the_user_vouches():
    genetics, both = _vectors(IDS), {"split": SPLIT, "cohort": COHORT}
    silent = _vectors(IDS, trained_on={"split_digest": "f" * 64, "ids": None, "complete": True})
    partly = _vectors(IDS, trained_on={"split_digest": SPLIT.digest, "ids": SPLIT.train, "complete": False})
    for brain in (silent, partly):
        with pytest.raises(InputError, match="does not name all the people.*--unknown_training=accept"):
            pair(brain, genetics, **both)
        pair(brain, genetics, **both, accept_unknown=True)
    shared = _vectors(IDS, trained_on={"split_digest": SPLIT.digest, "ids": None, "complete": True})
    pair(shared, genetics, **both)  # trained on this very split
    leaky = _vectors(IDS, trained_on={"split_digest": "f" * 64, "ids": SPLIT.test, "complete": False})
    with pytest.raises(InputError, match="held-out families"):
        pair(leaky, genetics, **both, accept_unknown=True)


def test_relatives_across_folds_are_refused():
    with pytest.raises(
        InputError, match="1 pairs of relatives .kinship table or family_id. lie in different folds"
    ):
        pair(_vectors(IDS), _vectors(IDS), split=SPLIT, cohort=COHORT, related=[("sub-3", "sub-11")])


def test_ids_that_do_not_meet_are_told_with_an_example_of_each():
    with pytest.raises(
        InputError, match="none of the 12 people with genetics vectors is in the split, e.g. '0'"
    ):
        pair(_vectors(IDS), _vectors([str(k) for k in range(12)]), split=SPLIT, cohort=COHORT)


def test_a_fold_without_pairs_is_refused():
    with pytest.raises(InputError, match="only 1 people of the val fold"):
        pair(_vectors(IDS[:7] + IDS[9:]), _vectors(IDS), split=SPLIT, cohort=COHORT)


def test_relatives_and_equal_genotypes_belong_together():
    genome = np.array([[1, 0], [0, 1], [1, 0], [2, 2]], dtype=np.float32)
    brain = np.arange(8, dtype=np.float32).reshape(4, 2)
    ids = belonging(["f", "f", "g", "h"], brain, genome)
    expected = np.eye(4, dtype=bool)
    expected[0, 1] = expected[1, 0] = expected[0, 2] = expected[2, 0] = True
    np.testing.assert_array_equal((ids[:, None] == ids[None]).any(axis=-1), expected)


def test_three_modalities_are_joined_outer_with_masks():
    brains = [i for i in IDS[:11] if i != "sub-6"]
    vectors = {
        "brain": _vectors(brains),
        "genetics": _vectors(IDS[1:]),
        "scores": _vectors([*IDS[:6], "sub-11"]),
    }
    joined = join(vectors, split=SPLIT, cohort=COHORT)
    assert joined.ids == [i for i in IDS if i != "sub-6"]  # that one has a genome alone
    assert joined.present["scores"].tolist() == [True] * 6 + [False] * 4 + [True]
    assert (joined.values["scores"][6] == 0).all() and joined.values["scores"][10].any()
    assert joined.pair("genetics", "scores").ids == [*IDS[1:6], "sub-11"]
    assert joined.pair("brain", "genetics").ids == [i for i in brains if i != "sub-0"]
    assert joined.missing["scores"]["test"] == ["sub-9", "sub-10"]
    few = vectors | {"scores": _vectors(["sub-0", *IDS[6:]])}
    with pytest.raises(InputError, match="only 1 people of the train fold have brain and scores vectors"):
        join(few, split=SPLIT, cohort=COHORT)
