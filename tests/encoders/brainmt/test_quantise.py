"""int8 frames: how large the error is, and that every reader gets numbers."""

import re

import numpy as np
import pytest
import torch

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.prepare import prepare
from encoders.brainmt.preparation.series import normalise
from encoders.brainmt.quantise import QuantisedFrames, dequantise
from encoders.brainmt.store import FMRIStore, describe_run
from encoders.brainmt.windows import FMRIWindows
from encoders.runs.errors import InputError


def scan(frames=490, voxels=3000, seed=0):
    """(T, V) float32 in scanner units: anatomy, some 1.5 % noise over time, one voxel without signal."""
    rng = np.random.default_rng(seed)
    anatomy = rng.normal(10_000, 2_000, voxels)
    values = anatomy * (1 + 0.015 * rng.standard_normal((frames, voxels)))
    values[:, 7] = 812
    return values.astype(np.float32)


@pytest.mark.parametrize("how", ["global", "voxel"])
def test_the_error_is_below_one_percent_of_the_signal_over_time_and_recorded(how):
    values = scan()
    held = QuantisedFrames(values.shape)
    frames, *_ = normalise(values, how, into=held)
    assert frames.dtype == np.int8 and frames.min() == -127 and frames.max() == 127
    exact = values.astype(np.float64)
    exact -= exact.mean(axis=0)
    read = dequantise(frames, **held.scaling).astype(np.float64)
    read -= read.mean(axis=0)
    alive = np.arange(values.shape[1]) != 7
    exact = exact[:, alive] / exact[:, alive].std(axis=0)
    error = (read[:, alive] / read[:, alive].std(axis=0) - exact).std(axis=0)
    recorded = held.record["quantisation_error"]
    assert (
        recorded["median"] == pytest.approx(np.median(error), rel=0.05) and 0.006 < recorded["median"] < 0.008
    )
    assert recorded["p99"] == pytest.approx(np.percentile(error, 99), rel=0.05) and recorded["p99"] < 0.009
    assert held.record["dtype"] == "int8" and not read[:, 7].any()


def test_blocks_do_not_change_the_levels():
    part = np.random.default_rng(1).standard_normal((20, 9)).astype(np.float32)
    whole, pieces = QuantisedFrames(part.shape), QuantisedFrames(part.shape)
    whole.put(slice(0, 9), part)
    for block in (slice(0, 4), slice(4, 5), slice(5, 9)):
        pieces.put(block, part[:, block])
    np.testing.assert_array_equal(whole.frames, pieces.frames)
    np.testing.assert_array_equal(whole.scale, pieces.scale)
    np.testing.assert_allclose(dequantise(whole.frames, whole.scale, whole.offset), part, atol=0.02)


@pytest.fixture
def stores(tree, tmp_path):
    """dtype -> the store of the same three scans."""
    for i in range(3):
        tree.add(f"{i}")
    for dtype in ("float16", "int8"):
        prepare(discover(tree.root), tmp_path / dtype, PrepareFMRI(dtype=dtype))
    return {dtype: FMRIStore(tmp_path / dtype) for dtype in ("float16", "int8")}


def test_every_reader_of_an_int8_store_gives_numbers(stores):
    exact, small = stores["float16"], stores["int8"]
    small.verify_all()
    for run, twin in zip(small.runs, exact.runs, strict=True):
        frames = small.load(run)
        assert frames.dtype == np.float32 and exact.load(twin).dtype == np.float16
        np.testing.assert_allclose(frames, exact.load(twin).astype("f4"), atol=0.02)
        np.testing.assert_array_equal(small.load(run, 7, 12), frames[7:19])
        np.testing.assert_array_equal(small.window(run, 7, 12)[0], frames[7:19])
        tensors, metadata = small.read(run)
        np.testing.assert_array_equal(tensors["frames"], frames)
        assert {"scale", "offset"}.isdisjoint(tensors) and metadata["dtype"] == "int8"
        assert 0 < metadata["quantisation_error"]["median"] < metadata["quantisation_error"]["p99"] < 0.02
        assert small.stored(run, 7, 12).frames.dtype == small.read_stored(run).frames.dtype == np.int8
        for name in ("mask_index", "mean", "sd"):
            np.testing.assert_array_equal(tensors[name], exact.read(twin)[0][name])


def test_int8_becomes_numbers_after_it_is_moved_and_they_are_the_same(stores):
    store = stores["int8"]
    for preload in (False, True):
        windows = FMRIWindows(store, frames=9, windows_per_run=2, preload=preload)
        assert windows._held(3, 0, "cpu").frames.dtype == torch.int8
        dense, _ = windows.batch([3])
        frames, mask_index = windows.masked(3)
        start = windows.start_of(3)
        np.testing.assert_array_equal(frames, store.load(store.runs[1], start, 9))
        inside = dense[0, :, 0].permute(0, 2, 1, 3).reshape(9, -1)[:, mask_index.long()]
        torch.testing.assert_close(inside, frames, rtol=0, atol=0)


def test_the_levels_take_half_the_bytes(stores):
    sizes = {dtype: store.manifest["runs"][0]["bytes"] for dtype, store in stores.items()}
    run = stores["int8"].runs[0]
    saved = run.frames * run.voxels - 2 * 4 * run.voxels
    assert sizes["float16"] - sizes["int8"] == pytest.approx(saved, abs=400)  # 400: the header


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_run_says_what_it_is_and_how_it_was_made(stores, dtype):
    store = stores[dtype]
    run = store.runs[0]
    tensors, metadata = store.read(run)
    described = describe_run(store.folder / run.file)
    listed = store.manifest["runs"][0]
    assert np.shape(metadata["affine"]) == (4, 4) and metadata["grid"] == [5, 7, 6] and metadata["tr"] == 2.0
    for name in ("mask_sha256", "source_sha256", "options_sha256"):
        assert re.fullmatch("[0-9a-f]{64}", metadata[name]) and listed[name] == metadata[name]
    assert metadata["normalisation"] == "global" and metadata["dtype"] == listed["dtype"] == dtype
    assert described["sha256"] == listed["sha256"] == run.sha256
    assert listed["options_sha256"] == store.manifest["options_sha256"]
    assert tensors["mean"].shape == tensors["sd"].shape == (run.voxels,)
    assert listed["tsnr"] == pytest.approx(np.median(tensors["mean"] / tensors["sd"]), abs=1e-3)


def test_a_store_of_another_format_is_refused_with_advice(stores):
    path = stores["int8"].folder / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 1'))
    with pytest.raises(InputError, match="format version 1 .*, this release reads 2; rebuild it"):
        FMRIStore(path)
