"""Norm, gated MLP, and the two kinds of block of Evo 2. Names of modules are those of the checkpoints.

A block: x = u + mixer(pre_norm(u)), then x + mlp(post_norm(x)).

Glossary: B sequences · L positions · D width · W channels of the layer asked for.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoders.genetics.evo2.attention import Attention
from encoders.genetics.evo2.config import Evo2Config
from encoders.genetics.evo2.hyena import GROUP_BYTES, HyenaFilter


class RMSNorm(nn.Module):
    """x / (root mean square + eps) * scale: eps stands outside the root."""

    def __init__(self, config: Evo2Config) -> None:
        super().__init__()
        self.eps, self.root = config.eps, config.hidden_size**-0.5
        self.scale = nn.Parameter(torch.empty(config.hidden_size))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return self.scale * (x / (x.norm(2, dim=-1, keepdim=True) * self.root + self.eps))


class GatedMLP(nn.Module):
    """l3(act(l1 x) * l2 x); the activation is left out in all blocks but the first, as Evo 2 was trained."""

    def __init__(self, config: Evo2Config, block: int) -> None:
        super().__init__()
        D, inner = config.hidden_size, config.inner_mlp_size
        bilinear = config.evo2_style_activations and block > 0
        self.act = nn.Identity() if bilinear else {"gelu": nn.GELU, "silu": nn.SiLU}[config.mlp_activation]()
        self.l1 = nn.Linear(D, inner, bias=False)
        self.l2 = nn.Linear(D, inner, bias=False)
        self.l3 = nn.Linear(inner, D, bias=False)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return self.l3(self.act(self.l1(x)) * self.l2(x))


class Block(nn.Module):
    """What both kinds have: the norms, the MLP, and the walk through them.

    Args:
        config: Shape of the model.
        index: Which block it is.
    """

    def __init__(self, config: Evo2Config, index: int) -> None:
        super().__init__()
        self.pre_norm, self.post_norm = RMSNorm(config), RMSNorm(config)
        self.mlp = GatedMLP(config, index)

    def forward(
        self, u: Float[Tensor, "B L D"], state: Any = None, keep: bool = False, stop: str = ""
    ) -> tuple[Float[Tensor, "B L W"], Any]:
        """Output of the block, or of the layer named ``stop`` inside it, and the state if it is to be kept.

        Nothing behind that layer is computed.
        """
        mixed, state, reached = self._mix(self.pre_norm(u), state, keep, stop)
        if reached:
            return mixed, state
        x = u + mixed
        del mixed
        pieces = []
        for piece in x.split(
            self._positions(x), dim=1
        ):  # the MLP's inner width is kept for some positions only
            z = self.post_norm(piece)
            if stop == "post_norm":
                pieces.append(z)
            elif stop in ("mlp.l1", "mlp.l2"):
                pieces.append(self.mlp.get_submodule(stop[4:])(z))
            elif stop in ("mlp", "mlp.l3"):
                pieces.append(self.mlp(z))
            else:
                piece += self.mlp(z)
        return torch.cat(pieces, dim=1) if stop else x, state

    def _mix(self, z: Tensor, state: Any, keep: bool, stop: str) -> tuple[Tensor, Any, bool]:
        """Output of the mixer, or of the layer in it; state; whether that layer was asked for."""
        raise NotImplementedError

    def _positions(self, x: Tensor) -> int:
        allowed = GROUP_BYTES.get(x.device.type, GROUP_BYTES["cpu"])
        inner = self.mlp.l1.out_features
        return max(1, allowed // (3 * inner * x.element_size() * x.shape[0]))


class HyenaBlock(Block):
    """A block whose mixer is a Hyena operator."""

    def __init__(self, config: Evo2Config, index: int) -> None:
        super().__init__(config, index)
        self.projections = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.filter = HyenaFilter(config, config.kind(index))
        self.out_filter_dense = nn.Linear(config.hidden_size, config.hidden_size)

    def _mix(self, z: Tensor, state: Any, keep: bool, stop: str) -> tuple[Tensor, Any, bool]:
        if stop == "pre_norm":
            return z, None, True
        if stop == "projections":
            return self.projections(z), None, True
        y, state = self.filter(z, self.projections.weight, state, keep)
        if stop == "filter":
            return y, state, True
        return self.out_filter_dense(y), state, stop == "out_filter_dense"


class AttentionBlock(Block):
    """A block whose mixer is attention."""

    def __init__(self, config: Evo2Config, index: int) -> None:
        super().__init__(config, index)
        self.inner_mha_cls = Attention(config)

    def _mix(self, z: Tensor, state: Any, keep: bool, stop: str) -> tuple[Tensor, Any, bool]:
        if stop == "pre_norm":
            return z, None, True
        if stop == "inner_mha_cls.Wqkv":
            return self.inner_mha_cls.Wqkv(z), None, True
        y, state = self.inner_mha_cls.attend(z, state, keep)
        if stop == "inner_mha_cls.inner_attn":
            return y, state, True
        return self.inner_mha_cls.out_proj(y), state, stop in ("inner_mha_cls", "inner_mha_cls.out_proj")
