"""`scripts/export_static.py` on a store that `scripts/prepare_fmri.py` made: gain, shared voxels, leakage, damage."""

import importlib.util
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encoders.brainmt.store import FMRIStore
from encoders.cohort import Split
from encoders.runs.study import Study
from encoders.vectors import SubjectVectors
from scripts.export_static import main
from scripts.prepare_fmri import main as prepare

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("bids_tree", ROOT / "tests/encoders/brainmt/bids_tree.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

PEOPLE = [f"sub-{k}" for k in range(6)]
GAINS = [1.0, 3.0, 1.0, 0.5, 2.0, 1.0]


def head(seed: int, gain: float = 1.0) -> np.ndarray:
    """(X, Y, Z, T) float32: a person's own anatomy times the gain of a scanner."""
    return build.bold(seed).astype("f4") * np.float32(gain)


@pytest.fixture
def study(tmp_path):
    """Six people, the first with two runs, the last with a smaller mask."""
    tree = build.BidsTree(tmp_path / "study/raw")
    for k, gain in enumerate(GAINS):
        mask = build.brain()
        mask[2, 3, 2 if k == 5 else 99 :] &= k != 5
        tree.add(str(k), run="1", data=head(k, gain), mask=mask)
    tree.add("0", run="2", data=head(10, 7.0))
    assert prepare(["--study", str(tmp_path / "study"), "--num_workers=1"]) == 0
    study = Study(tmp_path / "study")
    Split(
        train=PEOPLE[:4], val=PEOPLE[4:5], test=PEOPLE[5:], groups={name: name for name in PEOPLE}, seed=0
    ).save(study.path("splits"))
    return study


def export(study, *options):
    code = main(["--study", str(study.folder), *options])
    path = study.folder / "vectors/brain_static.safetensors"
    return code, SubjectVectors.load(path) if path.exists() else None


def shared() -> np.ndarray:
    mask = build.brain()
    mask[2, 3, 2:] = False
    return mask


def test_images_are_relative_to_their_own_level_and_runs_are_averaged(study, capsys):
    code, vectors = export(study)
    assert code == 0 and vectors.ids == PEOPLE and vectors.provenance["trained_on"] is None
    assert vectors.values.shape == (6, shared().sum())

    def image(seed):
        mean = head(seed)[shared()].astype("f8").mean(axis=1)
        return mean / mean.mean()

    expected = [image(k) for k in range(6)]
    expected[0] = (expected[0] + image(10)) / 2
    np.testing.assert_allclose(vectors.values, expected, rtol=1e-5)
    path = study.folder / "vectors/brain_static.safetensors"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "sub-" not in capsys.readouterr().out.replace(str(study.folder), "")
    before = path.stat().st_mtime_ns
    assert export(study)[0] == 0 and path.stat().st_mtime_ns == before
    assert "already done" in capsys.readouterr().out


def test_a_control_study_shares_all_but_the_brain_vectors(study, tmp_path, capsys):
    control = Study(tmp_path / "control")
    assert export(study, f"--control={control.folder}")[0] == 0
    assert f"align.py --study {control.folder}" in capsys.readouterr().out
    assert SubjectVectors.load(control.path("brain")).provenance["encoder"] == "static mean image"
    assert Split.load(control.path("splits")).test == PEOPLE[5:]
    assert control.path("scans").samefile(study.path("scans"))
    assert export(study, f"--control={control.folder}")[0] == 0
    assert "already done" in capsys.readouterr().out
    other = tmp_path / "taken"
    (other / "vectors").mkdir(parents=True)
    (other / "vectors/brain.safetensors").write_bytes(b"trained")
    assert export(study, f"--control={other}")[0] == 2
    assert "cannot link" in capsys.readouterr().err
    assert (other / "vectors/brain.safetensors").read_bytes() == b"trained"


def test_blocks_average_the_shared_voxels_of_a_cube(study):
    _, voxels = export(study)
    code, vectors = export(study, "--block_mm=50", "--redo=true")  # voxels of 24 mm: cubes of two to a side
    assert code == 0
    cube = np.stack(np.nonzero(shared())) // 2
    names = np.unique(cube, axis=1)
    expected = [voxels.values[:, (cube == name[:, None]).all(axis=0)].mean(axis=1) for name in names.T]
    np.testing.assert_allclose(vectors.values, np.stack(expected, axis=1), rtol=1e-5)


def test_components_are_fitted_on_training_people_alone(study):
    _, voxels = export(study)
    code, vectors = export(study, "--components=2", "--redo=true")
    split = Split.load(study.path("splits"))
    assert code == 0 and vectors.values.shape == (6, 2)
    assert vectors.provenance["trained_on"] == {
        "split_digest": split.digest,
        "ids": PEOPLE[:4],
        "complete": True,
    }
    train = voxels.values[:4] - voxels.values[:4].mean(axis=0)
    axes = np.linalg.svd(train, full_matrices=False)[2][:2]
    expected = (voxels.values - voxels.values[:4].mean(axis=0)) @ axes.T
    np.testing.assert_allclose(np.abs(vectors.values), np.abs(expected), atol=1e-5)


def test_held_out_people_change_no_component(study):
    _, before = export(study, "--components=2")
    tree = build.BidsTree(study.folder / "raw")
    tree.add("5", run="1", data=head(77, 4.0), mask=shared())
    assert prepare(["--study", str(study.folder), "--num_workers=1"]) == 0
    _, after = export(study, "--components=2", "--redo=true")
    np.testing.assert_array_equal(after.values[:5], before.values[:5])
    assert (after.values[5] != before.values[5]).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--components=4"], "components is 4, but 4 training people .* at most 3"),
        (["--block_mm=-1"], "block_mm is -1.0"),
        (["--store=/nowhere"], "does not exist"),
    ],
)
def test_wrong_options_are_one_line(study, capsys, options, words):
    code, vectors = export(study, *options)
    assert code == 2 and vectors is None
    assert re.search(words, capsys.readouterr().err)


def test_masks_with_little_in_common_are_refused(study, capsys):
    half = build.brain()
    half[:, 3:] = False
    build.BidsTree(study.folder / "raw").add("6", data=head(6), mask=half)
    assert prepare(["--study", str(study.folder), "--min_extent=40", "--redo=true"]) == 0
    code, vectors = export(study)
    assert code == 2 and vectors is None
    assert "prepare the scans with one mask for everyone (--mask=FILE)" in capsys.readouterr().err


def test_images_whose_mean_was_taken_out_are_refused(study, capsys):
    data = head(6)
    data -= data.mean(axis=3, keepdims=True)
    build.BidsTree(study.folder / "raw").add("6", data=data)
    assert prepare(["--study", str(study.folder), "--num_workers=1"]) == 0
    assert export(study)[0] == 2
    assert "was taken out before it came here" in capsys.readouterr().err


def test_a_flipped_byte_in_a_mean_image_is_refused(study, capsys):
    store = FMRIStore(study.path("store"))
    path = store.folder / store.runs[2].file
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes(raw)
    assert export(study) == (2, None)
    assert "E_HASH" in capsys.readouterr().err


def test_help_imports_neither_torch_nor_sklearn():
    code = (
        "import sys; from scripts.export_static import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'sklearn', 'nibabel'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
