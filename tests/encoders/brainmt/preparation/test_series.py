"""From a scan to its in-mask series: masks, broken voxels and frames, normalisation, orientation."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from encoders.brainmt.preparation.config import Clean, PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.frames import segments
from encoders.brainmt.preparation.mask import compute_mask
from encoders.brainmt.preparation.quarantine import ScanRefused
from encoders.brainmt.preparation.series import normalise, read_series


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
    monkeypatch.setattr("encoders.brainmt.preparation.series.BLOCK", 37)
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


def test_a_mask_in_place_of_a_scan_is_refused_whatever_the_limits_are(series, build):
    data = np.repeat(build.brain()[..., None].astype("u1"), 40, axis=3)
    for options in ({}, {"max_constant_frames": 1.0, "min_coverage": 0.0}):
        with pytest.raises(ScanRefused, match="E_CONSTANT: each of its 40 frames .* is it a mask"):
            series(options, data=data)


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
    still = series({"min_coverage": 0.0}, data=data)  # one image repeated: asked for, it is stored
    assert (still.frames == 0).all() and (still.sd == 0).all()
    np.testing.assert_array_equal(still.mean, data[build.brain()][:, 0])


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


@pytest.mark.parametrize("how", ["sform", "qform only", "uncompressed", "computed mask, other grid, retimed"])
def test_one_head_in_48_orientations_gives_the_same_bytes(tree, build, how, tmp_path):
    mask, made = build.brain().astype("u1"), []
    head = build.bold(5, frames=1)[..., 0] * 1.1
    frames = build.bold(5) * 1.1 if how == "sform" else head[..., None] * (1 + 0.01 * np.sin(np.arange(40)))
    edges = np.diag([24.3852322, 23.8975, 24.66, 1])  # what single precision cannot hold
    edges[:3, 3] = (-48.5070953, -71.7625351, -60.125)
    options, other = {}, np.zeros((5, 6, 6), "u1")
    if how.startswith("computed"):
        nib.save(
            nib.Nifti1Image(other, build.AFFINE + np.diag([1, 1, 1, 0])), tmp_path / "tpl-MNI152X_T1w.nii"
        )
        options = {"grid": str(tmp_path / "tpl-MNI152X_T1w.nii"), "target_tr": 1.5, "assume_mni": True}
        options |= {"min_extent": 80.0, "min_frames": 20, "min_coverage": 0.5}
    stored_masks = {name: stored for name, stored, _ in build.orientations(mask, edges)}
    for name, stored, affine in build.orientations(frames.astype("f4"), edges):
        scan = tree.add(
            "01", data=stored, mask=stored_masks[name], affine=affine, qform=4 if how.startswith("q") else 0
        )
        if how.startswith("q"):
            for path in scan.parent.glob("*.nii.gz"):
                path.write_bytes(build.pack(with_qform_only(path, affine)))
        if how == "uncompressed":
            scan.with_name(scan.name.removesuffix(".gz")).write_bytes(gzip.decompress(scan.read_bytes()))
            scan.unlink()
        if how.startswith("computed"):
            next(scan.parent.glob("*_mask.nii.gz")).unlink()
        made.append(read_series(discover(tree.root).scans[0], PrepareFMRI(**options)))
    assert len({one.metadata["orientation"] for one in made}) == 48
    for one in made:
        for name, array in made[0].tensors.items():
            np.testing.assert_array_equal(one.tensors[name], array)
        same = {**made[0].metadata, "orientation": "", "source_sha256": ""}
        assert {**one.metadata, "orientation": "", "source_sha256": ""} == same
    if how == "sform":
        np.testing.assert_allclose(made[0].mean, frames[build.brain()].mean(axis=1), rtol=1e-6)


def with_qform_only(path, affine):
    """The file with its place in space stated by the quaternion alone."""
    image = nib.load(path)
    image.header.set_qform(affine, code=4)
    image.header.set_sform(None, code=0)
    image.header["srow_x"] = image.header["srow_y"] = image.header["srow_z"] = 0
    image.header["vox_offset"] = 352
    return bytes(image.header.binaryblock) + bytes(4) + gzip.decompress(path.read_bytes())[352:]


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


def table(scan, **columns):
    """Replace a scan's confounds table."""
    path = next(scan.parent.glob("*_desc-confounds_timeseries.tsv"))
    rows = np.stack(list(columns.values()), axis=1)
    lines = ["\t".join("n/a" if np.isnan(cell) else f"{cell:.9g}" for cell in row) for row in rows]
    path.write_text("\n".join(["\t".join(columns), *lines]) + "\n")


def test_dummies_leave_before_anything_is_looked_at(tree, build):
    data = build.bold(3).astype("f4")
    straight = series_of(tree, data[..., 4:])
    spoiled = data.copy()
    spoiled[..., :3] = np.nan
    spoiled[..., 3] = 0
    fd = np.array([np.nan, 9, 9, 9, 9, *[0.1] * 35])
    marks = {f"non_steady_state_outlier0{k}": np.eye(40)[k] for k in range(4)}
    scan = tree.add("01", data=spoiled)
    table(scan, framewise_displacement=fd, **marks)
    made = read_series(discover(tree.root).scans[0], PrepareFMRI())
    for name, array in straight.tensors.items():
        np.testing.assert_array_equal(made.tensors[name], array)
    assert made.metadata["dummy_frames"] == 4 and made.metadata["dropped_frames"] == [0, 1, 2, 3]
    assert made.metadata["segments"] == [[0, 36]] and made.metadata["mean_fd"] == pytest.approx(0.1)
    table(scan, framewise_displacement=fd)
    assert (
        read_series(discover(tree.root).scans[0], PrepareFMRI(dummy_frames=4)).metadata["dummy_frames"] == 4
    )
    with pytest.raises(ScanRefused, match="E_FRAMES: without 9 dummies it has 31 frames, at least 32"):
        read_series(discover(tree.root).scans[0], PrepareFMRI(dummy_frames=9))
    with pytest.raises(ScanRefused, match="E_FRAMES: without 99 dummies it has 0 frames"):
        read_series(discover(tree.root).scans[0], PrepareFMRI(dummy_frames=99))


def series_of(tree, data, **options):
    tree.add("01", data=data)
    return read_series(discover(tree.root).scans[0], PrepareFMRI(**options))


def test_retimed_scans_say_so_keep_their_gaps_and_need_enough_frames(tree, build):
    data = build.bold(3)
    data[..., 12] = 0
    made = series_of(tree, data, target_tr=2.5, max_constant_frames=0.05, min_frames=30)
    assert made.metadata["tr"] == 2.5 and made.metadata["retimed"]["from_tr"] == 2.0
    assert made.metadata["segments"] == [[0, 9], [9, 30]] and len(made.frames) == 30
    assert made.metadata["dropped_frames"] == [12]  # in frames of the scan
    with pytest.raises(ScanRefused, match="E_FRAMES: at 2.5 s it has 30 frames, at least 32 are wanted"):
        series_of(tree, data, target_tr=2.5, max_constant_frames=0.05)
    same = series_of(tree, data, target_tr=2.0, max_constant_frames=0.05)
    assert same.metadata["retimed"] is None and same.metadata["segments"] == [[0, 12], [12, 39]]


def test_cleaned_scans_say_what_was_taken_out_and_keep_their_mean_image(tree, build):
    data = build.bold(3, frames=60).astype("f4")
    noise = np.sin(np.arange(60.0))
    dirty = data + 300 * noise.astype("f4") * build.brain()[..., None]
    dirty[2, 3, 2] = 5000  # constant
    scan = tree.add("01", data=dirty)
    table(
        scan,
        framewise_displacement=np.full(60, 0.1),
        csf=noise,
        csf_derivative1=np.append(np.nan, np.diff(noise)),
    )
    found = discover(tree.root).scans[0]
    options = Clean(confounds=["csf*"], high_pass=0.01, low_pass=0.2)
    made, left = read_series(found, PrepareFMRI(clean=options)), read_series(found, PrepareFMRI())
    assert made.metadata["cleaned"] == {
        "confounds": ["csf", "csf_derivative1"],
        "high_pass": 0.01,
        "low_pass": 0.2,
        "detrend": False,
        "mean_kept": True,
    }
    np.testing.assert_allclose(made.mean, left.mean, rtol=1e-5)
    alive = made.sd > 0
    assert (~alive).sum() == made.metadata["constant_voxels"] == left.metadata["constant_voxels"] == 1
    assert made.sd[alive].max() < 100 < left.sd[alive].min()
    assert left.metadata["cleaned"] is None
    with pytest.raises(ScanRefused, match="E_CONFOUNDS: .* lacks 6 of the columns to regress out: trans_x"):
        read_series(found, PrepareFMRI(clean=Clean(confounds=["motion6"])))


def test_nan_voxels_inside_a_brain_that_was_cut_out_are_counted(series, build):
    data = build.bold(3).astype("f4")
    data[2, 3, 2:4] = np.nan
    with pytest.raises(ScanRefused, match="E_NAN: 2 of .* mask voxels"):
        series(data=data, mask=np.zeros(build.GRID, bool))
    outside = np.where(build.brain()[..., None], build.bold(3), np.nan).astype("f4")
    made = series(data=outside, mask=np.zeros(build.GRID, bool))  # some programs write NaN around the brain
    np.testing.assert_array_equal(made.mask_index, np.flatnonzero(build.brain()))


def test_nan_voxels_of_a_brain_with_noise_around_it_stay_in_its_mask():
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1.3, 1.3, n) for n in (20, 24, 19)], indexing="ij")
    brain = sum(axis**2 for axis in axes) <= 1
    image = np.where(brain, 1000.0, 40.0) + 20 * rng.standard_normal(brain.shape)
    image[8:12, 3:12, 8:11] = np.nan  # from outside the brain deep into it: no hole that filling would close
    found = compute_mask(image)
    inside = np.isnan(image) & brain
    assert (found == brain)[~np.isnan(image)].all() and (found & inside).sum() >= 0.8 * inside.sum()
    image[:, :4] = np.nan  # what reaches the edge of the image lies outside it
    assert not compute_mask(image)[:, :4].any()


def test_the_record_says_what_vouches_for_the_bytes(tree, build):
    scan = tree.add("01")
    assert read_series(discover(tree.root).scans[0], PrepareFMRI()).metadata["source_checksum"] == "gzip CRC"
    scan.with_name(scan.name.removesuffix(".gz")).write_bytes(gzip.decompress(scan.read_bytes()))
    scan.unlink()
    made = read_series(discover(tree.root).scans[0], PrepareFMRI())
    assert made.metadata["source_checksum"] == "none (not compressed)"
