"""Columns of a confounds table: dummies, names and patterns, what is missing."""

import numpy as np
import pytest

from encoders.brainmt.preparation.confound_columns import (
    STRATEGIES,
    marked_dummies,
    read_columns,
    regressors_of,
)
from encoders.brainmt.preparation.quarantine import ScanRefused

TABLE = """trans_x\ttrans_x_derivative1\tcsf\twhite_matter\tcosine00\tbad\tnote
0.5\tn/a\t1\t2\t1\t1\tstart
0.6\t0.1\t1\t2\t0\tn/a\tend
0.8\t0.2\t3\t2\t-1\t1\tend
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "sub-1_desc-confounds_timeseries.tsv"
    path.write_text(TABLE)
    return path


def test_names_patterns_and_named_sets_choose_columns_once_each(table):
    columns = read_columns(table, 3)
    names, chosen = regressors_of(columns, ["trans_x*", "wm_csf", "csf", "cosine"], table)
    assert names == ["trans_x", "trans_x_derivative1", "csf", "white_matter", "cosine00"]
    np.testing.assert_array_equal(chosen[:, 1], [0.1, 0.1, 0.2])  # the first derivative is the second one
    np.testing.assert_array_equal(chosen[:, 0], [0.5, 0.6, 0.8])
    assert regressors_of(columns, [], table) == ([], None)
    assert len(STRATEGIES["motion24"]) == 24


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            ["trans_x", "trans_y", "a_comp_cor_*"],
            "lacks 2 of the columns to regress out: trans_y, a_comp_cor_",
        ),
        (["motion6"], "lacks 5 of the columns"),
        (["bad"], "missing or infinite values in bad"),
        (["note"], "missing or infinite values in note"),
    ],
)
def test_columns_that_are_not_there_are_refused_by_name(table, wanted, words):
    with pytest.raises(ScanRefused, match=f"E_CONFOUNDS: {table.name} .*{words}"):
        regressors_of(read_columns(table, 3), wanted, table)


def test_a_scan_without_a_table_is_refused_where_one_is_needed():
    with pytest.raises(ScanRefused, match="E_CONFOUNDS: no confounds table lies beside it, but motion6"):
        regressors_of({}, ["motion6"], None)


def test_a_short_scan_without_cosines_has_none(table):
    columns = {name: column for name, column in read_columns(table, 3).items() if name != "cosine00"}
    assert regressors_of(columns, ["csf", "cosine"], table)[0] == ["csf"]
    assert regressors_of(columns, ["cosine"], table) == ([], None)


@pytest.mark.parametrize(
    ("text", "words"),
    [(TABLE + "1\t2\n", "differ in length"), ("", "cannot be read"), (TABLE, "has 3 rows for 4 frames")],
)
def test_a_table_that_does_not_fit_is_refused(table, text, words):
    table.write_text(text)
    with pytest.raises(ScanRefused, match=f"E_CONFOUNDS: .*{words}"):
        read_columns(table, 4)


def test_dummies_reach_to_the_last_mark():
    marks = np.eye(6)
    assert (
        marked_dummies({"non_steady_state_outlier00": marks[0], "non_steady_state_outlier01": marks[1]}) == 2
    )
    assert marked_dummies({"motion_outlier00": marks[3]}) == 0
