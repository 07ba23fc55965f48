"""Task heads: a tower's vector -> predictions for supervised training.

Glossary: B batch · D width of the tower's vector · K targets.
"""

from jaxtyping import Float
from torch import Tensor, nn


class TaskHead(nn.Module):
    """One linear layer from a tower's vector to K targets (z-scored traits, or logits).

    Args:
        input_dim: D.
        num_targets: K.
        dropout: Probability of zeroing an input unit in training.
    """

    def __init__(self, input_dim: int, num_targets: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(input_dim, num_targets)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        return self.linear(self.dropout(x))
