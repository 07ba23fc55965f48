"""Items made in the background: the same, in order, bounded, and nothing left behind."""

import subprocess
import sys
import threading

import pytest
import torch

from encoders.brainmt.prefetch import prefetched
from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.prepare import prepare
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.windows import FMRIWindows
from encoders.runs.errors import InputError


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("ahead", [0, 1, 3, 20])
def test_items_come_in_order_whatever_is_made_ahead(ahead):
    assert list(prefetched(lambda n: n * n, range(9), ahead=ahead)) == [n * n for n in range(9)]
    assert list(prefetched(str, [], ahead=ahead)) == [] and threads() == []


def test_no_more_than_asked_for_are_made_ahead():
    taken = []

    def source():
        for n in range(10):
            taken.append(n)
            yield n

    items = prefetched(lambda n: n, source(), ahead=2)
    for n in range(5):
        assert next(items) == n and len(taken) <= n + 3
    items.close()
    assert len(taken) <= 7 and threads() == []


def test_an_error_is_raised_where_its_item_is_due_and_the_thread_ends():
    def make(n):
        if n == 3:
            raise InputError("item 3 is damaged")
        return n

    items, seen = prefetched(make, range(6), ahead=2), []
    with pytest.raises(InputError, match="item 3 is damaged"):
        for n in items:
            seen.append(n)
    assert seen == [0, 1, 2] and threads() == []


def test_the_thread_ends_when_the_caller_fails():
    with pytest.raises(ZeroDivisionError):
        for n in prefetched(lambda n: n, range(100), ahead=2):
            _ = 1 / (n - 4)
    assert threads() == []


def test_a_process_that_stops_in_the_middle_ends_normally():
    code = (
        "from encoders.brainmt.prefetch import prefetched; import time\n"
        "items = prefetched(lambda n: time.sleep(0.05) or n, range(1000), ahead=4)\n"
        "print(next(items), next(items))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0 1\n", "")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("preload", [False, True])
def test_prefetched_batches_equal_the_others_bit_for_bit(tree, tmp_path, dtype, preload):
    for i in range(4):
        tree.add(f"{i}")
    prepare(discover(tree.root), tmp_path / "store", PrepareFMRI(dtype=dtype))
    windows = FMRIWindows(
        FMRIStore(tmp_path / "store"),
        frames=11,
        targets={"sub-2": [1.5]},
        windows_per_run=2,
        training=True,
        preload=preload,
    )
    batches = [[0, 5, 3], [7], [], [2, 2]]
    for epoch in (None, 4):
        items = windows.prefetch(batches, epoch)
        windows.set_epoch(9)  # comes too late for them
        found = list(items)
        windows.set_epoch(0)
        wanted = [windows.batch(indices, epoch) for indices in batches]
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    half = windows.batch([3], dtype=torch.float16)[0]
    assert half.dtype == torch.float16
    torch.testing.assert_close(half, windows.batch([3])[0].half(), rtol=0, atol=0)


def test_a_damaged_run_is_reported_from_the_thread(tree, tmp_path):
    for i in range(3):
        tree.add(f"{i}")
    prepare(discover(tree.root), tmp_path / "store", PrepareFMRI())
    store = FMRIStore(tmp_path / "store")
    windows = FMRIWindows(store, frames=8)
    path = store.folder / store.runs[1].file
    path.write_bytes(path.read_bytes()[:3000])
    seen = []
    with pytest.raises(InputError, match="sub-1_task-rest.safetensors cannot be read"):
        for batch in windows.prefetch([[0], [1], [2]]):
            seen.append(batch)
    assert len(seen) == 1 and threads() == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu_come_from_pinned_memory_and_equal_those_on_the_cpu(tree, tmp_path):
    for i in range(3):
        tree.add(f"{i}")
    for dtype in ("float16", "int8"):
        prepare(discover(tree.root), tmp_path / dtype, PrepareFMRI(dtype=dtype))
        windows = FMRIWindows(FMRIStore(tmp_path / dtype), frames=8)
        assert windows._held(0, 0, "cuda").frames.is_pinned()
        found = [dense.cpu() for dense, _ in windows.prefetch([[0, 1], [2]], device="cuda")]
        torch.testing.assert_close(found, [windows.batch([0, 1])[0], windows.batch([2])[0]], rtol=0, atol=0)
