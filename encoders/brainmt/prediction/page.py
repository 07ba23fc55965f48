"""One self-contained page about predictions: scores, tests, figures and words, without anyone in it.

Figures are drawn by :mod:`encoders.brainmt.prediction.plots` and encoded by the caller, which owns the style of all
reports; so does the style sheet.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from encoders.brainmt.prediction import plots
from encoders.brainmt.prediction.config import MIN_COUNT
from encoders.brainmt.prediction.predict import BRAINMT, Predictions
from encoders.brainmt.prediction.scores import TITLES, UNSEEN, interval_words, main_metric, people_sets
from encoders.runs.stage import release

TEMPLATES = Path(__file__).with_name("templates")
METRICS = {
    "r2": "R²",
    "r": "Pearson r",
    "mse": "MSE",
    "mae": "MAE",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "f1": "F1",
    "brier": "Brier score",
}
SETS = {
    "test": "held-out test people",
    "val": "validation people",
    "train": "training people",
    "all": "everyone in the store",
    UNSEEN: "people the model has not seen",
}
MEANINGS = {
    "brainmt": "the scan itself, by the trained network",
    "connectome_tangent": "linear model on tangent connectomes, which keep amplitudes",
    "connectome_correlation": "linear model on correlation connectomes",
    "confounds": "linear model that sees no brain",
    "mean": "what is said without looking: training mean, or shares of the classes",
}
Encode = Callable[..., str | None]  # (drawing function, its data) -> data URI


def shared_figures(found: Predictions, content: Mapping[str, Any], encode: Encode) -> dict[str, str]:
    """Name -> data URI of every figure that shows nobody; drawn for the unseen people where there are any."""
    people, chosen = next(iter(people_sets(found, content["people"]).items()))
    drawn = {"comparison": encode(plots.comparison_chart, content["targets"], people)}
    for k, target in enumerate(found.targets):
        rows = np.flatnonzero(np.isfinite(found.wanted[k]) & chosen)
        if len(rows) < MIN_COUNT:
            continue
        wanted, ours = found.wanted[k][rows], found.predicted[BRAINMT][k][rows]
        if not target.classes:
            drawn[f"binned_{k}"] = encode(plots.binned, ours, wanted, target.name)
            continue
        index, classes = wanted.astype(int), list(target.classes)
        everyone = {model: predicted[k][rows] for model, predicted in found.predicted.items()}
        drawn[f"confusion_{k}"] = encode(plots.confusion_matrix, ours, index, classes, target.name)
        for c in [1] if len(classes) == 2 else range(len(classes)):
            title = f"{target.name}: {classes[c]}"
            drawn[f"roc_{k}_{c}"] = encode(plots.roc_curves, everyone, index, c, title)
            drawn[f"calibration_{k}_{c}"] = encode(plots.calibration, ours, index, c, classes[c], title)
    return {name: uri for name, uri in drawn.items() if uri is not None}


def private_figures(found: Predictions, encode: Encode) -> dict[str, str]:
    """Name -> data URI of the figures with one dot per person: observed, predicted, residual."""
    drawn = {}
    for k, target in enumerate(found.targets):
        rows = np.flatnonzero(np.isfinite(found.wanted[k]))
        if not target.classes and len(rows):
            ours = found.predicted[BRAINMT][k][rows]
            drawn[f"scatter_{k}"] = encode(plots.scatter, ours, found.wanted[k][rows], target.name)
    return {name: uri for name, uri in drawn.items() if uri is not None}


def render(content: Mapping[str, Any], figures: Mapping[str, str], *, style: str) -> str:
    """The page as HTML text.

    Args:
        content: Content of metrics.json.
        figures: What :func:`shared_figures` made.
        style: Style sheet, a `<style>` element.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("predictions.html")
    return page.render(**view(content), figures=figures, style=style)


def view(content: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the page shows besides figures, as text."""
    counted, model = content["people_counts"], content["models"][0]
    return {
        "conclusion": content["conclusion"],
        "people": SETS[content["people"]],
        "tested": SETS[content["tested_on"]],
        "unchecked": content["unchecked"],
        "targets": [
            _target_view(k, name, target, content)
            for k, (name, target) in enumerate(content["targets"].items())
        ],
        "counts": [
            ("asked for", count(counted["asked"])),
            ("without a scan in the store", count(counted["without_scan"])),
            ("predicted, each once", count(counted["predicted"])),
        ],
        "facts": [
            ("NeuroHelix", release()),
            *_fold_facts(content),
            ("Split", model["split_digest"][:12] if content["folds"] is None else "one per fold"),
            ("Windows", f"{content['windows_per_run']} per run of {model['frames_per_window']} frames each"),
            *_baseline_facts(content["baselines"]),
        ],
        "bootstraps": f"{content['bootstraps']:,}",
        "least": MIN_COUNT,
        "cross_validated": content["folds"] is not None,
    }


def count(number: int | str) -> str:
    """A count of people for print; small ones come suppressed."""
    return number if isinstance(number, str) else f"{number:,}"


def _target_view(k: int, name: str, target: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    classes = target["classes"]
    tables = []
    for people in content["sets"]:
        known = {key for scores in target["models"].values() for key in scores}
        metrics = [metric for metric in METRICS if f"{people}_{metric}" in known]
        if not metrics:
            continue
        num = target["models"][BRAINMT][f"{people}_{metrics[0]}"]["n"]
        rows = [
            {
                "title": TITLES[model],
                "meaning": MEANINGS[model],
                "cells": [(METRICS[m], interval_words(scores[f"{people}_{m}"])) for m in metrics],
            }
            for model, scores in target["models"].items()
        ]
        tables.append(
            {
                "people": SETS[people],
                "n": count(num),
                "metrics": [METRICS[m] for m in metrics],
                "rows": rows,
            }
        )
    tests = [
        {
            "title": TITLES[model],
            "metric": METRICS[main_metric(target)],
            "difference": interval_words(test, signed=True),
            "p": _p(test["p"]),
            "delong": _delong_words(test.get("delong")),
        }
        for model, test in target["brainmt_minus"].items()
    ]
    curves = [1] if len(classes) == 2 else range(len(classes))
    return {
        "name": name,
        "slug": f"target-{k}",
        "task": target["task"],
        "classes": ", ".join(classes),
        "positive": classes[1] if len(classes) == 2 else "",
        "labelled": count(target["people_with_label"]),
        "unlabelled": count(target["people_without_label"]),
        "tables": tables,
        "tests": tests,
        "binned": f"binned_{k}",
        "confusion": f"confusion_{k}",
        "curves": [(f"roc_{k}_{c}", f"calibration_{k}_{c}", classes[c]) for c in curves],
    }


def _fold_facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    if content["folds"] is None:
        return [("Weights", content["models"][0]["weights_sha256"][:12])]
    weights = ", ".join(model["weights_sha256"][:12] for model in content["models"])
    return [("Cross-validation", f"{len(content['models'])} folds"), ("Weights", weights)]


def _baseline_facts(told: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    if not told:
        return []
    facts = []
    if brains := [one["connectome"] for one in told if "connectome" in one]:
        parcels = sorted({one["parcels"] for one in brains})
        dropped = max(one["parcels_without_voxels_in_some_run"] for one in brains)
        sources = ", ".join(dict.fromkeys(one["parcels_from"] for one in brains))
        facts.append(
            (
                "Connectomes",
                f"{', '.join(map(str, parcels))} parcels, {sources}; {dropped} left out for want of voxels",
            )
        )
    if terms := [one["confounds"] for one in told if "confounds" in one]:
        used = list(
            dict.fromkeys(t for one in terms for of_target in one["used"].values() for t in of_target)
        )
        absent = sorted({t for one in terms for t in one["absent"]})
        facts.append(
            ("Confounds", ", ".join(used) + (f"; not in the table: {', '.join(absent)}" if absent else ""))
        )
    return facts


def _p(value: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.3f}" if value >= 0.0005 else "< 0.001"


def _delong_words(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return ""
    return f"{interval_words(test, signed=True)}, p = {_p(test['p'])}".replace("= <", "<")
