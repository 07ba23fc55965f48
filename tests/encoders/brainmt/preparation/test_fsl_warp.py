"""Scans taken to MNI by an FSL warp: against functions whose warped values are known, and against fslpy itself."""

import importlib
import itertools
import sys

import numpy as np
import pytest

from encoders.brainmt.preparation.fsl_warp import plain_mask, read_warp, warp_to_mni
from encoders.brainmt.preparation.nifti import read_nifti
from encoders.brainmt.preparation.quarantine import ScanRefused
from encoders.brainmt.preparation.stored_grid import StoredGrid, fsl_mni_2mm
from encoders.runs.errors import InputError

CAP = 2**28
SHAPE, EDGE = (16, 18, 14), 9.0  # the scan
REFERENCE, COARSE = (9, 11, 8), 18.0  # a coarse MNI
MOVE = np.array(
    [[0.98, 0.05, 0, 3.0], [-0.05, 0.97, 0.02, -4.0], [0.01, 0, 1.02, 2.5], [0, 0, 0, 1]]
)  # mm to mm


def grid(shape, edge, flips=(1, 1, 1)):
    """A grid about the origin, (shape, affine); a flip of -1 stores the axis backwards."""
    affine = np.diag([*(edge * np.array(flips)), 1.0])
    affine[:3, 3] = -(affine[:3, :3] @ (np.array(shape) - 1)) / 2
    return shape, affine


@pytest.fixture
def scan_of(build, tmp_path):
    """Write (x, y, z, t) data on a grid and read it."""

    def write(data, affine, **header):
        path = tmp_path / "scan.nii.gz"
        path.write_bytes(build.pack(build.nifti(data, affine=affine, sform=1, **header)))
        return read_nifti(path, max_bytes=CAP)

    return write


def ramp(points):
    """A linear function of mm, of which linear interpolation gives exact values; one slope a frame."""
    return np.stack([points @ slope + 500 for slope in ([1, 2, 3], [-2, 0.5, 1], [0, 0, 0])], axis=-1)


def everywhere(image):
    return plain_mask(np.ones(image.grid, bool), image.affine, image.sha256)


def dense(image):
    return (image.stored[:, image.order] * image.slope + image.intercept).reshape(-1, *image.grid)


@pytest.mark.parametrize(
    ("scan_flips", "reference_flips", "absolute"),
    [
        *itertools.product([(1, 1, 1), (-1, 1, 1)], [(1, 1, 1), (-1, 1, 1)], [False, True]),
        ((1, -1, 1), (-1, 1, 1), False),
        ((-1, -1, 1), (1, 1, -1), False),
    ],
)
def test_a_linear_signal_under_an_affine_warp_has_its_known_values(
    fsl, scan_of, tmp_path, scan_flips, reference_flips, absolute
):
    source, reference = grid(SHAPE, EDGE, scan_flips), grid(REFERENCE, COARSE, reference_flips)
    data = ramp(fsl.at(source[1], fsl.voxels(SHAPE))).astype(np.float32)
    image = scan_of(data, source[1])
    field = fsl.warp_field(reference, source, MOVE, absolute=absolute)
    warp = read_warp(fsl.save_warp(tmp_path / "warp.nii.gz", field, reference[1]), image, max_bytes=CAP)
    assert warp.kind == ("absolute" if absolute else "relative")
    warped, inside = warp_to_mni(image, everywhere(image), warp)

    ras_mm = fsl.at(warped.affine, fsl.voxels(warped.grid))
    assert np.diag(warped.affine)[:3].tolist() == [COARSE] * 3  # right, front and up
    origin = fsl.at(MOVE, ras_mm)
    within = (np.abs(origin) <= (np.array(SHAPE) - 1) * EDGE / 2).all(axis=-1)
    assert 0.3 < within.mean() < 1
    assert np.array_equal(inside.stored.reshape(inside.grid).astype(bool), within)
    wanted = np.moveaxis(np.where(within[..., None], ramp(origin), 0), -1, 0)
    assert dense(warped) == pytest.approx(wanted, abs=0.01)
    assert warped.space_code == 4 and warped.sha256 == image.sha256


def test_a_bent_warp_gives_what_fslpys_own_application_gives(fsl, scan_of, tmp_path):
    from fsl.data.image import Image
    from fsl.transform.fnirt import readFnirt
    from fsl.transform.nonlinear import applyDeformation

    rng = np.random.default_rng(0)
    source, reference = grid(SHAPE, EDGE, (-1, 1, 1)), grid(REFERENCE, COARSE, (-1, 1, 1))
    data = rng.standard_normal((*SHAPE, 20)).astype(np.float32)
    image = scan_of(data, source[1])
    field = fsl.warp_field(reference, source, MOVE) + 8 * np.sin(fsl.voxels(REFERENCE) * 0.9)
    path = fsl.save_warp(tmp_path / "warp.nii.gz", field, reference[1])
    warped, _ = warp_to_mni(image, everywhere(image), read_warp(path, image, max_bytes=CAP))

    theirs_of = Image(data[..., 0], xform=source[1])
    deformation = readFnirt(str(path), theirs_of, Image(np.zeros(REFERENCE), xform=reference[1]))
    for frame in (0, 17):
        theirs = applyDeformation(Image(data[..., frame], xform=source[1]), deformation, mode="constant")
        assert dense(warped)[frame] == pytest.approx(theirs[::-1], abs=2e-3)  # LAS to RAS
    assert np.abs(dense(warped)[0]).sum() > 50


def test_the_mask_follows_by_the_nearest_voxel_and_only_its_voxels_are_computed(
    fsl, scan_of, build, tmp_path
):
    source, reference = grid(SHAPE, EDGE, (-1, 1, 1)), grid(REFERENCE, COARSE)
    mm = fsl.at(source[1], fsl.voxels(SHAPE))
    ball = np.linalg.norm(mm, axis=-1) < 40
    (tmp_path / "mask.nii.gz").write_bytes(build.pack(build.nifti(ball.astype("u1"), affine=source[1])))
    mask = read_nifti(tmp_path / "mask.nii.gz", max_bytes=CAP)
    image = scan_of(ramp(mm).astype(np.float32), source[1])
    path = fsl.save_warp(tmp_path / "warp.nii.gz", fsl.warp_field(reference, source, np.eye(4)), reference[1])
    warped, brain = warp_to_mni(image, mask, read_warp(path, image, max_bytes=CAP))
    there = brain.stored.reshape(brain.grid).astype(bool)
    distance = np.linalg.norm(fsl.at(warped.affine, fsl.voxels(warped.grid)), axis=-1)
    assert there[distance < 40 - EDGE].all() and not there[distance > 40 + EDGE].any()
    assert warped.stored.shape == (3, there.sum() + 1)
    assert (dense(warped)[:, ~there] == 0).all() and (dense(warped)[:, there] != 0).all()


def test_integers_with_slope_are_in_scanner_units_and_nan_stays_where_it_is(fsl, scan_of, tmp_path):
    source = reference = grid((6, 6, 6), 10.0, (-1, 1, 1))
    path = fsl.save_warp(tmp_path / "warp.nii.gz", fsl.warp_field(reference, source, np.eye(4)), reference[1])
    data = np.full((6, 6, 6, 2), 100, "i2")
    image = scan_of(data, source[1], slope=0.5, intercept=7)
    warped, _ = warp_to_mni(image, everywhere(image), read_warp(path, image, max_bytes=CAP))
    assert dense(warped) == pytest.approx(57)
    broken = data.astype("f4")
    broken[2, 3, 4] = np.nan
    image = scan_of(broken, source[1])
    warped, _ = warp_to_mni(image, everywhere(image), read_warp(path, image, max_bytes=CAP))
    assert np.argwhere(np.isnan(dense(warped)[0])).tolist() == [
        [3, 3, 4]
    ]  # neighbours of no weight are whole


@pytest.mark.slow  # fslpy evaluates the splines at 900,000 voxels
def test_spline_coefficients_with_an_initial_affine_are_read_too(fsl, scan_of, tmp_path):
    """All coefficients 0: what is left is the affine in the header, FLIRT's from scan to reference."""
    import gzip

    import nibabel as nib

    usual = fsl_mni_2mm()
    source = grid(SHAPE, EDGE, (-1, 1, 1))
    mm = fsl.at(source[1], fsl.voxels(SHAPE))
    image = scan_of(ramp(mm).astype(np.float32), source[1])
    # world of the scan -> world of the reference, in FSL coordinates of both
    to_reference = (
        fsl.fsl_coordinates(usual.shape, usual.affine)
        @ np.linalg.inv(usual.affine)
        @ np.linalg.inv(MOVE)
        @ source[1]
        @ np.linalg.inv(fsl.fsl_coordinates(*source))
    )
    file = nib.Nifti1Image(np.zeros((12, 14, 12, 3), np.float32), None)
    file.header.set_zooms((10, 10, 10, 1))  # knots every 10 voxels
    file.set_sform(to_reference, 1)
    file.header["intent_code"], file.header["intent_p1"] = 2007, 2
    file.header["intent_p2"] = file.header["intent_p3"] = 2
    path = tmp_path / "coefficients.nii.gz"
    path.write_bytes(gzip.compress(file.to_bytes(), 1))
    warp = read_warp(path, image, max_bytes=CAP)
    assert warp.kind == "coefficients" and warp.grid.shape == usual.shape
    ras_mm = fsl.at(warp.grid.ras_affine, fsl.voxels(usual.shape))
    origin = fsl.at(source[1], warp.origin)
    assert origin == pytest.approx(fsl.at(MOVE, ras_mm), abs=0.02)


def test_without_a_coded_affine_only_fsls_own_grid_is_assumed(fsl, scan_of, tmp_path):
    source = grid((6, 6, 6), 10.0)
    image = scan_of(np.ones((6, 6, 6, 2), "f4"), source[1])
    usual = fsl_mni_2mm()
    path = fsl.save_warp(tmp_path / "a.nii.gz", np.zeros((*usual.shape, 3)), usual.affine, code=0)
    assert read_warp(path, image, max_bytes=CAP).grid.affine.tolist() == usual.affine.tolist()
    path = fsl.save_warp(tmp_path / "b.nii.gz", np.zeros((9, 9, 9, 3)), usual.affine, code=0)
    with pytest.raises(ScanRefused, match=r"E_AFFINE: its warp b.nii.gz: nothing says where its \(9, 9, 9\)"):
        read_warp(path, image, max_bytes=CAP)


@pytest.mark.parametrize(
    ("field", "options", "words"),
    [
        (np.zeros((4, 4, 4)), {}, r"E_WARP: its warp w.nii.gz: its axes are \(4, 4, 4\)"),
        (np.zeros((4, 4, 4, 2)), {}, "E_WARP: .*one shift a voxel"),
        (np.full((4, 4, 4, 3), np.nan), {}, "E_WARP: .*NaN"),
        (np.zeros((4, 4, 4, 3)), {"intent": 1007}, "E_WARP: .*intent code is 1007"),
    ],
)
def test_what_is_no_warp_field_is_refused(fsl, scan_of, tmp_path, field, options, words):
    image = scan_of(np.ones((6, 6, 6, 2), "f4"), grid((6, 6, 6), 10.0)[1])
    path = fsl.save_warp(tmp_path / "w.nii.gz", field, grid((4, 4, 4), 10.0)[1], **options)
    with pytest.raises(ScanRefused, match=words):
        read_warp(path, image, max_bytes=CAP)


def test_a_damaged_or_missing_warp_is_refused_by_name(fsl, scan_of, tmp_path):
    image = scan_of(np.ones((6, 6, 6, 2), "f4"), grid((6, 6, 6), 10.0)[1])
    path = fsl.save_warp(tmp_path / "w.nii.gz", np.zeros((4, 4, 4, 3)), grid((4, 4, 4), 10.0)[1])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ScanRefused, match="E_(TRUNCATED|CRC): its warp w.nii.gz"):
        read_warp(path, image, max_bytes=CAP)
    with pytest.raises(ScanRefused, match="E_READ: its warp gone.nii.gz cannot be read"):
        read_warp(tmp_path / "gone.nii.gz", image, max_bytes=CAP)


def test_a_warp_that_leads_out_of_the_scan_everywhere_is_refused(fsl, scan_of, tmp_path):
    source, reference = grid((6, 6, 6), 10.0), grid((4, 4, 4), 10.0)
    image = scan_of(np.ones((6, 6, 6, 2), "f4"), source[1])
    away = np.eye(4)
    away[0, 3] = 500
    path = fsl.save_warp(tmp_path / "w.nii.gz", fsl.warp_field(reference, source, away), reference[1])
    with pytest.raises(ScanRefused, match="E_SPACE: its warp leads nowhere into the brain"):
        warp_to_mni(image, everywhere(image), read_warp(path, image, max_bytes=CAP))


def test_without_fslpy_the_command_that_installs_it_is_named(fsl, scan_of, tmp_path, monkeypatch):
    image = scan_of(np.ones((6, 6, 6, 2), "f4"), grid((6, 6, 6), 10.0)[1])
    path = fsl.save_warp(tmp_path / "w.nii.gz", np.zeros((4, 4, 4, 3)), grid((4, 4, 4), 10.0)[1])
    for name in [name for name in sys.modules if name.split(".")[0] == "fsl"]:
        monkeypatch.delitem(sys.modules, name)
    empty = tmp_path / "site"
    empty.mkdir()
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site-packages" not in p] + [str(empty)])
    importlib.invalidate_caches()
    with pytest.raises(InputError, match="pip install fslpy"):
        read_warp(path, image, max_bytes=CAP)


@pytest.mark.parametrize("flips", list(itertools.product([1, -1], repeat=3)))
def test_the_stored_grid_of_a_file_is_found_again_from_its_ras_form(scan_of, flips):
    _, affine = grid((4, 5, 6), 10.0, flips)
    swapped = affine[:, [1, 0, 2, 3]]  # the file's first axis is y
    image = scan_of(np.arange(120, dtype="f4").reshape(5, 4, 6, 1), swapped)
    stored = StoredGrid.of(image)
    assert stored.shape == (5, 4, 6) and stored.affine == pytest.approx(swapped)
    assert stored.ras_affine == pytest.approx(image.affine)
    assert np.array_equal(stored.order(first_axis_fastest=True).reshape(-1), image.order)
