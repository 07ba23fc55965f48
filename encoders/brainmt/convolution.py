"""BrainMT's convolutional stem: one volume -> a small grid of patch tokens.

Glossary: F frames (of all subjects of a batch) · C channels · Y X Z voxels of the current grid.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


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
