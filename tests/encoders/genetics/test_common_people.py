import pytest

from encoders.genetics.common_people import near_misses, nobody_in_common


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("7", "007"),
        ("sub-12", "12"),
        ("HG00096", "hg00096"),
        ("1234567", "1234567.0"),
        ("x1", "x1_x1"),
        ("A-1", "A1"),
    ],
)
def test_ids_that_differ_by_their_spelling_only_are_near(one, other):
    assert near_misses([one, "z"], ["y", other]) == {one: other}
    assert near_misses([other], [one]) == {other: one}


@pytest.mark.parametrize(("one", "other"), [("7", "70"), ("12", "21"), ("x1_x2", "x1"), ("HG1", "NA1")])
def test_other_ids_are_not(one, other):
    assert near_misses([one], [other]) == {}


def test_nobody_in_common_names_near_misses_and_what_to_do():
    text = str(nobody_in_common(["sub-1"], ["sub-01"], "samples of c.pgen", "rename one side"))
    assert text.startswith("E_SAMPLE: none of the 1 people of the table is among the 1 samples of c.pgen")
    assert "'sub-1' and 'sub-01'" in text and text.endswith("rename one side")
