"""Contrastive losses as pure functions of tensors; gathering across processes is the loop's business.

Both compare all pairs of a batch. With ``chunk`` they never hold the B x B logits: they walk over square tiles of
them (losses_chunked.py), with the same value and gradients.

Glossary: B pairs in the batch · O width of the shared space.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from align.losses_chunked import chunked_clip_loss, chunked_siglip_loss
from align.negatives import NotNegative, exempt
from align.soft_targets import SoftTargets


def clip_loss(
    left: Float[Tensor, "B O"],
    right: Float[Tensor, "B O"],
    scale: Float[Tensor, ""],
    *,
    not_negative: NotNegative | None = None,
    soft: SoftTargets | None = None,
    chunk: int = 0,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE over in-batch negatives (Radford et al. 2021, CLIP).

    Equals `open_clip.loss.ClipLoss` where nothing is masked or softened. Suits batches that are large, since only
    the others in the batch say what a match is not.

    Args:
        left: Unit vectors of one modality.
        right: Unit vectors of the other; row i belongs to the person of row i of `left`.
        scale: Inverse temperature.
        not_negative: Who must not be pushed apart (relatives, identical genotypes): a mask or group ids, see
            negatives.py. Such pairs leave the softmax; a person's own pair always counts.
        soft: Targets that people alike within a modality share; their rows are those of `left`.
        chunk: People on the side of a tile; 0 forms all logits at once.
    """
    if chunk:
        return chunked_clip_loss(left, right, scale, not_negative=not_negative, soft=soft, side=chunk)
    logits = scale * left @ right.T
    everyone = slice(0, len(left))
    free = exempt(not_negative, everyone, everyone)
    masked = logits if free is None else logits.masked_fill(free, float("-inf"))
    if soft is None:
        target = torch.arange(len(left), device=left.device)
        return (F.cross_entropy(masked, target) + F.cross_entropy(masked.T, target)) / 2
    shares = soft.shares(everyone, everyone, soft.normalisers(not_negative, side=len(left)), free)
    both = masked.logsumexp(1).sum() + masked.logsumexp(0).sum() - (shares * logits).sum()
    return both / (2 * len(left))


def siglip_loss(
    left: Float[Tensor, "B O"],
    right: Float[Tensor, "B O"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    *,
    not_negative: NotNegative | None = None,
    soft: SoftTargets | None = None,
    chunk: int = 0,
) -> Float[Tensor, ""]:
    """Each pair on its own: a match or not, by a sigmoid (Zhai et al. 2023, SigLIP); summed, then divided by B.

    Equals `open_clip.loss.SigLipLoss` where nothing is masked or softened. Suits small batches: no softmax ties a
    pair to the others of its batch.

    Args:
        left: Unit vectors of one modality.
        right: Unit vectors of the other; row i belongs to the person of row i of `left`.
        scale: Inverse temperature.
        bias: Added to all logits; at the start about the log-odds that two people of a batch are a match.
        not_negative: As in :func:`clip_loss`; such pairs are left out of the sum.
        soft: Labels between 0 and 1 for people alike within a modality.
        chunk: People on the side of a tile; 0 forms all logits at once.
    """
    if chunk:
        return chunked_siglip_loss(left, right, scale, bias, not_negative=not_negative, soft=soft, side=chunk)
    logits = scale * left @ right.T + bias
    everyone = slice(0, len(left))
    free = exempt(not_negative, everyone, everyone)
    if soft is None:
        own = torch.eye(len(left), dtype=torch.bool, device=left.device)
        losses = -F.logsigmoid(torch.where(own, logits, -logits))
    else:
        losses = -F.logsigmoid(-logits) - soft.labels(everyone, everyone, free) * logits
    if free is not None:
        losses = losses.masked_fill(free, 0)
    return losses.sum() / len(left)
