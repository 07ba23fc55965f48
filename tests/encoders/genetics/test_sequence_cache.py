import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from encoders.genetics.cache import ABANDONED, VectorCache

IDENTITY = {"encoder": "test", "weights_sha256": "0" * 64, "pool": "mean"}


def vectors(count, offset=0):
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3) + offset


def damage(path):
    """Flip one bit of the first vector."""
    content = bytearray(path.read_bytes())
    content[8 + int.from_bytes(content[:8], "little")] ^= 1
    path.write_bytes(content)


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
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*") if p.is_file()} == {0o600}


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
    damage(one)
    again = VectorCache(tmp_path, IDENTITY, 3)
    assert sorted(again.known(again.keys(["A", "C"])).tolist()) == [False, True]
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


def test_a_stretch_of_a_sequence_is_another_key():
    cache = VectorCache(Path("nowhere"), IDENTITY, 3, read_only=True)
    keys = cache.keys(["ACGT"] * 4, [None, (0, 2), (0, 3), (1, 3)])
    assert len(set(keys.tolist())) == 4
    assert not Path("nowhere").exists()


def test_vectors_are_read_from_disk_in_any_order(tmp_path):
    cache = VectorCache(tmp_path, IDENTITY, 3)
    names = [f"{'ACGT'[k % 4]}{k}" for k in range(200)]
    for first in range(0, 200, 2):  # more files than are kept open
        cache.add(
            names[first : first + 2], np.arange(first, first + 2, dtype=np.float32)[:, None].repeat(3, 1)
        )
    order = np.random.default_rng(0).permutation(200)
    for one in (cache, VectorCache(tmp_path, IDENTITY, 3)):
        keys = one.keys([names[k] for k in order])
        assert one.known(keys).all()
        np.testing.assert_array_equal(one.vectors(keys)[:, 0], order)
        assert (one.statistics().files, one.statistics().hits, one.statistics().misses) == (100, 200, 0)
    with pytest.raises(KeyError, match="1 of 2 sequences"):
        cache.vectors(cache.keys(["A0", "unheard"]))


def test_the_size_limit_removes_what_was_used_longest_ago_and_nothing_of_this_run(tmp_path):
    with VectorCache(tmp_path, IDENTITY | {"pool": "last"}, 3) as other:
        other.add(["A"], vectors(1))
        other.add(["C"], vectors(1))
    paths = sorted(other.folder.iterdir())
    for age, path in zip((500, 1000), paths, strict=True):
        os.utime(path, (time.time() - age,) * 2)
    with VectorCache(tmp_path, IDENTITY, 3) as cache:
        cache.add(["A"], vectors(1))
        size = cache.statistics().num_bytes / 3
        assert cache.trim(2.5 * size).startswith("1 files (")
        assert [path.exists() for path in paths] == [True, False]  # the older of the two
        assert cache.get("A") is not None
        words = cache.trim(0)
        assert "1 files (" in words and "this run's own" in words and "stay, above the limit" in words
        assert not paths[0].exists()
        assert cache.get("A") is not None
    with VectorCache(tmp_path, IDENTITY, 3) as later:
        assert later.trim(0).startswith("1 files (")  # not used by this run
        assert later.statistics().files == 0


def test_nothing_is_removed_while_another_run_uses_the_folder(tmp_path):
    with VectorCache(tmp_path, IDENTITY, 3) as cache:
        cache.add(["A"], vectors(1))
    with VectorCache(tmp_path, IDENTITY, 3) as reader, VectorCache(tmp_path, IDENTITY, 3) as writer:
        assert "another run uses the folder" in writer.trim(0)
        assert reader.get("A") is not None


def test_reading_only_changes_nothing(tmp_path):
    with VectorCache(tmp_path, IDENTITY, 3) as cache:
        cache.add(["A"], vectors(1))
        cache.add(["C"], vectors(1))
    paths = sorted(cache.folder.iterdir())
    damage(paths[0])
    for path in paths:
        os.utime(path, (1e9, 1e9))
    with VectorCache(tmp_path, IDENTITY, 3, read_only=True) as cache:
        assert cache.known(cache.keys(["A", "C"])).sum() == 1
        assert cache.statistics().misses == 1
    assert [path.stat().st_mtime for path in paths] == [1e9, 1e9]


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
    assert cache.known(cache.keys([f"{base}{k}" for k in range(60) for base in "AC"])).all()
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
    assert len(cache) > 2
    assert cache.known(cache.keys([f"A{k}" for k in range(len(cache) // 2)])).all()
    assert cache.damaged == []
