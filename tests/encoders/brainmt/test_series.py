"""From a scan to its in-mask series: masks, broken voxels and frames, normalisation, orientation."""

import nibabel as nib
import numpy as np
import pytest

from encoders.brainmt.config import PrepareFMRI
from encoders.brainmt.discover import discover
from encoders.brainmt.mask import compute_mask
from encoders.brainmt.quarantine import ScanRefused
from encoders.brainmt.series import normalise, read_series, segments


@pytest.fixture
def series(tree):
    """Add one scan, read it with options."""

    def series(options=None, **scan):
        tree.add("01", **scan)
        return read_series(discover(tree.root).scans[0], PrepareFMRI(**(options or {})))

    return series


def masked(build, data):
    """(T, V) of the voxels inside the brain, float64."""
    return data[build.brain()].T.astype(np.float64)


def test_global_is_one_mean_and_deviation_for_the_whole_scan(series, build):
    data = build.bold(3)
    made, values = series({"background": "minimum"}, data=data), masked(build, build.bold(3))
    expected = (values - values.mean()) / values.std()
    np.testing.assert_allclose(made.frames, expected, atol=2e-3)
    assert made.metadata["background"] == float(made.frames.min()) < -1
    assert series(data=data).metadata["background"] == 0
    np.testing.assert_array_equal(made.mask_index, np.flatnonzero(build.brain()))
    np.testing.assert_allclose(made.mean, values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(made.sd, values.std(axis=0), rtol=1e-5)
    assert made.metadata["global_sd"] == pytest.approx(values.std())


def test_voxel_is_each_voxel_over_time(series, build):
    made = series({"normalisation": "voxel"}, data=build.bold(3))
    np.testing.assert_allclose(made.frames.astype("f8").mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(made.frames.astype("f8").std(axis=0), 1, atol=1e-3)
    assert made.metadata["background"] == 0


def test_blocks_of_voxels_do_not_change_the_numbers(monkeypatch):
    values = np.random.default_rng(0).normal(1e4, 50, (30, 400)).astype("f4")
    whole = [normalise(values, how) for how in ("global", "voxel")]
    monkeypatch.setattr("encoders.brainmt.series.BLOCK", 37)
    for one, how in zip(whole, ("global", "voxel"), strict=True):
        for ours, theirs in zip(one[:3], normalise(values, how)[:3], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_scanner_units_follow_the_scaling_of_the_header(series, build):
    made = series(data=build.bold(3), slope=2.0, intercept=-100.0)
    np.testing.assert_allclose(made.mean, masked(build, build.bold(3)).mean(axis=0) * 2 - 100, rtol=1e-6)


def test_constant_voxels_become_0_and_are_counted(series, build):
    data = build.bold(3)
    data[2, 3, 2] = data[2, 3, 2, 0]
    data[2, 3, 3] = 0
    made = series(data=data)
    column = [
        np.flatnonzero(made.mask_index == np.ravel_multi_index((2, 3, z), build.GRID))[0] for z in (2, 3)
    ]
    assert made.metadata["constant_voxels"] == 2
    assert (made.frames[:, column] == 0).all() and (made.sd[column] == 0).all()
    alive = np.delete(masked(build, data), column, axis=1)
    assert made.metadata["global_sd"] == pytest.approx(alive.std())
    assert np.isfinite(made.frames).all()


def test_few_nan_voxels_become_0_and_many_are_refused(series, build):
    data = build.bold(3).astype("f4")
    data[2, 3, 2, 5] = np.nan
    data[2, 3, 3, 7] = np.inf
    made = series({"max_nan": 0.05}, data=data)
    assert made.metadata["nan_voxels"] == 2 and made.metadata["constant_voxels"] == 0
    assert np.isfinite(made.frames).all() and (made.frames == 0).all(axis=0).sum() == 2
    with pytest.raises(ScanRefused, match="E_NAN: 2 of .* mask voxels"):
        series(data=data)


def test_a_constant_frame_is_dropped_and_no_segment_spans_the_gap(series, build):
    data = build.bold(3)
    data[..., 12] = 0
    made = series({"max_constant_frames": 0.05}, data=data)
    assert made.metadata["dropped_frames"] == [12]
    assert made.metadata["segments"] == [[0, 12], [12, 39]] and made.frames.shape[0] == 39
    values = np.delete(masked(build, data), 12, axis=0)
    np.testing.assert_allclose(made.frames, (values - values.mean()) / values.std(), atol=2e-3)
    with pytest.raises(ScanRefused, match="E_CONSTANT: 1 of 40 frames"):
        series(data=data)
    with pytest.raises(ScanRefused, match="E_FRAMES: it has 39 frames, at least 40"):
        series({"max_constant_frames": 0.05, "min_frames": 40}, data=data)


def test_segments():
    assert segments(np.arange(5)) == [[0, 5]]
    assert segments(np.array([1, 2, 4, 7, 8])) == [[0, 2], [2, 3], [3, 5]]


def test_a_scan_that_never_changes_is_refused(series, build):
    data = np.repeat(build.bold(3)[..., :1], 40, axis=3)
    with pytest.raises(ScanRefused, match="E_CONSTANT: no mask voxel changes"):
        series(data=data)


def test_an_image_without_contrast_has_no_brain(series, build):
    with pytest.raises(ScanRefused, match="E_CONSTANT: it holds 7 everywhere"):
        series(data=np.full((*build.GRID, 40), 7, "i2"), mask=np.zeros(build.GRID, bool))


def test_too_few_frames_and_slabs_are_refused(series, build):
    with pytest.raises(ScanRefused, match="E_FRAMES: it has 5 frames, at least 32"):
        series(data=build.bold(3, frames=5))
    slab = build.brain()
    slab[:, :, 2:] = False
    with pytest.raises(ScanRefused, match=r"E_COVERAGE.* reaches over 72 x 120 x 48 mm"):
        series(data=build.bold(3), mask=slab)
    cut = build.bold(3)
    cut[:, :, 4:] = 0
    with pytest.raises(ScanRefused, match=r"E_COVERAGE: only .*% of its .* mask voxels vary"):
        series(data=cut)


def test_a_mask_on_another_grid_or_damaged_is_refused(series, build):
    moved = build.AFFINE.copy()
    moved[0, 3] += 24
    with pytest.raises(ScanRefused, match="E_SPACE: its brain mask .* another grid"):
        series(mask=build.pack(build.nifti(build.brain().astype("u1"), affine=moved)))
    with pytest.raises(ScanRefused, match="E_TRUNCATED: its brain mask .*brain_mask.nii.gz"):
        series(mask=build.pack(build.nifti(build.brain().astype("u1")))[:-9])


def test_without_a_mask_file_one_is_computed(series, build):
    made = series(mask=np.zeros(build.GRID, bool))
    assert made.metadata["mask"] == "computed"
    np.testing.assert_array_equal(made.mask_index, np.flatnonzero(build.brain()))


def test_a_mask_is_found_in_an_image_with_noise_around_the_brain():
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1.3, 1.3, n) for n in (20, 24, 19)], indexing="ij")
    brain = sum(axis**2 for axis in axes) <= 1
    image = np.where(brain, 1000.0, 40.0) + 20 * rng.standard_normal(brain.shape)
    image[10, 12, 9] = 0.0  # a hole
    image[0, 0, 0] = 900.0  # a speck
    np.testing.assert_array_equal(compute_mask(image), brain)


def test_one_head_in_48_orientations_gives_the_same_bytes(tree, build):
    data, mask, made = build.bold(5).astype("f4") * 1.1, build.brain().astype("u1"), []
    stored_masks = {name: stored for name, stored, _ in build.orientations(mask)}
    for name, stored, affine in build.orientations(data):
        tree.add("01", data=stored, mask=stored_masks[name], affine=affine)
        made.append(read_series(discover(tree.root).scans[0], PrepareFMRI()))
    assert len({one.metadata["orientation"] for one in made}) == 48
    for one in made:
        for name, array in made[0].tensors.items():
            np.testing.assert_array_equal(one.tensors[name], array)
        same = {**made[0].metadata, "orientation": "", "source_sha256": ""}
        assert {**one.metadata, "orientation": "", "source_sha256": ""} == same
    np.testing.assert_allclose(made[0].mean, data[build.brain()].mean(axis=1), rtol=1e-6)


def test_the_mask_may_be_stored_in_another_orientation_than_the_scan(tree, build):
    tree.add("01", data=build.bold(3))
    straight = read_series(discover(tree.root).scans[0], PrepareFMRI())
    lps = nib.orientations.axcodes2ornt("LPS")
    affine = build.AFFINE @ nib.orientations.inv_ornt_aff(lps, build.GRID)
    stored = nib.apply_orientation(build.brain().astype("u1"), lps)
    tree.add("01", data=build.bold(3), mask=build.pack(build.nifti(stored, affine=affine)))
    np.testing.assert_array_equal(
        read_series(discover(tree.root).scans[0], PrepareFMRI()).frames, straight.frames
    )
