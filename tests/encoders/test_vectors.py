"""SubjectVectors: round trip, damage, wrong content."""

import numpy as np
import pytest

from encoders.runs.errors import InputError
from encoders.vectors import SubjectVectors


def _vectors(**changes):
    given = {
        "ids": ["sub-1", "007", "é"],
        "values": np.arange(12, dtype=np.float32).reshape(3, 4),
        "blocks": {"GENE1": (0, 3), "GENE2": (3, 4)},
        "provenance": {"encoder": "x", "trained_on": None},
    }
    return SubjectVectors(**(given | changes))


def test_round_trip_keeps_everything(tmp_path):
    path = tmp_path / "v.safetensors"
    _vectors().save(path)
    loaded = SubjectVectors.load(path)
    assert loaded.ids == ["sub-1", "007", "é"]
    assert loaded.blocks == {"GENE1": (0, 3), "GENE2": (3, 4)}
    assert loaded.provenance == {"encoder": "x", "trained_on": None}
    np.testing.assert_array_equal(loaded.values, _vectors().values)
    np.testing.assert_array_equal(loaded.select(["é", "sub-1"]), _vectors().values[[2, 0]])


def test_a_flipped_bit_in_the_payload_is_refused(tmp_path):
    path = tmp_path / "v.safetensors"
    _vectors().save(path)
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="E_HASH.*is damaged"):
        SubjectVectors.load(path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ids": ["a", "b"]}, "2 ids do not fit vectors of shape"),
        ({"ids": ["a", "b", "a"]}, "1 subject ids appear twice"),
        ({"values": np.full((3, 4), np.nan, np.float32)}, "3 of 3 subject vectors hold NaN"),
    ],
)
def test_wrong_content_is_one_sentence(changes, told):
    with pytest.raises(InputError, match=told):
        _vectors(**changes)


def test_missing_people_are_named():
    with pytest.raises(InputError, match="1 people have no vector, e.g. \\['7'\\]"):
        _vectors().select(["sub-1", "7"])
