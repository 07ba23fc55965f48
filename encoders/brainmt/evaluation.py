"""How well a BrainMT predicts people it was not trained on."""

import numpy as np
from accelerate import Accelerator

from encoders.brainmt.inference import subject_means, window_outputs
from encoders.brainmt.model import BrainMT
from encoders.brainmt.targets import regression_metrics
from encoders.brainmt.windows import FMRIWindows


def evaluate(
    model: BrainMT, windows: FMRIWindows, *, batch_size: int, accelerator: Accelerator
) -> dict[str, np.ndarray]:
    """Metrics per target (:func:`regression_metrics`): windows averaged per run, then per person.

    Deterministic, and the same on any number of processes: every window is computed once.

    Args:
        model: The bare model.
        windows: Evenly spaced windows with targets.
        batch_size: Windows per pass.
        accelerator: Devices and processes.
    """
    model.eval()
    outputs = window_outputs(
        model,
        windows,
        model.head.linear.out_features,
        batch_size=batch_size,
        accelerator=accelerator,
    )
    _, predicted = subject_means(outputs, windows)
    _, wanted = subject_means(windows.targets.repeat_interleave(windows.windows_per_run, 0).numpy(), windows)
    return regression_metrics(predicted, wanted)


def mean_scores(fold: str, scores: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over targets, named `val_r` and so on; predictions that do not vary count as r = 0."""
    means = {f"{fold}_{name}": float(np.nanmean(scores[name])) for name in ("mse", "mae", "r2")}
    return {**means, f"{fold}_r": float(np.nan_to_num(scores["r"]).mean())}


def scores_by_target(scores: dict[str, np.ndarray], names: list[str]) -> dict[str, dict[str, float]]:
    """Target -> metric -> value."""
    return {
        name: {metric: float(column[k]) for metric, column in scores.items()} for k, name in enumerate(names)
    }
