"""Several seeds and folds in one call: each run apart, mean and spread over them, folds pooled by people."""

import pytest

from align.config import Align
from align.repeats import repeats, stage_name, summarised
from encoders.runs.errors import InputError


def test_seeds_and_folds_make_runs_of_their_own():
    single = repeats(Align(fold="all", seeds=[3, 5]), 3)
    assert [(one.fold, one.seed) for one in single] == [(f, s) for f in range(3) for s in (3, 5)]
    assert [stage_name(one) for one in single][:2] == ["align_fold-0_seed-3", "align_fold-0_seed-5"]
    (alone,) = repeats(Align(seed=7, name="big"), 0)
    assert alone.seed == 7 and stage_name(alone) == "align_big" and stage_name(Align()) == "align"
    with pytest.raises(InputError, match="has no folds"):
        repeats(Align(fold="all"), 0)


def test_mean_spread_and_pooling():
    scores = [
        {"val": 0.6, "test_auc2afc_matched": 0.5, "test_n_matched": 30.0},
        {"val": 0.8, "test_auc2afc_matched": 0.7, "test_n_matched": 10.0},
    ]
    lines = summarised(scores)
    assert lines["val"] == "0.700 ± 0.141 over 2 runs"
    assert lines["test_auc2afc_matched_pooled"] == "0.550 over 40 people with distractors"
    assert "test_n_matched" not in lines
