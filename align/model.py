"""The alignment model: a projector per modality and a learnable temperature per pair of modalities.

Glossary: B people · I width of a modality's input · O width of the shared space.
"""

import math
from collections.abc import Mapping
from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from align.config import ProjectorConfig
from heads import BrainMTProjector, LinearProjector, NarrowingProjector, Projector

MAX_LOG_SCALE = math.log(100)  # CLIP's cap on the inverse temperature: keeps training stable


def pair_name(left: str, right: str) -> str:
    """`brain~genetics`: the name of a pair of modalities."""
    return f"{left}~{right}"


class AlignmentModel(nn.Module):
    """Vectors of every modality into one space of unit vectors.

    Args:
        widths: Modality -> I, in order; two or more.
        config: Form, widths and regularisation of the projectors.
        temperature: Temperature at the start.
        bias: Bias of the logits at the start (SigLIP's); None for losses without one.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        config: ProjectorConfig,
        *,
        temperature: float,
        bias: float | None = None,
    ) -> None:
        super().__init__()
        self.projectors = nn.ModuleDict({m: projector(width, config) for m, width in widths.items()})
        self.input_noise = config.input_noise
        self.pairs = list(combinations(widths, 2))
        names = [pair_name(*pair) for pair in self.pairs]
        start = torch.tensor(-math.log(temperature))
        self.log_scales = nn.ParameterDict({name: nn.Parameter(start.clone()) for name in names})
        self.biases = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(bias)) for name in names} if bias is not None else {}
        )

    @property
    def scales(self) -> dict[str, Float[Tensor, ""]]:
        """Inverse temperature of each pair of modalities, at most 100."""
        return {name: value.clamp(max=MAX_LOG_SCALE).exp() for name, value in self.log_scales.items()}

    @torch.no_grad()
    def cap_scales(self) -> None:
        """Bring inverse temperatures back to their cap after a step: beyond it, they would never get a gradient again."""
        for value in self.log_scales.values():
            value.clamp_(max=MAX_LOG_SCALE)

    def forward(
        self, inputs: dict[str, Float[Tensor, "B _"]]
    ) -> tuple[dict[str, Float[Tensor, "B O"]], dict[str, Float[Tensor, ""]], dict[str, Float[Tensor, ""]]]:
        """Unit vectors of each modality, and inverse temperature and bias of each pair."""
        vectors = {m: self.embed(m, values) for m, values in inputs.items()}
        return vectors, self.scales, dict(self.biases.items())

    def embed(self, modality: str, values: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        """Unit vectors of one modality."""
        return F.normalize(self.projectors[modality](self._noisy(values)), dim=-1)

    def _noisy(self, inputs: Tensor) -> Tensor:
        if not self.training or not self.input_noise:
            return inputs
        return inputs + self.input_noise * torch.randn_like(inputs)


def projector(width: int, config: ProjectorConfig) -> Projector:
    """A new projector of the form that the options name."""
    if config.form == "linear":
        return LinearProjector(width, config.output_dim)
    if config.form == "256-128-64":
        return NarrowingProjector(width, (256, 128, 64), config.dropout)
    return BrainMTProjector(width, config.output_dim, config.dropout, hidden_dim=config.hidden_dim)
