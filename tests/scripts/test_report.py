"""`report` as a stage: writes once, resumes, refuses, names the command for what is missing."""

import importlib.util
from pathlib import Path

import pytest

from encoders.runs import load_json, save_json
from scripts.report import main

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("finished_study", ROOT / "tests/align/finished_study.py")
finished = importlib.util.module_from_spec(spec)
spec.loader.exec_module(finished)


@pytest.fixture
def study(tmp_path):
    return finished.write_finished_study(tmp_path / "study", people=(20, 8, 24))


def run(capsys, study, *options):
    code = main(["--study", str(study), *options])
    return code, *capsys.readouterr()


def test_writes_the_report_once_and_refuses_another_evaluation(capsys, study):
    report = study / "reports" / "report.html"
    code, out, _ = run(capsys, study)
    assert code == 0 and "figures: 8" in out and str(report) in out
    first = report.read_bytes()
    code, out, _ = run(capsys, study)
    assert code == 0 and "already done" in out

    path = study / "runs/evaluate/evaluation.json"
    evaluation = load_json(path, "neurohelix.evaluation", 1)
    evaluation["verdict"] |= {"label": "no signal", "sentence": "No signal: nothing to see."}
    save_json(path, "neurohelix.evaluation", 1, evaluation)
    code, _, err = run(capsys, study)
    assert code == 2 and "evaluation" in err and "--redo=true" in err
    assert report.read_bytes() == first


def test_missing_inputs_name_their_command(capsys, study, tmp_path):
    code, _, err = run(capsys, tmp_path / "nothing")
    assert code == 2 and "make it with: python scripts/evaluate.py --study" in err
    (study / "runs/evaluate/figures.safetensors").unlink()
    code, _, err = run(capsys, study)
    assert code == 2 and "figures.safetensors does not exist; make it with: python scripts/evaluate.py" in err
    assert not (study / "reports").exists()


def test_a_damaged_evaluation_is_refused(capsys, study):
    path = study / "runs/evaluate/evaluation.json"
    path.write_text(path.read_text().replace("beyond confounds", "beyond all doubt", 1))
    code, _, err = run(capsys, study)
    assert code == 2 and "is damaged" in err
    assert not (study / "reports" / "report.html").exists()


def test_fewer_than_one_person_makes_no_sense(capsys, study):
    code, _, err = run(capsys, study, "--min_count=0")
    assert code == 2 and "--min_count is 0" in err
