"""The pages of the quality report: one to share, without anyone in it, and one of every scan that stays private.

Figures are encoded by the caller, which owns the style of all reports; so does the style sheet.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from encoders.brainmt.preparation import qc_plots as plots
from encoders.brainmt.preparation.qc import (
    MEASURES,
    UNKNOWN,
    Quality,
    count,
    counts,
    quartiles,
    refusals,
    shared_sites,
)
from encoders.brainmt.store import FMRIStore
from encoders.runs.progress import progress
from encoders.runs.stage import release

TEMPLATES = Path(__file__).with_name("templates")
Encode = Callable[..., str | None]  # (drawing function, its data) -> data URI


def figures_of(quality: Quality, least: int, encode: Encode) -> dict[str, str]:
    """Name -> data URI of every figure that can be shared."""
    drawn = {}
    for name in MEASURES:
        drawn[f"histogram_{name}"] = encode(plots.histogram, quality, name, least)
        drawn[f"sites_{name}"] = encode(plots.site_chart, quality, name, least)
    return {name: uri for name, uri in drawn.items() if uri is not None}


def render(
    quality: Quality,
    manifest: Mapping[str, Any],
    figures: Mapping[str, str],
    *,
    threshold: float,
    least: int,
    style: str,
) -> str:
    """The page to share, as HTML text.

    Args:
        quality: The runs, measured.
        manifest: Manifest of the store.
        figures: What :func:`figures_of` made.
        threshold: Robust z beyond which a value counts as an outlier.
        least: Smallest count that is printed.
        style: Style sheet, a `<style>` element.
    """
    return _template("qc.html").render(
        **view(quality, manifest, least), figures=figures, threshold=f"{threshold:g}", style=style
    )


def view(quality: Quality, manifest: Mapping[str, Any], least: int) -> dict[str, Any]:
    """Everything the page shows besides figures, as text."""
    sites = shared_sites(quality, least)
    people, refused = set(quality.people), manifest["quarantine"]
    lost = {row["subject"] for row in refused} - people
    enough = len(people) >= least
    unusual = np.any(list(quality.outliers.values()), axis=0)
    codes = refusals(manifest, least)
    return {
        "headline": [
            ("people in the store", count(len(people), least)),
            ("scans in the store", count(len(quality.runs), least)),
            ("scans refused", count(len(refused), least)),
        ],
        "sentence": _sentence(int(unusual.sum()), len(quality.runs), codes, least),
        "people_lost": count(len(lost), least),
        "measures": [
            {
                "name": name,
                "title": measure.title,
                "unit": measure.unit,
                "typical": quartiles(quality.values[name], measure.digits) if enough else "not shown",
                "outliers": count(int(quality.outliers[name].sum()), least),
                "side": "high" if measure.bad > 0 else "low",
                "unknown": count(int(np.isnan(quality.values[name]).sum()), least),
            }
            for name, measure in MEASURES.items()
        ],
        "sites": _site_rows(quality, sites, least),
        "has_sites": set(quality.sites) != {UNKNOWN},
        "codes": codes,
        "definitions": _definitions(quality, least),
        "options": [(name.replace("_", " "), _plain(value)) for name, value in manifest["options"].items()],
        "grid": " x ".join(map(str, quality.runs[0]["grid"])) if quality.runs else "none",
        "release": release(),
        "min_count": least,
    }


def scan_rows(store: FMRIStore, quality: Quality, encode: Encode, *, most: int) -> Iterator[dict[str, Any]]:
    """Private: the scans one by one, the most unusual first, with their thumbnails.

    Args:
        store: The store; each run drawn is read whole and checked.
        quality: Its runs, measured.
        encode: Makes a figure into a data URI.
        most: Scans shown (count).
    """
    order = np.argsort(-quality.distance, kind="stable")[:most]
    runs = {run.name: run for run in store.runs}
    for place in progress(order, "drawing scans", unit="scan"):
        entry = quality.runs[place]
        run = runs[entry["name"]]
        tensors, _ = store.read(run)
        yield {
            "name": entry["name"],
            "site": quality.sites[place],
            "flags": [MEASURES[name].title for name, found in quality.outliers.items() if found[place]],
            "values": [
                (measure.title, f"{quality.values[name][place]:,.{measure.digits}f}")
                for name, measure in MEASURES.items()
                if np.isfinite(quality.values[name][place])
            ],
            "image": encode(
                plots.thumbnail, tensors["mean"], tensors["frames"], tensors["mask_index"], run.grid
            ),
        }


def render_scans(rows: list[dict[str, Any]], total: int, *, style: str) -> str:
    """The private page, as HTML text."""
    return _template("qc_scans.html").render(rows=rows, total=total, style=style)


def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _sentence(unusual: int, total: int, codes: list[dict[str, str]], least: int) -> str:
    if not total:
        return "The store holds no scan: all were refused."
    first = (
        "No scan is unusual in any measure"
        if not unusual
        else f"{count(unusual, least)} of {count(total, least)} scans are unusual in at least one measure"
    )
    if not codes:
        return f"{first}; none was refused."
    return f"{first}; the most frequent reason for refusal was {codes[0]['code']}."


def _site_rows(quality: Quality, sites: Mapping[str, np.ndarray], least: int) -> list[dict[str, Any]]:
    """One row per site; who is in none of them is counted along, so that no difference to a total gives them away."""
    rest = ~np.any(list(sites.values()), axis=0) if sites else np.zeros(len(quality.runs), bool)
    parts = [*sites.values(), rest]
    owners = np.array(quality.people, dtype=object)
    people = counts([len(set(owners[runs])) for runs in parts], least)
    scans = counts([int(runs.sum()) for runs in parts], least)
    unusual = {
        name: counts([int((found & runs).sum()) for runs in parts], least)
        for name, found in quality.outliers.items()
    }
    return [
        {
            "site": site,
            "people": people[k],
            "scans": scans[k],
            "cells": [
                (measure.title, quartiles(quality.values[name][runs], measure.digits), unusual[name][k])
                for name, measure in MEASURES.items()
            ],
        }
        for k, (site, runs) in enumerate(sites.items())
    ]


def _definitions(quality: Quality, least: int) -> list[tuple[str, str]]:
    found = Counter(run["fd_definition"] or "unknown: no motion file" for run in quality.runs)
    return list(zip(found, counts(list(found.values()), least), strict=True))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    if isinstance(value, str) and "/" in value:
        return Path(value).name  # folders of this machine are nobody's business
    return "none" if value in (None, [], "") else str(value)
