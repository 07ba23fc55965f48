"""The short depthwise convolution in front of the scan, for several directions at once.

A forward direction looks at the present and the K - 1 preceding steps, a backward one at the present and
the K - 1 following steps (what flip, causal convolution, flip would compute).

Glossary: G directions · B batch · L time steps · D channels · K taps.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def directional_conv(
    x: Float[Tensor, "B L D"],
    weight: Float[Tensor, "G D 1 K"],
    bias: Float[Tensor, "G D"],
    *,
    reverse: tuple[bool, ...],
) -> Float[Tensor, "G B L D"]:
    """Depthwise convolution of one input for G directions; the last tap weighs the present step.

    On a CPU a few shifted multiply-adds in the token-major layout beat the library's grouped convolution,
    which has to transpose.
    """
    if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        return _ShiftedConv.apply(x, weight, bias, reverse)
    length, taps = x.shape[1], weight.shape[3]
    outputs = []
    for w, b, back in zip(weight, bias, reverse, strict=True):
        w = w.flip(2) if back else w
        padded = F.conv1d(x.mT, w, b.to(x.dtype), padding=taps - 1, groups=len(w))
        outputs.append(padded[..., taps - 1 :] if back else padded[..., :length])
    return torch.stack(outputs).mT


class _ShiftedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, reverse: tuple[bool, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.reverse = reverse
        y = bias[:, None, None].expand(-1, *x.shape[:2], -1).contiguous()
        for g, back in enumerate(reverse):
            for source, target, tap in _shifts(x.shape[1], weight.shape[3], back):
                y[g, :, target].addcmul_(x[:, source], weight[g, :, 0, tap])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = torch.zeros(x.shape, dtype=x.dtype)
        grad_weight = torch.empty_like(weight)
        for g, back in enumerate(ctx.reverse):
            for source, target, tap in _shifts(x.shape[1], weight.shape[3], back):
                grad_x[:, source].addcmul_(grad[g, :, target], weight[g, :, 0, tap])
                grad_weight[g, :, 0, tap] = (grad[g, :, target] * x[:, source]).sum((0, 1))
        return grad_x, grad_weight, grad.sum((1, 2)), None


def _shifts(length: int, taps: int, back: bool) -> list[tuple[slice, slice, int]]:
    """(steps read, steps written, tap) of each tap that reaches into a sequence of this length."""
    shifts = []
    for tap in range(taps):
        away = taps - 1 - tap
        if away < length:
            near, far = slice(0, length - away), slice(away, length)
            shifts.append((far, near, tap) if back else (near, far, tap))
    return shifts
