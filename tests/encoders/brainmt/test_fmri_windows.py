"""Windows for the model: axes, background, where they start, batches."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.prepare import prepare
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.windows import FMRIWindows, Held, _place, model_order, scatter
from encoders.runs.errors import InputError


@pytest.fixture
def store(tree, tmp_path):
    for i in range(4):
        tree.add(f"{i}", frames=36 + i)
    prepare(discover(tree.root), tmp_path / "store", PrepareFMRI())
    return FMRIStore(tmp_path / "store")


def test_scatter_puts_every_voxel_where_the_model_expects_it():
    x, y, z, frames = 3, 5, 4, 2
    mask = np.random.default_rng(0).random((x, y, z)) < 0.5
    values = torch.arange(1.0, frames * mask.sum() + 1).reshape(frames, -1)
    dense = scatter(values, torch.from_numpy(np.flatnonzero(mask)), grid=(x, y, z), background=-7.0)
    assert dense.shape == (frames, 1, y, x, z) and dense.dtype == torch.float32
    for t in range(frames):
        column = 0
        for i, j, k in np.ndindex(x, y, z):
            expected = float(values[t, column]) if mask[i, j, k] else -7.0
            assert dense[t, 0, j, i, k] == expected
            column += mask[i, j, k]


def test_scatter_fills_what_it_is_given():
    out = torch.full((2, 1, 2, 2, 2), torch.nan)
    made = scatter(
        torch.ones(2, 1, dtype=torch.float16), torch.tensor([3]), grid=(2, 2, 2), background=0.5, out=out
    )
    assert made.data_ptr() == out.data_ptr() and out.sum() == 2 * (7 * 0.5 + 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_large_grids_are_filled_as_small_ones_are(dtype):
    rng = np.random.default_rng(0)
    for grid in [(65, 70, 64), (5, 7, 6)]:
        mask_index = torch.from_numpy(np.flatnonzero(rng.random(grid) < 0.3))
        number = len(mask_index)
        levels = torch.from_numpy(rng.integers(-127, 128, (3, number), dtype=np.int8))
        numbers = torch.from_numpy(rng.standard_normal((3, number)).astype(np.float16))
        scale, offset = torch.rand(number), torch.rand(number)
        order = model_order(mask_index, grid)
        for held, values in [
            (Held(numbers, order), numbers),
            (Held(levels, order, scale, offset), levels.to(torch.float32) * scale + offset),
        ]:
            wanted = torch.full((3, *grid), -1.5, dtype=dtype)
            wanted.view(3, -1)[:, mask_index] = values.to(dtype)
            found = torch.empty(3, 1, grid[1], grid[0], grid[2], dtype=dtype)
            _place(held, -1.5, found)
            torch.testing.assert_close(found[:, 0].transpose(1, 2), wanted, rtol=0, atol=0)


def test_an_item_is_the_normalised_scan(store, build):
    windows = FMRIWindows(store, frames=12, targets={"sub-1": [1, 2.5]})
    dense, targets = windows[1]
    data = build.bold(sum(map(ord, "sub-1_task-rest")), 37).astype("f8")
    values = data[build.brain()]
    normal = np.moveaxis((data - values.mean()) / values.std(), 3, 0)[12:24]  # the middle of 37 frames
    background = store.runs[1].background
    normal = np.where(build.brain(), normal, background).transpose(0, 2, 1, 3)[:, None]
    np.testing.assert_allclose(dense, normal, atol=2e-3)
    assert targets.tolist() == [1.0, 2.5]
    assert windows[0][1].isnan().all()


def test_training_windows_depend_on_seed_epoch_and_index_alone(store):
    windows = FMRIWindows(store, frames=12, training=True, windows_per_run=3, seed=5)
    twin = FMRIWindows(store, frames=12, training=True, windows_per_run=3, seed=5)
    starts = [[windows.start_of(i, epoch) for i in range(12)] for epoch in range(30)]
    assert starts == [[twin.start_of(i, epoch) for i in reversed(range(12))][::-1] for epoch in range(30)]
    assert starts[0] != starts[1]
    assert starts[0] != [
        FMRIWindows(store, frames=12, training=True, windows_per_run=3, seed=6).start_of(i, 0)
        for i in range(12)
    ]
    assert {epoch[0] for epoch in starts} > {0} and max(max(epoch) for epoch in starts) <= 39 - 12
    windows.set_epoch(7)
    assert windows.start_of(4) == starts[7][4]
    assert len({epoch[11] for epoch in starts}) > 10


def test_evaluation_windows_are_evenly_spaced_and_never_change(store):
    windows = FMRIWindows(store, frames=12, windows_per_run=4)
    assert [windows.start_of(i) for i in range(4)] == [0, 8, 16, 24]
    windows.set_epoch(9)
    assert [windows.start_of(i) for i in range(4)] == [0, 8, 16, 24]
    assert [windows.run_of(i).subject for i in (0, 3, 4, 15)] == ["sub-0", "sub-0", "sub-1", "sub-3"]
    assert len(windows) == 16
    with pytest.raises(IndexError):
        windows[16]


def test_no_window_spans_a_gap(tree, tmp_path, build):
    data = build.bold(1)
    data[..., 25] = 0
    tree.add("0", data=data)
    prepare(discover(tree.root), tmp_path / "store", PrepareFMRI(max_constant_frames=0.1))
    store = FMRIStore(tmp_path / "store")
    windows = FMRIWindows(store, frames=10, training=True)
    starts = {windows.start_of(0, epoch) for epoch in range(300)}
    assert starts == {*range(16), *range(25, 30)}
    with pytest.raises(InputError, match="1 of 1 runs are shorter than a window of 26 frames"):
        FMRIWindows(store, frames=26)


def test_batches_equal_items_in_memory_or_not(store):
    targets = {"sub-0": np.array([0.5]), "sub-3": np.array([np.nan])}
    lazy, eager = (
        FMRIWindows(store, frames=9, training=True, windows_per_run=2, targets=targets, preload=preload)
        for preload in (False, True)
    )
    for epoch in (0, 3):
        for windows in (lazy, eager):
            windows.set_epoch(epoch)
        x, y = eager.batch([6, 0, 3], epoch)
        assert x.shape == (3, 9, 1, 7, 5, 6)
        for row, index in enumerate([6, 0, 3]):
            for dense, target in (lazy[index], eager[index]):
                torch.testing.assert_close(dense, x[row], rtol=0, atol=0)
                torch.testing.assert_close(target, y[row], rtol=0, atol=0, equal_nan=True)
    frames, mask_index = eager.masked(6, 3)
    assert frames.dtype == torch.float16 and frames.shape == (9, len(mask_index))


def test_a_data_loader_with_or_without_workers_gives_the_same_items(store):
    windows = FMRIWindows(store, frames=8, targets={"sub-1": [0.5]})
    for workers in (0, 2):
        found = list(DataLoader(windows, batch_size=3, num_workers=workers))
        assert [x.shape for x, _ in found] == [(3, 8, 1, 7, 5, 6), (1, 8, 1, 7, 5, 6)]
        for (x, y), indices in zip(found, ([0, 1, 2], [3]), strict=True):
            wanted = windows.batch(indices)
            torch.testing.assert_close((x, y), wanted, rtol=0, atol=0, equal_nan=True)


def test_people_can_be_chosen_and_the_missing_are_listed(store):
    windows = FMRIWindows(store, frames=8, subjects=["sub-2", "sub-9", "sub-0"])
    assert [run.subject for run in windows.runs] == ["sub-0", "sub-2"] and windows.missing == ["sub-9"]
    with pytest.raises(InputError, match="none of the 1 people asked for has a run"):
        FMRIWindows(store, frames=8, subjects=["sub-9"])


def test_runs_shorter_than_the_window_are_counted_with_advice(store):
    with pytest.raises(
        InputError, match="2 of 4 runs are shorter than a window of 38 frames, e.g. sub-0"
    ) as caught:
        FMRIWindows(store, frames=38)
    assert "lower the window to 36 frames" in str(caught.value) and "--min_frames=38" in str(caught.value)


def test_nonsense_is_refused(store):
    with pytest.raises(InputError, match="0 windows of 8 frames"):
        FMRIWindows(store, frames=8, windows_per_run=0)
    with pytest.raises(InputError, match=r"\[1, 2\] numbers per person"):
        FMRIWindows(store, frames=8, targets={"sub-0": [1.0], "sub-1": [1.0, 2.0]})


def test_preloading_checks_the_hashes(store):
    path = store.folder / store.runs[2].file
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(damaged)
    FMRIWindows(store, frames=8)
    with pytest.raises(InputError, match="E_HASH"):
        FMRIWindows(store, frames=8, preload=True)
