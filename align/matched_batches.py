"""Contrastive batches in which confounds cannot help: people are told apart from people like them.

The matched gallery that judges an alignment also makes its negatives: same sex, site, ancestry, age bin and head
motion, as many of these as leave most people enough others (galleries.py). Who can be told apart by sex is not asked
to be. Batches are cut from people in the order of their strata, so that a batch is full of such negatives; strata and
the people in them are shuffled every epoch.

Glossary: S people · N training people · B people of a batch · G ways of belonging together.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from align.galleries import ENOUGH_DISTRACTORS, MATCH_ON, WANTED_SHARE, match_levels


def matched_strata(
    frame: pd.DataFrame, families: list[str]
) -> tuple[Int64[np.ndarray, " N"], tuple[str, ...]]:
    """Number of each person's stratum, and the variables it is made of.

    The strictest that leaves enough people enough others, in the order of galleries.py; counts only, so that 50,000
    people need no matrix.

    Args:
        frame: Training people.
        families: Family of each; relatives do not count as others.
    """
    levels = match_levels(frame, frame)
    kept = [name for name in MATCH_ON if name in levels]
    table = pd.DataFrame({name: levels[name] for name in kept}, index=range(len(frame)))
    while kept:
        strata = table.groupby(kept, sort=True).ngroup().to_numpy()
        people = pd.DataFrame({"stratum": strata, "family": families})
        size = people.groupby("stratum")["family"].transform("size")
        others = size - people.groupby(["stratum", "family"])["family"].transform("size")
        if (others >= ENOUGH_DISTRACTORS).mean() >= WANTED_SHARE or len(kept) == 1:
            return strata.astype(np.int64), tuple(kept)
        kept.pop()
    return np.zeros(len(frame), np.int64), ()


def stratum_batches(
    rows: Int[np.ndarray, " N"], strata: Int[np.ndarray, " N"], size: int, *, seed: int, epoch: int
) -> Iterator[Int[np.ndarray, " B"]]:
    """Full batches of one epoch, stratum by stratum: a function of seed and epoch alone, so that resuming is exact.

    Args:
        rows: Row numbers of the people.
        strata: Stratum of each.
        size: B.
        seed: Seed of the order.
        epoch: Number of the epoch.
    """
    rng = np.random.default_rng([seed, epoch])
    turn = rng.permutation(strata.max() + 1)
    order = np.lexsort((rng.random(len(rows)), turn[strata]))
    order = np.roll(
        order, int(rng.integers(len(rows)))
    )  # so that nobody is left out for being in the last stratum
    size = min(size, len(rows))
    for first in range(0, len(order) - size + 1, size):
        yield rows[order[first : first + size]]


def not_negative(
    belonging: Int[Tensor, "B G"], strata: Int[Tensor, " B"] | None
) -> Bool[Tensor, "B B"] | Int[Tensor, "B G"]:
    """Who must not push each other apart: relatives, people of one genotype, and people of different strata.

    Args:
        belonging: Ids that people share who are no negatives of each other.
        strata: Stratum of each; None: everyone is told apart from everyone.
    """
    if strata is None:
        return belonging
    exempt = strata[:, None] != strata[None, :]
    for column in belonging.T:
        exempt |= column[:, None] == column[None, :]
    return exempt
