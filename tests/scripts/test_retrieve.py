"""`retrieve` as a person types it: fast, readable, honest about who was held out, clear about mistakes."""

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from encoders.runs.artifact import load_tensors, save_tensors
from scripts.retrieve import main

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("finished_study", ROOT / "tests/align/finished_study.py")
finished = importlib.util.module_from_spec(spec)
spec.loader.exec_module(finished)
LIMIT = 5  # seconds from a cold start on a busy test machine; 1.5 s is promised for a free one


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return finished.write_finished_study(tmp_path_factory.mktemp("retrieve") / "study", people=(40, 12, 32))


@pytest.fixture(scope="module")
def ids_of(study):
    """Fold -> ids of its people; and who lacks a modality."""
    _, told = load_tensors(study / "runs/align/aligned.safetensors", "neurohelix.aligned", 2)
    folds = {
        fold: [i for i, f in zip(told["ids"], told["folds"], strict=True) if f == fold]
        for fold in finished.FOLDS
    }
    return folds | {"without_brain": folds["test"][0], "without_genetics": folds["test"][1]}


def asked(capsys, study, subject, *options):
    """Run the command in this process; returns (exit code, stdout, stderr)."""
    code = main(["--study", str(study), "--subject", subject, *options])
    return code, *capsys.readouterr()


def in_json(capsys, study, subject, *options):
    code, out, err = asked(capsys, study, subject, "--format", "json", *options)
    assert code == 0, err
    return json.loads(out)


def test_cold_start_is_fast_and_imports_nothing_heavy(study):
    program = (
        "import json, runpy, sys\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n    code = end.code\n"
        "heavy = {'torch', 'transformers', 'pandas', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "print(json.dumps([code, sorted(heavy)]), file=sys.stderr)"
    )
    script = str(ROOT / "scripts/retrieve.py")
    program = f"import sys; sys.argv = [{script!r}, *sys.argv[1:]]\n" + program
    start = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", program, "--study", study, "--subject", "sub-0007"],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - start
    print(f"retrieve from a cold start: {seconds:.2f} s")
    assert json.loads(ended.stderr.splitlines()[-1]) == [0, []]
    assert "Nearest genomes to the scan of sub-0007" in ended.stdout
    assert seconds < LIMIT


@pytest.mark.parametrize(
    "command", [["scripts/retrieve.py"], ["-m", "scripts.retrieve"], [str(ROOT / "scripts/retrieve.py")]]
)
def test_runs_as_users_run_it(study, tmp_path, command):
    where = tmp_path if Path(command[-1]).is_absolute() else ROOT
    ended = subprocess.run(
        [sys.executable, *command, "--study", study, "--subject", "sub-0003", "--k=2"],
        cwd=where,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("sub-") >= 3


def test_table_lists_k_people_and_the_own_rank_beyond_them(capsys, study, ids_of):
    ranks = {i: in_json(capsys, study, i)["own"]["rank"] for i in ids_of["test"][2:]}
    far = max(ranks, key=ranks.get)
    near = min(ranks, key=ranks.get)
    assert ranks[far] > 10 and ranks[near] <= 3  # the study has some signal, and not a perfect one
    _, out, _ = asked(capsys, study, far, "--k", "4")
    rows = [line.split() for line in out.splitlines() if line.lstrip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert f"Own genome: rank {ranks[far]:g} of 83, similarity" in out and "by chance: rank 42, 50 %" in out
    assert "<-" not in out
    assert f"{far} was held out (test fold)" in out
    _, out, _ = asked(capsys, study, near)
    assert f"<- {near}'s own genome" in out


def test_json_says_what_the_table_says(capsys, study, ids_of):
    subject = ids_of["test"][5]
    found = in_json(capsys, study, subject, "--k", "3", "--from", "genetics", "--vectors", "raw")
    assert (found["subject"], found["from"], found["to"], found["vectors"]) == (
        subject,
        "genetics",
        "fmri",
        "raw",
    )
    assert found["held_out"] and found["gallery"]["people_by_fold"] == {"train": 40, "val": 12, "test": 31}
    _, out, _ = asked(capsys, study, subject, "--k", "3", "--from", "genetics", "--vectors", "raw")
    for person in found["nearest"]:
        assert f"{person['subject']}  {person['similarity']:>10.3f}  {person['fold']}" in out
    assert "Nearest scans to the genome" in out and "raw (not adjusted" in out


def test_direction_and_vectors_change_the_answer(capsys, study):
    options = ([], ["--from", "genetics"], ["--from=fmri", "--vectors", "raw"])
    answers = [in_json(capsys, study, "sub-0009", "--k=99", *option)["nearest"] for option in options]
    assert len({json.dumps(answer) for answer in answers}) == 3
    assert in_json(capsys, study, "sub-0009", "--k=99")["nearest"] == answers[0]


def test_training_and_validation_people_are_marked_optimistic(capsys, study, ids_of):
    _, out, _ = asked(capsys, study, ids_of["train"][0])
    assert "was in training" in out and "optimistic" in out
    _, out, _ = asked(capsys, study, ids_of["val"][0])
    assert "validation fold" in out and "optimistic" in out
    found = in_json(capsys, study, ids_of["train"][0])
    assert not found["held_out"] and "optimistic" in found["notes"][0]


def test_held_out_gallery(capsys, study, ids_of):
    found = in_json(capsys, study, ids_of["test"][3], "--gallery", "test", "--k", "99")
    assert {person["subject"] for person in found["nearest"]} == set(ids_of["test"]) - {
        ids_of["without_genetics"]
    }
    assert found["own"]["chance_rank"] == 16
    code, out, _ = asked(capsys, study, ids_of["train"][0], "--gallery", "test")
    assert code == 0 and "no own rank; use --gallery all" in out


def test_a_person_with_one_modality(capsys, study, ids_of):
    code, out, _ = asked(capsys, study, ids_of["without_genetics"])
    assert code == 0 and "has no genetics vector: there is no own genome to rank" in out
    code, out, err = asked(capsys, study, ids_of["without_brain"])
    assert (code, out) == (2, "")
    assert (
        err
        == f"error: {ids_of['without_brain']} has no fMRI vector, only a genetics vector; use --from genetics\n"
    )


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("7", "sub-0007"),
        ("007", "sub-0007"),
        ("0012", "sub-0012"),
        ("SUB-12", "sub-0012"),
        ("sub-012", "sub-0012"),
    ],
)
def test_an_unknown_subject_gets_near_matches(capsys, study, typed, suggested):
    code, out, err = asked(capsys, study, typed)
    assert (code, out) == (2, "")
    assert f"no subject {typed!r} among the 84 people" in err and f"did you mean {suggested}?" in err


def test_an_unknown_subject_far_from_any(capsys, study):
    code, _, err = asked(capsys, study, "sub-00O9")  # a letter O
    assert code == 2 and "did you mean sub-00" in err
    code, _, err = asked(capsys, study, "nobody")
    assert code == 2 and "ids look like sub-0001" in err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--k", "0"], "--k is 0"),
        (["--from", "eeg"], "'eeg' is not among the modalities"),
        (["--from", "fmri", "--to", "fmri"], "two different modalities"),
        (["--colour", "red"], "--colour"),
        (["--gallery", "train"], "gallery"),
    ],
)
def test_wrong_options_are_one_line(capsys, study, options, sentence):
    code, out, err = asked(capsys, study, "sub-0001", *options)
    assert (code, out) == (2, "") and sentence in err and err.count("\n") == 1


def test_a_missing_or_stale_index_names_the_command(capsys, study, tmp_path):
    code, _, err = asked(capsys, tmp_path / "nothing", "sub-0001")
    assert code == 2 and "make it with: accelerate launch scripts/align.py --study" in err
    stale = Path(shutil.copytree(study, tmp_path / "stale"))
    aligned = stale / "runs/align/aligned.safetensors"
    tensors, metadata = load_tensors(aligned, "neurohelix.aligned", 2)
    tensors["brain_raw"][0] *= -1
    save_tensors(aligned, "neurohelix.aligned", 2, tensors, metadata)
    code, out, err = asked(capsys, stale, "sub-0001")
    assert (code, out) == (2, "")
    assert f"accelerate launch scripts/align.py --study {stale} --redo=true" in err
