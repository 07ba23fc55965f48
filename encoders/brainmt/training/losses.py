"""What BrainMT's training minimises. Missing labels (NaN) have no loss and no gradient.

Glossary: B batch · K targets · O outputs of the head.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from encoders.brainmt.targets import Target


def task_loss(
    outputs: Float[Tensor, "B O"],
    wanted: Float[Tensor, "B K"],
    targets: Sequence[Target],
    *,
    regression: Literal["mse", "huber"] = "mse",
    labels: float | None = None,
) -> Float[Tensor, ""]:
    """Mean loss over the labels that are there: squared or Huber error of z-scores, cross-entropy of classes.

    Args:
        outputs: z-scores and logits.
        wanted: z-scores and class indices, NaN where missing.
        targets: What the columns of ``wanted`` are.
        regression: `huber` is linear beyond one standard deviation, so that outliers weigh less.
        labels: Divide by this number of labels instead of those of the batch; the share of one batch in the labels
            of a whole step makes steps independent of how they are cut into batches and processes.
    """
    known = torch.isfinite(wanted)
    total, first = outputs.new_zeros((), dtype=torch.float32), 0
    for k, target in enumerate(targets):
        part = outputs[:, first : first + target.num_outputs].float()
        first += target.num_outputs
        total = total + _label_losses(part, wanted[:, k], known[:, k], target, regression).sum()
    return total / (known.sum().clamp(min=1) if labels is None else labels)


def _label_losses(
    outputs: Tensor, wanted: Tensor, known: Tensor, target: Target, regression: str
) -> Float[Tensor, " B"]:
    """Loss of each person's label, 0 where there is none."""
    filled = torch.where(known, wanted, 0.0)
    if not target.classes:
        error = F.huber_loss if regression == "huber" else F.mse_loss
        # Huber is half the squared error near 0: twice that keeps the scale of the gradient
        scale = 2.0 if regression == "huber" else 1.0
        losses = scale * error(outputs[:, 0], filled, reduction="none")
    else:
        # two classes have one logit: that of the first class is 0
        logits = F.pad(outputs, (1, 0)) if target.num_outputs == 1 else outputs
        losses = F.cross_entropy(logits, filled.long(), reduction="none")
        if target.weights:
            losses = losses * losses.new_tensor(target.weights)[filled.long()]
    return torch.where(known, losses, 0.0)
