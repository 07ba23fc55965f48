"""Tensors of the original BrainMT: made here as its preprocessing makes them, read, refused, never run."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.prepare import prepare
from encoders.brainmt.preparation.quarantine import ScanRefused
from encoders.brainmt.preparation.series import read_series
from encoders.brainmt.store import FMRIStore
from encoders.runs.errors import InputError


def original_preprocessing(data: torch.Tensor, scaling: str = "z-norm", fill_zeroback: bool = False):
    """What `preprocess_fmri.py` of the original does with a series [X, Y, Z, T], line by line."""
    background = data == 0
    if scaling == "z-norm":
        normalized = (data - data[~background].mean()) / data[~background].std()
    else:
        low, high = data[~background].min(), data[~background].max()
        normalized = (data - low) / (high - low)
    final = torch.empty(data.shape)
    final[background] = 0 if fill_zeroback else normalized[~background].min()
    final[~background] = normalized[~background]
    return final.type(torch.float16)


@pytest.fixture
def saved(build, tmp_path):
    """Write one person's tensor; returns the root. The grid of the test is stated by a NIfTI file, `OPTIONS` below."""
    root = tmp_path / "processed"
    (tmp_path / "grid.nii.gz").write_bytes(build.pack(build.nifti(build.brain().astype("u1"))))

    def save(content=None, subject="1000001", *, folder="img", **how):
        path = root / folder / subject / "func_data_MNI_fp16.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            content = original_preprocessing(torch.from_numpy(build.bold(1).astype("f4")), **how)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        return root

    return save


@pytest.fixture
def config(tmp_path):
    """Options that state grid and time, with others on top."""
    return lambda **options: PrepareFMRI(**{"affine": str(tmp_path / "grid.nii.gz"), "tr": 0.735, **options})


def read(root, config):
    (scan,) = discover(root).scans
    return read_series(scan, config)


@pytest.mark.parametrize("folder", ["img", "."])
def test_tensors_are_found_in_img_or_beside_each_other(saved, folder):
    root = saved(folder=folder)
    saved(subject="sub-2", folder=folder)
    listing = discover(root)
    assert listing.layout == "original"
    assert [(scan.name, scan.subject) for scan in listing.scans] == [
        ("sub-1000001", "1000001"),
        ("sub-2", "sub-2"),
    ]


@pytest.mark.parametrize("fill_zeroback", [False, True])
def test_the_makers_numbers_are_stored_as_they_are_and_the_mask_is_recovered(
    saved, config, build, fill_zeroback
):
    series = read(saved(fill_zeroback=fill_zeroback), config())
    made = original_preprocessing(torch.from_numpy(build.bold(1).astype("f4")), fill_zeroback=fill_zeroback)
    assert np.array_equal(series.mask_index, np.flatnonzero(build.brain()))
    assert np.array_equal(series.frames, made.reshape(-1, 40).T.numpy()[:, build.brain().reshape(-1)])
    metadata = series.metadata
    assert (metadata["normalisation"], metadata["normalised_by"]) == ("global", "its maker")
    assert (metadata["mask"], metadata["units"]) == ("recovered", "standardised by its maker")
    assert metadata["tr"] == 0.735 and metadata["stated"] == {"affine": "grid.nii.gz", "tr": 0.735}
    assert metadata["background_of_maker"] == (0 if fill_zeroback else float(made.min()))
    assert metadata["background"] == 0  # of the store, as for any scan


def test_the_originals_background_is_kept_when_it_is_asked_for(saved, config):
    series = read(saved(), config(background="minimum"))
    assert series.metadata["background"] == series.metadata["background_of_maker"] < -3


def test_voxel_wise_standardising_on_top_is_done_and_recorded(saved, config):
    series = read(saved(), config(normalisation="voxel"))
    assert series.frames.astype(float).std(axis=0) == pytest.approx(1, abs=2e-3)
    assert series.metadata["normalised_by"] == "its maker, then this preparation"


def test_what_the_maker_scaled_to_0_and_1_is_standardised_here_and_recorded(saved, config):
    series = read(saved(scaling="minmax"), config())
    assert series.frames.astype(float).std() == pytest.approx(1, abs=1e-2)
    assert series.metadata["normalised_by"] == "its maker, then this preparation"


def test_a_left_handed_grid_is_turned_to_ras(saved, config, build, tmp_path):
    """The tensor of the same head on FSL's mirrored grid gives the very same store."""
    straight = read(saved(), config())
    mirrored = build.AFFINE @ np.array(
        [[-1, 0, 0, build.GRID[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
    )
    (tmp_path / "las.nii.gz").write_bytes(
        build.pack(build.nifti(build.brain()[::-1].astype("u1"), affine=mirrored))
    )
    data = torch.from_numpy(build.bold(1)[::-1].astype("f4").copy())
    turned = read(saved(original_preprocessing(data)), config(affine=str(tmp_path / "las.nii.gz")))
    assert np.array_equal(turned.frames, straight.frames)
    assert np.array_equal(turned.mask_index, straight.mask_index)
    assert turned.metadata["affine"] == straight.metadata["affine"]
    assert (straight.metadata["orientation"], turned.metadata["orientation"]) == ("RAS", "LAS")


def test_a_mask_beside_the_tensor_is_preferred(saved, config, build):
    root = saved()
    smaller = build.brain()
    smaller[2, 3, 3] = False
    mask = root / "img/1000001/mask.nii.gz"
    mask.write_bytes(build.pack(build.nifti(smaller.astype("u1"))))
    series = read(root, config())
    assert series.metadata["mask"] == "file" and len(series.mask_index) == smaller.sum()


def test_a_field_of_view_that_is_brain_throughout_has_its_mask_computed(saved, config, build):
    rng = np.random.default_rng(0)
    anatomy = np.where(build.brain(), 900, 100)[..., None]
    data = torch.from_numpy((anatomy + rng.standard_normal((*build.GRID, 40))).astype("f4"))
    series = read(saved(original_preprocessing(data)), config())
    assert series.metadata["mask"] == "computed"
    assert np.array_equal(series.mask_index, np.flatnonzero(build.brain()))


def test_the_named_grids_are_fsls_and_templateflows(saved, config):
    root = saved(torch.zeros(91, 109, 91, 2, dtype=torch.float16))
    with pytest.raises(ScanRefused, match="E_AFFINE: .*91 x 109 x 91.*97 x 115 x 97"):
        read(root, config(affine="mni152nlin2009casym2mm"))
    data = torch.zeros(91, 109, 91, 40, dtype=torch.float16)
    data[:, 10:-10] = torch.randn(91, 89, 91, 1, dtype=torch.float16) + torch.randn(40, dtype=torch.float16)
    series = read(saved(data), config(affine="mni2mm_fsl", dtype="int8"))
    assert series.metadata["affine"] == [[2, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]]
    assert series.metadata["space"] == "MNI152NLin6Asym, stated by the user"
    assert series.metadata["orientation"] == "LAS"
    first = np.unravel_index(series.mask_index[0], (91, 109, 91))
    assert series.mean[0] == pytest.approx(
        float(data[90 - first[0], first[1], first[2]].float().mean()), abs=1e-3
    )


def test_grid_and_time_must_be_stated_and_the_message_says_which_is_missing(saved, config):
    root = saved()
    with pytest.raises(InputError, match="--affine and --tr must be stated, --affine=mni2mm_fsl"):
        read(root, PrepareFMRI())
    with pytest.raises(InputError, match="hold neither affine nor repetition time: --tr must"):
        read(root, config(tr=None))
    with pytest.raises(InputError, match="neither a known grid nor a file; give mni2mm_fsl, mni2mm, mni152"):
        read(root, config(affine="mni3mm"))


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_a_command_is_refused_and_nothing_is_run(saved, config, tmp_path, zipped):
    mark = tmp_path / "was_run"
    if zipped:
        root = saved({"data": torch.zeros(2), "evil": Malice(mark)})
    else:
        root = saved(pickle.dumps(Malice(mark)))
    with pytest.raises(ScanRefused, match="E_(PICKLE|TRUNCATED)") as caught:
        read(root, config())
    assert not mark.exists()
    if zipped:
        assert caught.value.code == "E_PICKLE" and "nothing of it was run" in caught.value.sentence


def whole(build):
    return original_preprocessing(torch.from_numpy(build.bold(1).astype("f4")))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t: {"data": t}, "E_DTYPE: it holds no tensor but dict"),
        (lambda t: t.int(), "E_DTYPE: it holds torch.int32"),
        (lambda t: t.to_sparse(), "E_DTYPE: .*torch.sparse_coo"),
        (lambda t: t[..., 0].clone(), r"E_FRAMES: its axes are \(5, 7, 6\)"),
        (lambda t: t[:, :, :3].clone(), "E_AFFINE: it has 5 x 7 x 3 voxels"),
        (lambda t: torch.zeros(1, dtype=torch.float16).expand(5, 7, 6, 4000), "E_SIZE: its tensor declares"),
        (lambda t: torch.full_like(t, float("nan")), "E_NAN: every voxel"),
        (lambda t: t[..., :20].clone(), "E_FRAMES: it has 20 frames"),
        (lambda t: b"", "E_TRUNCATED"),
        (lambda t: b"<html>", "E_TRUNCATED"),
    ],
)
def test_what_is_not_one_tensor_of_four_axes_is_refused(saved, config, build, make, words):
    with pytest.raises(ScanRefused, match=words):
        read(saved(make(whole(build))), config())


def test_damage_is_found_anywhere_in_the_file(saved, config):
    path = saved() / "img/1000001/func_data_MNI_fp16.pt"
    raw = path.read_bytes()
    for position in (len(raw) // 3, len(raw) // 2, len(raw) - 100):
        damaged = bytearray(raw)
        damaged[position] ^= 16
        path.write_bytes(damaged)
        with pytest.raises(ScanRefused, match="E_(CRC|TRUNCATED|ARCHIVE|PICKLE)"):
            read(path.parents[2], config())
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ScanRefused, match="E_(TRUNCATED|PICKLE)"):
        read(path.parents[2], config())


def test_a_compressed_copy_is_refused(saved, config):
    path = saved() / "img/1000001/func_data_MNI_fp16.pt"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ScanRefused, match="E_ARCHIVE: it is compressed"):
        read(path.parents[2], config())


def test_files_of_old_pytorch_without_a_zip_are_read(saved, config, build, tmp_path):
    root = saved()
    torch.save(whole(build), root / "img/1000001/func_data_MNI_fp16.pt", _use_new_zipfile_serialization=False)
    assert read(root, config()).metadata["normalised_by"] == "its maker"


def test_a_hostile_neighbour_leaves_the_others_prepared(saved, config, tmp_path):
    root = saved()
    saved({"evil": Malice(tmp_path / "was_run")}, subject="2")
    outcome = prepare(discover(root), tmp_path / "store", config())
    assert outcome.runs[0]["tsnr"] is None  # a mean that was taken out is no signal
    assert [(row.subject, row.code) for row in outcome.quarantined] == [("2", "E_PICKLE")]
    assert FMRIStore(tmp_path / "store").subjects == ["1000001"]
