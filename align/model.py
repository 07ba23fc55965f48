"""The alignment model: two projectors and one learnable temperature.

Glossary: B people · I, J widths of the two inputs · O width of the shared space.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from align.config import ProjectorConfig
from heads import BrainMTProjector, GeneticsProjector

MAX_SCALE = 100.0  # CLIP's cap on the inverse temperature: keeps training stable


class AlignmentModel(nn.Module):
    """Brain and genome vectors into one space of unit vectors.

    Args:
        brain_dim: I.
        genetics_dim: J.
        config: Widths and regularisation.
        temperature: Temperature at the start.
    """

    def __init__(
        self, brain_dim: int, genetics_dim: int, config: ProjectorConfig, *, temperature: float
    ) -> None:
        super().__init__()
        kwargs = {"hidden_dim": config.hidden_dim}
        self.brain = BrainMTProjector(brain_dim, config.output_dim, config.dropout, **kwargs)
        self.genetics = GeneticsProjector(genetics_dim, config.output_dim, config.dropout, **kwargs)
        self.input_noise = config.input_noise
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """Inverse temperature, at most 100."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def forward(
        self, brain: Float[Tensor, "B I"], genetics: Float[Tensor, "B J"]
    ) -> tuple[Float[Tensor, "B O"], Float[Tensor, "B O"], Float[Tensor, ""]]:
        """Unit vectors of both modalities and the inverse temperature."""
        return self.embed_brain(brain), self.embed_genetics(genetics), self.scale

    def embed_brain(self, brain: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        """Unit vectors of brains."""
        return F.normalize(self.brain(self._noisy(brain)), dim=-1)

    def embed_genetics(self, genetics: Float[Tensor, "B J"]) -> Float[Tensor, "B O"]:
        """Unit vectors of genomes."""
        return F.normalize(self.genetics(self._noisy(genetics)), dim=-1)

    def _noisy(self, inputs: Tensor) -> Tensor:
        if not self.training or not self.input_noise:
            return inputs
        return inputs + self.input_noise * torch.randn_like(inputs)
