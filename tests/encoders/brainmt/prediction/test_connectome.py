"""Connectomes: parcels, atlas, fitted on training people, runs averaged, what is missing is said."""

import importlib.util
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from encoders.brainmt.prediction.connectome import (
    _all_series,
    atlas_labels,
    connectomes,
    parcel_means,
    ward_labels,
)
from encoders.brainmt.store import FMRIStore, describe_run, save_manifest, save_run
from encoders.runs.errors import InputError

spec = importlib.util.spec_from_file_location("tiny_study", Path(__file__).parents[1] / "tiny_study.py")
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

GRID = (9, 7, 4)  # X, Y, Z
FRAMES = 40
AFFINE = np.array([[4.0, 0, 0, -16], [0, 4, 0, -12], [0, 0, 4, -8], [0, 0, 0, 1]])
FAR = (slice(6, 9), slice(0, 7), slice(0, 4))  # a corner that moves as one


def make_store(folder, *, people=12, hole=None, affine=AFFINE, gains=None, outside=None):
    """Three slabs along X, each with a signal of its own; person 0 has two runs, ``hole`` lacks the third slab.

    Nobody's mask has what lies ``outside``.
    """
    rng = np.random.default_rng(0)
    slab = np.minimum(np.indices(GRID)[0] // 3, 2)
    entries = []
    for k in range(people):
        for run in range(2 if k == 0 else 1):
            name = f"sub-{k:04d}_task-rest_run-{run + 1}"
            here = np.ones(GRID, bool)
            if hole == k:
                here[FAR] = False
            if outside is not None:
                here[outside] = False
            mask_index = np.flatnonzero(here.ravel()).astype(np.int32)
            signals = rng.standard_normal((FRAMES, 3)) * (1.0 if gains is None else gains[k])
            frames = signals[:, slab.ravel()[mask_index]] + 0.3 * rng.standard_normal(
                (FRAMES, len(mask_index))
            )
            tensors = {"frames": frames.astype(np.float16), "mask_index": mask_index}
            described = {
                "name": name,
                "subject": f"sub-{k:04d}",
                "session": "",
                "task": "rest",
                "run": str(run + 1),
                "frames": FRAMES,
                "voxels": len(mask_index),
                "tr": 2.0,
                "mean_fd": None,
                "grid": list(GRID),
                "background": 0.0,
                "segments": [[0, FRAMES]],
            }
            path = folder / "runs" / f"{name}.safetensors"
            save_run(path, tensors, described)
            entries.append({key: describe_run(path)[key] for key in tiny.LISTED})
    content = {"options": tiny.OPTIONS, "runs": entries, "quarantine": []}
    if affine is not None:
        content["affine"] = affine.tolist()
    save_manifest(folder, content)
    return FMRIStore(folder)


def save_atlas(path, *, dtype=np.int16, values=None):
    """Labels 10, 20, 30 of the three slabs, 40 somewhere outside; at twice the resolution of the store."""
    fine = np.zeros((18, 14, 8), dtype)
    fine[:6], fine[6:12], fine[12:] = 10, 20, 30
    affine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] -= 1  # the fine voxels' centres lie around the coarse ones
    nib.Nifti1Image(fine if values is None else values, affine).to_filename(path)
    return path


def names(first, last):
    return [f"sub-{k:04d}" for k in range(first, last)]


def test_parcel_means_are_means_of_their_voxels():
    frames = np.arange(15.0).reshape(3, 5)
    means = parcel_means(frames, np.array([3, 0, 1, 3, 1]), 3)
    np.testing.assert_allclose(means[:, 0], frames[:, [2, 4]].mean(axis=1))
    np.testing.assert_allclose(means[:, 2], frames[:, [0, 3]].mean(axis=1))
    assert np.isnan(means[:, 1]).all()


def test_an_atlas_is_taken_to_the_stores_grid(tmp_path):
    store = make_store(tmp_path / "store", people=2)
    labels = atlas_labels(save_atlas(tmp_path / "atlas.nii.gz"), store)
    assert labels.shape == GRID
    for x, label in ((0, 10), (4, 20), (8, 30)):
        assert (labels[x] == label).all()
    shifted = nib.load(tmp_path / "atlas.nii.gz")
    affine = shifted.affine.copy()
    affine[0, 3] += 8  # two of the store's voxels
    nib.Nifti1Image(np.asarray(shifted.dataobj), affine).to_filename(tmp_path / "shifted.nii.gz")
    moved = atlas_labels(tmp_path / "shifted.nii.gz", make_store(tmp_path / "again", people=2))
    assert (moved[2:5] == 10).all() and (moved[:2] == 0).all() and (moved[8] == 30).all()


def test_ward_finds_the_slabs_from_training_people_alone(tmp_path):
    store = make_store(tmp_path / "store")
    labels, told = ward_labels(store, names(0, 8), parcels=3, seed=0)
    for first, last in ((0, 3), (3, 6), (6, 9)):
        assert len(np.unique(labels[first:last])) == 1
    assert len(np.unique(labels)) == 3 and "8 training runs" in told["parcels_from"]
    spoiled = make_store(tmp_path / "spoiled", gains=[1.0] * 8 + [50.0] * 4)  # only others differ
    again, _ = ward_labels(spoiled, names(0, 8), parcels=3, seed=0)
    np.testing.assert_array_equal(labels, again)
    fewer, _ = ward_labels(store, names(0, 8), parcels=100, seed=0)
    assert len(np.unique(fewer)) == np.prod(GRID) // 8  # a small mask has fewer parcels than asked for


def test_others_change_nothing_for_anyone(tmp_path):
    atlas = save_atlas(tmp_path / "atlas.nii.gz")
    found = []
    for folder, gains in (("a", [1.0] * 12), ("b", [1.0] * 8 + [9.0] * 4)):
        store = make_store(tmp_path / folder, gains=gains)
        found.append(connectomes(store, train=names(0, 8), people=names(8, 12), atlas=atlas))
    for kind in ("correlation", "tangent"):
        np.testing.assert_allclose(found[0].of(kind, names(0, 8)), found[1].of(kind, names(0, 8)))
    one = connectomes(store, train=names(0, 8), people=["sub-0009"], atlas=atlas)
    np.testing.assert_allclose(one.of("tangent", ["sub-0009"]), found[1].of("tangent", ["sub-0009"]))


def test_correlations_are_those_of_the_parcels_and_runs_are_averaged(tmp_path):
    store = make_store(tmp_path / "store")
    labels = atlas_labels(save_atlas(tmp_path / "atlas.nii.gz"), store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = connectomes(
            store,
            train=names(0, 8),
            people=names(8, 12),
            atlas=tmp_path / "atlas.nii.gz",
            kinds=["correlation"],
        )
    assert found.ids == names(0, 12) and found.features["correlation"].shape == (12, 3)
    assert found.told["parcels"] == 3 and found.told["training_runs"] == 9
    runs = [np.corrcoef(part.T) for part in _all_series(store, store.of("sub-0000"), labels)]
    assert len(runs) == 2
    wanted = np.mean([matrix[[1, 2, 2], [0, 0, 1]] for matrix in runs], axis=0)
    np.testing.assert_allclose(found.of("correlation", ["sub-0000"])[0], wanted, atol=0.08)  # shrunk a little


def test_tangent_keeps_amplitudes_and_correlation_does_not(tmp_path):
    gains = np.linspace(0.5, 2.0, 12)
    store = make_store(tmp_path / "store", gains=gains)
    found = connectomes(
        store, train=names(0, 8), people=names(8, 12), atlas=save_atlas(tmp_path / "atlas.nii.gz")
    )
    assert found.features["tangent"].shape == (12, 6)
    diagonal = found.features["tangent"][:, [0, 2, 5]].sum(axis=1)
    assert np.corrcoef(diagonal, np.log(gains))[0, 1] > 0.98
    assert np.abs(np.corrcoef(found.features["correlation"].T, gains)[-1, :-1]).max() < 0.9


def test_a_parcel_without_voxels_in_some_run_is_left_out_and_counted(tmp_path):
    store = make_store(tmp_path / "store", hole=9)
    fine = np.zeros((18, 14, 8), np.int16)
    fine[:4], fine[4:8], fine[8:12], fine[12:] = 1, 2, 3, 7
    atlas = save_atlas(tmp_path / "atlas.nii.gz", values=fine)
    found = connectomes(store, train=names(0, 8), people=names(8, 12), atlas=atlas)
    assert found.told["parcels"] == 3 and found.told["parcels_without_voxels_in_some_run"] == 1
    with pytest.raises(InputError, match="sub-0009_task-rest_run-1 covers the fewest"):
        connectomes(
            store, train=names(0, 8), people=names(8, 12), atlas=save_atlas(tmp_path / "three.nii.gz")
        )


def test_labels_outside_every_mask_are_no_fault_of_a_run(tmp_path):
    fine = np.zeros((26, 14, 8), np.int16)
    for k in range(13):  # nine slices of the store, four beyond its grid
        fine[2 * k : 2 * k + 2] = k + 1
    fine[:6, :2], fine[:6, 2:4] = 50, 51  # inside the grid of the store, outside the mask of its runs
    store = make_store(tmp_path / "store", outside=(slice(0, 3), slice(0, 2), slice(0, 4)))
    atlas = save_atlas(tmp_path / "atlas.nii.gz", values=fine)
    found = connectomes(store, train=names(0, 8), people=names(8, 12), atlas=atlas)
    assert found.told["parcels"] == 9 and found.told["parcels_without_voxels_in_some_run"] == 2


def test_what_is_no_atlas_is_refused(tmp_path):
    store = make_store(tmp_path / "store", people=2)
    with pytest.raises(InputError, match="no readable NIfTI"):
        atlas_labels(tmp_path / "missing.nii.gz", store)
    (tmp_path / "text.nii.gz").write_text("no image")
    with pytest.raises(InputError, match="no readable NIfTI"):
        atlas_labels(tmp_path / "text.nii.gz", store)
    with pytest.raises(InputError, match="integer labels"):
        atlas_labels(save_atlas(tmp_path / "real.nii", values=np.full((18, 14, 8), 0.3, np.float32)), store)
    far = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.diag([1, 1, 1, 1]) * 1.0 + np.eye(4, k=3) * 500)
    far.to_filename(tmp_path / "far.nii")
    with pytest.raises(InputError, match="fewer than 3 labels on the grid"):
        atlas_labels(tmp_path / "far.nii", store)
    nowhere = make_store(tmp_path / "nowhere", people=2, affine=None)
    with pytest.raises(InputError, match="does not record where its grid lies"):
        atlas_labels(save_atlas(tmp_path / "atlas.nii.gz"), nowhere)


def test_a_mask_too_small_and_nobody_to_learn_from_are_said(tmp_path):
    store = make_store(tmp_path / "store", people=3)
    with pytest.raises(InputError, match="0 of the 1 training people"):
        connectomes(store, train=["sub-0077"], people=names(0, 3))
    with pytest.raises(InputError, match="too small for connectomes"):
        ward_labels(store, names(0, 3), parcels=2, seed=0)
