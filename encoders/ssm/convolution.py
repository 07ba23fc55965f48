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

from encoders.ssm.announcement import announce
from encoders.ssm.cuda import conv_cuda, conv_refusal


def directional_conv(
    x: Float[Tensor, "B L D"],
    weight: Float[Tensor, "G D 1 K"],
    bias: Float[Tensor, "G D"],
    *,
    reverse: tuple[bool, ...],
) -> Float[Tensor, "G B L D"]:
    """Depthwise convolution of one input for G directions; the last tap weighs the present step."""
    length, taps = x.shape[1], weight.shape[3]
    if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        return _ShiftedConv.apply(x, weight, bias, reverse)
    path = "library"
    if x.device.type == "cuda" and not torch.compiler.is_compiling():  # a compiler knows the library's own
        path, reason = pick_convolution(x.device, dtype=x.dtype, taps=taps)
        announce("causal convolution", path, reason)
    outputs = []
    for w, b, back in zip(weight, bias, reverse, strict=True):
        if path == "causal_conv1d":
            outputs.append(conv_cuda(x.mT, w[:, 0], b, reverse=back))
        else:
            w = w.flip(2) if back else w
            padded = F.conv1d(x.mT, w, b.to(x.dtype), padding=taps - 1, groups=len(w))
            outputs.append(padded[..., taps - 1 :] if back else padded[..., :length])
    return torch.stack(outputs).mT


def pick_convolution(
    device: torch.device, *, dtype: torch.dtype = torch.float32, taps: int = 4
) -> tuple[str, str]:
    """(implementation, reason) that a device gets: "shifted", "causal_conv1d" or "library".

    Args:
        device: Where the tensors are.
        dtype: Of the input.
        taps: K.
    """
    if device.type == "cpu":
        # the library's grouped convolution would have to transpose; under autocast it is taken all the same
        return "shifted", "on a CPU, shifted multiply-adds in the token-major layout are fastest"
    if device.type != "cuda":
        return "library", f"no compiled kernel for device {device.type}"
    refusal = conv_refusal(device, dtype=dtype, taps=taps)
    if refusal is None:
        return "causal_conv1d", f"causal-conv1d's compiled kernel works on {device}"
    return "library", refusal


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
