"""BrainMT's attention block.

Glossary: B batch · Q queries · L tokens · D width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Mlp(nn.Module):
    """Linear, GELU, Linear.

    Args:
        dim: D.
        hidden: Width between the two.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return self.fc2(F.gelu(self.fc1(x)))


class Attention(nn.Module):
    """Multi-head self-attention through PyTorch's fused kernels.

    Args:
        dim: D.
        num_heads: Heads (count).
        dropout: Probability of dropping an attention weight, in training only.
    """

    def __init__(self, dim: int, num_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "B L D"], *, num_queries: int | None = None) -> Float[Tensor, "B Q D"]:
        """Attend to all tokens; with ``num_queries`` only for that many first tokens."""
        if num_queries is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            weight, bias, dim = self.qkv.weight, self.qkv.bias, x.shape[-1]
            q = F.linear(x[:, :num_queries], weight[:dim], bias[:dim])
            k, v = F.linear(x, weight[dim:], bias[dim:]).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class DropPath(nn.Module):
    """Skip a residual branch for whole samples in training; survivors are scaled up.

    Args:
        probability: Of skipping.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        return x * torch.empty(len(x), 1, 1, device=x.device, dtype=x.dtype).bernoulli_(keep).div_(keep)


class AttentionBlock(nn.Module):
    """Attention, then MLP, each on a LayerNorm of the residual stream.

    Args:
        dim: D.
        num_heads: Heads (count).
        norm1: LayerNorm before the attention.
        norm2: LayerNorm before the MLP; the same module in the released form.
        mlp: The MLP; shared by all blocks in the released form.
        attention_dropout: Probability of dropping an attention weight.
        drop_path: Probability of skipping a branch.
        use_checkpoint: Recompute the MLP in backward; the attention core, which costs most, is kept.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        norm1: nn.LayerNorm,
        norm2: nn.LayerNorm,
        mlp: Mlp,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp, self.use_checkpoint = norm1, norm2, mlp, use_checkpoint
        self.attention = Attention(dim, num_heads, dropout=attention_dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "B L D"], *, num_queries: int | None = None) -> Float[Tensor, "B Q D"]:
        """With ``num_queries`` only that many first tokens are computed: exact, if only they are read."""
        mixed = self.attention(self.norm1(x), num_queries=num_queries)
        x = x[:, :num_queries] + self.drop_path(mixed)
        if self.use_checkpoint and self.training:
            return x + self.drop_path(checkpoint(self._mlp_branch, x, use_reentrant=False))
        return x + self.drop_path(self._mlp_branch(x))

    def _mlp_branch(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm2(x))
