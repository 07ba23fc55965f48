"""Pairs of different people who must not push each other apart: relatives, and people of one genotype.

Said by a mask, or by group ids: two people who share an id in any column are no negatives of each other. The ids
say the same as the mask in B x G numbers, so that large batches need no B x B anything.

Glossary: B people of a batch · G ways of belonging together (family, genotype, ...) · R, C rows and columns of a
tile of the B x B pairs.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

NotNegative = Bool[Tensor, "B B"] | Int[Tensor, "B G"]


def exempt(not_negative: NotNegative | None, rows: slice, columns: slice) -> Bool[Tensor, "R C"] | None:
    """Pairs of different people in a tile that are no negatives; None where there are none.

    Args:
        not_negative: Mask (True: not a negative; the diagonal is ignored), or group ids; a negative id belongs to
            nobody.
        rows: People of the tile's rows.
        columns: People of its columns: the same as the rows, or none of them.
    """
    if not_negative is None:
        return None
    if not_negative.dtype == torch.bool:
        found = not_negative[rows, columns].clone()
    else:
        ours, theirs = not_negative[rows], not_negative[columns]
        found = torch.zeros(len(ours), len(theirs), dtype=torch.bool, device=ours.device)
        for mine, other in zip(ours.T, theirs.T, strict=True):
            met = (mine >= 0) & torch.isin(mine, other)
            if rows == columns or met.any():  # most tiles hold no two people of one group
                found |= (mine[:, None] == other[None, :]) & (mine >= 0)[:, None]
    if rows == columns:
        found.fill_diagonal_(False)
    return found if found.any() else None


def tiles(num: int, side: int) -> list[slice]:
    """Cut ``num`` people into stretches of at most ``side``."""
    return [slice(first, min(first + side, num)) for first in range(0, num, side)]
