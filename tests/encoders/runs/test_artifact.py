"""Artefacts: round trips, every flipped byte refused, nothing half-written."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from encoders.runs.artifact import load_json, load_tensors, replacing, save_json, save_tensors
from encoders.runs.errors import InputError

KIND = "neurohelix.test"


def test_json_round_trip_and_every_changed_byte_is_refused(tmp_path):
    path = tmp_path / "a.json"
    save_json(path, KIND, 1, {"people": ["sub-1", "sub-2"], "blocks": {"g": (0, 3)}, "share": 0.25})
    assert load_json(path, KIND, 1) == {"people": ["sub-1", "sub-2"], "blocks": {"g": [0, 3]}, "share": 0.25}
    original = path.read_bytes()
    content = original.index(b'"content"')
    for position in range(content, len(original)):
        if original[position : position + 1].isalnum():
            damaged = bytearray(original)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(InputError):
                load_json(path, KIND, 1)


def test_tensor_round_trip_and_a_flipped_byte_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"x": np.arange(6, dtype=np.float16).reshape(2, 3), "n": np.int64(7).reshape(())}
    save_tensors(path, KIND, 1, tensors, {"ids": ["a", "b"]})
    loaded, metadata = load_tensors(path, KIND, 1)
    assert metadata == {"ids": ["a", "b"]}
    assert loaded["x"].dtype == np.float16
    np.testing.assert_array_equal(loaded["x"], tensors["x"])
    assert path.stat().st_mode & 0o777 == 0o600

    original = path.read_bytes()
    header_end = 8 + int.from_bytes(original[:8], "little")
    refused = 0
    for position in range(len(original)):
        damaged = bytearray(original)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        try:
            again, seen = load_tensors(path, KIND, 1)
        except InputError:
            refused += 1
            continue
        # a change that JSON does not see (a space for padding, say) must change nothing that is read
        assert position < header_end
        assert seen == metadata
        assert all(np.array_equal(again[name], loaded[name]) for name in loaded)
    assert refused > 0.9 * len(original)


def test_same_content_gives_the_same_bytes_in_every_process(tmp_path):
    code = (
        "import sys, numpy as np; from pathlib import Path; from encoders.runs import save_tensors\n"
        "save_tensors(Path(sys.argv[1]), 'neurohelix.test', 1, {c: np.zeros(3) for c in 'abc'}, {'k': 1, 'a': 2})"
    )
    for name in ("1", "2", "3"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert len({(tmp_path / name).read_bytes() for name in ("1", "2", "3")}) == 1


def test_other_kind_and_other_version_are_told_apart(tmp_path):
    path = tmp_path / "a.json"
    save_json(path, KIND, 2, {})
    with pytest.raises(InputError, match=r"format version 2 .* reads 1; upgrade"):
        load_json(path, KIND, 1)
    with pytest.raises(InputError, match="'neurohelix.other' was wanted"):
        load_json(path, "neurohelix.other", 2)
    with pytest.raises(InputError, match="does not exist"):
        load_json(tmp_path / "none.json", KIND, 1)


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_kill_during_writing_leaves_a_loadable_file(tmp_path):
    path = tmp_path / "a.safetensors"
    code = (
        "import sys, numpy as np; from pathlib import Path; from encoders.runs import save_tensors\n"
        "for k in range(10**6): save_tensors(Path(sys.argv[1]), 'neurohelix.test', 1, "
        "{'x': np.full(10**6, k, np.float32)}, {'k': k})"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    while not path.exists():
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    tensors, metadata = load_tensors(path, KIND, 1)
    assert (tensors["x"] == metadata["k"]).all()
