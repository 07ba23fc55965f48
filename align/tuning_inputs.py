"""Inputs of the projectors while a tower is tuned, and the projectors on disk.

The scaling is fitted once, on the vectors of the tower as it starts: a fixed linear map under a projector that learns.

Glossary: S people · D width of the tower's vectors.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from align.model import AlignmentModel
from align.pairs import Joined
from align.preprocess import Whitener
from align.run import MODEL, MODEL_FORMAT
from align.tune_config import TuneBrainMT
from encoders.runs.artifact import save_tensors
from encoders.runs.config import to_plain
from encoders.runs.errors import InputError

LEAST_RIDGE = 0.01  # of the brain's whitening, whose empty components may fill


def whiteners_for_tuning(joined: Joined, config: TuneBrainMT) -> dict[str, Whitener]:
    """Scaling of both modalities, fitted on training people; the first one is the tower's."""
    train = joined.rows("train")
    brain, partner = joined.modalities
    options = {"ridge": config.projector.ridge, "components": config.projector.components}
    return {
        brain: full_whitener(joined.values[brain][train], config.projector.ridge),
        partner: Whitener(**options).fit(joined.values[partner][train]),
    }


def full_whitener(values: Float[np.ndarray, "S D"], ridge: float) -> Whitener:
    """A whitening that keeps every direction, also those in which the vectors do not vary yet.

    Args:
        values: Vectors of training people.
        ridge: In units of the mean variance; at least `LEAST_RIDGE`.

    Raises:
        InputError: the vectors are the same for everybody.
    """
    data = values.astype(np.float64)
    variance, axes = np.linalg.eigh(np.cov(data.T, bias=True).reshape(data.shape[1], -1))
    variance = variance.clip(min=0)
    if not variance.mean() > 0:
        raise InputError(
            f"the model gives all {len(values)} training people the same vector; take another --model",
            code="E_NO_SIGNAL",
        )
    whitener = Whitener(ridge=max(ridge, LEAST_RIDGE))
    whitener.mean_ = data.mean(axis=0)
    whitener.matrix_ = axes / np.sqrt((variance + whitener.ridge * variance.mean()) / (1 + whitener.ridge))
    return whitener


def save_projectors(
    path: Path, model: AlignmentModel, whiteners: dict[str, Whitener], config: TuneBrainMT
) -> None:
    """Both projectors with the scaling of their inputs, in the format of `align`'s models."""
    tensors = {f"model.{key}": value.detach().cpu().numpy() for key, value in model.state_dict().items()}
    for m, whitener in whiteners.items():
        tensors |= {f"whitener.{m}.mean": whitener.mean_, f"whitener.{m}.matrix": whitener.matrix_}
    content = {"projector": to_plain(config.projector), "modalities": list(whiteners)}
    save_tensors(path, MODEL, MODEL_FORMAT, tensors, content)
