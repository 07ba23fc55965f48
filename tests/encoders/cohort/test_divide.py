"""Whole sites, given hold-outs, pruned relatives: what is promised holds, and who was left out is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from encoders.cohort import Cohort, Split
from encoders.cohort.config import MakeSplits
from encoders.cohort.divide import divide
from encoders.cohort.leaving_out import relatives_pruned
from encoders.cohort.splits import crossing_pairs
from encoders.runs.errors import InputError
from scripts.make_splits import main

SITES = [f"s{k % 7}" for k in range(210)]
RELATED = [(f"p{k}", f"p{k + 7}") for k in range(0, 42, 14)]  # same site
ACROSS = [(f"p{k}", f"p{k + 1}") for k in range(100, 160, 20)]  # neighbours lie at different sites


@pytest.fixture
def cohort():
    rng = np.random.default_rng(0)
    ids = pd.Index([f"p{k}" for k in range(210)], name="participant_id")
    frame = pd.DataFrame(
        {"site": SITES, "sex": rng.choice(["F", "M"], 210), "age": rng.normal(60, 7, 210)}, index=ids
    )
    return Cohort(frame=frame, path=Path("participants.tsv"))


def sites_of(cohort, ids):
    return set(cohort.frame.loc[ids, "site"])


def test_whole_sites_are_dealt_and_families_across_sites_are_left_out_by_name(cohort):
    split, left_out = divide(cohort, [*RELATED, *ACROSS], MakeSplits(by="site", num_folds=3))
    parts = [sites_of(cohort, getattr(split, fold)) for fold in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 7
    assert sum(len(sites_of(cohort, fold)) for fold in split.folds) == 7
    assert len(left_out) == 3 and set(left_out) <= {name for pair in ACROSS for name in pair}
    assert set(left_out.values()) == {"has relatives at another site"}
    assert crossing_pairs(split, [*RELATED, *ACROSS]) == []
    assert (
        split.groups["p0"] == split.groups["p7"] and split.groups["p1"] != split.groups["p8"]
    )  # families, not sites


def test_each_site_is_left_out_once(cohort):
    split, _ = divide(cohort, RELATED, MakeSplits(leave_site_out=True))
    assert len(split.folds) == 7
    for k in range(7):
        held = split.held_out(k)
        assert len(sites_of(cohort, held.test)) == 1
        assert not sites_of(cohort, held.test) & sites_of(cohort, [*held.train, *held.val])
    few = Cohort(frame=cohort.frame[cohort.frame.site.isin(["s1", "s2"])], path=cohort.path)
    with pytest.raises(InputError, match="has 2 sites; leaving one out needs 3"):
        divide(few, [], MakeSplits(leave_site_out=True))


def test_named_sites_are_the_hold_out_and_relatives_of_its_people_are_not_trained_on(cohort):
    split, left_out = divide(cohort, [*RELATED, *ACROSS], MakeSplits(held_out_sites=["s3", "s5"]))
    assert sites_of(cohort, split.test) == {"s3", "s5"}
    assert not {"s3", "s5"} & sites_of(cohort, [*split.train, *split.val])
    assert crossing_pairs(split, [*RELATED, *ACROSS]) == [] and left_out
    assert set(left_out.values()) == {"has relatives among the held-out people"}
    assert abs(len(split.val) / len([*split.train, *split.val]) - 0.15) < 0.02
    with pytest.raises(InputError, match="'mars' is no site"):
        divide(cohort, [], MakeSplits(held_out_sites=["mars"]))


def test_a_given_list_is_the_hold_out(cohort, tmp_path):
    (tmp_path / "test.txt").write_text("p0\np100\np3\n")
    split, left_out = divide(cohort, [*RELATED, *ACROSS], MakeSplits(held_out_people=tmp_path / "test.txt"))
    assert sorted(split.test) == ["p0", "p100", "p3"] and set(left_out) == {"p7", "p101"}
    (tmp_path / "test.txt").write_text("p0\nnobody\n")
    with pytest.raises(InputError, match="1 of 2 people .* are not in .*e.g. 'nobody'"):
        divide(cohort, [], MakeSplits(held_out_people=tmp_path / "test.txt"))


def test_pruning_leaves_nobody_related_and_few_out(cohort):
    star = [("p0", f"p{k}") for k in range(1, 9)]
    assert list(relatives_pruned(cohort.ids, star)) == ["p0"]  # one person, not eight
    chain = [(f"p{k}", f"p{k + 1}") for k in range(20, 30)]
    split, left_out = divide(cohort, [*star, *chain], MakeSplits(prune_relatives=True))
    kept = {*split.train, *split.val, *split.test}
    assert not [pair for pair in [*star, *chain] if set(pair) <= kept] and len(left_out) <= 1 + 6
    families = cohort.frame.assign(family_id=["f" if k < 5 else None for k in range(210)])
    _, left_out = divide(Cohort(frame=families, path=cohort.path), [], MakeSplits(prune_relatives=True))
    assert len(left_out) == 4


def test_people_without_a_site_are_listed_by_the_command(cohort, tmp_path, capsys):
    frame = cohort.frame.copy()
    frame.loc["p9", "site"] = "n/a"
    (tmp_path / "raw").mkdir()
    frame.to_csv(tmp_path / "raw" / "participants.tsv", sep="\t")
    assert main([f"--study={tmp_path}", "--leave_site_out=true"]) == 0
    out = capsys.readouterr().out
    assert "left out: 1, listed in" in out and "whole sites" in out
    listed = tmp_path / "private" / "left_out_of_split.tsv"
    assert (
        listed.read_text() == "participant_id\treason\np9\thas no site\n"
        and listed.stat().st_mode & 0o777 == 0o600
    )
    assert len(Split.load(tmp_path / "splits" / "splits.json").folds) == 7


def test_options_that_contradict_each_other_are_refused(tmp_path):
    with pytest.raises(InputError, match="not both"):
        MakeSplits(held_out_sites=["a"], held_out_people=tmp_path)
    with pytest.raises(InputError, match="drop --num_folds"):
        MakeSplits(leave_site_out=True, num_folds=5)
