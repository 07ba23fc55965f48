"""Permutations that keep what must not be broken: people move only within their stratum, families move whole.

Glossary: N people · P permutations.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def block_permutations(
    strata: Sequence[str], families: Sequence[str], num: int, rng: np.random.Generator
) -> Int[np.ndarray, "P N"]:
    """Random permutations of N people under which relatives stay together.

    A family may change places only with a family of the same make-up (the same number of members in the same
    strata); members of one stratum within a family are shuffled too. Single people are families of one. Where a
    family has no counterpart it stays in place, which costs power but keeps the test valid (Winkler et al. 2015,
    "Multi-level block permutation", NeuroImage).

    Args:
        strata: Stratum of each person; people move only within it.
        families: Family of each person.
        num: P.
        rng: Random generator.
    """
    members: dict[str, list[int]] = {}
    for i, family in enumerate(families):
        members.setdefault(family, []).append(i)
    alike: dict[tuple[str, ...], list[list[int]]] = {}
    for family in members.values():
        ordered = sorted(family, key=lambda i: strata[i])
        alike.setdefault(tuple(strata[i] for i in ordered), []).append(ordered)

    moved = np.tile(np.arange(len(strata)), (num, 1))
    for make_up, blocks in alike.items():
        places = np.array(blocks)  # (families, members)
        order = rng.permuted(np.tile(np.arange(len(places)), (num, 1)), axis=1)
        sources = places[order]  # (P, families, members)
        labels = np.array(make_up)
        for stratum in set(make_up):  # relatives in one stratum are exchangeable among themselves
            columns = np.flatnonzero(labels == stratum)
            if len(columns) > 1:
                sources[:, :, columns] = rng.permuted(sources[:, :, columns], axis=2)
        moved[:, places] = sources
    return moved


def p_value(observed: float, null: Float[np.ndarray, " P"]) -> float:
    """One-sided permutation p = (1 + exceedances) / (1 + permutations); large values are extreme.

    Ties count as exceedances; a hair of rounding is allowed for (Phipson and Smyth 2010).
    """
    tolerance = 1e-9 * max(1.0, abs(observed))
    return float((1 + np.sum(null >= observed - tolerance)) / (1 + len(null)))
