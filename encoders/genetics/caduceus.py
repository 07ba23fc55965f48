"""Caduceus: a bidirectional Mamba over single bases, in its two kinds.

Schiff et al. 2024, "Caduceus: Bi-Directional Equivariant Long-Range DNA Sequence Modeling",
https://arxiv.org/abs/2403.03234. A module of our own; the weights are those of the hub
(`caduceus_checkpoint`), the scan is the one of `encoders.ssm`.

Ph: an ordinary network; strand-invariance comes from averaging the outputs of both strands.
PS: carries two halves of D channels, one per strand, so that the reverse complement of the input flips the
    output along length and channels.

Both run here as one batch of two strands, each in its own reading direction. In that frame PS differs from Ph
by one step only: the hub's models (`fused_add_norm: true`) exchange the two strands before the norm of every
layer. Leaving that out gives another model that is just as equivariant, so no symmetry test can see it.

Glossary: B batch · L bases · D width of one strand · V tokens.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from encoders.genetics.tokenizer import VOCAB_SIZE, complement_map
from encoders.runs.errors import InputError
from encoders.ssm.mamba import BiMamba, RMSNorm

# Bases of a batch up to which both strands go through a layer side by side; beyond, one after the other, which
# halves the memory of long windows and costs nothing.
TOGETHER = 2**15


@dataclass(frozen=True, kw_only=True)
class CaduceusConfig:
    """Architecture of a checkpoint, from its config.json.

    Args:
        dim: D, width of one strand.
        num_layers: Layers.
        rcps: Whether the kind is PS.
        exchange: Whether PS exchanges its halves before each norm (`fused_add_norm` of the original).
        norm_eps: Added under the root of the norms.
        state_dim: Numbers of state per channel of the scan.
        conv_width: Taps of the causal convolution.
        expand: Inner width / D.
        dt_rank: Rank of the step size.
        wide_residual: Whether a model in half precision keeps its residual stream in fp32.
    """

    dim: int
    num_layers: int
    rcps: bool
    exchange: bool
    norm_eps: float
    state_dim: int
    conv_width: int
    expand: int
    dt_rank: int
    wide_residual: bool

    @property
    def kind(self) -> str:
        """ "ps" or "ph"."""
        return "ps" if self.rcps else "ph"

    def operations(self, length: int) -> float:
        """Floating-point operations for one sequence of ``length`` bases, both strands.

        A multiplication and an addition count as two. Counted are the projections, the convolution and the
        scan (per channel and number of state: a product, an exponential and two products and a sum for the
        new state, a product and a sum for reading it); norms, gates and residuals are left out, below 2 % at
        the released widths.
        """
        inner, rank = self.expand * self.dim, self.dt_rank
        shared = 2 * self.dim * 3 * inner  # in_proj to x and z, out_proj
        own = 2 * inner * (self.conv_width + rank + 2 * self.state_dim + rank) + 7 * inner * self.state_dim
        return 2.0 * length * self.num_layers * (shared + 2 * own)

    @classmethod
    def from_hub(cls, content: dict[str, Any], source: str) -> "CaduceusConfig":
        """Read the parsed config.json of the hub.

        Args:
            content: The JSON object.
            source: Where it came from, for messages.

        Raises:
            InputError: a field is missing, or asks for something the released Caduceus models do not have.
        """
        ssm = content.get("ssm_cfg") or {}
        wanted = {
            "model_type": (content.get("model_type", "caduceus"), "caduceus"),
            "vocab_size": (content.get("vocab_size"), VOCAB_SIZE),
            "rms_norm": (content.get("rms_norm"), True),
            "bidirectional": (content.get("bidirectional"), True),
            "bidirectional_strategy": (content.get("bidirectional_strategy") or "add", "add"),
            "bidirectional_weight_tie": (content.get("bidirectional_weight_tie"), True),
            "ssm_cfg.bias": (ssm.get("bias", False), False),
            "ssm_cfg.conv_bias": (ssm.get("conv_bias", True), True),
        }
        for name, (found, supported) in wanted.items():
            if found != supported:
                raise InputError(
                    f"{source} says {name} = {found!r}, but Caduceus models of kuleshov-group, which are supported, "
                    f"have {supported!r}; pass one of those"
                )
        try:
            dim, rank = int(content["d_model"]), ssm.get("dt_rank", "auto")
            return cls(
                dim=dim,
                num_layers=int(content["n_layer"]),
                rcps=bool(content["rcps"]),
                exchange=bool(content["rcps"] and content["fused_add_norm"]),
                norm_eps=float(content["norm_epsilon"]),
                state_dim=int(ssm.get("d_state", 16)),
                conv_width=int(ssm.get("d_conv", 4)),
                expand=int(ssm.get("expand", 2)),
                dt_rank=math.ceil(dim / 16) if rank == "auto" else int(rank),
                wide_residual=bool(content.get("residual_in_fp32", False)),
            )
        except (KeyError, TypeError, ValueError) as cause:
            raise InputError(
                f"{source} is no Caduceus configuration ({type(cause).__name__}: {cause}); "
                f"the config.json of kuleshov-group's models was wanted"
            ) from cause


class CaduceusLayer(nn.Module):
    """Norm, then a bidirectional Mamba; the residual stream is kept by the caller."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.mixer = BiMamba(
            config.dim,
            d_state=config.state_dim,
            d_conv=config.conv_width,
            expand=config.expand,
            dt_rank=config.dt_rank,
        )

    def forward(self, residual: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return self.mixer(self.norm(residual))


class CaduceusModel(nn.Module):
    """The backbone without the language-model head.

    Args:
        config: Architecture.
    """

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(VOCAB_SIZE, config.dim)
        self.layers = nn.ModuleList(CaduceusLayer(config) for _ in range(config.num_layers))
        self.norm_f = RMSNorm(config.dim, eps=config.norm_eps)
        self.register_buffer("complement_map", complement_map())

    def strands(self, ids: Int64[Tensor, "B L"]) -> Float[Tensor, "2 B L D"]:
        """Final hidden states of the given strand and of its reverse complement, each in its own direction."""
        both = torch.stack([ids, self.complement_map[ids.flip(-1)]])
        h = self.embedding(both)
        residual = self._no_residual(h)
        for layer in self.layers:
            if self.config.exchange:
                # (p, q) <- (q, p); q is held read backwards, so changing places turns both round
                h, residual = h.flip(0, 2, 3), residual.flip(0, 2, 3)
            residual = h + residual
            if ids.numel() > TOGETHER:
                h = torch.stack([layer(strand) for strand in residual])
            else:
                h = layer(residual.flatten(0, 1)).view_as(residual)
        return self.norm_f(h + residual)

    def forward(self, ids: Int64[Tensor, "B L"]) -> Float[Tensor, "B L W"]:
        """Final hidden states as the original gives them: W = D for Ph, 2 D for PS (forward half, other half)."""
        if self.config.rcps:
            p, q = self.strands(ids)
            return torch.cat([p, q.flip(1, 2)], dim=-1)
        h = self.embedding(ids)
        residual = self._no_residual(h)
        for layer in self.layers:
            residual = h + residual
            h = layer(residual)
        return self.norm_f(h + residual)

    def features(self, ids: Int64[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """Strand-free features: those of the reverse complement are the same, read backwards.

        Ph: mean of the two passes. PS: mean of its halves after turning the second along length and channels;
        a plain mean of the halves would depend on the strand. fp32 at least.
        """
        forward, reverse = self.strands(ids)
        wide = torch.promote_types(forward.dtype, torch.float32)
        return (forward.to(wide) + reverse.flip(1)) / 2

    def in_dtype(self, dtype: torch.dtype) -> "CaduceusModel":
        """This model with its weights in another number format; the few that set the scan's decay stay fp32.

        The scan keeps its states in fp32 whatever the weights are.
        """
        for name, weight in self.named_parameters():
            if not name.endswith(("A_log", "A_b_log", ".D", ".D_b")):
                weight.data = weight.data.to(dtype)
        return self

    def _no_residual(self, h: Tensor) -> Tensor:
        return torch.zeros_like(h, dtype=torch.float32 if self.config.wide_residual else None)
