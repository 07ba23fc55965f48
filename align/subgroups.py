"""Whom the alignment works for: matched 2AFC by sex, site and ancestry; and whether a higher similarity means more.

Both look at the matched gallery only. Groups of few people are left out, with their counts.

Glossary: N evaluated people · B resamples.
"""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from align.galleries import Gallery
from align.retrieval import DIRECTIONS, auc2afc, compare
from encoders.stats import cluster_weights, percentile_interval

BY = ("sex", "site", "ancestry")
FEWEST = (
    20  # people of a group with distractors; below, an interval says nothing and a count could tell who it is
)
BINS = 10


def own_scores(
    similarity: dict[str, Float[np.ndarray, "N N"]], gallery: Gallery
) -> dict[str, tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]]:
    """Direction -> (2AFC of each person as query, weight: 1 with distractors, else 0)."""
    scores = {}
    for direction in DIRECTIONS:
        matrix = similarity[direction] if direction == DIRECTIONS[0] else similarity[direction].T
        counts = compare(matrix, gallery).paired(np.arange(len(matrix))[None])
        scores[direction] = (auc2afc(counts)[0], counts.weight[0])
    return scores


def subgroups(
    similarity: dict[str, Float[np.ndarray, "N N"]],
    gallery: Gallery,
    frame: pd.DataFrame,
    *,
    num_bootstraps: int,
    seed: int,
) -> dict[str, Any]:
    """Matched 2AFC, both directions averaged, of each level of sex, site and ancestry.

    Where one level of a variable is too small to be shown, the next smallest is hidden with it: otherwise its count
    would follow from the total.

    Args:
        similarity: Of the adjusted model, as the evaluation scores it.
        gallery: The matched gallery.
        frame: Rows of the evaluated people.
        num_bootstraps: Resamples of families behind each interval.
        seed: Seed of the resamples.

    Returns:
        Variable -> {"groups": level -> value, ci_low, ci_high, people; "hidden": number of levels, "hidden_people"}.
    """
    scores = own_scores(similarity, gallery)
    weights = cluster_weights(gallery.families, num_bootstraps, np.random.default_rng(seed))
    found: dict[str, Any] = {}
    for variable in (name for name in BY if name in frame):
        levels = (
            frame[variable].astype(object).where(frame[variable].notna(), "not recorded").map(str).to_numpy()
        )
        there = scores[DIRECTIONS[0]][1] > 0
        counts = {level: int((there & (levels == level)).sum()) for level in sorted(set(levels))}
        hidden = {level for level, count in counts.items() if count < FEWEST}
        if len(hidden) == 1 and len(counts) > 1:
            hidden.add(min((level for level in counts if level not in hidden), key=counts.__getitem__))
        groups = {}
        for level in counts:
            if level in hidden:
                continue
            member = (levels == level).astype(float)
            value = np.mean([_mean(auc, weight * member) for auc, weight in scores.values()])
            drawn = np.mean(
                [_mean(auc, weight * member * weights) for auc, weight in scores.values()], axis=0
            )
            low, high = percentile_interval(drawn)
            groups[level] = {"value": float(value), "ci_low": low, "ci_high": high, "people": counts[level]}
        found[variable] = {
            "groups": groups,
            "hidden": len(hidden),
            "hidden_people": sum(counts[level] for level in hidden),
        }
    return found


def calibration(similarity: dict[str, Float[np.ndarray, "N N"]], gallery: Gallery) -> dict[str, Any]:
    """Does a higher cosine more often mean the right person?

    All (query, candidate) pairs of the matched gallery, both directions, in ten bins of equal size by similarity: the
    share of true pairs in each against their overall share (lift). `pooled_auc` is the probability that a true pair
    has a higher cosine than a false one of any other query: at the 2AFC, cosines of different people can be compared;
    well below it they cannot.
    """
    others = gallery.others()
    own = np.eye(len(others), dtype=bool) & (others.any(axis=1)[:, None])
    values, right = [], []
    for direction in DIRECTIONS:
        matrix = similarity[direction] if direction == DIRECTIONS[0] else similarity[direction].T
        values += [matrix[own], matrix[others]]
        right += [np.ones(own.sum(), bool), np.zeros(others.sum(), bool)]
    score, hit = np.concatenate(values), np.concatenate(right)
    if not hit.any() or hit.all():
        return {}
    edges = np.quantile(score, np.arange(1, BINS) / BINS)
    which = np.searchsorted(edges, score, side="right")
    total, hits = np.bincount(which, minlength=BINS), np.bincount(which, weights=hit, minlength=BINS)
    lift = np.where(total > 0, hits / np.maximum(total, 1), np.nan) / hit.mean()
    order = np.argsort(score, kind="stable")
    rank = np.empty(len(score))
    rank[order] = np.arange(1, len(score) + 1)
    _, first, size = np.unique(score[order], return_index=True, return_counts=True)
    middle = np.repeat(first + (size + 1) / 2, size)
    rank[order] = middle
    true, false = int(hit.sum()), int((~hit).sum())
    auc = (rank[hit].sum() - true * (true + 1) / 2) / (true * false)
    return {
        "lift": [float(value) for value in lift],
        "edges": [float(edge) for edge in edges],
        "pooled_auc": float(auc),
        "pairs": len(score),
    }


def _mean(values: Float[np.ndarray, " N"], weights: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    total = weights.sum(axis=-1)
    return np.where(total > 0, (weights * values).sum(axis=-1) / np.where(total > 0, total, 1), np.nan)
