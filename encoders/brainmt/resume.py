"""Where a training run stands, and how it continues after it was killed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from encoders.brainmt.model import BrainMT
from encoders.runs.checkpoint import checkpoints, load_checkpoint, save_checkpoint

FOLDER = "checkpoints"


@dataclass(kw_only=True)
class Progress:
    """Kept in every checkpoint.

    Args:
        epoch: Epochs done.
        step: Optimizer steps done.
        best: Best validation score so far, larger is better.
        best_epoch: Epoch of it.
        waited: Evaluations since then.
        wandb_id: W&B run to continue.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    wandb_id: str | None = None


def save(folder: Path, state: Progress, model: BrainMT, optimizer: Any, accelerator: Accelerator) -> None:
    """Write a checkpoint; called by the main process between epochs."""
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    if accelerator.scaler is not None:
        states["scaler"] = accelerator.scaler.state_dict()
    save_checkpoint(folder / FOLDER, state.step, states, progress=vars(state))


def resume(folder: Path, model: BrainMT, optimizer: Any, accelerator: Accelerator) -> Progress:
    """Load the last checkpoint into model and optimizer, if there is one."""
    found = checkpoints(folder / FOLDER)
    if not found:
        return Progress()
    states, reached = load_checkpoint(found[-1])
    model.load_state_dict(states["model"])
    optimizer.load_state_dict(states["optimizer"])
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:  # the fused step pairs numbers by memory order: channels last
                moments[name] = torch.empty_like(parameter).copy_(value)
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(states["scaler"])
    state = Progress(**reached)
    accelerator.print(f"resuming after epoch {state.epoch} (optimizer step {state.step})")
    return state
