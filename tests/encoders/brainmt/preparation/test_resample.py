"""Between MNI grids: exact where grids share voxels, linear elsewhere, templates told apart, said in the record."""

import nibabel as nib
import numpy as np
import pytest
from nilearn.image import resample_img
from scipy.ndimage import map_coordinates

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.nifti import read_nifti
from encoders.brainmt.preparation.quarantine import ScanRefused
from encoders.brainmt.preparation.references import Grid, grid_of, target_grid, template_of
from encoders.brainmt.preparation.resample import resample_frames
from encoders.brainmt.preparation.series import read_series
from encoders.runs.errors import InputError

SPACE = "MNI152NLin2009cAsym"


@pytest.fixture
def grid_file(tmp_path):
    """Write a NIfTI file on a grid; returns its path."""

    def grid_file(shape, affine, name=f"tpl-{SPACE}_res-9_T1w.nii.gz", code=1, data=None):
        image = nib.Nifti1Image(np.zeros(shape, "u1") if data is None else data.astype("u1"), affine)
        image.set_sform(affine, code)
        nib.save(image, tmp_path / name)
        return tmp_path / name

    return grid_file


@pytest.fixture
def series(tree):
    def series(scan=None, **options):
        tree.add("01", **(scan or {}))
        return read_series(discover(tree.root).scans[0], PrepareFMRI(**options))

    return series


def moved(build, *mm):
    affine = build.AFFINE.copy()
    affine[:3, 3] += mm
    return affine


def test_a_grid_moved_by_whole_voxels_keeps_every_number(series, build, grid_file):
    data = build.bold(4)
    path = grid_file((7, 9, 8), moved(build, -24, -24, -24))
    straight, made = series({"data": data}), series({"data": data}, grid=str(path))
    where = np.stack(np.unravel_index(straight.mask_index, build.GRID)) + 1
    np.testing.assert_array_equal(made.mask_index, np.ravel_multi_index(tuple(where), (7, 9, 8)))
    for name in ("frames", "mean", "sd"):
        np.testing.assert_array_equal(made.tensors[name], straight.tensors[name])
    assert made.metadata["grid"] == [7, 9, 8]
    assert made.metadata["affine"] == moved(build, -24, -24, -24).tolist()
    assert made.metadata["mask"] == "file, resampled (nearest)"
    assert made.metadata["resampled"] == {
        "from_grid": list(build.GRID),
        "from_affine": build.AFFINE.tolist(),
        "to": f"the grid {path.name}",
        "templates": f"{SPACE} to {SPACE}",
        "interpolation": "linear",
    }
    assert "resampled to" in made.metadata["space"]  # what the dry run prints


def test_signals_are_interpolated_linearly_and_masks_by_the_nearest_voxel(series, build, grid_file):
    data = build.bold(4)
    affine = np.diag([16.0, 18.0, 17.0, 1.0])
    affine[:3, 3] = (-45, -80, -55)
    made = series({"data": data}, grid=str(grid_file((6, 9, 8), affine)), min_extent=90.0)
    mm = affine[:3, :3] @ np.stack(np.unravel_index(made.mask_index, (6, 9, 8))) + affine[:3, 3:]
    voxels = np.linalg.solve(build.AFFINE[:3, :3], mm - build.AFFINE[:3, 3:])
    expected = [map_coordinates(data[..., t].astype("f8"), voxels, order=1) for t in range(data.shape[-1])]
    last = np.array(build.GRID)[:, None] - 1
    inside = ((voxels >= 0) & (voxels <= last)).all(axis=0)
    assert inside.sum() > 40
    np.testing.assert_allclose(made.mean[inside], np.mean(expected, axis=0)[inside], rtol=1e-5)
    nearest = build.brain()[tuple(np.rint(voxels).astype(int))]
    assert nearest.all()


def test_signals_are_those_of_nilearn(build, tmp_path):
    rng = np.random.default_rng(0)
    old_affine = np.array([[-3.1, 0.2, 0, 30], [0.3, 3, 0.1, -40], [0, 0.2, 3.3, -20], [0, 0, 0, 1]])
    stored = rng.integers(0, 900, (19, 23, 17, 3)).astype("i2")
    path = tmp_path / "scan.nii"
    path.write_bytes(build.nifti(stored, affine=old_affine, slope=0.5, intercept=-3))
    image = read_nifti(path, max_bytes=2**24)
    own = grid_of(image, SPACE)
    new = Grid(shape=(20, 18, 22), affine=np.diag([2.0, 3.0, 2.5, 1.0]), template="", name="")
    new.affine[:3, 3] = (-20, -30, -20)
    made = resample_frames(image, own, new, np.arange(20 * 18 * 22, dtype=np.int32))
    theirs = resample_img(
        nib.as_closest_canonical(nib.Nifti1Image(stored * 0.5 - 3, old_affine)),
        target_affine=new.affine,
        target_shape=new.shape,
        interpolation="linear",
        clip=False,
    ).get_fdata()
    ours = np.moveaxis(made.reshape(3, 20, 18, 22), 0, -1)
    assert (theirs != 0).mean() > 0.5
    np.testing.assert_allclose(ours, theirs, atol=0.02)  # mm of the affine are kept to 1e-3


def test_nothing_happens_on_the_same_grid(series, build, grid_file):
    path = grid_file(build.GRID, build.AFFINE)
    straight, made = series(), series(grid=str(path))
    assert made.metadata == straight.metadata and made.metadata["resampled"] is None
    np.testing.assert_array_equal(made.frames, straight.frames)


def test_nan_spreads_to_what_it_touches_and_no_further(series, build, grid_file):
    data = build.bold(4).astype("f4")
    data[2, 3, 3, 5] = np.nan
    path = grid_file((6, 7, 6), moved(build, -12, 0, 0))  # each new voxel lies between two old ones
    made = series({"data": data}, grid=str(path), max_nan=0.5, min_extent=90.0)
    assert made.metadata["nan_voxels"] == 2
    with pytest.raises(ScanRefused, match="E_NAN: 2 of"):
        series({"data": data}, grid=str(path), min_extent=90.0)


def test_another_template_needs_the_users_word(series, build, grid_file):
    path = grid_file((7, 9, 8), moved(build, -24, -24, -24), name="tpl-MNI152NLin6Asym_res-9_T1w.nii.gz")
    with pytest.raises(ScanRefused, match=f"E_SPACE: it lies in {SPACE}, .*MNI152NLin6Asym") as caught:
        series(grid=str(path))
    assert "--assume_mni" in caught.value.fix
    made = series(grid=str(path), assume_mni=True)
    assert made.metadata["resampled"]["templates"] == f"{SPACE} to MNI152NLin6Asym"


def test_a_scan_that_is_not_in_mni_space_is_not_resampled(series, build, grid_file):
    path = grid_file((7, 9, 8), moved(build, -24, -24, -24))
    with pytest.raises(ScanRefused, match="E_SPACE: nothing says that it lies in MNI space"):
        series({"space": "", "sform": 1}, grid=str(path))


def test_a_mask_for_everyone_replaces_the_one_beside_the_scan(series, build, grid_file):
    brain = build.brain()
    brain[0], brain[-1] = False, False
    given = grid_file(build.GRID, build.AFFINE, data=brain)
    made = series(mask=given, min_extent=50.0)
    np.testing.assert_array_equal(made.mask_index, np.flatnonzero(brain))
    assert made.metadata["mask"] == "given"
    wider = np.zeros((7, 9, 8), bool)
    wider[1:-1, 1:-1, 1:-1] = brain
    given = grid_file((7, 9, 8), moved(build, -24, -24, -24), data=wider)
    again = series(mask=given, min_extent=50.0)
    np.testing.assert_array_equal(again.mask_index, made.mask_index)
    assert again.metadata["mask"] == "given, resampled (nearest)"
    assert again.metadata["mask_sha256"] == made.metadata["mask_sha256"]
    assert series().metadata["mask_sha256"] != made.metadata["mask_sha256"]


@pytest.mark.parametrize(
    ("option", "change", "words"),
    [
        ("grid", {"name": "somewhere.nii.gz"}, "nothing says that the grid .*somewhere.nii.gz lies in MNI"),
        ("mask", {"name": "somewhere.nii.gz"}, "nothing says that the mask .*somewhere.nii.gz lies in MNI"),
        ("mask", {}, "is empty"),
    ],
)
def test_a_wrong_reference_is_one_error_and_not_one_per_scan(series, build, grid_file, option, change, words):
    path = grid_file(build.GRID, build.AFFINE, **change)
    with pytest.raises(InputError, match=words):
        series(**{option: str(path) if option == "grid" else path})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="E_TRUNCATED: the (grid|mask)"):
        series(**{option: str(path) if option == "grid" else path})
    path.unlink()
    with pytest.raises(InputError, match="cannot be read .No such file"):
        series(**{option: str(path) if option == "grid" else path})


def test_files_count_by_their_content_in_the_fingerprint_of_a_run(build, grid_file):
    one = grid_file(build.GRID, build.AFFINE, data=build.brain())
    before = PrepareFMRI(mask=one).numbers
    assert before["mask"] != str(one) and PrepareFMRI().numbers["mask"] is None
    grid_file(build.GRID, build.AFFINE)
    assert PrepareFMRI(mask=one).numbers != before
    with pytest.raises(InputError, match="is no file, but grid names it.*mni2mm"):
        _ = PrepareFMRI(grid="mni3mm").numbers


def test_the_named_grids_are_those_of_fsl_and_templateflow():
    fsl, flow = (target_grid(PrepareFMRI(grid=name)) for name in ("mni2mm", "mni152nlin2009casym2mm"))
    las = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])  # MNI152_T1_2mm.nii.gz
    ras = nib.as_closest_canonical(nib.Nifti1Image(np.zeros((91, 109, 91), "u1"), las))
    assert fsl.shape == ras.shape and flow.shape == (97, 115, 97)
    np.testing.assert_array_equal(fsl.affine, ras.affine)
    assert (fsl.template, flow.template) == ("MNI152NLin6Asym", SPACE)


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("MNI152NLin6Asym", "MNI152NLin6Asym"),
        ("MNI (NIfTI code 4)", ""),
        ("assumed MNI", ""),
        ("MNI152_T1_2mm_brain_mask.nii.gz", "MNI152NLin6Asym"),
        ("sub-1_space-MNIPediatricAsym_mask.nii.gz", "MNIPediatricAsym"),
        ("my_MNI152NLin6Asym.nii.gz", ""),
        ("MNI152.nii.gz", ""),
    ],
)
def test_a_template_is_read_from_a_label_or_a_name(text, template):
    assert template_of(text) == template
