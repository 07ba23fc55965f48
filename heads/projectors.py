"""Projectors: a tower's vector -> the shared space.

Glossary: B batch · I width of the tower's vector · O width of the shared space.
"""

from jaxtyping import Float
from torch import Tensor, nn


class BrainMTProjector(nn.Module):
    """The users' projector for BrainMT vectors: Linear → GELU → Dropout → Linear → LayerNorm.

    State-dict names (`layers.0`, `layers.3`, `layers.4`) are those of the users' own checkpoints: keep them.

    Args:
        input_dim: I.
        output_dim: O.
        dropout: Probability of zeroing a hidden unit in training.
        hidden_dim: Width between the two linear layers; 1024 in the users' checkpoints.
    """

    def __init__(
        self, input_dim: int = 512, output_dim: int = 512, dropout: float = 0.1, *, hidden_dim: int = 1024
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(input_dim, hidden_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, output_dim),
            nn.LayerNorm(output_dim),
        )

    def forward(self, x: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        return self.layers(x)


class GeneticsProjector(BrainMTProjector):
    """The same form for genome vectors, whose width is set by the genes and the encoder.

    Args:
        input_dim: I; there is no meaningful default.
        output_dim: O.
        dropout: Probability of zeroing a hidden unit in training.
        hidden_dim: Width between the two linear layers.
    """

    def __init__(
        self, input_dim: int, output_dim: int = 512, dropout: float = 0.1, *, hidden_dim: int = 1024
    ) -> None:
        super().__init__(input_dim, output_dim, dropout, hidden_dim=hidden_dim)


class LinearProjector(nn.Module):
    """One linear layer: what linear CCA could do, trained contrastively.

    Args:
        input_dim: I.
        output_dim: O.
    """

    def __init__(self, input_dim: int, output_dim: int = 512) -> None:
        super().__init__()
        self.linear = nn.Linear(input_dim, output_dim)

    def forward(self, x: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        return self.linear(x)


class NarrowingProjector(nn.Module):
    """Linear layers of falling width with LayerNorm, GELU and Dropout between them; 256-128-64 is the users' form.

    Args:
        input_dim: I.
        widths: Width after each layer; the last one is O.
        dropout: Probability of zeroing a hidden unit in training.
    """

    def __init__(
        self, input_dim: int, widths: tuple[int, ...] = (256, 128, 64), dropout: float = 0.1
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for k, width in enumerate(widths):
            layers.append(nn.Linear(input_dim, width))
            if k + 1 < len(widths):
                layers += [nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout)]
            input_dim = width
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        return self.layers(x)


Projector = BrainMTProjector | GeneticsProjector | LinearProjector | NarrowingProjector
