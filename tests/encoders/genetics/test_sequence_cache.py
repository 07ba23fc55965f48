import os
import signal
import stat
import subprocess
import sys
import time

import numpy as np

from encoders.genetics.cache import ABANDONED, VectorCache

IDENTITY = {"encoder": "test", "weights_sha256": "0" * 64, "pool": "mean"}


def vectors(count, offset=0):
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3) + offset


def test_what_was_added_is_found_again(tmp_path):
    cache = VectorCache(tmp_path, IDENTITY, 3)
    assert cache.get("ACGT") is None
    cache.add(["ACGT", "ACG"], vectors(2))
    cache.add(["T"], vectors(1, 50))
    again = VectorCache(tmp_path, IDENTITY, 3)
    assert len(again) == 3
    np.testing.assert_array_equal(again.get("ACG"), [3, 4, 5])
    np.testing.assert_array_equal(again.get("T"), [50, 51, 52])
    assert again.get("acgt") is None  # exact bases
    assert {stat.S_IMODE(p.stat().st_mode) for p in again.folder.iterdir()} == {0o600}


def test_other_encoders_do_not_meet(tmp_path):
    VectorCache(tmp_path, IDENTITY, 3).add(["ACGT"], vectors(1))
    for change in ({"weights_sha256": "1" * 64}, {"pool": "last"}, {"tokens": "other"}):
        other = VectorCache(tmp_path, IDENTITY | change, 3)
        assert len(other) == 0
        assert other.key("ACGT") != VectorCache(tmp_path, IDENTITY, 3).key("ACGT")


def test_damaged_and_foreign_files_are_dropped_and_named(tmp_path):
    cache = VectorCache(tmp_path, IDENTITY, 3)
    cache.add(["A"], vectors(1))
    cache.add(["C"], vectors(1, 7))
    one, two = sorted(cache.folder.iterdir())
    content = bytearray(one.read_bytes())
    content[-2] ^= 1
    one.write_bytes(content)
    again = VectorCache(tmp_path, IDENTITY, 3)
    assert again.damaged == [one]
    assert not one.exists() and two.exists()
    assert len(again) == 1
    elsewhere = VectorCache(tmp_path, IDENTITY | {"pool": "last"}, 3)
    elsewhere.add(["A"], vectors(1))
    os.replace(next(elsewhere.folder.iterdir()), cache.folder / "moved.safetensors")
    assert VectorCache(tmp_path, IDENTITY, 3).damaged == [cache.folder / "moved.safetensors"]


def test_temporary_files_of_killed_writers_are_swept_after_a_day(tmp_path):
    cache = VectorCache(tmp_path, IDENTITY, 3)
    cache.add(["A"], vectors(1))
    old, young = cache.folder / ".x.1.tmp", cache.folder / ".x.2.tmp"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (time.time() - ABANDONED - 60,) * 2)
    assert len(VectorCache(tmp_path, IDENTITY, 3)) == 1
    assert young.exists() and not old.exists()


WRITER = """
import sys
from pathlib import Path
import numpy as np
from encoders.genetics.cache import VectorCache
cache = VectorCache(Path(sys.argv[1]), {"encoder": "test", "weights_sha256": "0" * 64, "pool": "mean"}, 3)
print("ready", flush=True)
for batch in range(int(sys.argv[2])):
    names = [f"A{batch}", f"C{batch}"]
    cache.add(names, np.full((2, 3), batch, np.float32))
"""


def start(folder, batches):
    command = [sys.executable, "-c", WRITER, str(folder), str(batches)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_writers_at_once_corrupt_nothing(tmp_path):
    writers = [start(tmp_path, 60), start(tmp_path, 60)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    cache = VectorCache(tmp_path, IDENTITY, 3)
    assert cache.damaged == []
    assert len(cache) == 120
    assert all((cache.get(f"{base}{k}") == k).all() for k in range(60) for base in "AC")


def test_a_killed_writer_leaves_whole_files_only(tmp_path):
    writer = start(tmp_path, 100_000)
    assert writer.stdout.readline() == "ready\n"
    time.sleep(0.2)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(timeout=60)
    cache = VectorCache(tmp_path, IDENTITY, 3)
    assert cache.damaged == []
    assert len(cache) > 2
