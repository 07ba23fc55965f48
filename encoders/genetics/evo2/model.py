"""Evo 2: a causal language model of DNA, for inference. Embedding, StripedHyena 2 blocks, norm, tied output.

Differs from the authors' implementation (`vtx`) in what it needs, PyTorch alone, and in what it holds in memory;
outputs agree (docs/evo2.md says how closely). Nguyen et al. 2024 (Evo), Ku et al. 2025 (StripedHyena 2), Brixi et
al. 2025 (Evo 2).

Glossary: B sequences · L positions · D width · V rows of the embedding · W channels of the layer asked for.
"""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from encoders.genetics.evo2.block import AttentionBlock, HyenaBlock, RMSNorm
from encoders.genetics.evo2.config import Evo2Config, block_of

FP32 = ("log_poles", "residues", "inv_freq")  # never rounded to bf16


@dataclass(frozen=True)
class Prefix:
    """What the model keeps of a beginning of sequences, so that a continuation costs its own length only.

    Args:
        length: Positions.
        blocks: State of each block.
    """

    length: int
    blocks: list[Any]


class Evo2Model(nn.Module):
    """StripedHyena 2 with the tensors of the released checkpoints.

    Args:
        config: Its shape.
    """

    def __init__(self, config: Evo2Config) -> None:
        super().__init__()
        self.config = config
        self.embedding_layer = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(
            (AttentionBlock if config.kind(index) == "attn" else HyenaBlock)(config, index)
            for index in range(config.num_layers)
        )
        self.norm = RMSNorm(config)

    def forward(self, ids: Int64[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        """Logits of the next token at every position."""
        return self.output(ids)[0]

    def output(
        self,
        ids: Int64[Tensor, "B L"],
        *,
        layer: str = "unembed",
        prefix: Prefix | None = None,
        keep: bool = False,
    ) -> tuple[Float[Tensor, "B L W"], Prefix | None]:
        """Output of a named layer; nothing behind it is computed.

        Args:
            ids: Tokens; with a prefix, those that follow it.
            layer: One of :meth:`Evo2Config.layers`: "blocks.28.mlp.l3", "blocks.28" (with the residual), "norm", "unembed"
                (logits), ...
            prefix: What an earlier call kept of the positions before.
            keep: Whether to return the prefix behind the last position; ``layer`` must then be "norm" or "unembed".

        Raises:
            InputError: no such layer.
        """
        self.config.check_layer(layer)
        if keep and layer not in ("norm", "unembed"):
            raise ValueError(f"a prefix is kept by all blocks, but the pass stops at {layer}")
        last, states = block_of(layer), []
        x = self.embedding_layer(ids)
        if layer == "embedding_layer":
            return x, None
        for index, block in enumerate(self.blocks):
            stop = layer.removeprefix(f"blocks.{index}").lstrip(".") if index == last else ""
            before = None if prefix is None else prefix.blocks[index]
            x, state = block(x, before, keep, stop)
            states.append(state)
            if index == last:
                return x, None
        x = self.norm(x)
        if layer == "unembed":
            x = self.unembed(x)
        seen = (0 if prefix is None else prefix.length) + ids.shape[1]
        return x, Prefix(seen, states) if keep else None

    def unembed(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L V"]:
        """Logits of outputs of the last norm."""
        weight = self.embedding_layer.weight
        return F.linear(x.to(weight.device), weight)
