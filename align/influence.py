"""What each person contributes to the 2AFC, which makes a thousand resamples cost one pass over the similarities.

A resample counts a person as query and as distractor as often as it was drawn. To first order in these counts the 2AFC
is a sum of one term per person (its influence: how well it is told apart, and how well others are told apart from it).
The neglected second order is 1/N of the variance; the tests compare with resampled matrices.

Glossary: N evaluated people · B resamples.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from align.galleries import Gallery
from encoders.stats.paired import Resampled

METRIC = "auc2afc"
ROWS = 1024  # of the similarity matrix that are compared at a time


def resampled_auc(
    similarity: Float[np.ndarray, "N N"], gallery: Gallery, weights: Float[np.ndarray, "B N"]
) -> Resampled:
    """2AFC of queries (rows) among partners (columns), of all people and of every resample.

    Args:
        similarity: Entry [i, i]: a query and its true partner.
        gallery: Who competes with whom.
        weights: How often each person was drawn.
    """
    num = len(similarity)
    own, told_from = np.full(num, np.nan), np.zeros(num)
    for rows, others in competitors(gallery):
        scores = similarity[rows]
        partner = similarity[rows, rows][:, None]
        right = (scores < partner) + 0.5 * (scores == partner)
        size = others.sum(axis=1)
        asked = size > 0
        own[rows[asked]] = ((right * others).sum(axis=1)[asked]) / size[asked]
        excess = (right - np.nan_to_num(own[rows])[:, None]) * others
        told_from += (excess[asked] / size[asked, None]).sum(axis=0)
    known = np.isfinite(own)
    value = float(own[known].mean()) if known.any() else np.nan
    counted = weights[:, known].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (weights[:, known] @ own[known] + weights @ told_from) / counted
    return Resampled(values={METRIC: value}, resamples={METRIC: np.where(counted > 0, drawn, np.nan)})


def competitors(
    gallery: Gallery,
) -> Iterator[tuple[Int[np.ndarray, " R"], Bool[np.ndarray, "R N"]]]:
    """Chunks of people and who competes with each: :meth:`Gallery.others` without the whole matrix."""
    stratum, family = (
        np.unique(np.asarray(of), return_inverse=True)[1] for of in (gallery.strata, gallery.families)
    )
    for start in range(0, len(stratum), ROWS):
        rows = np.arange(start, min(start + ROWS, len(stratum)))
        allowed = stratum[rows, None] == stratum[None, :]
        if gallery.exclude_relatives:
            allowed &= family[rows, None] != family[None, :]
        allowed[np.arange(len(rows)), rows] = False
        yield rows, allowed
