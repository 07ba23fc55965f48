"""Checkpoint files of the original BrainMT code, read without running anything that lies in them.

Such a `.pth` is a pickle: a program. PyTorch's restricted reader builds nothing but tensors and plain values, and
here the four NumPy names that the original's `val_loss`, a NumPy scalar, needs in addition.
"""

import math
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar
from torch import Tensor

from encoders.runs.errors import InputError

ALLOWED = [
    (scalar, "numpy.core.multiarray.scalar"),  # as NumPy 1 wrote it
    (scalar, "numpy._core.multiarray.scalar"),  # as NumPy 2 writes it
    np.dtype,
    np.dtypes.Float64DType,
]
# what PyTorch's reader raises on damaged files: a flipped byte of a pickle can mean almost anything
DAMAGE = (
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
FORBIDDEN = re.compile(r"GLOBAL (\S+)|but got <class '([^']+)'>")
WRAPPER = "module."  # what DistributedDataParallel puts before every name


@dataclass(frozen=True, kw_only=True)
class ReleasedFile:
    """What is used of a checkpoint of the original code.

    Args:
        state: Name in the original -> tensor, without `module.`.
        epoch: Epoch it was written after, from 1 (count); None if it does not say.
        val_loss: Validation loss; None if it does not say.
        settings: The part `model` of its configuration; empty if it has none.
    """

    state: dict[str, Tensor]
    epoch: int | None
    val_loss: float | None
    settings: dict[str, Any]


def read_released(path: Path) -> ReleasedFile:
    """Read a whole checkpoint as the original's trainer writes it, or its bare `model_state_dict`.

    Raises:
        InputError: no such file, a damaged one, one that holds anything but tensors and plain values, or no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file; a checkpoint of the original BrainMT (.pth) was wanted")
    content = _load(path)
    whole = isinstance(content, Mapping) and "model_state_dict" in content
    state = content["model_state_dict"] if whole else content
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        held = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise InputError(
            f"{path} holds no weights, but {held or 'an empty dictionary'}; a dictionary with model_state_dict, or "
            f"that one itself, was wanted"
        )
    state = {str(name): value for name, value in state.items()}
    if all(name.startswith(WRAPPER) for name in state):
        state = {name.removeprefix(WRAPPER): value for name, value in state.items()}
    _check_tensors(path, state)
    about = content if whole else {}
    epoch, loss, config = (about.get(name) for name in ("epoch", "val_loss", "config"))
    settings = config.get("model") if isinstance(config, Mapping) else None
    is_number = isinstance(loss, (int, float, np.floating)) and math.isfinite(loss)
    return ReleasedFile(
        state=state,
        epoch=epoch if isinstance(epoch, int) else None,
        val_loss=float(loss) if is_number else None,
        settings=dict(settings) if isinstance(settings, Mapping) else {},
    )


def _load(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if (member := archive.testzip()) is not None:  # PyTorch itself does not look at the checksums
                    raise _damaged(path, f"{member} does not match its checksum")
        with torch.serialization.safe_globals(ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except PermissionError as cause:
        raise InputError(f"{path} cannot be read ({cause.strerror}); ask its owner for access") from cause
    except DAMAGE as cause:
        if found := FORBIDDEN.search(str(cause)):
            raise InputError(
                f"{path} asks for {found[1] or found[2]}, which is neither a tensor nor a plain value; nothing of it was "
                f"run. If you trust whoever made it, write its weights alone where it was made, torch.save(torch.load("
                f"FILE, weights_only=False)['model_state_dict'], NEW), and convert NEW",
                code="E_PICKLE",
            ) from cause
        reason = str(cause).strip().splitlines()
        raise _damaged(path, reason[0].split(".")[0] if reason else type(cause).__name__) from cause


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} is damaged or no file of torch.save ({reason}); copy it again, or save it again where it was made",
        code="E_TRUNCATED",
    )


def _check_tensors(path: Path, state: Mapping[str, Any]) -> None:
    if strange := [f"{name} ({type(v).__name__})" for name, v in state.items() if not isinstance(v, Tensor)]:
        raise InputError(f"{path}: not tensors: {', '.join(strange)}; weights only were wanted")
    for fault, names in {
        "not dense": [n for n, t in state.items() if t.layout != torch.strided or t.is_quantized],
        "not floating-point numbers": [n for n, t in state.items() if not t.is_floating_point()],
        "empty": [n for n, t in state.items() if t.numel() == 0],
    }.items():
        if names:
            raise InputError(f"{path}: {fault}: {', '.join(names)}; dense floating-point tensors were wanted")
    # a view that repeats one number declares any size at no cost; copying it would need the memory
    declared, size = sum(t.numel() * t.element_size() for t in state.values()), path.stat().st_size
    if declared > size:
        raise InputError(
            f"{path}: its tensors declare {declared} bytes, but the file has {size}; it was not made by training"
        )
    if bad := [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]:
        raise InputError(
            f"{path}: NaN or infinite weights in {', '.join(bad)}; the training diverged, use an earlier checkpoint"
        )
