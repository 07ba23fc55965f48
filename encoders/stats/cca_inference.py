"""Permutation inference for canonical correlation analysis and partial least squares, mode by mode.

After Winkler, Renaud, Smith and Nichols 2020 ("Permutation inference for canonical correlation analysis", NeuroImage
220:117065):

- confounds leave through the residual space (:mod:`encoders.stats.residual_space`), never by permuting residuals;
- stepwise: mode k is tested on what the first k - 1 modes leave, or its p-value would feel their signal; the spare
  dimensions of the wider side stay in, as they do under the null;
- closure: the p-value of a mode is at least that of every mode before it (cumulative maximum), which controls the
  family-wise error rate;
- p = (1 + exceedances) / (1 + permutations); people move only within their stratum, families move whole.

In-sample correlations are large without any signal (0.87 with 512 + 512 columns and 2,000 people), so none is returned:
effect sizes come from :func:`encoders.stats.out_of_fold.out_of_fold_correlations`.

Many columns are reduced to principal components of the residuals first, each side by itself, which permutations of
people do not touch: the first components that hold `SHARE` of the variance, at most one per `PEOPLE_PER_COMPONENT`
people (sizes at which CCA begins to be stable: Helmer et al. 2024, Communications Biology 7:217), at most `MOST`.

Glossary: S people · K kept people · X, Y columns of the sides · P permutations · M modes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from encoders.runs.errors import InputError
from encoders.stats.components import principal_axes
from encoders.stats.permutation import block_permutations
from encoders.stats.residual_space import ResidualSpace

Method = Literal["cca", "pls"]
SHARE, PEOPLE_PER_COMPONENT, MOST = 0.9, 20, 50
MOST_MODES = 10
PERFECT = 1e6  # of the statistic, for a correlation of 1
CHUNK = 2**21  # numbers of permuted data in memory at a time


@dataclass(frozen=True, kw_only=True)
class ModeInference:
    """p-values of the modes of one analysis; effect sizes are reported out of fold only.

    Args:
        p: Of each mode, after closure: family-wise error controlled.
        p_single: Of each mode without closure.
        people: K, rows that were permuted: people less the rank of the confounds.
        confound_rank: Rank of the confounds, intercept included.
        components: Columns of the two sides that were analysed.
        permutations: P.
        moved: Share of rows that any permutation moves; people who are alone in their block stay.
    """

    p: list[float]
    p_single: list[float]
    people: int
    confound_rank: int
    components: tuple[int, int]
    permutations: int
    moved: float


def mode_inference(
    left: Float[np.ndarray, "S X"],
    right: Float[np.ndarray, "S Y"],
    *,
    confounds: Float[np.ndarray, "S C"],
    strata: Sequence[str],
    families: Sequence[str],
    permutations: int,
    seed: int,
    method: Method = "cca",
    modes: int = MOST_MODES,
    reduce: bool = True,
) -> ModeInference:
    """Test whether two sets of variables of the same people are related beyond confounds.

    Args:
        left: One side.
        right: The other side.
        confounds: Taken out of both sides (partial CCA); an intercept is added.
        strata: Exchangeability block of each person, e.g. the site; people move only within it.
        families: Family of each person; families of the same make-up are exchanged whole.
        permutations: P.
        seed: Seed of the permutations.
        method: "cca": Wilks' statistic of the modes left; "pls": the squared covariance of the modes left.
        modes: Most modes tested.
        reduce: Analyse principal components by the rule of this module; otherwise all columns.

    Raises:
        InputError: too few people for the confounds or the columns, a side that does not vary, or blocks within which
            nobody can be exchanged.
    """
    space = ResidualSpace.of(confounds)
    kept = space.kept
    sides = [_columns(side, space, which, reduce) for side, which in ((left, "first"), (right, "second"))]
    order = block_permutations(
        [strata[i] for i in kept],
        [families[i] for i in kept],
        permutations,
        np.random.default_rng(seed),
    )
    moved = float((order != np.arange(len(kept))).any(axis=0).mean()) if permutations else 0.0
    if moved == 0:
        raise InputError(
            f"none of the {len(kept)} people can be exchanged with another within the given blocks, so there is nothing to "
            f"permute; use coarser blocks"
        )
    first, second = (side @ turn for side, turn in zip(sides, directions(*sides, method), strict=True))
    tested = min(modes, first.shape[1], second.shape[1])
    statistic = STATISTICS[method]
    observed = statistic((first.T @ second)[None], tested)[0]
    exceeded = np.zeros(tested)
    allowed = 1e-9 * np.maximum(1, np.abs(observed))  # for rounding, as in `p_value`
    step = max(1, CHUNK // max(1, second.size))
    for start in range(0, permutations, step):
        null = statistic(first.T @ second[order[start : start + step]], tested)  # (step, M)
        exceeded += (null >= observed - allowed).sum(axis=0)
    single = (1 + exceeded) / (1 + permutations)
    return ModeInference(
        p=np.maximum.accumulate(single).tolist(),
        p_single=single.tolist(),
        people=len(kept),
        confound_rank=space.rank,
        components=(sides[0].shape[1], sides[1].shape[1]),
        permutations=permutations,
        moved=moved,
    )


def directions(
    left: Float[np.ndarray, "K X"], right: Float[np.ndarray, "K Y"], method: Method
) -> tuple[Float[np.ndarray, "X X"], Float[np.ndarray, "Y Y"]]:
    """Weights of both sides, one column per mode; spare dimensions of the wider side come last.

    For CCA the weighted columns of each side are orthonormal, for PLS they keep their scale.

    Args:
        left: One side on its principal axes: columns of the same people that are orthogonal to one another.
        right: The other side, likewise.
        method: What a mode maximises, correlation or covariance.
    """
    lengths = [
        np.linalg.norm(side, axis=0) if method == "cca" else np.ones(side.shape[1]) for side in (left, right)
    ]
    u, _, v = np.linalg.svd((left / lengths[0]).T @ (right / lengths[1]))
    return u / lengths[0][:, None], v.T / lengths[1][:, None]


def number_of_components(variances: Float[np.ndarray, " D"], people: int) -> int:
    """How many principal components to analyse: the stated rule of this module.

    Args:
        variances: Along the components, largest first.
        people: Rows that they come from.
    """
    enough = int(np.searchsorted(np.cumsum(variances), SHARE * variances.sum() * (1 - 1e-12))) + 1
    return max(1, min(enough, people // PEOPLE_PER_COMPONENT, MOST, len(variances)))


def _columns(
    side: Float[np.ndarray, "S D"], space: ResidualSpace, which: str, reduce: bool
) -> Float[np.ndarray, "K C"]:
    """What confounds leave of one side, on its principal axes: all that vary, or as many as the rule says."""
    values = space.project(side)
    axes, variances = principal_axes(values)
    if not len(variances) or variances[0] <= 1e-20 * max(
        float(np.square(side, dtype=np.float64).mean(axis=0).sum()), 1e-300
    ):
        raise InputError(
            f"the {which} side does not vary between people beyond confounds; nothing can be related to it"
        )
    kept = number_of_components(variances, len(values)) if reduce else len(variances)
    if kept >= len(values) / 2:
        raise InputError(
            f"the {which} side has {kept} columns for {len(values)} independent people, with which anything correlates; "
            f"reduce it to fewer components"
        )
    return values @ axes[:, :kept]


def _wilks(cross: Float[np.ndarray, "B X Y"], modes: int) -> Float[np.ndarray, "B M"]:
    """-log of Wilks' lambda of the modes k, k + 1, ...: minus the sum of log(1 - r²) without the first k modes.

    Rows and columns are orthonormal variates, so the singular values of what is left are its canonical correlations.
    """
    cross = cross if cross.shape[1] <= cross.shape[2] else cross.transpose(0, 2, 1)
    found = np.empty((len(cross), modes))
    for k in range(modes):
        rest = cross[:, k:, k:]
        sign, log = np.linalg.slogdet(np.eye(rest.shape[1]) - rest @ rest.transpose(0, 2, 1))
        found[:, k] = np.where(sign > 0, -log, PERFECT)
    return found


def _covariance(cross: Float[np.ndarray, "B X Y"], modes: int) -> Float[np.ndarray, "B M"]:
    """Sum of the squared covariances of the modes k, k + 1, ..., which needs no decomposition."""
    tail = (
        (cross**2)[:, ::-1, ::-1].cumsum(axis=1).cumsum(axis=2)[:, ::-1, ::-1]
    )  # [k, k]: over rows, columns >= k
    return np.diagonal(tail, axis1=1, axis2=2)[:, :modes].copy()


STATISTICS = {"cca": _wilks, "pls": _covariance}
