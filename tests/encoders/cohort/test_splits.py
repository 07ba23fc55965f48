"""Splits: families whole, strata even, damage and leaks found."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from encoders.cohort import Cohort, Split, groups_of, make_split, read_kinship
from encoders.cohort.splits import crossing_pairs
from encoders.runs.errors import InputError


@pytest.fixture
def cohort():
    rng = np.random.default_rng(0)
    ids = [f"sub-{k:03d}" for k in range(200)]
    frame = pd.DataFrame(
        {
            "family_id": [f"f{k // 2}" if k < 40 else None for k in range(200)],
            "site": rng.choice(["a", "b"], 200, p=[0.8, 0.2]),
            "sex": rng.choice(["F", "M"], 200),
        },
        index=pd.Index(ids, name="participant_id"),
    )
    return Cohort(frame=frame, path=Path("participants.tsv"))


def _kinship(tmp_path, rows, header="ID1 ID2 HetHet IBS0 Kinship"):
    path = tmp_path / "kinship.txt"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_families_and_kinship_components_are_never_cut(cohort, tmp_path):
    rows = [f"sub-{k:03d} sub-{k + 1:03d} 0 0 0.12" for k in range(100, 140, 2)]
    rows += ["sub-041 sub-101 0 0 0.06", "sub-190 sub-191 0 0 0.03"]  # the last pair is too distant to count
    related = read_kinship(_kinship(tmp_path, rows))
    assert len(related) == 21
    groups = groups_of(cohort, related)
    assert groups["sub-041"] == groups["sub-100"] == groups["sub-101"]
    assert groups["sub-190"] != groups["sub-191"]
    for seed in range(5):
        split = make_split(
            cohort, groups, val_fraction=0.15, test_fraction=0.25, stratify=["site", "sex"], seed=seed
        )
        assert crossing_pairs(split, related) == []
        fold = split.fold_of
        assert all(fold[f"sub-{k:03d}"] == fold[f"sub-{k + 1:03d}"] for k in range(0, 40, 2))
        assert sorted([*split.train, *split.val, *split.test]) == cohort.ids
        assert abs(len(split.test) - 50) <= 4
        shares = [(cohort.frame.loc[ids, "site"] == "b").mean() for ids in (split.train, split.test)]
        assert abs(shares[0] - shares[1]) < 0.06


def test_same_seed_same_split_and_round_trip(cohort, tmp_path):
    groups = groups_of(cohort)
    a, b, c = (make_split(cohort, groups, val_fraction=0.2, test_fraction=0.2, seed=s) for s in (1, 1, 2))
    assert a.digest == b.digest != c.digest
    a.save(tmp_path / "s.json")
    assert Split.load(tmp_path / "s.json") == a
    text = (tmp_path / "s.json").read_text()
    (tmp_path / "s.json").write_text(text.replace(f'"{a.test[0]}"', '"sub-999"', 1))
    with pytest.raises(InputError, match="damaged"):
        Split.load(tmp_path / "s.json")


def test_a_cut_family_and_a_repeated_person_are_refused(cohort):
    groups = groups_of(cohort)
    with pytest.raises(InputError, match=r"1 families are cut.*lies in test and train"):
        Split(train=["sub-000"], val=["sub-050"], test=["sub-001"], groups=groups, seed=0)
    with pytest.raises(InputError, match="1 people are in two folds"):
        Split(train=["sub-050"], val=["sub-060"], test=["sub-050"], groups=groups, seed=0)


def test_a_leak_that_the_split_did_not_know_of_is_found(cohort):
    blind = make_split(cohort, {i: i for i in cohort.ids}, val_fraction=0.2, test_fraction=0.3, seed=0)
    siblings = [(f"sub-{k:03d}", f"sub-{k + 1:03d}") for k in range(0, 40, 2)]
    assert len(crossing_pairs(blind, siblings)) > 3


def test_bad_fractions_and_bad_kinship_tables(cohort, tmp_path):
    with pytest.raises(InputError, match="every fold needs some"):
        make_split(cohort, groups_of(cohort), val_fraction=0.5, test_fraction=0.5)
    with pytest.raises(InputError, match="ID1, ID2 and Kinship were wanted"):
        read_kinship(_kinship(tmp_path, ["a b"], header="who whom"))
    with pytest.raises(InputError, match="is not a number"):
        read_kinship(_kinship(tmp_path, ["a b 0 0 close"]))


def test_folds_test_everyone_once_and_cut_no_family(cohort, tmp_path):
    groups = groups_of(cohort)
    fractions = {"val_fraction": 0.2, "test_fraction": 0.2, "stratify": ["site"], "seed": 3}
    split = make_split(cohort, groups, **fractions, num_folds=5)
    assert split.digest == make_split(cohort, groups, **fractions).digest  # the hold-out is the same
    split.save(tmp_path / "s.json")
    held = [Split.load(tmp_path / "s.json").held_out(k) for k in range(5)]
    assert sorted(name for one in held for name in one.test) == cohort.ids
    assert {len(one.test) for one in held} <= {38, 39, 40, 41, 42}
    for one in held:  # Split itself refuses cut families
        assert sorted([*one.train, *one.val, *one.test]) == cohort.ids
        assert not set(one.test) & set(one.val)
    assert len({one.digest for one in held}) == 5


def test_folds_that_are_not_there_or_do_not_fit_are_refused(cohort):
    groups = groups_of(cohort)
    split = make_split(cohort, groups, val_fraction=0.2, test_fraction=0.2)
    with pytest.raises(
        InputError, match=r"fold 0 was asked for, but the split file has no folds.*--num_folds"
    ):
        split.held_out(0)
    with pytest.raises(InputError, match="give 0 for none, or at least 3"):
        make_split(cohort, groups, val_fraction=0.2, test_fraction=0.2, num_folds=2)
    three = {"train": ["sub-050"], "val": ["sub-060"], "test": ["sub-070"], "groups": groups, "seed": 0}
    with pytest.raises(InputError, match="do not hold each of its people once"):
        Split(**three, folds=[["sub-050"], ["sub-060"], ["sub-060"]])
