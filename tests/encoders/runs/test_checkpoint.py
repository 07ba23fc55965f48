"""Checkpoints: exact states back, two kept, partial ones ignored, damage named."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from encoders.runs.checkpoint import checkpoints, load_checkpoint, save_checkpoint, set_random_state
from encoders.runs.errors import InputError


def _training():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    return model, optimizer, schedule


def _step(model, optimizer, schedule):
    loss = model(torch.randn(4, 3)).square().sum() + np.random.rand()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    return loss.item()


def test_resumed_training_is_the_same_to_the_bit(tmp_path):
    parts = _training()
    for _ in range(3):
        _step(*parts)
    names = ("model", "optimizer", "schedule")
    states = {name: part.state_dict() for name, part in zip(names, parts, strict=True)}
    path = save_checkpoint(tmp_path, 3, states, progress={"best": -float("inf"), "run_id": None})
    after = [_step(*parts) for _ in range(3)]

    fresh = _training()
    loaded, progress = load_checkpoint(path)
    for name, part in zip(names, fresh, strict=True):
        part.load_state_dict(loaded[name])
    set_random_state(loaded["random"])
    # beartype itself draws from Python's generator, so that one is compared by state, not by use
    assert random.getstate()[1] == tuple(loaded["random"]["python"][1])
    assert progress == {"best": -float("inf"), "run_id": None}
    assert [_step(*fresh) for _ in range(3)] == after
    assert all(torch.equal(a, b) for a, b in zip(parts[0].parameters(), fresh[0].parameters(), strict=True))


def test_two_are_kept_partial_ones_ignored_and_damage_names_the_older(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"x": {"t": torch.ones(5, dtype=torch.bfloat16)}}, progress={})
    (tmp_path / ".step-00000004.tmp").mkdir()
    (tmp_path / "step-00000005").mkdir()
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]
    newest = checkpoints(tmp_path)[-1]
    assert load_checkpoint(newest)[0]["x"]["t"].dtype == torch.bfloat16
    damaged = bytearray((newest / "tensors.safetensors").read_bytes())
    damaged[-1] ^= 1
    (newest / "tensors.safetensors").write_bytes(damaged)
    with pytest.raises(InputError, match="to resume from step-00000002"):
        load_checkpoint(newest)


@pytest.mark.parametrize("again", [2, 3])
def test_killed_while_an_old_one_is_deleted_all_that_count_can_be_loaded(tmp_path, monkeypatch, again):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"x": {"t": torch.full((5,), float(step))}}, progress={})

    def killed_halfway(folder, ignore_errors=False):
        if not ignore_errors:
            (folder / "tensors.safetensors").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed_halfway)
    with pytest.raises(KeyboardInterrupt):  # either the same step once more, or a third one
        save_checkpoint(tmp_path, again, {"x": {"t": torch.zeros(5)}}, progress={})
    assert [load_checkpoint(path)[0]["x"]["t"][0].item() for path in checkpoints(tmp_path)] == (
        [1.0] if again == 2 else [2.0, 0.0]
    )
    monkeypatch.undo()
    save_checkpoint(tmp_path, again, {"x": {"t": torch.ones(5)}}, progress={})
    assert checkpoints(tmp_path)[-1].name == f"step-0000000{again}"


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from encoders.runs.checkpoint import save_checkpoint
folder, numbers, text = Path(sys.argv[1]), int(sys.argv[2]), "x" * int(sys.argv[3])
save_checkpoint(folder, 1, {"x": {"t": torch.ones(5)}}, progress={})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_checkpoint(folder, 2, {"x": {"t": torch.ones(numbers)}}, progress={"note": text})
except ValueError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    "large", [pytest.param((5000, 1), id="numbers"), pytest.param((5, 50_000), id="rest")]
)
def test_a_full_disk_leaves_the_checkpoint_before_and_says_what_is_needed(tmp_path, large):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), *map(str, large)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (
        said.startswith("InputError cannot write to ") and "are free); make room, then run the same" in said
    )
    assert ("tensors.safetensors" in said) == ("bytes are needed" in said) == (large[0] > 5)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert torch.equal(load_checkpoint(checkpoints(tmp_path)[-1])[0]["x"]["t"], torch.ones(5))
