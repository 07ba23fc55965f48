"""Causal attention of all heads with rotary positions, through PyTorch's own kernels (SDPA).

Rotary: over the whole head, first half against second half; frequencies are those stored in the checkpoint
(rounded to bf16 by their authors), angles fp32, tables in the number format of the activations. Heads never meet
before the output projection, so they are worked through in groups; memory grows with the length only, because
SDPA's kernels never write the scores down. Su et al. 2021, "RoFormer".

Glossary: B sequences · L positions · D width · H heads · E channels of a head · P positions seen before.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from encoders.genetics.evo2.config import Evo2Config
from encoders.genetics.evo2.hyena import GROUP_BYTES

QUERIES = 512  # rows of scores at a time when earlier positions are kept, which no kernel masks by itself


@dataclass(frozen=True)
class AttentionState:
    """Keys, rotated, and values of the positions seen so far, each (B, H, P, E)."""

    keys: Tensor
    values: Tensor


class Rotary(nn.Module):
    """Holds the frequencies.

    Args:
        config: Shape of the model.
    """

    def __init__(self, config: Evo2Config) -> None:
        super().__init__()
        self.stretch = config.rotary_emb_scaling_factor
        self.register_buffer("inv_freq", torch.empty(config.head_size // 2))

    def tables(self, first: int, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin of the angles at positions ``first`` to ``first + length - 1``, each (L, E / 2)."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        positions = (
            torch.arange(first, first + length, device=self.inv_freq.device, dtype=wide) / self.stretch
        )
        angles = torch.outer(positions, self.inv_freq.to(wide))
        return torch.cos(angles).to(dtype), torch.sin(angles).to(dtype)


class Attention(nn.Module):
    """Multi-head attention.

    Args:
        config: Shape of the model.
    """

    def __init__(self, config: Evo2Config) -> None:
        super().__init__()
        self.heads, self.head_size = config.num_attention_heads, config.head_size
        self.Wqkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.rotary_emb = Rotary(config)

    def attend(
        self, u: Float[Tensor, "B L D"], state: AttentionState | None = None, keep: bool = False
    ) -> tuple[Float[Tensor, "B L D"], AttentionState | None]:
        """Everything before the output projection.

        Args:
            u: Normed activations.
            state: Of earlier positions; None: there are none.
            keep: Whether to return the state behind the last position.
        """
        batch, length, width = u.shape
        before = 0 if state is None else state.keys.shape[2]
        cos, sin = self.rotary_emb.tables(before, length, u.dtype)
        out = torch.empty_like(u)
        keys, values = [], []
        for first, last in self._head_groups(batch, length, u.device):
            rows = slice(first * self.head_size, last * self.head_size)
            q, k, v = (
                F.linear(u, weight[rows]).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
                for weight in self.Wqkv.weight.split(width)
            )
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            if state is not None:
                k = torch.cat([state.keys[:, first:last], k], dim=2)
                v = torch.cat([state.values[:, first:last], v], dim=2)
            if keep:
                keys.append(k)
                values.append(v)
            out[:, :, rows] = causal_attention(q, k, v).transpose(1, 2).flatten(2)
        return out, AttentionState(torch.cat(keys, 1), torch.cat(values, 1)) if keep else None

    def _head_groups(self, batch: int, length: int, device: torch.device) -> list[tuple[int, int]]:
        allowed = GROUP_BYTES.get(device.type, GROUP_BYTES["cpu"])
        size = max(1, allowed // (4 * 8 * batch * length * self.head_size))  # some eight buffers of a head
        return [(first, min(first + size, self.heads)) for first in range(0, self.heads, size)]


def rotate(
    x: Float[Tensor, "B H L E"], cos: Float[Tensor, "L E2"], sin: Float[Tensor, "L E2"]
) -> Float[Tensor, "B H L E"]:
    """Turn each pair (channel e, channel e + E/2) by the angle of its position; computed in fp32 at least."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    a, b = x.to(wide).chunk(2, dim=-1)
    cos, sin = cos.to(wide), sin.to(wide)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def causal_attention(
    q: Float[Tensor, "B H L E"], k: Float[Tensor, "B H P E"], v: Float[Tensor, "B H P E"]
) -> Float[Tensor, "B H L E"]:
    """Queries belong to the last L of the P positions of keys and values; each sees itself and all before."""
    length, total = q.shape[2], k.shape[2]
    if length == total:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    pieces = []
    for first in range(0, length, QUERIES):
        rows = torch.arange(first, min(first + QUERIES, length), device=q.device) + total - length
        seen = int(rows[-1]) + 1
        mask = torch.arange(seen, device=q.device) <= rows[:, None]
        piece = q[:, :, first : first + QUERIES]
        pieces.append(F.scaled_dot_product_attention(piece, k[:, :, :seen], v[:, :, :seen], attn_mask=mask))
    return torch.cat(pieces, dim=2)
