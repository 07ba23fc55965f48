"""Deterministic passes over a fixed set of windows, and their means: windows -> runs -> people.

Glossary: N windows · R runs · S people · K numbers per window (predictions or a vector).
"""

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, Float32
from torch import Tensor

from encoders.brainmt.windows import FMRIWindows
from encoders.runs.progress import progress


@torch.no_grad()
def window_outputs(
    forward: Callable[[Tensor], Tensor],
    windows: FMRIWindows,
    width: int,
    *,
    batch_size: int,
    accelerator: Accelerator,
    label: str = "",
) -> Float32[np.ndarray, "N K"]:
    """Outputs of all windows, each computed by exactly one process and then known to all.

    Args:
        forward: Windows [B, T, 1, Y, X, Z] -> [B, K].
        windows: Evenly spaced windows.
        width: K.
        batch_size: Windows per pass.
        accelerator: Says which process this is.
        label: Of the progress bar; none if empty.
    """
    own = range(accelerator.process_index, len(windows), accelerator.num_processes)
    batches = [list(own[first : first + batch_size]) for first in range(0, len(own), batch_size)]
    # where parameters are sharded every process must call the model equally often: repeats change nothing
    most = -(-len(range(0, len(windows), accelerator.num_processes)) // batch_size)
    batches += [[accelerator.process_index % len(windows)]] * (most - len(batches))
    outputs = torch.zeros(len(windows), width, device=accelerator.device)
    for place, batch in enumerate(progress(batches, label, unit="batch") if label else batches):
        frames, _ = windows.batch(batch, device=accelerator.device)
        with accelerator.autocast():
            found = forward(frames).float()
        if place * batch_size < len(own):
            outputs[batch] = found
    return accelerator.reduce(outputs, reduction="sum").cpu().numpy()


def subject_means(
    outputs: Float[np.ndarray, "N K"], windows: FMRIWindows
) -> tuple[list[str], Float[np.ndarray, "S K"]]:
    """Mean over the windows of a run, then over the runs of a person; returns (subject ids, means)."""
    runs = outputs.reshape(len(windows.runs), windows.windows_per_run, -1).mean(axis=1)
    rows: dict[str, list[int]] = {}
    for row, run in enumerate(windows.runs):
        rows.setdefault(run.subject, []).append(row)
    subjects = sorted(rows)
    return subjects, np.stack([runs[rows[name]].mean(axis=0) for name in subjects])
