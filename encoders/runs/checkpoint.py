"""Checkpoints to resume from: safetensors for numbers, JSON for the rest, never pickle.

A checkpoint is a folder `step-00000123` that appears whole or not at all: it is written under a temporary
name, fsynced, then renamed. The last two are kept, because the last one may be damaged.
"""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.runs.artifact import load_json, load_tensors, save_json, save_tensors
from encoders.runs.errors import InputError

KIND, FORMAT = "neurohelix.checkpoint", 1
KEEP = 2


def save_checkpoint(folder: Path, step: int, states: dict[str, Any], *, progress: dict[str, Any]) -> Path:
    """Write one resumable checkpoint and delete all but the last two.

    Args:
        folder: Where the checkpoints of this run lie.
        step: Optimizer steps taken.
        states: Name -> state_dict() of model, optimizer, schedule.
        progress: JSON values: epoch, best metric, W&B run id and the like.

    Returns:
        The folder of this checkpoint.
    """
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors: dict[str, np.ndarray] = {}
    plain = _flatten({"states": states, "random": random_state()}, "", tensors)
    try:
        save_tensors(temporary / "tensors.safetensors", KIND, FORMAT, tensors, {"step": step})
        content = {"step": step, "plain": plain, "progress": progress}
        save_json(temporary / "state.json", KIND, FORMAT, content)
        if final.exists():  # of a run that went on from the checkpoint before it
            _discard(final)
        os.replace(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # where the disk was full, say
    for old in checkpoints(folder)[:-KEEP]:
        _discard(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").exists())


def _discard(checkpoint: Path) -> None:
    """Delete a checkpoint; killed meanwhile, it is no checkpoint any more rather than a damaged one."""
    doomed = checkpoint.with_name(f".{checkpoint.name}.old.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(checkpoint, doomed)
    shutil.rmtree(doomed)


def unfinished(folder: Path) -> list[Path]:
    """What a process left behind that was killed while it saved or deleted; never counted as a checkpoint."""
    return sorted(folder.glob(".step-*.tmp"))


def load_checkpoint(path: Path, *, advice: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint; returns (states, progress). Random generators are restored by :func:`set_random_state`.

    Args:
        path: Its folder.
        advice: How to continue from the checkpoint before it, if there is one; default: delete this one.

    Raises:
        InputError: a file is missing or damaged; the message names an older checkpoint if there is one.
    """
    try:
        tensors, _ = load_tensors(path / "tensors.safetensors", KIND, FORMAT)
        content = load_json(path / "state.json", KIND, FORMAT)
    except InputError as cause:
        older = [p.name for p in checkpoints(path.parent) if p.name < path.name]
        advice = (
            (advice or f"delete {path} to resume from {older[-1]}")
            if older
            else "start again with --redo=true"
        )
        raise InputError(f"checkpoint {path.name} cannot be read ({cause}); {advice}") from cause
    state = _unflatten(content["plain"], tensors)
    return {**state["states"], "random": state["random"]}, content["progress"]


def random_state() -> dict[str, Any]:
    """State of the generators of Python, NumPy and torch (CPU and CUDA)."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    return {
        "python": [version, list(internal), gauss],
        "numpy": {"kind": kind, "keys": torch.from_numpy(keys.copy()), "rest": [position, has_gauss, cached]},
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what :func:`random_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy = state["numpy"]
    np.random.set_state((numpy["kind"], numpy["keys"].numpy(), *numpy["rest"]))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def _flatten(value: Any, name: str, tensors: dict[str, np.ndarray]) -> Any:
    """Move every tensor of a nested state into `tensors`; what stays is JSON."""
    if isinstance(value, Tensor):
        kept = value.detach().cpu()
        if kept.dtype == torch.bfloat16:  # NumPy has no bfloat16: keep its bits
            tensors[name] = kept.view(torch.int16).numpy()
            return {"tensor": name, "dtype": "bfloat16"}
        tensors[name] = kept.numpy()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _flatten(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {
            type(value).__name__: [_flatten(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
        }
    json.dumps(value)  # anything else must be plain, or saving it would lose it
    return {"value": value}


def _unflatten(plain: Any, tensors: dict[str, np.ndarray]) -> Any:
    if "tensor" in plain:
        tensor = torch.from_numpy(tensors[plain["tensor"]].copy())
        return tensor.view(torch.bfloat16) if plain.get("dtype") == "bfloat16" else tensor
    if "dict" in plain:
        return {key: _unflatten(item, tensors) for key, item in plain["dict"]}
    if "list" in plain:
        return [_unflatten(item, tensors) for item in plain["list"]]
    if "tuple" in plain:
        return tuple(_unflatten(item, tensors) for item in plain["tuple"])
    return plain["value"]
