"""Where a training run stands, and how it continues after it was killed: a checkpoint on disk and back.

Checkpoints hold whole tensors, whether the run was sharded over processes (FSDP) or not, so that a run may go on with
another number of processes.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from encoders.brainmt.model import BrainMT
from encoders.runs.checkpoint import checkpoints, load_checkpoint, save_checkpoint, unfinished
from encoders.runs.errors import InputError

FOLDER = "checkpoints"


@dataclass(kw_only=True)
class Progress:
    """Kept in every checkpoint; with the seed it determines everything that follows.

    Args:
        epoch: Epochs done, their evaluation included.
        step: Optimizer steps done; those beyond `epoch` are the position within the epoch.
        best: Best validation score so far, larger is better.
        best_epoch: Epoch of it.
        waited: Evaluations since then.
        losses: Loss of each step of the present epoch.
        norms: Norm of the gradient at each step of the present epoch.
        wandb_id: W&B run to continue.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    wandb_id: str | None = None


def save(folder: Path, state: Progress, model: BrainMT, optimizer: Any, accelerator: Accelerator) -> None:
    """Write a checkpoint; called by all processes, written by the main one."""
    states = _gathered(model, optimizer)
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
            accelerator.print(f"discarding {leftover.name}, half-written by a killed process")
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


def unsharded(model: BrainMT) -> BrainMT:
    """The model itself, or where it is sharded a whole copy; every process must call it."""
    if not _is_sharded(model):
        return model
    whole = BrainMT(model.config, num_outputs=model.head.linear.out_features)
    own = dict(whole.named_parameters())
    with torch.no_grad():
        for name, shard in model.named_parameters():
            own[name].copy_(shard.full_tensor() if isinstance(shard, DTensor) else shard)
    return whole


def _is_sharded(model: BrainMT) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def _gathered(model: BrainMT, optimizer: Any) -> dict[str, Any]:
    if not _is_sharded(model):
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    states = get_state_dict(model, _plain(optimizer), options=whole)
    return dict(zip(("model", "optimizer"), states, strict=True))


def _restore(model: BrainMT, optimizer: Any, states: dict[str, Any]) -> None:
    if _is_sharded(model):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

        set_state_dict(
            model,
            _plain(optimizer),
            model_state_dict=states["model"],
            optim_state_dict=states["optimizer"],
            options=StateDictOptions(full_state_dict=True),
        )
        return
    model.load_state_dict(states["model"])
    optimizer.load_state_dict(states["optimizer"])
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:  # the fused step pairs numbers by memory order: channels last
                moments[name] = torch.empty_like(parameter).copy_(value)


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer inside Accelerate's."""
    return getattr(optimizer, "optimizer", optimizer)
