"""Galleries: among whom a person's partner is sought.

*Raw* is everyone. *Matched* is people of the same sex, age bin, site, ancestry cluster and head-motion tertile,
without relatives, so that none of these can give the partner away.

Glossary: N evaluated people.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool

from encoders.cohort.ancestry import ancestry_clusters, names_ancestry

MATCH_ON = ("sex", "site", "ancestry", "age", "mean_fd")  # dropped from the right; sex never
ENOUGH_DISTRACTORS = 9
WANTED_SHARE = 0.8
BINS = {"age": 3, "mean_fd": 3}  # quantile bins of training people


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Who competes with whom.

    Args:
        strata: Stratum of each person; partners are sought within it.
        families: Family of each person.
        exclude_relatives: Whether members of the partner's family are taken out of the gallery.
        variables: What the strata are made of.
        dropped: Variables that were wanted but left too few distractors.
        share_with_enough: Share of people with at least `ENOUGH_DISTRACTORS` others in their gallery.
    """

    strata: list[str]
    families: list[str]
    exclude_relatives: bool
    variables: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    share_with_enough: float = 1.0

    def others(self) -> Bool[np.ndarray, "N N"]:
        """Entry [i, j]: person j competes when the partner sought is person i (never i itself)."""
        stratum = np.unique(self.strata, return_inverse=True)[1]
        allowed = stratum[:, None] == stratum[None, :]
        if self.exclude_relatives:
            family = np.unique(self.families, return_inverse=True)[1]
            allowed &= family[:, None] != family[None, :]
        np.fill_diagonal(allowed, False)
        return allowed


def everyone(families: list[str]) -> Gallery:
    """The raw gallery: all evaluated people, relatives included."""
    return Gallery(strata=["all"] * len(families), families=families, exclude_relatives=False)


def matched(frame: pd.DataFrame, train: pd.DataFrame, families: list[str]) -> Gallery:
    """The strictest matching under which enough people keep enough distractors.

    Variables are dropped in the order head motion, age, ancestry, site until at least 80 % of people have at
    least 9 distractors; sex is never dropped.

    Args:
        frame: Evaluated people.
        train: Training people; bins and ancestry clusters are fitted on them.
        families: Family of each evaluated person.
    """
    levels = match_levels(frame, train)
    wanted = [name for name in MATCH_ON if name in levels]
    kept = list(wanted)
    while True:
        strata = ["|".join(parts) for parts in zip(*(levels[name] for name in kept), strict=True)]
        gallery = Gallery(
            strata=strata if kept else ["all"] * len(frame),
            families=families,
            exclude_relatives=True,
            variables=tuple(kept),
            dropped=tuple(name for name in wanted if name not in kept),
        )
        share = float((gallery.others().sum(axis=1) >= ENOUGH_DISTRACTORS).mean())
        if share >= WANTED_SHARE or len(kept) <= 1:
            return Gallery(**{**vars(gallery), "share_with_enough": share})
        kept.pop()


def match_levels(frame: pd.DataFrame, train: pd.DataFrame) -> Mapping[str, list[str]]:
    """Level of each evaluated person in every matching variable that the table has."""
    levels: dict[str, list[str]] = {}
    for name in MATCH_ON:
        if name == "ancestry" and not names_ancestry(frame):
            clusters = ancestry_clusters(frame, train)
            if clusters is not None:
                levels[name] = [str(cluster) for cluster in clusters]
        elif name in frame and name in BINS:
            edges = np.unique(
                np.nanquantile(train[name].astype(float), np.arange(1, BINS[name]) / BINS[name])
            )
            values = frame[name].astype(float).to_numpy()
            levels[name] = ["missing" if np.isnan(v) else str(np.searchsorted(edges, v)) for v in values]
        elif name in frame:
            levels[name] = [str(value) for value in frame[name]]
    return levels
