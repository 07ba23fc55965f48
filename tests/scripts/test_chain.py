"""The whole chain on two dozen people, as a user runs it: every stage, again, interrupted, with wrong input."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from encoders.runs import Study, load_json, load_tensors
from encoders.runs.study import ARTIFACTS, REPOSITORY
from encoders.vectors import SubjectVectors

SCRIPTS = REPOSITORY / "scripts"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def run(*command: object, cwd: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the given arguments."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=ENVIRONMENT | environment,
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A study on which the demo ran with the tiny settings; its folder has a space and an umlaut."""
    folder = tmp_path_factory.mktemp("chain") / "a stüdy"
    done = run(SCRIPTS / "demo.py", f"--study={folder}", f"--settings={REPOSITORY / 'configs' / 'tiny'}")
    assert done.returncode == 0, done.stdout + done.stderr
    return Study(folder), done.stdout


def test_every_artefact_is_there_and_the_demo_says_where(chain):
    study, printed = chain
    missing = [name for name in ARTIFACTS if not study.path(name).exists()]
    assert missing == []
    assert f"Report: {study.path('report')}" in printed
    assert "RANDOM weights" in printed  # said in plain words
    content = load_json(study.path("evaluation"), "neurohelix.evaluation", 1)
    assert content["verdict"]["label"] in (
        "beyond confounds",
        "explained by confounds",
        "no signal",
        "inconclusive",
    )
    assert content["models"].keys() >= {"neurohelix", "ridge_cca", "confounds_only", "oracle"}
    figures, _ = load_tensors(
        study.path("evaluation").with_name("figures.safetensors"), "neurohelix.figures", 1
    )
    assert figures["null_matched"].shape == (2, 99)


def test_brain_vectors_carry_who_trained_their_encoder(chain):
    study, _ = chain
    split = json.loads(study.path("splits").read_text())["content"]
    trained_on = SubjectVectors.load(study.path("brain")).provenance["trained_on"]
    assert set(trained_on["ids"]) == set(split["train"]) | set(split["val"])
    assert SubjectVectors.load(study.path("genetics")).provenance["trained_on"] is None


def test_second_demo_runs_nothing_and_ends_within_seconds(chain):
    study, _ = chain
    start = time.monotonic()
    again = run(SCRIPTS / "demo.py", f"--study={study.folder}")
    assert again.returncode == 0
    assert again.stdout.count(": already done") == 9
    assert again.stdout.count("$ ") == 1  # only the retrieval
    assert time.monotonic() - start < 20


def test_settings_given_on_top_are_refused_with_the_difference(chain):
    study, _ = chain
    before = study.path("aligned").read_bytes()
    refused = run(SCRIPTS / "align.py", f"--study={study.folder}", "--epochs=5")
    assert refused.returncode == 2
    assert "(epochs: 4 -> 5)" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert study.path("aligned").read_bytes() == before


@pytest.mark.parametrize("how", ["path", "module", "launch"])
def test_align_runs_in_all_three_ways_from_anywhere_although_it_bears_the_name_of_the_package(
    chain, how, tmp_path
):
    study, _ = chain
    command = {
        "path": [SCRIPTS / "align.py"],
        "module": ["-m", "scripts.align"],
        "launch": ["-m", "accelerate.commands.accelerate_cli", "launch", SCRIPTS / "align.py"],
    }[how]
    for cwd in (tmp_path, SCRIPTS) if how != "launch" else (tmp_path,):
        done = run(*command, f"--study={study.folder}", cwd=cwd)
        assert done.returncode == 0, done.stderr
        assert "align: already done" in done.stdout


def copied(study: Study, folder: Path) -> Study:
    """A second study that shares the raw files, the split and the vectors of the first."""
    other = Study(folder)
    other.folder.mkdir()
    for name in ("raw", "configs", "splits", "vectors", "store"):
        (other.folder / name).symlink_to(study.folder / name)
    return other


def test_two_processes_align_as_well_as_one(chain, tmp_path):
    study, _ = chain
    other = copied(study, tmp_path / "two")
    launch = ["-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2"]
    quiet = ["--projector.dropout=0.0", "--projector.input_noise=0.0"]  # each process draws its own
    done = run(*launch, SCRIPTS / "align.py", f"--study={other.folder}", *quiet, ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("align: done in") == 1
    one = copied(study, tmp_path / "one")
    assert run(SCRIPTS / "align.py", f"--study={one.folder}", *quiet).returncode == 0
    pair = [load_tensors(s.path("aligned"), "neurohelix.aligned", 2)[0] for s in (one, other)]
    for name in ("brain_raw", "genetics_raw"):
        assert abs(pair[0][name] - pair[1][name]).max() < 1e-4


def test_an_interrupted_alignment_resumes_to_the_same_result(chain, tmp_path):
    study, _ = chain
    whole = copied(study, tmp_path / "whole")
    broken = copied(study, tmp_path / "broken")
    options = ["--epochs=60", "--eval_every=1"]
    assert run(SCRIPTS / "align.py", f"--study={whole.folder}", *options).returncode == 0
    command = [sys.executable, str(SCRIPTS / "align.py"), f"--study={broken.folder}", *options]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoints = broken.run_folder("align") / "raw"
    while len(list(checkpoints.glob("step-*"))) < 2:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not broken.path("aligned").exists()
    resumed = run(SCRIPTS / "align.py", f"--study={broken.folder}", *options)
    assert "resuming after epoch" in resumed.stdout
    assert whole.path("aligned").read_bytes() == broken.path("aligned").read_bytes()


def test_people_in_one_modality_only_are_counted_and_listed(chain, tmp_path):
    study, _ = chain
    other = copied(study, tmp_path / "fewer")
    (other.folder / "vectors").unlink()
    (other.folder / "vectors").mkdir()
    (other.path("genetics")).symlink_to(study.path("genetics"))
    brain = SubjectVectors.load(study.path("brain"))
    kept = [i for i in brain.ids if i not in ("sub-0003", "sub-0004")]
    SubjectVectors(ids=kept, values=brain.select(kept), provenance=brain.provenance).save(other.path("brain"))
    done = run(SCRIPTS / "align.py", f"--study={other.folder}")
    assert done.returncode == 0, done.stderr
    assert "without brain vector: 2" in done.stdout
    listed = (other.private / "missing_modality.tsv").read_text()
    assert "sub-0003" in listed
    assert "sub-0004" in listed
    answer = run(SCRIPTS / "retrieve.py", "--subject=sub-0003", f"--study={other.folder}")
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1


def test_missing_stage_is_named_with_its_command(tmp_path):
    for script, told in (
        ("make_splits.py", "scripts/make_cohort.py"),
        ("embed_fmri.py", "scripts/p"),
        ("align.py", "scripts/embed_fmri.py"),
        ("evaluate.py", "scripts/align.py"),
        ("report.py", "scripts/evaluate.py"),
        ("retrieve.py", "scripts/align.py"),
    ):
        extra = ["--subject=sub-0001"] if script == "retrieve.py" else []
        done = run(SCRIPTS / script, f"--study={tmp_path / 'empty'}", *extra)
        assert done.returncode == 2, script
        assert told in done.stderr, (script, done.stderr)
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "empty").exists()


def test_duplicate_subject_id_is_one_sentence_with_the_lines(chain, tmp_path):
    study, _ = chain
    lines = study.path("participants").read_text().splitlines()
    table = tmp_path / "participants.tsv"
    table.write_text("\n".join([*lines, lines[3]]) + "\n")
    done = run(SCRIPTS / "make_splits.py", f"--study={tmp_path / 'new'}", f"--participants={table}")
    assert done.returncode == 2
    assert "'sub-0003' on lines 4, 26" in done.stderr
    assert not (tmp_path / "new" / "splits").exists()


def test_no_script_imports_torch_to_show_its_help():
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module('scripts.' + name)\n"
        "print(sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    names = [path.stem for path in SCRIPTS.glob("*.py") if path.stem != "__init__"]
    assert len(names) >= 11
    assert run("-c", code, *names).stdout.strip() == "[]"


def test_a_third_modality_several_seeds_and_a_way_out(chain, capsys):
    from scripts.align import main as align
    from scripts.evaluate import main as evaluate
    from scripts.export import main as export
    from scripts.import_vectors import main as import_vectors

    study, _ = chain
    genome = SubjectVectors.load(study.path("genetics"))
    table = study.folder / "scores.csv"
    rows = [f"{i},{v[0]:.5f},{v[1]:.5f}" for i, v in zip(genome.ids[3:], genome.values[3:], strict=True)]
    table.write_text("\n".join(["eid,prs_0,prs_1", *rows]) + "\n")
    here = f"--study={study.folder}"
    assert import_vectors([here, f"--table={table}", "--name=scores", "--trained_on=nobody"]) == 0
    settings = f"--config={REPOSITORY / 'configs' / 'tiny' / 'align.yaml'}"
    three = [here, settings, "--modalities=[brain,genetics,scores]", "--name=three"]
    assert align([*three, "--seeds=[0,1]"]) == 0
    out = capsys.readouterr().out
    assert "align: 2 runs, mean ± standard deviation" in out and "over 2 runs" in out
    both = [
        load_tensors(
            study.run_folder(f"align_three_seed-{s}") / "aligned.safetensors", "neurohelix.aligned", 2
        )
        for s in (0, 1)
    ]
    assert both[0][1]["modalities"] == ["brain", "genetics", "scores"]
    vectors = [one["scores_adjusted"] for one, _ in both]
    assert (
        vectors[0].shape == vectors[1].shape
        and not (vectors[0] == vectors[1])[~(vectors[0] != vectors[0])].all()
    )
    assert sum((v != v).all(axis=1).sum() for v in vectors[:1]) == 3  # people without scores
    assert evaluate([here, "--name=three_seed-1", "--permutations=19", "--bootstraps=19"]) == 0
    said = load_json(
        study.run_folder("evaluate_three_seed-1") / "evaluation.json", "neurohelix.evaluation", 1
    )
    assert set(said["other_pairs"]) == {"brain~scores", "genetics~scores"}
    assert export([here, "--folds=[train,val,test]"]) == 0
    assert "circular" in capsys.readouterr().out
