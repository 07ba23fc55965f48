"""BrainMT's convolutional stem: one volume -> a small grid of patch tokens.

Glossary: F frames (of all subjects of a batch) · C channels · Y X Z voxels of the current grid.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEW_CHANNELS = 16  # the library's input gradient of a strided convolution is slow below a vector's width


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a volume; the channels-last layout makes it one contiguous pass."""

    def forward(self, x: Float[Tensor, "F C Y X Z"]) -> Float[Tensor, "F C Y X Z"]:
        return super().forward(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class ConvBlock(nn.Module):
    """Residual block: convolution, norm, GELU, convolution, norm.

    Args:
        dim: C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(dim, dim, 3, padding=1)
        self.norm1 = ChannelNorm(dim, eps=1e-5)
        self.conv2 = nn.Conv3d(dim, dim, 3, padding=1)
        self.norm2 = ChannelNorm(dim, eps=1e-5)

    def forward(self, x: Float[Tensor, "F C Y X Z"]) -> Float[Tensor, "F C Y X Z"]:
        h = F.gelu(self.norm1(self.conv1(x)), approximate="tanh")
        return x + self.norm2(self.conv2(h))


class Halve(nn.Conv3d):
    """Convolution 3 x 3 x 3 of stride 2 without bias: halves each axis, rounding up.

    Args:
        dim_in: Channels in.
        dim_out: Channels out.
    """

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__(dim_in, dim_out, 3, stride=2, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "F C Y X Z"]) -> Float[Tensor, "F D y x z"]:
        if x.requires_grad and x.device.type == "cpu" and self.in_channels < FEW_CHANNELS:
            return _HalvingConv.apply(x, self.weight.to(x.dtype))
        return super().forward(x)


class _HalvingConv(torch.autograd.Function):
    """The same convolution; the gradient of its input is half the time of the library's on a CPU.

    Along one axis the input at 2m hears of the output at m through the middle tap, the input at 2m + 1 of the
    outputs at m and m + 1 through the outer taps. So the gradient is a convolution of the output's gradient
    with a 2 x 2 x 2 kernel for each of the 8 parities, whose results are interleaved.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv3d(x, weight, stride=2, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        sizes = ([2] * 3, [1] * 3, [1] * 3, False, [0] * 3, 1)  # stride, padding, dilation, -, -, groups
        only_weight = (False, True, False)
        grad_weight = torch.ops.aten.convolution_backward(grad, x, weight, None, *sizes, only_weight)[1]

        dim_out, dim_in = weight.shape[:2]
        taps = weight.new_zeros(2, 2, 3)  # parity, offset of the output, tap
        taps[0, 0, 1] = taps[1, 0, 2] = taps[1, 1, 0] = 1
        kernel = torch.einsum("oiabc,pta,qub,rvc->pqriotuv", weight, taps, taps, taps)
        kernel = kernel.reshape(8 * dim_in, dim_out, 2, 2, 2).contiguous(memory_format=torch.channels_last_3d)
        parts = F.conv3d(F.pad(grad, (0, 1, 0, 1, 0, 1)), kernel).permute(0, 2, 3, 4, 1)  # [F, y, x, z, 8 C]
        frames, *halved, _ = parts.shape
        parts = parts.unflatten(-1, (2, 2, 2, dim_in)).permute(0, 1, 4, 2, 5, 3, 6, 7)
        grad_x = parts.reshape(frames, *(2 * n for n in halved), dim_in)
        y, x_, z = x.shape[2:]
        return grad_x[:, :y, :x_, :z].permute(0, 4, 1, 2, 3), grad_weight


class ConvStem(nn.Module):
    """Two patch convolutions, then twice a residual block and a downsampling: each axis shrinks 16-fold.

    Args:
        widths: Channels after each of the four halvings.
    """

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        a, b, c, d = widths
        self.patch_embed = nn.Sequential(Halve(1, a), nn.ReLU(), Halve(a, b), nn.ReLU())
        self.block0 = ConvBlock(b)
        self.downsample0 = Halve(b, c)
        self.block1 = ConvBlock(c)
        self.downsample1 = Halve(c, d)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                # He et al. 2015: from PyTorch's default the stem learns several times more slowly
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, x: Float[Tensor, "F 1 Y X Z"]) -> Float[Tensor, "F C y x z"]:
        x = self.patch_embed(x.contiguous(memory_format=torch.channels_last_3d))
        return self.downsample1(self.block1(self.downsample0(self.block0(x))))
