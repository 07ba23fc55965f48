"""How well a BrainMT predicts people it was not trained on: windows averaged per run, runs per person.

Glossary: S people · C classes of a target.
"""

import numpy as np
from accelerate import Accelerator
from jaxtyping import Float

from encoders.brainmt.inference import subject_means, window_outputs
from encoders.brainmt.model import BrainMT
from encoders.brainmt.targets import Targets
from encoders.brainmt.windows import FMRIWindows
from encoders.stats.metrics import classification_scores, regression_scores

Scores = dict[str, dict[str, float]]  # target -> metric -> value


def subject_predictions(
    model: BrainMT,
    windows: FMRIWindows,
    targets: Targets,
    *,
    batch_size: int,
    accelerator: Accelerator,
    own_units: bool = True,
    label: str = "",
) -> tuple[list[str], list[Float[np.ndarray, "S *C"]]]:
    """(ids, per target: numbers or class probabilities), each person once, on any number of processes.

    Args:
        model: The model; left in evaluation mode.
        windows: Evenly spaced windows.
        targets: What the outputs of the model are.
        batch_size: Windows per pass.
        accelerator: Devices and processes.
        own_units: Numbers in the units of the table instead of z-scores.
        label: Of the progress bar; none if empty.
    """
    model.eval()
    outputs = window_outputs(
        model, windows, targets.num_outputs, batch_size=batch_size, accelerator=accelerator, label=label
    )
    ids, means = [], []
    for found in targets.predictions(outputs, own_units=own_units):
        ids, mean = subject_means(found.reshape(len(found), -1), windows)
        means.append(mean if found.ndim > 1 else mean[:, 0])
    return ids, means


def evaluate(
    model: BrainMT, windows: FMRIWindows, targets: Targets, *, batch_size: int, accelerator: Accelerator
) -> Scores:
    """Metrics of each target; those of numbers on the scale of z-scores. Arguments as above."""
    ids, predicted = subject_predictions(
        model, windows, targets, batch_size=batch_size, accelerator=accelerator, own_units=False
    )
    wanted = targets.of(ids).astype(np.float64).T
    return {
        target.name: target_scores(p, w)
        for target, p, w in zip(targets.columns, predicted, wanted, strict=True)
    }


def target_scores(predicted: Float[np.ndarray, "S *C"], wanted: Float[np.ndarray, " S"]) -> dict[str, float]:
    """Metrics of one target over the people who have the label."""
    known = np.isfinite(wanted)
    if predicted.ndim > 1:
        return classification_scores(predicted[known], wanted[known].astype(int))
    return regression_scores(predicted[known], wanted[known])


def mean_scores(fold: str, scores: Scores) -> dict[str, float]:
    """Means over targets, named `val_r` and so on; predictions that do not vary count as r = 0."""
    metrics = [name for name in next(iter(scores.values())) if name != "n"]
    columns = {name: np.array([of_target[name] for of_target in scores.values()]) for name in metrics}
    if "r" in columns:
        columns["r"] = np.nan_to_num(columns["r"])
    known = {name: column[np.isfinite(column)] for name, column in columns.items()}
    return {f"{fold}_{name}": float(column.mean()) for name, column in known.items() if len(column)}
