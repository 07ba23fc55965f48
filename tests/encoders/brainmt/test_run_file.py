"""Parts of a safetensors file read directly: the same as through its library; damage is one sentence."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from encoders.brainmt.run_file import RunFile
from encoders.runs.errors import InputError


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "frames": rng.standard_normal((11, 7)).astype(np.float16),
        "levels": rng.integers(-127, 128, (11, 7), dtype=np.int8),
        "mask_index": np.arange(7, dtype=np.int32),
        "scale": rng.random(7).astype(np.float32),
    }
    save_file(arrays, tmp_path / "run.safetensors", metadata={"a": "b"})
    return tmp_path / "run.safetensors"


def test_rows_are_those_of_the_library(path):
    with RunFile(path) as file:
        for name, array in load_file(path).items():
            assert name in file
            np.testing.assert_array_equal(file.rows(name), array)
            assert file.rows(name).dtype == array.dtype
            for start, count in [(0, 7), (3, 4), (6, 1), (2, 0)]:
                np.testing.assert_array_equal(file.rows(name, start, count), array[start : start + count])
        assert "offset" not in file


def test_every_cut_and_every_missing_array_is_refused(path):
    whole = path.read_bytes()
    with RunFile(path) as file, pytest.raises(InputError, match="KeyError|'nothing'"):
        file.rows("nothing")
    for length in [0, 5, 8, 60, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with (
            pytest.raises(InputError, match="cannot be read .* run prepare_fmri again"),
            RunFile(path) as file,
        ):
            for name in ("frames", "levels", "mask_index", "scale"):
                file.rows(name)
    path.write_bytes(b"<html>this is a page, not a scan</html>" * 9)
    with pytest.raises(InputError, match="cannot be read"):
        RunFile(path)
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        RunFile(path)
