"""`scripts/pretrain_brainmt.py` and `scripts/embed_fmri.py` as a user runs them: train, resume, two processes."""

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
import pytest
import torch

from encoders.brainmt.checkpoint import from_pretrained
from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.training.config import PretrainBrainMT, best_model
from encoders.cohort import Split
from encoders.runs.artifact import load_json, load_tensors
from encoders.runs.checkpoint import checkpoints, load_checkpoint, unfinished
from encoders.runs.config import parse
from encoders.runs.study import Study
from encoders.runs.tracking import read_metrics
from encoders.vectors import SubjectVectors
from scripts.embed_fmri import main as embed
from scripts.pretrain_brainmt import main

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "pretrain_brainmt.py"
spec = importlib.util.spec_from_file_location("tiny_study", ROOT / "tests/encoders/brainmt/tiny_study.py")
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An untrained study, to be copied."""
    return tiny.make_study(tmp_path_factory.mktemp("made") / "study")


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory):
    """The same study after one uninterrupted training in one process."""
    folder = tmp_path_factory.mktemp("trained") / "study"
    shutil.copytree(made.folder, folder)
    assert main([f"--study={folder}"]) == 0
    return Study(folder)


def copy_of(study, folder):
    shutil.copytree(study.folder, folder)
    return Study(folder)


def epochs_of(study):
    """Lines of metrics.jsonl that end an epoch."""
    return [line for line in read_metrics(study.run_folder("pretrain_brainmt")) if "epoch" in line]


def weights(study):
    """Tensors of the best model, and of the last checkpoint with its optimizer."""
    best, _ = load_tensors(study.path("brainmt") / "model.safetensors", "neurohelix.brainmt", 1)
    last = checkpoints(study.run_folder("pretrain_brainmt") / "checkpoints")[-1]
    return best, load_tensors(last / "tensors.safetensors", "neurohelix.checkpoint", 1)[0]


def test_training_leaves_a_model_that_says_what_it_has_seen(trained):
    split = Split.load(trained.path("splits"))
    model, card = from_pretrained(trained.path("brainmt"))
    seen = {"split_digest": split.digest, "ids": sorted(split.train + split.val), "complete": True}
    assert card["trained_on"] == seen
    assert [target["name"] for target in card["targets"]] == ["trait_1", "trait_2"]
    assert all(target["sd"] > 0 for target in card["targets"])
    assert model.config.grid == (7, 5, 6) and not model.training
    people = json.loads((trained.path("brainmt") / "card.json").read_text())["content"]
    assert people["weights_sha256"] == card["weights_sha256"]

    lines = epochs_of(trained)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert {"train_loss", "lr", "grad_norm", "val_mse", "val_mae", "val_r", "val_r2"} <= set(lines[-1])
    steps = [line for line in read_metrics(trained.run_folder("pretrain_brainmt")) if "epoch" not in line]
    assert [line["step"] for line in steps] == [10, 20]
    for line in steps:
        assert {"loss", "lr", "grad_norm"} <= set(line) and all(
            line[name] > 0 for name in ("step_s", "windows_per_s", "peak_memory_gib", "mfu")
        )
    tested = load_json(
        trained.run_folder("pretrain_brainmt") / "test_metrics.json", "neurohelix.brainmt_test", 2
    )
    assert tested["people"] == len(split.test) == 7
    assert set(tested["targets"]) == {"trait_1", "trait_2"} and tested["targets"]["trait_1"]["n"] == 7


def test_it_learns(trained):
    lines = epochs_of(trained)
    assert lines[-1]["train_loss"] < 0.8 * lines[0]["train_loss"]


def test_again_does_nothing_and_other_options_are_refused(trained, capsys):
    before = (trained.path("brainmt") / "model.safetensors").stat().st_mtime_ns
    assert main([f"--study={trained.folder}"]) == 0
    assert "already done" in capsys.readouterr().out
    assert main([f"--study={trained.folder}", "--lr=0.1"]) == 2
    assert "lr" in capsys.readouterr().err
    assert (trained.path("brainmt") / "model.safetensors").stat().st_mtime_ns == before


def metrics_of(study):
    """All lines without what depends on the clock and the machine."""
    clocks = ("step_s", "windows_per_s", "peak_memory_gib", "mfu")
    lines = read_metrics(study.run_folder("pretrain_brainmt"))
    return [{name: value for name, value in line.items() if name not in clocks} for line in lines]


def assert_same_bits(study, wanted_study):
    for ours, wanted in zip(weights(study), weights(wanted_study), strict=True):
        assert ours.keys() == wanted.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], wanted[name], err_msg=name)
    assert metrics_of(study) == metrics_of(wanted_study)


def start(study, *options):
    command = [sys.executable, str(SCRIPT), f"--study={study.folder}", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def two_processes(study, *options):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, str(SCRIPT), f"--study={study.folder}", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=study.folder.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def wait_until(process, happened):
    deadline = time.monotonic() + 300
    while not happened() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.0005)
    assert process.poll() is None, process.communicate()


ALWAYS = "--save_minutes=0"  # a checkpoint after every step


@pytest.mark.parametrize("moment", ["in an epoch", "while saving", "at the first save"])
def test_killed_at_any_moment_it_continues_to_the_same_bits(made, trained, tmp_path, moment):
    study = copy_of(made, tmp_path / "study")
    folder = study.run_folder("pretrain_brainmt") / "checkpoints"
    process = start(study, ALWAYS)
    if moment == "in an epoch":
        wait_until(process, lambda: any(path.name >= "step-00000007" for path in checkpoints(folder)))
    elif moment == "while saving":
        wait_until(process, lambda: len(checkpoints(folder)) == 2 and unfinished(folder))
    else:
        wait_until(process, lambda: unfinished(folder))
    process.kill()
    process.communicate()
    done = [path.name for path in checkpoints(folder)]
    assert done if moment != "at the first save" else len(done) <= 1
    assert not study.path("brainmt").with_name("test_metrics.json").exists()

    assert main([f"--study={study.folder}", ALWAYS]) == 0
    assert unfinished(folder) == []
    assert_same_bits(study, trained)


def test_a_scheduler_that_says_stop_gets_a_saved_run_and_its_exit_code(made, trained, tmp_path):
    study = copy_of(made, tmp_path / "study")
    lines = study.run_folder("pretrain_brainmt") / "metrics.jsonl"
    process = start(study)
    wait_until(process, lambda: lines.exists() and '"epoch": 1' in lines.read_text())
    process.terminate()
    said = process.communicate()[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped as asked at optimizer step" in said and "Traceback" not in said
    assert main([f"--study={study.folder}"]) == 0
    assert_same_bits(study, trained)


def test_it_goes_on_with_another_number_of_processes_through_the_rest_of_the_epoch(made, tmp_path):
    study = copy_of(made, tmp_path / "study")
    folder = study.run_folder("pretrain_brainmt") / "checkpoints"
    process = start(study, ALWAYS)
    wait_until(process, lambda: any(path.name >= "step-00000006" for path in checkpoints(folder)))
    process.kill()
    process.communicate()
    reached = load_checkpoint(checkpoints(folder)[-1])[1]
    done = two_processes(study, ALWAYS)
    assert "a step now has 8 windows instead of 4" in done.stdout
    left = (22 - reached["seen"]) // 8 + 2 * (3 - reached["epoch"])
    lines = epochs_of(study)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["step"] == reached["step"] + left
    assert all(np.isfinite(line["train_loss"]) for line in lines)
    assert lines[-1]["lr"] == pytest.approx(0.01 * 0.003)  # the cosine ends where training does


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_serves(made, trained, tmp_path, capsys):
    study = copy_of(made, tmp_path / "study")
    process = start(study, ALWAYS)
    folder = study.run_folder("pretrain_brainmt") / "checkpoints"
    wait_until(process, lambda: len(checkpoints(folder)) == 2)
    process.kill()
    process.communicate()
    newest = checkpoints(folder)[-1] / "tensors.safetensors"
    content = bytearray(newest.read_bytes())
    content[-3] ^= 4
    newest.write_bytes(content)
    assert main([f"--study={study.folder}"]) == 2
    said = capsys.readouterr().err
    assert "damaged" in said and "--resume=older" in said
    assert main([f"--study={study.folder}", "--resume=older"]) == 0
    assert_same_bits(study, trained)


def test_accumulated_and_checkpointed_training_equals_large_batches(made, tmp_path):
    whole, parts = (copy_of(made, tmp_path / name) for name in ("whole", "parts"))
    still = "--model.drop_path=0"
    assert main([f"--study={whole.folder}", still]) == 0
    options = ["--batch_size=2", "--accumulate=2", "--model.use_checkpoint=true"]
    assert main([f"--study={parts.folder}", still, *options]) == 0
    for a, b in zip(epochs_of(whole), epochs_of(parts), strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
        assert a["val_mse"] == pytest.approx(b["val_mse"], rel=1e-4)


def test_two_processes_give_the_metrics_of_one(made, tmp_path):
    study, alone = (copy_of(made, tmp_path / name) for name in ("two", "one"))
    settings = "--model.drop_path=0"  # random skips differ between processes, as they should
    assert main([f"--study={alone.folder}", settings]) == 0
    done = two_processes(study, settings, "--batch_size=2")  # 2 x 2 instead of 4
    assert done.stdout.count("pretrain_brainmt: done") == 1
    one, two = (
        load_json(s.run_folder("pretrain_brainmt") / "test_metrics.json", "neurohelix.brainmt_test", 2)
        for s in (alone, study)
    )
    assert one["people"] == two["people"] == 7
    for target in ("trait_1", "trait_2"):
        assert one["targets"][target]["mse"] == pytest.approx(two["targets"][target]["mse"], rel=0.01)
    lines = [epochs_of(s) for s in (alone, study)]
    for a, b in zip(*lines, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=0.01)
        assert a["val_mse"] == pytest.approx(b["val_mse"], rel=0.01)


def test_classes_are_learned_with_weights_and_chosen_by_auroc(made, tmp_path, capsys):
    study = copy_of(made, tmp_path / "study")
    options = ["--targets=[status,level]", "--task=classification", "--class_weights=balanced", "--epochs=8"]
    assert main([f"--study={study.folder}", *options]) == 0
    _, card = from_pretrained(study.path("brainmt"))
    assert [target["classes"] for target in card["targets"]] == [["ill", "well"], ["high", "low", "middle"]]
    assert card["num_outputs"] == 4 and len(card["targets"][1]["weights"]) == 3
    last = epochs_of(study)[-1]
    names = {"auroc", "auprc", "accuracy", "balanced_accuracy", "f1", "brier"}
    assert {f"val_{name}" for name in names} <= set(last) and last["val_auroc"] > 0.7
    assert "held out auroc: status " in capsys.readouterr().out
    assert main([f"--study={study.folder}", "--redo=true", *options, "--select_by=mse"]) == 2
    assert "select_by is mse, which does not exist for classification" in capsys.readouterr().err


def test_every_fold_is_held_out_once(made, tmp_path, capsys):
    study = copy_of(made, tmp_path / "study")
    assert main([f"--study={study.folder}", "--fold=all", "--epochs=2"]) == 0
    printed = capsys.readouterr().out
    assert "held out, mean and standard deviation over 3 folds:" in printed and "test_r: " in printed
    split = Split.load(study.path("splits"))
    for fold in range(3):
        _, card = from_pretrained(best_model(study, fold))
        assert set(card["trained_on"]["ids"]) == set(split.fold_of) - set(split.folds[fold])
    assert main([f"--study={study.folder}", "--fold=2", "--epochs=2"]) == 0
    assert "pretrain_brainmt_fold-2: already done" in capsys.readouterr().out
    assert main([f"--study={study.folder}", "--fold=3"]) == 2
    assert "the split file has folds 0 to 2" in capsys.readouterr().err


def test_starting_from_weights_is_not_resuming(trained, made, tmp_path, capsys):
    study = copy_of(made, tmp_path / "study")
    probe = ["--unfrozen_blocks=0", "--epochs=1", "--lr=0.01"]
    assert main([f"--study={study.folder}", f"--weights={trained.path('brainmt')}", *probe]) == 0
    printed = capsys.readouterr().out
    assert "with its head" in printed and "resuming" not in printed
    before, old = from_pretrained(trained.path("brainmt"))
    after, card = from_pretrained(study.path("brainmt"))
    assert card["started_from"]["weights_sha256"] == old["weights_sha256"]
    changed = {
        name
        for (name, a), b in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(a, b)
    }
    assert changed == {"head.linear.weight", "head.linear.bias"}  # a linear probe

    other = copy_of(made, tmp_path / "other")
    options = ["--targets=[status]", "--task=classification", "--unfrozen_blocks=1", "--epochs=1"]
    shape = ["--model.num_frames=12", "--model.embedding=cls", "--model.widths=[4,4,4,4]"]
    assert main([f"--study={other.folder}", f"--weights={trained.path('brainmt')}", *options, *shape]) == 0
    assert "with a new head" in capsys.readouterr().out
    tuned, card = from_pretrained(other.path("brainmt"))
    assert "model" not in card["training"]  # the shape that was asked for is not the one it has
    assert tuned.config.widths == (4, 4, 8, 16) and tuned.config.num_frames == 12
    assert torch.equal(tuned.stem.block0.conv1.weight, before.stem.block0.conv1.weight)
    assert not torch.equal(tuned.attention[0].mlp.fc1.weight, before.attention[0].mlp.fc1.weight)


def test_weights_that_have_seen_held_out_people_are_refused(trained, made, tmp_path, capsys):
    study = copy_of(made, tmp_path / "study")
    assert main([f"--study={study.folder}", "--fold=0", f"--weights={trained.path('brainmt')}"]) == 2
    assert "was trained on 10 of the 13 families that must be unseen" in capsys.readouterr().err


def test_weights_that_are_not_there_are_named_with_their_option(made, tmp_path, capsys):
    study = copy_of(made, tmp_path / "study")
    assert main([f"--study={study.folder}", "--weights=./nowhere"]) == 2
    assert "pass an existing folder to --weights" in capsys.readouterr().err


def test_layer_decay_is_gentle_only_from_weights():
    assert PretrainBrainMT().decay_per_layer == 1.0
    assert PretrainBrainMT(weights="owner/name").decay_per_layer == 0.75
    assert PretrainBrainMT(weights="owner/name", layer_decay=0.9).decay_per_layer == 0.9


def test_brain_tokens_are_found_in_the_masks_and_kept_in_the_checkpoint(made, tmp_path):
    study = copy_of(made, tmp_path / "study")
    assert main([f"--study={study.folder}", "--model.tokens=brain", "--epochs=1", "--preload=false"]) == 0
    model, _ = from_pretrained(study.path("brainmt"))
    assert model.config.tokens == "brain" and model.config.brain_patches == (0,)
    assert embed([f"--study={study.folder}"]) == 0


def test_embedding_everyone(trained, tmp_path, capsys):
    study = copy_of(trained, tmp_path / "study")
    assert embed([f"--study={study.folder}"]) == 0
    vectors = SubjectVectors.load(study.path("brain"))
    assert len(vectors.ids) == 37 and vectors.values.shape == (37, 16)
    _, card = from_pretrained(study.path("brainmt"))
    assert vectors.provenance["encoder"] == "brainmt"
    assert vectors.provenance["weights_sha256"] == card["weights_sha256"]
    assert vectors.provenance["trained_on"] == card["trained_on"]
    assert vectors.provenance["strategy"] == "rsfmri_brainmt_windows_v1"
    assert embed([f"--study={study.folder}"]) == 0
    assert "already done" in capsys.readouterr().out


def test_what_is_missing_is_named_with_its_command(tmp_path, capsys):
    assert main([f"--study={tmp_path / 'new'}"]) == 2
    assert "prepare_fmri.py" in capsys.readouterr().err
    assert embed([f"--study={tmp_path / 'new'}"]) == 2
    assert "prepare_fmri.py" in capsys.readouterr().err


def test_the_full_size_is_the_papers():
    path = ROOT / "configs" / "paper" / "pretrain_brainmt.yaml"
    config = parse(PretrainBrainMT, [f"--config={path}"], prog="pretrain_brainmt.py", description="")
    assert config.model == BrainMTConfig() and config.lr == 2e-4


def test_a_resumed_run_goes_on_in_its_wandb_run(made, tmp_path, monkeypatch):
    study = copy_of(made, tmp_path / "study")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = study.run_folder("pretrain_brainmt")
    process = start(study, ALWAYS, "--wandb=tests")
    wait_until(process, lambda: checkpoints(folder / "checkpoints"))
    process.terminate()
    process.communicate()
    first = load_checkpoint(checkpoints(folder / "checkpoints")[-1])[1]["wandb_id"]
    again = start(study, "--wandb=tests")
    assert again.communicate() and again.returncode == 0
    assert load_checkpoint(checkpoints(folder / "checkpoints")[-1])[1]["wandb_id"] == first
    recorded = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(recorded) == 2 and all(path.name.endswith(first) for path in recorded)
    for path in recorded:  # scalars only
        for file in path.rglob("*"):
            assert file.is_dir() or b"sub-0001" not in file.read_bytes(), file
