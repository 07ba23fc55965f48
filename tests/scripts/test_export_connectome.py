"""`scripts/export_connectome.py` on a store that `scripts/prepare_fmri.py` made: who is in it, leakage, the control."""

import importlib.util
import stat
from pathlib import Path

import numpy as np
import pytest

from encoders.brainmt.connectome_config import VECTORS
from encoders.cohort import Split
from encoders.runs.study import Study
from encoders.vectors import SubjectVectors
from scripts.export_connectome import main
from scripts.prepare_fmri import main as prepare

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("bids_tree", ROOT / "tests/encoders/brainmt/bids_tree.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

PEOPLE = [f"sub-{k}" for k in range(7)]


@pytest.fixture
def study(tmp_path):
    """Seven people, the first with two runs."""
    tree = build.BidsTree(tmp_path / "study/raw")
    for k in range(7):
        tree.add(str(k), run="1", data=build.bold(k), mask=build.brain())
    tree.add("0", run="2", data=build.bold(10), mask=build.brain())
    assert prepare(["--study", str(tmp_path / "study"), "--num_workers=1"]) == 0
    study = Study(tmp_path / "study")
    families = {name: name for name in PEOPLE}
    Split(train=PEOPLE[:4], val=PEOPLE[4:5], test=PEOPLE[5:], groups=families, seed=0).save(
        study.path("splits")
    )
    return study


def export(study, *options):
    code = main(["--study", str(study.folder), "--parcels=5", *options])
    path = study.folder / VECTORS
    return code, SubjectVectors.load(path) if path.exists() else None


def test_everyone_gets_a_connectome_fitted_on_training_people(study, capsys):
    code, vectors = export(study)
    assert code == 0 and vectors.ids == PEOPLE
    parcels = vectors.provenance["parcels"]
    assert parcels == 5 and vectors.values.shape == (7, parcels * (parcels + 1) // 2)
    split = Split.load(study.path("splits"))
    assert vectors.provenance["trained_on"] == {
        "split_digest": split.digest,
        "ids": PEOPLE[:4],
        "complete": True,
    }
    assert stat.S_IMODE((study.folder / VECTORS).stat().st_mode) == 0o600
    assert "sub-" not in capsys.readouterr().out.replace(str(study.folder), "")
    before = (study.folder / VECTORS).stat().st_mtime_ns
    assert export(study)[0] == 0 and (study.folder / VECTORS).stat().st_mtime_ns == before
    assert export(study, "--kind=correlation")[0] == 2
    assert "--redo=true" in capsys.readouterr().err
    code, other = export(study, "--kind=correlation", "--redo=true")
    assert code == 0 and other.values.shape == (7, parcels * (parcels - 1) // 2)
    assert np.abs(other.values).max() <= 1


def test_a_held_out_scan_changes_nobody_elses_connectome(study):
    _, before = export(study)
    build.BidsTree(study.folder / "raw").add("6", run="1", data=build.bold(77), mask=build.brain())
    assert prepare(["--study", str(study.folder), "--num_workers=1"]) == 0
    _, after = export(study, "--redo=true")
    np.testing.assert_array_equal(after.values[:6], before.values[:6])
    assert (after.values[6] != before.values[6]).any()


def test_a_control_study_has_the_connectomes_for_brain_vectors(study, tmp_path, capsys):
    control = Study(tmp_path / "control")
    assert export(study, f"--control={control.folder}")[0] == 0
    assert f"align.py --study {control.folder}" in capsys.readouterr().out
    assert SubjectVectors.load(control.path("brain")).provenance["encoder"] == "tangent connectome"


def test_a_missing_store_names_its_command(tmp_path, capsys):
    assert main(["--study", str(tmp_path)]) == 2
    assert "make it with: python scripts/prepare_fmri.py" in capsys.readouterr().err
    assert main(["--study", str(tmp_path), "--parcels=0"]) == 2
    assert "parcels is 0" in capsys.readouterr().err
