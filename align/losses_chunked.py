"""CLIP and SigLIP without the B x B logits: square tiles of them, one after the other, and a hand-written backward.

A full CLIP loss at B = 16,384 holds several matrices of 1 GB. Here a tile is formed, used and dropped; what stays are
the inputs, their gradients and a few numbers per person. CLIP's gradient needs the sums over whole rows and columns
first, so its logits are formed twice (4 matrix products against open_clip's 6, which forms logits once per
direction). SigLIP's terms stand alone: its gradients are made together with its value, with nothing formed twice.

Glossary: B pairs in the batch · O width of the shared space · z logits · R, C rows and columns of a tile.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from align.negatives import NotNegative, exempt, tiles
from align.soft_targets import SoftTargets


def chunked_clip_loss(
    left: Float[Tensor, "B O"],
    right: Float[Tensor, "B O"],
    scale: Float[Tensor, ""],
    *,
    not_negative: NotNegative | None,
    soft: SoftTargets | None,
    side: int,
) -> Float[Tensor, ""]:
    """:func:`align.losses.clip_loss` in tiles of ``side`` x ``side`` pairs."""
    with _no_autocast(left):
        return _Clip.apply(_wide(left), _wide(right), scale, not_negative, soft, side)


def chunked_siglip_loss(
    left: Float[Tensor, "B O"],
    right: Float[Tensor, "B O"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    *,
    not_negative: NotNegative | None,
    soft: SoftTargets | None,
    side: int,
) -> Float[Tensor, ""]:
    """:func:`align.losses.siglip_loss` in tiles of ``side`` x ``side`` pairs."""
    with _no_autocast(left):
        return _SigLip.apply(_wide(left), _wide(right), scale, bias, not_negative, soft, side)


NARROW = 40.0  # logits within +-40: sums of their exponentials fit float32 unshifted, up to some 10^20 terms


class _Clip(torch.autograd.Function):
    """Value: half the sum over people of lse_row(i) + lse_column(i) - 2 z_ii, divided by B.

    Narrow logits (inverse temperatures up to 40) need one exponential for rows and columns together; wide ones are
    shifted by the maximum of their own row, and of their own column, so that no person's sum is lost.
    """

    @staticmethod
    def forward(
        ctx: Any,
        left: Tensor,
        right: Tensor,
        scale: Tensor,
        not_negative: Tensor | None,
        soft: SoftTargets | None,
        side: int,
    ) -> Tensor:
        num = len(left)
        narrow = bool(scale.abs() * left.norm(dim=1).max() * right.norm(dim=1).max() <= NARROW)
        start = 0.0 if narrow else float("-inf")
        row_sums, column_sums = (
            left.new_full((num,), start) for _ in range(2)
        )  # of exponentials; wide: their logs
        normalisers = None if soft is None else soft.normalisers(not_negative, side=side)
        agreement = left.new_zeros((), dtype=torch.float64)  # sum of target x logit
        for rows, columns, logits, free in _tiles_of_logits(left, right, scale, not_negative, side):
            if soft is not None:
                agreement += (soft.shares(rows, columns, normalisers, free) * logits).sum()
            elif rows == columns:
                agreement += 2 * logits.diagonal().sum()
            if free is not None:
                logits.masked_fill_(free, float("-inf"))
            if narrow:
                logits.exp_()
                row_sums[rows] += logits.sum(1)
                column_sums[columns] += logits.sum(0)
            else:
                row_sums[rows] = torch.logaddexp(row_sums[rows], logits.logsumexp(1))
                column_sums[columns] = torch.logaddexp(column_sums[columns], logits.logsumexp(0))
        if narrow:
            row_sums, column_sums = row_sums.log(), column_sums.log()
        ctx.save_for_backward(left, right, scale, row_sums, column_sums, normalisers)
        ctx.options = not_negative, soft, side, narrow
        return ((row_sums.double().sum() + column_sums.double().sum() - agreement) / (2 * num)).to(left.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        left, right, scale, row_sums, column_sums, normalisers = ctx.saved_tensors
        not_negative, soft, side, narrow = ctx.options
        row_shares, column_shares = torch.exp(-row_sums), torch.exp(-column_sums)  # used where narrow
        to_left, to_right = torch.zeros_like(left), torch.zeros_like(right)  # before the factor scale
        with _no_autocast(left):
            for rows, columns, logits, free in _tiles_of_logits(left, right, scale, not_negative, side):
                if free is not None:
                    logits.masked_fill_(free, float("-inf"))
                if narrow:
                    slope = logits.exp_().mul_(row_shares[rows, None] + column_shares[None, columns])
                else:
                    slope = torch.exp(logits - row_sums[rows, None])
                    slope += logits.sub_(column_sums[None, columns]).exp_()
                if soft is not None:
                    slope -= soft.shares(rows, columns, normalisers, free)
                elif rows == columns:
                    slope.diagonal().sub_(2)
                _add_slopes(slope, rows, columns, left, right, to_left, to_right)
            to_scale = _dot(left, to_left)
        factor = gradient / (2 * len(left))
        return (
            to_left.mul_(factor * scale),
            to_right.mul_(factor * scale),
            to_scale * factor,
            None,
            None,
            None,
        )


class _SigLip(torch.autograd.Function):
    """Value: the sum over pairs of -log sigmoid(z of oneself), -log sigmoid(-z of others), divided by B."""

    @staticmethod
    def forward(
        ctx: Any,
        left: Tensor,
        right: Tensor,
        scale: Tensor,
        bias: Tensor,
        not_negative: Tensor | None,
        soft: SoftTargets | None,
        side: int,
    ) -> Tensor:
        training = any(ctx.needs_input_grad)
        total, to_bias = (left.new_zeros((), dtype=torch.float64) for _ in range(2))
        to_left, to_right = (torch.zeros_like(x) if training else None for x in (left, right))
        for rows, columns, logits, free in _tiles_of_logits(left, right, scale, not_negative, side):
            logits += bias
            labels = None if soft is None else soft.labels(rows, columns, free)
            if labels is not None:
                total -= (labels * logits).sum()
            elif rows == columns:
                logits.diagonal().neg_()  # -log sigmoid(z) is the others' -log sigmoid(-z) with z turned round
            if free is not None:
                logits.masked_fill_(free, float("-inf"))
            total -= F.logsigmoid(-logits).sum()
            if training:
                slope = logits.sigmoid_()
                if labels is not None:
                    slope -= labels
                elif rows == columns:
                    slope.diagonal().neg_()
                to_bias += slope.sum()
                _add_slopes(slope, rows, columns, left, right, to_left, to_right)
        if training:
            to_scale = _dot(left, to_left) / len(left)
            to_left.mul_(scale / len(left))
            to_right.mul_(scale / len(left))
            ctx.save_for_backward(to_left, to_right, to_scale, (to_bias / len(left)).to(left.dtype))
        return (total / len(left)).to(left.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*(gradient * saved for saved in ctx.saved_tensors), None, None, None)


def _tiles_of_logits(
    left: Tensor, right: Tensor, scale: Tensor, not_negative: Tensor | None, side: int
) -> Iterator[tuple[slice, slice, Float[Tensor, "R C"], Tensor | None]]:
    """Rows, columns, logits (yours to overwrite) and the pairs that are no negatives, tile after tile."""
    cuts = tiles(len(left), side)
    for rows in cuts:
        ours = left[rows] * scale
        for columns in cuts:
            yield rows, columns, ours @ right[columns].T, exempt(not_negative, rows, columns)


def _add_slopes(
    slope: Tensor,
    rows: slice,
    columns: slice,
    left: Tensor,
    right: Tensor,
    to_left: Tensor,
    to_right: Tensor,
) -> None:
    """What a tile's d loss / d z does to the vectors, added up in place."""
    to_left[rows].addmm_(slope, right[columns])
    to_right[columns].addmm_(slope.T, left[rows])


def _dot(left: Tensor, right: Tensor) -> Float[Tensor, ""]:
    """Sum of the products, without a third tensor of their size."""
    return torch.einsum("bo,bo->b", left, right).double().sum()


def _no_autocast(vectors: Tensor) -> torch.autocast:
    """Matrix products in the precision of their inputs, also under mixed precision."""
    return torch.autocast(vectors.device.type, enabled=False)


def _wide(vectors: Tensor) -> Tensor:
    """At least float32, and contiguous: sums over a whole batch would drown in half precision."""
    return (vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors).contiguous()
