"""Softened targets: part of a person's target goes to people who are like him within one modality.

For CLIP the target of person i is (1 - w) on himself and w on softmax over j of s_ij / t, where s is the similarity
within a modality: SoftCLIP's softened targets (Gao et al. 2023, arXiv:2303.17561), with the in-modality softmax of
MindEye's SoftCLIP loss (Scotti et al. 2023, arXiv:2305.18274). For SigLIP, which asks of each pair whether it is a
match, the label of two people is w exp(-(s_ii + s_jj - 2 s_ij) / 2t): w where they are equal, 0 where they are far
apart. That label is ours; no paper has one.

Pairs that are no negatives (relatives) get no share: they are neither pushed apart nor pulled together.

Glossary: B people of a batch · K numbers that describe a person · R, C rows and columns of a tile.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.negatives import NotNegative, exempt, tiles


@dataclass(frozen=True, kw_only=True)
class SoftTargets:
    """How alike people are within a modality, and how much of the target that decides; nothing of it is learned.

    Args:
        features: (B, K); the similarity of two people is the product of their rows (unit rows: the cosine).
        similarity: Instead of features: (B, B), symmetric, e.g. a genomic relationship matrix.
        weight: w, 0 to 1; 0 gives the hard targets.
        temperature: t, in units of the similarity.
    """

    features: Float[Tensor, "B K"] | None = None
    similarity: Float[Tensor, "B B"] | None = None
    weight: float
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if (self.features is None) == (self.similarity is None):
            raise ValueError("give SoftTargets either features or a similarity matrix")
        if not 0 <= self.weight <= 1 or self.temperature <= 0:
            raise ValueError(
                f"soft targets of weight {self.weight} and temperature {self.temperature}: the weight lies in 0 to 1, "
                f"the temperature above 0"
            )

    def __len__(self) -> int:
        return len(self.features if self.similarity is None else self.similarity)

    def scaled(self, rows: slice, columns: slice) -> Float[Tensor, "R C"]:
        """Similarities of a tile, divided by the temperature."""
        if self.similarity is not None:
            return self.similarity[rows, columns].detach() / self.temperature
        return self.features[rows].detach() @ self.features[columns].detach().T / self.temperature

    @torch.no_grad()
    def normalisers(self, not_negative: NotNegative | None, *, side: int) -> Float[Tensor, " B"]:
        """Log of the sum of exp(s_ij / t) over oneself and one's negatives, tile by tile."""
        sums = []
        for rows in tiles(len(self), side):
            row_sums = None
            for columns in tiles(len(self), side):
                found = _masked(self.scaled(rows, columns), exempt(not_negative, rows, columns)).logsumexp(1)
                row_sums = found if row_sums is None else torch.logaddexp(row_sums, found)
            sums.append(row_sums)
        return torch.cat(sums)

    @torch.no_grad()
    def shares(
        self,
        rows: slice,
        columns: slice,
        normalisers: Float[Tensor, " B"],
        free: Bool[Tensor, "R C"] | None,
    ) -> Float[Tensor, "R C"]:
        """Both directions' targets of a tile, T_ij + T_ji; ``free`` are the tile's pairs that are no negatives."""
        scaled = _masked(self.scaled(rows, columns), free)
        both = torch.exp(scaled - normalisers[rows, None]) + torch.exp(scaled - normalisers[None, columns])
        both *= self.weight
        if rows == columns:
            both.diagonal().add_(2 * (1 - self.weight))
        return both

    @torch.no_grad()
    def labels(self, rows: slice, columns: slice, free: Bool[Tensor, "R C"] | None) -> Float[Tensor, "R C"]:
        """Labels of a tile's pairs for SigLIP: 1 for oneself, 0 to w for others."""
        own = self._own()
        distance = (own[rows, None] + own[None, columns]) / 2 - self.scaled(rows, columns)
        labels = self.weight * torch.exp(-distance.clamp(min=0))
        if free is not None:
            labels.masked_fill_(free, 0)
        if rows == columns:
            labels.fill_diagonal_(1)
        return labels

    def _own(self) -> Float[Tensor, " B"]:
        """s_ii / t of everybody."""
        if self.similarity is not None:
            return self.similarity.diagonal().detach() / self.temperature
        return self.features.detach().square().sum(1) / self.temperature


def _masked(values: Tensor, free: Tensor | None) -> Tensor:
    return values if free is None else values.masked_fill(free, float("-inf"))
