"""`scripts/predict_brainmt.py` as a user runs it: one process and two, twice, with folds, leaks and privacy."""

import csv
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from encoders.brainmt.checkpoint import from_pretrained, save_pretrained
from encoders.brainmt.prediction.scores import FORMAT, KIND
from encoders.cohort import Split
from encoders.runs.artifact import load_json
from encoders.runs.study import Study
from scripts.predict_brainmt import main
from scripts.pretrain_brainmt import main as pretrain

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "predict_brainmt.py"
spec = importlib.util.spec_from_file_location(
    "labelled_study", ROOT / "tests/encoders/brainmt/labelled_study.py"
)
labelled = importlib.util.module_from_spec(spec)
spec.loader.exec_module(labelled)
QUICK = "--bootstraps=100"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study of 37 people with a trained model for two numbers."""
    study = labelled.make_study(tmp_path_factory.mktemp("numbers") / "study")
    assert pretrain([f"--study={study.folder}"]) == 0
    return study


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """A study with more people and a trained model for two classes."""
    folder = tmp_path_factory.mktemp("classes") / "study"
    study = labelled.make_study(folder, train=40, val=14, test=40, task="classification", targets="patient")
    assert pretrain([f"--study={study.folder}"]) == 0
    return study


def copy_of(study, folder):
    shutil.copytree(study.folder, folder)
    return Study(folder)


def metrics(study):
    return load_json(study.run_folder("predict_brainmt") / "metrics.json", KIND, FORMAT)


def table(study):
    with open(study.private / "brainmt_predictions.tsv", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def outputs(study):
    """Everything that is written for people to read."""
    folder = study.run_folder("predict_brainmt")
    paths = [folder / "metrics.json", *folder.glob("figures/*"), *folder.glob("private/*")]
    return [*paths, study.private / "brainmt_predictions.tsv", study.folder / "reports" / "brainmt.html"]


def test_held_out_people_are_predicted_beside_all_baselines(trained, tmp_path, capsys):
    study = copy_of(trained, tmp_path / "study")
    assert main([f"--study={study.folder}", QUICK]) == 0
    said = capsys.readouterr().out
    assert "people: 7" in said and "test R² (n = 7): brainmt" in said and "in words: BrainMT" in said
    found = metrics(study)
    assert list(found["targets"]) == ["trait_1", "trait_2"] and found["sets"] == ["test"]
    assert found["models"][0]["weights_sha256"] == from_pretrained(study.path("brainmt"))[1]["weights_sha256"]
    assert found["models"][0]["split_digest"] == Split.load(study.path("splits")).digest
    assert found["models"][0]["trained_on_this_split"] and found["unchecked"] == []
    names = {"brainmt", "mean", "confounds", "connectome_correlation", "connectome_tangent"}
    for target in found["targets"].values():
        assert set(target["models"]) == names and set(target["brainmt_minus"]) == names - {"brainmt"}
        assert all(score["n"] == 7 for score in target["models"]["brainmt"].values())
    rows = table(study)
    assert len(rows) == 14 and {row["fold"] for row in rows} == {"test"}

    assert main([f"--study={study.folder}", QUICK, "--batch_size=1"]) == 0
    assert "already done" in capsys.readouterr().out
    assert main([f"--study={study.folder}", QUICK, "--windows=2"]) == 2
    assert "windows: 4 -> 2" in capsys.readouterr().err


def test_the_same_command_gives_the_same_bytes(classified, tmp_path):
    studies = [copy_of(classified, tmp_path / "one"), copy_of(classified, tmp_path / "two")]
    for study in studies:
        assert main([f"--study={study.folder}", QUICK]) == 0
    one, two = (outputs(study) for study in studies)
    assert len(one) == len(two) >= 7
    for a, b in zip(sorted(one), sorted(two), strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name
    area = metrics(studies[0])["targets"]["patient"]["models"]["brainmt"]["test_auroc"]
    assert area["ci_low"] <= area["value"] <= area["ci_high"] and area["delong"]["value"] == pytest.approx(
        area["value"]
    )


def test_nobody_is_named_outside_private_folders(classified, tmp_path):
    study = copy_of(classified, tmp_path / "study")
    assert main([f"--study={study.folder}", QUICK, "--people=all"]) == 0
    private = [path for path in outputs(study) if "private" in path.parts]
    assert private and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private)
    assert b"sub-0001" in (study.private / "brainmt_predictions.tsv").read_bytes()
    shared = [path for path in study.run_folder("predict_brainmt").rglob("*") if path.is_file()]
    shared = [
        *(path for path in shared if "private" not in path.parts),
        study.folder / "reports/brainmt.html",
    ]
    assert len(shared) > 6
    for path in shared:
        assert b"sub-0" not in path.read_bytes(), path


def test_two_processes_predict_all_37_people_once_with_the_scores_of_one(trained, tmp_path):
    study, alone = (copy_of(trained, tmp_path / name) for name in ("two", "one"))
    options = ["--people=all", QUICK, "--batch_size=3", "--baselines=[mean,confounds]"]
    assert main([f"--study={alone.folder}", *options]) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, str(SCRIPT), f"--study={study.folder}", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("predict_brainmt: done") == 1
    one, two = metrics(alone), metrics(study)
    assert one["people_counts"]["predicted"] == two["people_counts"]["predicted"] == 37
    assert one["sets"] == two["sets"] == ["unseen", "all"]
    for name, target in one["targets"].items():
        assert target["models"]["brainmt"]["all_r2"]["n"] == 36  # one label is missing
        for model, scores in target["models"].items():
            other = two["targets"][name]["models"][model]
            assert scores.keys() == other.keys()
            for metric, score in scores.items():
                pair = [
                    [found[key] for key in score if found[key] is not None]
                    for found in (score, other[metric])
                ]
                assert pair[1] == pytest.approx(pair[0], rel=1e-4, abs=1e-6), (name, model, metric)
    rows = table(study)
    assert sorted({row["participant_id"] for row in rows}) == [f"sub-{k:04d}" for k in range(37)]
    assert len(rows) == 74
    assert {(row["fold"], row["unseen"]) for row in rows} == {
        ("train", "false"),
        ("val", "false"),
        ("test", "true"),
    }


def test_a_model_that_has_seen_the_held_out_people_is_refused(trained, tmp_path, capsys):
    study = copy_of(trained, tmp_path / "study")
    model, card = from_pretrained(study.path("brainmt"))
    test = Split.load(study.path("splits")).test
    leaky = tmp_path / "leaky"
    save_pretrained(model, leaky, card | {"trained_on": {**card["trained_on"], "ids": test[:1]}})
    options = [f"--study={study.folder}", f"--model={leaky}", QUICK, "--baselines=[mean]"]
    assert main(options) == 2
    error = capsys.readouterr().err
    assert "must be unseen" in error and test[0] not in error
    assert not (study.private / "brainmt_predictions.tsv").exists()
    assert main([*options, "--people=all", "--redo=true"]) == 0  # as training people they may be predicted


def test_folds_are_predicted_each_by_its_own_model(trained, tmp_path, capsys):
    study = copy_of(trained, tmp_path / "study")
    options = [f"--study={study.folder}", QUICK, "--fold=all", "--baselines=[mean]"]
    assert main(options) == 2
    assert "scripts/pretrain_brainmt.py" in capsys.readouterr().err
    assert pretrain([f"--study={study.folder}", "--fold=all", "--epochs=1"]) == 0
    assert main(options) == 0
    found, rows = metrics(study), table(study)
    assert found["folds"] == 3 and found["people_counts"]["predicted"] == 37
    assert [model["fold"] for model in found["models"]] == [0, 1, 2]
    assert len({model["weights_sha256"] for model in found["models"]}) == 3
    folds = Split.load(study.path("splits")).folds
    assert all(row["participant_id"] in folds[int(row["fold"])] and row["unseen"] == "true" for row in rows)
    assert main([f"--study={study.folder}", QUICK, "--fold=1", "--baselines=[mean]", "--redo=true"]) == 0
    assert metrics(study)["people_counts"]["predicted"] == len(folds[1])


def test_what_is_missing_is_named_with_its_command(tmp_path, capsys):
    assert main([f"--study={tmp_path / 'new'}"]) == 2
    assert "prepare_fmri.py" in capsys.readouterr().err
    study = labelled.make_study(tmp_path / "study", train=5, val=3, test=3)
    assert main([f"--study={study.folder}"]) == 2
    assert "pretrain_brainmt.py" in capsys.readouterr().err
    assert main([f"--study={study.folder}", "--atlas=nowhere.nii.gz"]) == 2
    assert "nowhere.nii.gz does not exist (atlas)" in capsys.readouterr().err
    assert main([f"--study={study.folder}", "--baselines=[guess]"]) == 2
    assert "guess" in capsys.readouterr().err
