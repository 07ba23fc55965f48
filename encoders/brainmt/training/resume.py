"""Where a training run stands, and how it continues after it was killed: a checkpoint on disk and back.

Checkpoints hold whole tensors by parameter name, whether the run was sharded over processes (FSDP) or not, so that a
run may go on with another number of processes: it then sees the rest of the epoch in steps of another size. (It is
bit-exact with the same number on a CPU.)
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from encoders.brainmt.model import BrainMT
from encoders.brainmt.training.sharding import laid_out_like, whole
from encoders.runs.checkpoint import checkpoints, load_checkpoint, save_checkpoint, unfinished
from encoders.runs.errors import InputError

FOLDER = "checkpoints"


@dataclass(kw_only=True)
class Progress:
    """Kept in every checkpoint; with the seed it determines everything that follows.

    Args:
        epoch: Epochs done, their evaluation included.
        step: Optimizer steps done.
        seen: Training windows of the present epoch that those steps have used.
        per_step: Windows of a step, over all processes.
        best: Best validation score so far, larger is better.
        best_epoch: Epoch of it.
        waited: Evaluations since then.
        losses: Loss of each step of the present epoch.
        norms: Norm of the gradient at each step of the present epoch.
        wandb_id: W&B run to continue.
    """

    epoch: int = 0
    step: int = 0
    seen: int = 0
    per_step: int = 0
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    wandb_id: str | None = None


def save(folder: Path, state: Progress, model: BrainMT, optimizer: Any, accelerator: Accelerator) -> None:
    """Write a checkpoint; called by all processes, written by the main one."""
    states = {"model": _parameters(model), "optimizer": _moments(model, optimizer)}
    if accelerator.scaler is not None:
        states["scaler"] = accelerator.scaler.state_dict()
    if accelerator.is_main_process:
        save_checkpoint(folder / FOLDER, state.step, states, progress=vars(state))


def resume(
    folder: Path,
    model: BrainMT,
    optimizer: Any,
    accelerator: Accelerator,
    *,
    which: Literal["latest", "older"] = "latest",
) -> Progress:
    """Load a checkpoint into model and optimizer, if there is one.

    Args:
        folder: Run folder.
        model: The bare model.
        optimizer: Its optimizer.
        accelerator: Devices and processes.
        which: The newest checkpoint, or the one before it.

    Raises:
        InputError: the checkpoint is damaged, or there is no older one.
    """
    if accelerator.is_main_process:
        for leftover in unfinished(folder / FOLDER):
            accelerator.print(f"discarding {leftover.name}, which a killed process left")
            shutil.rmtree(leftover)
    found = checkpoints(folder / FOLDER)
    if which == "older":
        if len(found) < 2:
            raise InputError(
                f"{folder / FOLDER} holds {len(found)} checkpoints, so there is none before the newest; "
                f"use --resume=latest, or --redo=true to start again"
            )
        found.pop()
    if not found:
        return Progress()
    states, reached = load_checkpoint(found[-1], advice="continue from the one before it with --resume=older")
    _restore(model, optimizer, states)
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(states["scaler"])
    state = Progress(**reached)
    accelerator.print(f"resuming after epoch {state.epoch}, optimizer step {state.step}")
    return state


def _parameters(model: BrainMT) -> dict[str, Tensor]:
    return {name: whole(parameter) for name, parameter in model.named_parameters()}


def _moments(model: BrainMT, optimizer: Any) -> dict[str, dict[str, Tensor]]:
    """What the optimizer remembers of each parameter; rates and decay follow from the configuration."""
    states = optimizer.state
    return {
        name: {key: whole(value) for key, value in states[parameter].items()}
        for name, parameter in model.named_parameters()
        if parameter in states
    }


def _restore(model: BrainMT, optimizer: Any, states: dict[str, Any]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(laid_out_like(states["model"][name], parameter))
            for key, value in states["optimizer"].get(name, {}).items():
                optimizer.state[parameter][key] = laid_out_like(value, parameter)
