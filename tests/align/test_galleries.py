"""Matched galleries: variables dropped in the stated order, relatives out, bins from training people."""

import numpy as np
import pandas as pd

from align.galleries import matched


def _frame(num, seed, **changes):
    rng = np.random.default_rng(seed)
    columns = {
        "sex": rng.choice(["F", "M"], num),
        "site": rng.choice(["a", "b"], num),
        "ancestry": rng.choice(["x", "y"], num),
        "age": rng.normal(50, 9, num),
        "mean_fd": rng.gamma(3, 0.05, num),
    }
    return pd.DataFrame(columns | changes)


def test_everything_is_kept_when_people_are_many():
    gallery = matched(_frame(2000, 1), _frame(3000, 2), [str(k) for k in range(2000)])
    assert gallery.variables == ("sex", "site", "ancestry", "age", "mean_fd")
    assert gallery.dropped == ()
    assert len(set(gallery.strata)) == 2 * 2 * 2 * 3 * 3


def test_variables_are_dropped_motion_first_and_sex_never():
    gallery = matched(_frame(150, 1), _frame(300, 2), [str(k) for k in range(150)])
    assert gallery.dropped == ("age", "mean_fd")
    assert gallery.share_with_enough >= 0.8
    tiny = matched(_frame(8, 1), _frame(300, 2), [str(k) for k in range(8)])
    assert tiny.variables == ("sex",)
    assert tiny.share_with_enough < 0.8


def test_nobody_competes_with_another_stratum_with_a_relative_or_with_himself():
    frame = _frame(200, 1)
    families = [str(k // 2) for k in range(200)]
    gallery = matched(frame, _frame(300, 2), families)
    others = gallery.others()
    sex, family = frame["sex"].to_numpy(), np.array(families)
    assert not others[sex[:, None] != sex[None, :]].any()
    assert not others[family[:, None] == family[None, :]].any()


def test_without_an_ancestry_column_the_genetic_pcs_are_clustered():
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 2, 400)
    pcs = {f"pcs_{k}": 3.0 * cluster * (k == 1) + 0.1 * rng.standard_normal(400) for k in range(1, 5)}
    people = _frame(400, 1).drop(columns="ancestry").assign(**pcs)
    gallery = matched(people.iloc[200:], people.iloc[:200], [str(k) for k in range(200)])
    assert "ancestry" in gallery.variables
    position = gallery.variables.index("ancestry")
    label = np.array([s.split("|")[position] for s in gallery.strata])
    assert not set(label[cluster[200:] == 0]) & set(label[cluster[200:] == 1])
