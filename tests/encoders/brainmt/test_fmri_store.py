"""Reading the store: windows are slices, damage is refused by hash."""

import shutil

import numpy as np
import pytest

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.prepare import prepare
from encoders.brainmt.preparation.series import read_series
from encoders.brainmt.store import FMRIStore
from encoders.runs.errors import InputError


@pytest.fixture
def store(tree, tmp_path):
    for i in range(3):
        tree.add(f"{i}")
    prepare(discover(tree.root), tmp_path / "store", PrepareFMRI())
    return FMRIStore(tmp_path / "store")


def test_a_window_is_a_slice_of_what_was_prepared(store, tree):
    series = read_series(discover(tree.root).scans[1], PrepareFMRI())
    run = store.runs[1]
    for start, frames in [(0, 40), (7, 12), (39, 1), (0, 0)]:
        window = store.load(run, start, frames)
        assert window.flags.c_contiguous and window.dtype == np.float16
        np.testing.assert_array_equal(window, series.frames[start : start + frames])
    np.testing.assert_array_equal(store.mask_index(run), series.mask_index)
    tensors, metadata = store.read(run)
    np.testing.assert_array_equal(tensors["sd"], series.sd)
    assert metadata["orientation"] == "RAS" and metadata["source_sha256"] == series.metadata["source_sha256"]


def test_frames_beyond_the_run_are_a_mistake(store):
    for start, frames in [(30, 11), (-1, 5), (41, 0)]:
        with pytest.raises(ValueError, match="of sub-0_task-rest, which has 40"):
            store.load(store.runs[0], start, frames)


def test_the_manifest_may_be_named_instead_of_its_folder(store):
    assert FMRIStore(store.folder / "manifest.json").runs == store.runs
    assert FMRIStore(str(store.folder)).digest == store.digest


def test_a_flipped_byte_anywhere_is_refused(store):
    path = store.folder / store.runs[1].file
    whole = path.read_bytes()
    store.verify_all()
    for place in [0, 9, 40, *np.linspace(60, len(whole) - 1, 25).astype(int)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(InputError, match="sub-1_task-rest"):
            store.verify_all()
    path.write_bytes(whole)
    store.verify_all()


def test_a_sound_file_that_is_not_the_listed_one_is_refused(store):
    shutil.copy(store.folder / store.runs[0].file, store.folder / store.runs[1].file)
    store.verify(store.runs[0])
    with pytest.raises(InputError, match="E_HASH.*is not the file that manifest.json lists"):
        store.verify(store.runs[1])


def test_a_damaged_or_missing_manifest_is_refused(store):
    path = store.folder / "manifest.json"
    path.write_text(path.read_text().replace('"tr": 2.0', '"tr": 2.1', 1))
    with pytest.raises(InputError, match="E_HASH"):
        FMRIStore(store.folder)
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        FMRIStore(store.folder)


def test_a_missing_run_is_named(store):
    (store.folder / store.runs[2].file).unlink()
    for read in (store.verify_all, lambda: store.load(store.runs[2], 0, 5)):
        with pytest.raises(InputError, match="sub-2_task-rest.safetensors"):
            read()
