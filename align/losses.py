"""Contrastive losses as pure functions of tensors; gathering across processes is the loop's business.

Glossary: B pairs in the batch · O width of the shared space.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def clip_loss(
    brain: Float[Tensor, "B O"],
    genetics: Float[Tensor, "B O"],
    scale: Float[Tensor, ""],
    *,
    not_negative: Bool[Tensor, "B B"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE over in-batch negatives (Radford et al. 2021, CLIP).

    Equals `open_clip.loss.ClipLoss` where nothing is masked.

    Args:
        brain: Unit vectors.
        genetics: Unit vectors; row i belongs to the person of row i of `brain`.
        scale: Inverse temperature.
        not_negative: Pairs that must not push each other apart: relatives, identical genotypes. The diagonal is
            ignored.
    """
    logits = scale * brain @ genetics.T
    target = torch.arange(len(brain), device=brain.device)
    if not_negative is not None:
        own = torch.eye(len(brain), dtype=torch.bool, device=brain.device)
        logits = logits.masked_fill(not_negative & ~own, float("-inf"))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
