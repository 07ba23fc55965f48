"""The table of people: ids as text, names of several conventions, one sentence per mistake."""

import pytest

from encoders.cohort import Cohort
from encoders.runs.errors import InputError


def _write(tmp_path, text):
    path = tmp_path / "participants.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def test_ids_stay_text_and_columns_get_their_names(tmp_path):
    path = _write(
        tmp_path,
        "eid,Age,Sex,imaging_site,PC1,motion_FD,note\n007,61.5,F,11025,0.1,0.2,\n7,n/a,M,11026,0,0.1,x\n",
    )
    cohort = Cohort.load(path)
    assert cohort.ids == ["007", "7"]
    assert list(cohort.frame.columns) == ["age", "sex", "site", "pcs_1", "mean_fd", "note"]
    assert list(cohort.column("site")) == ["11025", "11026"]  # a code, not a number
    assert cohort.column("age").isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("participant_id\tage\nsub-1\t3\nsub-1\t4\n", r"'sub-1' on lines 2, 3; keep one line per person"),
        ("participant_id\tage\n\t3\n", "line 2 has an empty subject id"),
        ("name\tage\nx\t3\n", "has no id column"),
        ("participant_id\tage\nsub-1\told\n", "column 'age' holds 'old', a number was wanted"),
        ("participant_id\tage\nsub-1\n", "line 2 has 1 cells, the header 2"),
        ("participant_id\tage\n", "has no rows"),
        ("participant_id\tage\tage\nsub-1\t1\t2\n", "column 'age' appears twice"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, text, told):
    with pytest.raises(InputError, match=told):
        Cohort.load(_write(tmp_path, text))


def test_unknown_column_lists_the_known_ones(tmp_path):
    cohort = Cohort.load(_write(tmp_path, "participant_id\tage\nsub-1\t3\n"))
    with pytest.raises(InputError, match="no column 'trait_1'; it has: age"):
        cohort.column("trait_1")
