"""Quality of the scans in a store: four measures of each, which of them are unusual, and counts that may be shared.

R runs · S sites
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

UNKNOWN = "unknown"  # site of people about whom the participants table says none


@dataclass(frozen=True)
class Measure:
    """One measure of a run.

    Args:
        title: For people.
        unit: With its number.
        bad: Which side is bad: 1 high, -1 low.
        digits: Decimals to print.
    """

    title: str
    unit: str
    bad: int
    digits: int


MEASURES = {
    "mean_fd": Measure("mean framewise displacement", "mm", 1, 3),
    "tsnr": Measure("temporal signal-to-noise ratio", "median over voxels", -1, 1),
    "frames": Measure("frames kept", "count", -1, 0),
    "coverage": Measure("mask voxels with signal", "%", -1, 2),
}


@dataclass(frozen=True, kw_only=True)
class Quality:
    """All runs of a store.

    Args:
        runs: Entries of the manifest.
        sites: Site of each run, `unknown` where none is known.
        values: Measure -> value of each run, NaN where unknown.
        outliers: Measure -> whether each run is unusual on the bad side.
        distance: Largest robust z of each run on the bad side of any measure.
    """

    runs: list[dict[str, Any]]
    sites: list[str]
    values: dict[str, Float[np.ndarray, " R"]]
    outliers: dict[str, Bool[np.ndarray, " R"]]
    distance: Float[np.ndarray, " R"]

    @property
    def people(self) -> list[str]:
        """Whose each run is."""
        return [run["subject"] for run in self.runs]


def quality_of(manifest: Mapping[str, Any], sites: Mapping[str, str], *, threshold: float) -> Quality:
    """Measure the runs of a store.

    Args:
        manifest: Its manifest.
        sites: Subject -> site.
        threshold: Robust z beyond which a value is an outlier.
    """
    runs = manifest["runs"]
    values = {
        "mean_fd": _numbers(run["mean_fd"] for run in runs),
        "tsnr": _numbers(run["tsnr"] for run in runs),
        "frames": _numbers(run["frames"] for run in runs),
        "coverage": _numbers(
            100 * (1 - (run["constant_voxels"] + run["nan_voxels"]) / run["voxels"]) for run in runs
        ),
    }
    badness = {name: MEASURES[name].bad * robust_z(found) for name, found in values.items()}
    known = np.array([np.nan_to_num(z, nan=-np.inf) for z in badness.values()])
    return Quality(
        runs=list(runs),
        sites=[sites.get(run["subject"]) or UNKNOWN for run in runs],
        values=values,
        outliers={name: np.nan_to_num(z) > threshold for name, z in badness.items()},
        distance=known.max(axis=0) if len(runs) else np.zeros(0),
    )


def robust_z(values: Float[np.ndarray, " R"]) -> Float[np.ndarray, " R"]:
    """Distance from the median over 1.4826 times the median absolute deviation (Iglewicz and Hoaglin 1993).

    Where more than half of the values are the same, over 1.2533 times the mean absolute deviation; 0 where all are. NaN
    stays NaN.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return np.full(len(values), np.nan)
    away = np.abs(known - np.median(known))
    spread = 1.4826 * np.median(away) or 1.2533 * away.mean()
    return (values - np.median(known)) / spread if spread > 0 else np.where(np.isfinite(values), 0.0, np.nan)


def shared_sites(quality: Quality, least: int) -> dict[str, Bool[np.ndarray, " R"]]:
    """Site -> its runs, for sites of at least ``least`` people; the people of smaller ones together, if enough."""
    names = np.array(quality.sites, dtype=object)
    people = np.array(quality.people, dtype=object)
    shown, small = {}, np.zeros(len(names), bool)
    for site in sorted(set(quality.sites)):
        of_site = names == site
        if len(set(people[of_site])) >= least:
            shown[site] = of_site
        else:
            small |= of_site
    if len(set(people[small])) >= least:
        shown[f"sites with fewer than {least} people, together"] = small
    return shown


def count(number: int, least: int) -> str:
    """A count for print: 1 to least - 1 become "< least"; zero is told."""
    return f"< {least}" if 0 < number < least else f"{number:,}"


def counts(numbers: list[int], least: int) -> list[str]:
    """Counts that add up to a total that is printed: where one alone would be hidden, the next smallest is, too."""
    shown = [count(number, least) for number in numbers]
    hidden = [k for k, number in enumerate(numbers) if 0 < number < least]
    others = sorted((number, k) for k, number in enumerate(numbers) if number >= least)
    if len(hidden) == 1 and others:
        shown[others[0][1]] = "not shown"
    return shown


def quartiles(values: Float[np.ndarray, " R"], digits: int) -> str:
    """Median [lower to upper quartile] for print; a dash where nothing is known."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "–"
    low, middle, high = (f"{value:,.{digits}f}" for value in np.percentile(known, [25, 50, 75]))
    return f"{middle} [{low} to {high}]"


def groups_of(
    values: Float[np.ndarray, " R"], people: list[str], least: int
) -> tuple[Float[np.ndarray, " E"], Float[np.ndarray, " G"]] | None:
    """Edges and scans per bin of a histogram in which each bar stands for at least ``least`` people.

    Edges are round numbers, so that none is anybody's value; None where too few people are known, or all are alike.
    """
    known = np.isfinite(values)
    owners = np.array(people, dtype=object)[known]
    values = values[known]
    if len(set(owners)) < least or values.min() == values.max():
        return None
    edges = _round_edges(float(values.min()), float(values.max()))
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    kept, sums, inside = [edges[0]], [], np.zeros(len(values), bool)
    for place in range(len(edges) - 1):
        inside |= bins == place
        if len(set(owners[inside])) >= least:
            kept.append(edges[place + 1])
            sums.append(float(inside.sum()))
            inside = np.zeros(len(values), bool)
    sums[-1] += float(inside.sum())  # the rest joins the last bar
    kept[-1] = edges[-1]
    return np.array(kept), np.array(sums)


def refusals(manifest: Mapping[str, Any], least: int) -> list[dict[str, str]]:
    """Fault codes with the number of scans and people, most frequent first."""
    rows = manifest["quarantine"]
    scans = Counter(row["code"] for row in rows).most_common()
    numbers = [len({row["subject"] for row in rows if row["code"] == code}) for code, _ in scans]
    return [
        {"code": code, "scans": shown, "people": people}
        for (code, _), shown, people in zip(
            scans, counts([number for _, number in scans], least), counts(numbers, least), strict=True
        )
    ]


def _numbers(found: Any) -> Float[np.ndarray, " R"]:
    return np.array([np.nan if value is None else value for value in found], np.float64)


def _round_edges(low: float, high: float) -> Float[np.ndarray, " E"]:
    """Some twenty steps of 1, 2 or 5 times a power of ten around the range."""
    step = 10.0 ** math.floor(math.log10(max((high - low) / 20, 1e-9)))
    step = next(step * factor for factor in (1, 2, 5, 10) if step * factor * 20 >= high - low)
    first, last = math.floor(low / step), math.floor(high / step) + 1
    return np.arange(first, last + 1) * step
