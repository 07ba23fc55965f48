"""`scripts/tune_brainmt.py` as a user runs it: tune, resume, two processes, and what it refuses."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from encoders.brainmt.checkpoint import from_pretrained
from encoders.cohort import Split
from encoders.runs.artifact import load_tensors
from encoders.runs.checkpoint import checkpoints, load_checkpoint
from encoders.runs.study import Study
from encoders.runs.tracking import read_metrics
from encoders.vectors import SubjectVectors
from scripts.align import main as align
from scripts.pretrain_brainmt import main as pretrain
from scripts.tune_brainmt import main

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "tune_brainmt.py"
spec = importlib.util.spec_from_file_location("tiny_study", ROOT / "tests/encoders/brainmt/tiny_study.py")
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)
SETTINGS = """
projector: {output_dim: 8, hidden_dim: 16, input_noise: 0.1}
projector_epochs: 6
epochs: 3
batch_size: 10
chunk_size: 3
tower_lr: 0.003
layer_decay: 1.0
patience: 0
eval_windows: 2
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study with a trained BrainMT, and genome vectors that follow the traits that the scans follow."""
    study = tiny.make_study(tmp_path_factory.mktemp("made") / "study")
    assert pretrain([f"--study={study.folder}", "--epochs=1", "--warmup_epochs=0"]) == 0
    table = pd.read_csv(study.path("participants"), sep="\t", na_values="n/a")
    rng = np.random.default_rng(3)
    table["sex"] = rng.choice(["F", "M"], len(table))
    table["age"] = rng.integers(20, 80, len(table))
    table.to_csv(study.path("participants"), sep="\t", index=False, na_rep="n/a")
    traits = table[["trait_1", "trait_2"]].fillna(0).to_numpy()
    values = np.hstack([traits, 0.1 * rng.standard_normal((len(traits), 3))]).astype(np.float32)
    provenance = {"encoder": "made up", "trained_on": None}
    SubjectVectors(ids=list(table["participant_id"]), values=values, provenance=provenance).save(
        study.path("genetics")
    )
    (study.folder / "configs" / "tune_brainmt.yaml").write_text(SETTINGS)
    return study


@pytest.fixture(scope="module")
def tuned(made, tmp_path_factory):
    """The same study after one uninterrupted tuning in one process."""
    study = copy_of(made, tmp_path_factory.mktemp("tuned") / "study")
    assert main([f"--study={study.folder}"]) == 0
    return study


def copy_of(study, folder):
    shutil.copytree(study.folder, folder)
    return Study(folder)


def weights(study):
    """Tensors of the best tower and projectors, and of the last checkpoint with its optimizer."""
    folder = study.run_folder("tune_brainmt")
    best, _ = load_tensors(folder / "best" / "model.safetensors", "neurohelix.brainmt", 1)
    projectors, _ = load_tensors(folder / "projectors.safetensors", "neurohelix.alignment", 2)
    last = checkpoints(folder / "checkpoints")[-1]
    return best | projectors | load_tensors(last / "tensors.safetensors", "neurohelix.checkpoint", 1)[0]


def last_state(study, name):
    """What the last checkpoint of a run holds of the `model` (the projectors) or the `tower`."""
    return load_checkpoint(checkpoints(study.run_folder("tune_brainmt") / "checkpoints")[-1])[0][name]


def test_tuning_leaves_a_tower_that_says_whom_it_has_seen_and_vectors_made_with_it(made, tuned):
    split = Split.load(tuned.path("splits"))
    _, card = from_pretrained(tuned.run_folder("tune_brainmt") / "best")
    _, before = from_pretrained(made.path("brainmt"))
    assert card["trained_on"] == {
        "split_digest": split.digest,
        "ids": sorted(split.train + split.val),
        "complete": True,
    }
    assert card["started_from"]["weights_sha256"] == before["weights_sha256"]
    assert card["targets"] is None and card["training"]["tower_lr"] == 0.003
    assert not {"study", "model"} & set(card["training"])
    vectors = SubjectVectors.load(tuned.folder / "vectors" / "brain_tuned.safetensors")
    assert vectors.provenance["weights_sha256"] == card["weights_sha256"]
    assert vectors.provenance["trained_on"] == card["trained_on"]
    assert len(vectors.ids) == 37 and np.isfinite(vectors.values).all()
    assert main([f"--study={tuned.folder}"]) == 0  # done: nothing to do
    lines = read_metrics(tuned.run_folder("tune_brainmt"))
    looks = [line["val_auc2afc_matched"] for line in lines if "val_auc2afc_matched" in line]
    assert len(looks) == 4 and max(looks) == card["validation"]["val_auc2afc_matched"]
    assert looks.index(max(looks)) == card["epoch"]  # 0 is the tower as it was


def test_every_part_of_the_tower_but_its_head_is_trained(made, tuned):
    last = last_state(tuned, "tower")
    start = dict(from_pretrained(made.path("brainmt"))[0].named_parameters())
    assert set(last) == {name for name in start if not name.startswith("head.")}
    moved = {name: (value - start[name]).abs().max().item() for name, value in last.items()}
    assert len(moved) > 20 and min(moved.values()) > 1e-4, moved


def test_align_takes_the_tuned_vectors(tuned, tmp_path):
    study = copy_of(tuned, tmp_path / "study")
    path = study.folder / "vectors" / "brain_tuned.safetensors"
    options = ["--epochs=2", "--confounds=[age,sex]", "--projector.output_dim=8", "--projector.hidden_dim=16"]
    assert align([f"--study={study.folder}", f"--brain={path}", *options]) == 0


def test_chunks_change_nothing_but_memory(made, tmp_path):
    losses = []
    for size in (10, 3):
        study = copy_of(made, tmp_path / f"study-{size}")
        options = ["--drop_path=0", "--epochs=1", f"--chunk_size={size}", "--windows=2"]
        assert main([f"--study={study.folder}", *options]) == 0
        lines = read_metrics(study.run_folder("tune_brainmt"))
        losses.append([line["loss"] for line in lines if "loss" in line])
        assert max(line["grad_norm"] for line in lines if "loss" in line) > 0.01
    assert len(losses[0]) == 2
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_only_the_last_block_is_trained_where_asked(made, tmp_path):
    study = copy_of(made, tmp_path / "study")
    assert (
        main(
            [
                f"--study={study.folder}",
                "--unfrozen_blocks=1",
                "--epochs=1",
                "--loss=siglip",
                "--preload=true",
            ]
        )
        == 0
    )
    tower = last_state(study, "tower")
    assert tower and all(name.startswith("attention.0.") for name in tower)
    assert "biases.brain~genetics" in last_state(study, "model")  # SigLIP's


def refused(capsys, *arguments):
    assert main([str(word) for word in arguments]) == 2
    return capsys.readouterr().err


def test_a_model_or_vectors_that_have_seen_held_out_people_are_refused(made, tmp_path, capsys):
    study = copy_of(made, tmp_path / "study")
    old = Split.load(study.path("splits"))
    people = [*old.test, *old.train, *old.val]
    other = Split(train=people[:21], val=people[21:30], test=people[30:], groups=old.groups, seed=1)
    other.save(study.path("splits"))
    assert "encoder of the brain vectors was trained on" in refused(capsys, f"--study={study.folder}")
    old.save(study.path("splits"))
    vectors = SubjectVectors.load(study.path("genetics"))
    seen = {"split_digest": "0" * 64, "ids": old.test[:2], "complete": True}
    fitted = SubjectVectors(ids=vectors.ids, values=vectors.values, provenance={"trained_on": seen})
    fitted.save(study.path("genetics"))
    assert "encoder of the genetics vectors was trained on 2 of the 7" in refused(
        capsys, f"--study={study.folder}"
    )
    assert not (study.run_folder("tune_brainmt") / "start.safetensors").exists()


def test_relatives_in_different_folds_are_refused(made, tmp_path, capsys):
    study = copy_of(made, tmp_path / "study")
    split = Split.load(study.path("splits"))
    study.path("kinship").write_text(f"ID1\tID2\tKinship\n{split.train[0]}\t{split.test[0]}\t0.25\n")
    assert "pairs of relatives" in refused(capsys, f"--study={study.folder}")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--chunk_size=0", "chunk_size is 0"),
        ("--unfrozen_blocks=0", "unfrozen_blocks is 0"),
        ("--partner=brain", "partner is 'brain'"),
        ("--drop_path=1.0", "drop_path is 1.0"),
        ("--batch_size=1", "2 or more"),
        ("--partner=snps", "snps.safetensors does not exist"),
        ("--model=/nowhere", "/nowhere does not exist"),
    ],
)
def test_options_that_cannot_be_are_refused(made, capsys, option, told):
    assert told in refused(capsys, f"--study={made.folder}", option)


def test_a_loss_that_is_not_finite_stops_with_its_step(made, tmp_path, capsys):
    study = copy_of(made, tmp_path / "study")
    told = refused(capsys, f"--study={study.folder}", "--lr=1e30", "--clip_norm=1e30")
    assert "at optimizer step" in told and "lower --lr" in told


def command(study, *options, processes=1):
    launch = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        if processes > 1
        else []
    )
    return [sys.executable, *launch, str(SCRIPT), f"--study={study.folder}", *options]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_goes_on_to_the_same_bits(made, tuned, tmp_path, number):
    study = copy_of(made, tmp_path / "study")
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    running = subprocess.Popen(
        command(study, "--save_minutes=0"), env=environment, stderr=subprocess.PIPE, text=True
    )
    folder = study.run_folder("tune_brainmt") / "checkpoints"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and running.poll() is None:
        reached = [int(path.name.removeprefix("step-")) for path in checkpoints(folder)]
        if reached and reached[-1] >= 13:  # in the first epoch with the tower
            break
        time.sleep(0.01)
    running.send_signal(number)
    _, told = running.communicate(timeout=120)
    assert running.returncode == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    if number == signal.SIGTERM:
        assert "saved; run the same command again" in told
    reached = int(checkpoints(folder)[-1].name.removeprefix("step-"))
    assert 13 <= reached < 18
    done = subprocess.run(command(study), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch" in done.stdout
    found, wanted = weights(study), weights(tuned)
    assert found.keys() == wanted.keys()
    for name in wanted:
        if not name.startswith("random"):
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    vectors = [SubjectVectors.load(s.folder / "vectors" / "brain_tuned.safetensors") for s in (study, tuned)]
    np.testing.assert_array_equal(vectors[0].values, vectors[1].values)


@pytest.mark.slow
def test_two_processes_tune_like_one_but_for_chance(made, tmp_path):
    quiet = (
        "--drop_path=0",
        "--projector.dropout=0",
        "--projector.input_noise=0",
        "--epochs=2",
        "--chunk_size=2",
    )
    losses = []
    for processes in (1, 2):
        study = copy_of(made, tmp_path / f"study-{processes}")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command(study, *quiet, processes=processes),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        lines = read_metrics(study.run_folder("tune_brainmt"))
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert len(losses[0]) == 4
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    record = json.loads((study.run_folder("tune_brainmt") / "stage.json").read_text())["content"]["summary"]
    assert "3 chunks of 2 on each of 2 processes" in record["batch"]
