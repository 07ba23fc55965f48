"""Retrieval metrics from similarities: tie-aware, with permutation p-values and family-clustered intervals.

Every metric is a function of three counts per query: how many gallery members score higher than the true
partner, how many tie with it, and how many there are. Ties are broken at random in expectation, so that
constant similarities score exactly chance.

Glossary: N people · R pairings (1 observed, P permuted or B resampled) · K largest rank of a recall curve.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.special import digamma

from align.galleries import Gallery
from align.influence import METRIC, resampled_auc
from encoders.stats import block_permutations, cluster_weights, p_value, percentile_interval

DIRECTIONS = ("brain_to_gene", "gene_to_brain")
TOP = (1, 5, 10)
SMALLEST_GALLERY_PER_K = 5  # R@k is printed only for galleries of at least 5k
MANY = (
    2500  # people from whom on intervals of the 2AFC are taken from influences: B x N^2 operations become N^2
)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What decides every metric, per pairing and query.

    Args:
        greater: Gallery members that score higher than the partner.
        ties: Gallery members that score the same as the partner.
        size: Gallery members other than the partner; 1 where there is none (its weight is then 0).
        weight: How often the query counts.
    """

    greater: Float[np.ndarray, "R N"]
    ties: Float[np.ndarray, "R N"]
    size: Float[np.ndarray, "R N"]
    weight: Float[np.ndarray, "R N"]


Metric = Callable[[Counts], Float[np.ndarray, "R N"]]
Reduce = Callable[[Float[np.ndarray, "R N"], Float[np.ndarray, "R N"]], Float[np.ndarray, " R"]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every query against every possible partner, so that any pairing can be scored by look-up.

    Entry [i, j] answers: if person j were the true partner of query i, how many of the others would score higher
    (`greater`), how many the same (`ties`)? `size` [j] is how many others compete with partner j.
    """

    greater: Float32[np.ndarray, "N N"]
    ties: Float32[np.ndarray, "N N"]
    size: Float[np.ndarray, " N"]

    def paired(self, partners: Int[np.ndarray, "R N"]) -> Counts:
        """Counts when query i has the partner `partners[r, i]`."""
        query = np.arange(partners.shape[1])
        size = self.size[partners]
        return Counts(
            greater=self.greater[query, partners].astype(np.float64),
            ties=self.ties[query, partners].astype(np.float64),
            size=np.maximum(size, 1.0),
            weight=(size > 0).astype(float),
        )


def compare(similarity: Float[np.ndarray, "N N"], gallery: Gallery) -> Comparison:
    """Count for every query (row) and candidate partner (column) within one stratum of the gallery.

    Entries across strata are never looked up and stay 0.
    """
    scores = np.asarray(similarity)
    # counts: single precision is exact far beyond any gallery
    greater, ties = np.zeros(scores.shape, np.float32), np.zeros(scores.shape, np.float32)
    others = gallery.others()
    for stratum in np.unique(gallery.strata):
        people = np.flatnonzero(np.asarray(gallery.strata) == stratum)
        block = scores[np.ix_(people, people)]
        above, same = np.empty(block.shape, np.float32), np.empty(block.shape, np.float32)
        for row in range(len(people)):
            below, upto = rank_bounds(block[row])
            above[row] = len(people) - upto
            same[row] = upto - below - 1  # the partner does not tie with itself
        for column, j in enumerate(people):
            for relative in np.flatnonzero(~others[j, people]):
                if relative != column:
                    above[:, column] -= block[:, relative] > block[:, column]
                    same[:, column] -= block[:, relative] == block[:, column]
        greater[np.ix_(people, people)], ties[np.ix_(people, people)] = above, same
    return Comparison(greater=greater, ties=ties, size=others.sum(axis=1).astype(float))


def rank_bounds(values: Float[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """For each value, how many are smaller, and how many are not larger."""
    num = len(values)
    order = np.argsort(values)
    ordered = values[order]
    new = np.ones(num, dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], num)
    below, upto = np.empty(num, np.int64), np.empty(num, np.int64)
    below[order] = np.repeat(starts, ends - starts)
    upto[order] = np.repeat(ends, ends - starts)
    return below, upto


def auc2afc(counts: Counts) -> Float[np.ndarray, "R N"]:
    """Share of (partner, distractor) pairs in which the partner scores higher; chance 0.5."""
    return 1 - (counts.greater + counts.ties / 2) / counts.size


def recall_at(k: int) -> Metric:
    """Probability that the partner is among the k nearest; chance k / (gallery size)."""

    def recall(counts: Counts) -> Float[np.ndarray, "R N"]:
        return np.clip((k - counts.greater) / (counts.ties + 1), 0, 1)

    return recall


def rank(counts: Counts) -> Float[np.ndarray, "R N"]:
    """Mid-rank of the partner, 1 = first."""
    return 1 + counts.greater + counts.ties / 2


def reciprocal_rank(counts: Counts) -> Float[np.ndarray, "R N"]:
    """Expected 1 / rank: the mean of 1/r over the ranks r that the tie leaves open."""
    harmonic = digamma(counts.greater + counts.ties + 2) - digamma(counts.greater + 1)
    return harmonic / (counts.ties + 1)


def mean(values: Float[np.ndarray, "R N"], weight: Float[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
    """Weighted mean over queries; NaN where a row has no weight."""
    total = weight.sum(axis=1)
    return np.where(total > 0, (values * weight).sum(axis=1) / np.where(total > 0, total, 1), np.nan)


def median(values: Float[np.ndarray, "R N"], weight: Float[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
    """Weighted median over queries; halfway between two values where the weight splits evenly."""
    order = np.argsort(values, axis=1)
    values, share = np.take_along_axis(values, order, 1), np.take_along_axis(weight, order, 1).cumsum(axis=1)
    share = share / np.maximum(share[:, -1:], 1e-300)
    low = np.argmax(share >= 0.5 - 1e-12, axis=1)
    high = np.argmax(share > 0.5 + 1e-12, axis=1)
    rows = np.arange(len(values))
    return (values[rows, low] + values[rows, high]) / 2


def evaluate_gallery(
    similarity: Float[np.ndarray, "N N"],
    gallery: Gallery,
    *,
    permute_within: list[str],
    num_permutations: int,
    num_bootstraps: int,
    seed: int,
    only_auc: bool = False,
) -> dict[str, Any]:
    """All metrics of one gallery in both directions.

    Intervals: whole families are resampled. For 2AFC, which does not depend on the size of the gallery, people
    are resampled as queries and as distractors; for ranks and recalls as queries only, because a resampled
    gallery holds fewer different people and would make them look better.

    Args:
        similarity: Entry [i, j]: brain of person i against genome of person j.
        gallery: Who competes with whom.
        permute_within: Exchangeability stratum of each person: at least as fine as the gallery's strata.
        num_permutations: Permuted pairings behind each p-value.
        num_bootstraps: Resamples of families behind each interval.
        seed: Seed of both.
        only_auc: Leave out everything but the 2AFC.

    Returns:
        Per direction and metric: value, ci_low, ci_high, p_perm, chance, lift; and the size of the gallery.
    """
    rng = np.random.default_rng(seed)
    permutations = block_permutations(permute_within, gallery.families, num_permutations, rng)
    weights = cluster_weights(gallery.families, num_bootstraps, rng)
    size = gallery.others().sum(axis=1)
    result: dict[str, Any] = {
        "num_anchors": int((size > 0).sum()),
        "num_without_distractors": int((size == 0).sum()),
        "median_gallery": float(np.median(size[size > 0] + 1)) if (size > 0).any() else 0.0,
    }
    for direction, scores in zip(DIRECTIONS, (similarity, similarity.T), strict=True):
        if result["num_anchors"] == 0:
            continue
        comparison = compare(scores, gallery)
        observed = comparison.paired(np.arange(len(scores))[None])
        null = comparison.paired(permutations)
        queries = resampled_queries(observed, weights)
        drawn = _drawn_auc(scores, gallery, weights)
        result[direction] = {
            name: _summary(
                metric,
                reduce,
                better,
                observed=observed,
                null=null,
                drawn=drawn if metric is auc2afc else _drawn(metric, reduce, queries),
            )
            for name, metric, reduce, better in _metrics(result["median_gallery"])
            if metric is auc2afc or not only_auc
        }
    return result


def resampled_counts(
    scores: Float[np.ndarray, "N N"], gallery: Gallery, weights: Float[np.ndarray, "B N"]
) -> Counts:
    """Counts for every resample of people: each counts as query and as distractor as often as it was drawn."""
    # counts stay far below 2^24: single precision is exact, and twice as fast
    others, weights = gallery.others().astype(np.float32), weights.astype(np.float32)
    partner = np.diag(scores)[:, None]
    size = weights @ others.T
    return Counts(
        greater=weights @ (others * (scores > partner)).T,
        ties=weights @ (others * (scores == partner)).T,
        size=np.maximum(size, 1.0),
        weight=weights * (size > 0),
    )


def resampled_queries(observed: Counts, weights: Float[np.ndarray, "B N"]) -> Counts:
    """The observed counts for every resample of queries, in the gallery as it is."""
    shape = weights.shape
    return Counts(
        greater=np.broadcast_to(observed.greater, shape),
        ties=np.broadcast_to(observed.ties, shape),
        size=np.broadcast_to(observed.size, shape),
        weight=weights * observed.weight,
    )


def _metrics(median_gallery: float) -> Iterator[tuple[str, Metric, Reduce, int]]:
    yield "auc2afc", auc2afc, mean, 1
    for k in TOP:
        if median_gallery >= SMALLEST_GALLERY_PER_K * k:
            yield f"R@{k}", recall_at(k), mean, 1
    yield "median_rank", rank, median, -1
    yield "mean_rank", rank, mean, -1
    yield "mrr", reciprocal_rank, mean, 1


def _drawn(metric: Metric, reduce: Reduce, resampled: Counts) -> Float[np.ndarray, " _"]:
    """The metric in each resample; one may hold nobody with a distractor and is left out."""
    return reduce(metric(resampled), resampled.weight)[resampled.weight.sum(axis=1) > 0]


def _drawn_auc(
    scores: Float[np.ndarray, "N N"], gallery: Gallery, weights: Float[np.ndarray, "B N"]
) -> Float[np.ndarray, " _"]:
    if len(scores) <= MANY:
        return _drawn(auc2afc, mean, resampled_counts(scores, gallery, weights))
    drawn = resampled_auc(scores, gallery, weights).resamples[METRIC]
    return drawn[np.isfinite(drawn)]


def _summary(
    metric: Metric,
    reduce: Reduce,
    better: int,
    *,
    observed: Counts,
    null: Counts,
    drawn: Float[np.ndarray, " _"],
) -> dict[str, float]:
    value = float(reduce(metric(observed), observed.weight)[0])
    all_tied = Counts(
        greater=np.zeros_like(observed.size), ties=observed.size, size=observed.size, weight=observed.weight
    )
    chance = float(reduce(metric(all_tied), observed.weight)[0])
    low, high = percentile_interval(drawn)
    return {
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "p_perm": p_value(better * value, better * reduce(metric(null), null.weight)),
        "chance": chance,
        "lift": value / chance if better > 0 else chance / value,
    }
