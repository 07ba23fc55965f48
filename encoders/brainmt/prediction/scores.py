"""Scores of predictions with intervals, and BrainMT against each baseline on the same people and resamples.

Glossary: S people · B resamples.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from encoders.brainmt.prediction.config import MIN_COUNT, PredictBrainMT
from encoders.brainmt.prediction.predict import BRAINMT, Predictions
from encoders.brainmt.targets import Target
from encoders.stats.bootstrap import cluster_weights
from encoders.stats.delong import DeLong, delong_interval, delong_test
from encoders.stats.paired import Resampled, paired_difference, resample_scores

KIND, FORMAT = "neurohelix.brainmt_predictions", 1
UNSEEN = "unseen"
SYMBOLS = {"r2": "R²", "auroc": "AUROC"}
TITLES = {
    "brainmt": "BrainMT",
    "connectome_tangent": "tangent connectome",
    "connectome_correlation": "correlation connectome",
    "confounds": "confounds alone",
    "mean": "training mean",
}


def main_metric(target: Target | Mapping[str, Any]) -> str:
    """The metric that models are compared by: `auroc` for classes, `r2` for numbers."""
    classes = target.classes if isinstance(target, Target) else target["classes"]
    return "auroc" if classes else "r2"


def people_sets(found: Predictions, people: str) -> dict[str, Bool[np.ndarray, " S"]]:
    """Name -> who is scored together: those the model has not seen first, then everyone asked for.

    Args:
        found: Predictions.
        people: The option `people`: `test`, `val`, `train` or `all`.
    """
    everyone = np.ones(len(found.ids), bool)
    if people != "test" and found.unseen is not None and found.unseen.any():
        return {UNSEEN: found.unseen, people: everyone}
    return {people: everyone}


def scored(found: Predictions, *, people: str, bootstraps: int, seed: int) -> dict[str, Any]:
    """Target -> metrics of every model with 95 % intervals, and paired tests of BrainMT against each baseline.

    People without the label are left out of a target and counted; relatives are resampled together. Metric names
    start with the people they are of (`test_r2`); fewer than five people are not scored. Tests are made among the
    unseen people where there are any.

    Args:
        found: Predictions.
        people: The option `people`.
        bootstraps: B.
        seed: Seed of the resamples; the same for all models, so that differences are paired.
    """
    sets = people_sets(found, people)
    tested = next(iter(sets))
    content = {}
    for k, target in enumerate(found.targets):
        known = np.isfinite(found.wanted[k])
        models: dict[str, dict[str, Any]] = {name: {} for name in TITLES if name in found.predicted}
        paired: dict[str, Any] = {}
        for name, chosen in sets.items():
            rows = np.flatnonzero(known & chosen)
            if len(rows) < MIN_COUNT:
                continue
            wanted = found.wanted[k][rows].astype(int) if target.classes else found.wanted[k][rows]
            folds = None if found.folds is None else found.folds[rows]
            weights = cluster_weights(
                [found.families[row] for row in rows], bootstraps, np.random.default_rng((seed, k))
            )
            scores = {
                model: resample_scores(found.predicted[model][k][rows], wanted, weights, folds)
                for model in models
            }
            for model, score in scores.items():
                models[model] |= _metrics(name, score)
            two = len(target.classes) == 2
            if two:
                for model in models:
                    area = delong_interval(found.predicted[model][k][rows, 1], wanted == 1, folds)
                    models[model][f"{name}_auroc"]["delong"] = _delong(area)
            if name != tested:
                continue
            for model in models:
                if model == BRAINMT:
                    continue
                paired[model] = _difference(f"{name}_", main_metric(target), scores[BRAINMT], scores[model])
                if two:
                    ours, theirs = (found.predicted[m][k][rows, 1] for m in (BRAINMT, model))
                    paired[model]["delong"] = _delong(delong_test(ours, theirs, wanted == 1, folds))
        content[target.name] = {
            "task": "classification" if target.classes else "regression",
            "classes": list(target.classes),
            "people_with_label": suppressed(int(known.sum())),
            "people_without_label": suppressed(int((~known).sum())),
            "models": models,
            "brainmt_minus": paired,
        }
    return content


def suppressed(number: int) -> int | str:
    """A count of people that may be shared: 1 to 4 become "< 5"; zero is told."""
    return f"< {MIN_COUNT}" if 0 < number < MIN_COUNT else number


def report(found: Predictions, config: PredictBrainMT) -> dict[str, Any]:
    """Content of metrics.json: scores, tests, counts and provenance; holds nobody."""
    targets = scored(found, people=config.people, bootstraps=config.bootstraps, seed=config.seed)
    sets = list(people_sets(found, config.people))
    told = found.told
    return {
        "conclusion": conclusion(targets, sets[0]),
        "targets": targets,
        "people": config.people,
        "sets": sets,
        "tested_on": sets[0],
        "folds": None if found.folds is None else int(np.unique(found.folds).size),
        "people_counts": {
            "asked": suppressed(told["people_asked"]),
            "without_scan": suppressed(told["people_without_scan"]),
            "predicted": suppressed(len(found.ids)),
            "unseen": None if found.unseen is None else suppressed(int(found.unseen.sum())),
        },
        "unchecked": told["unchecked"],
        "models": told["models"],
        "baselines": told["baselines"],
        "windows_per_run": config.windows,
        "bootstraps": config.bootstraps,
        "seed": config.seed,
    }


def summary(content: Mapping[str, Any]) -> dict[str, Any]:
    """The lines that a person wants to see first."""
    counts = content["people_counts"]
    lines: dict[str, Any] = {"people": counts["predicted"]}
    if counts["without_scan"]:
        lines["people_without_a_scan"] = counts["without_scan"]
    for name, target in content["targets"].items():
        lines[name] = in_words(target, content["tested_on"])
        if target["people_without_label"]:
            lines[f"{name}: people_without_the_label"] = target["people_without_label"]
    if content["unchecked"]:
        lines["not_checked"] = "; ".join(content["unchecked"])
    return lines | {"in_words": content["conclusion"]}


def conclusion(targets: Mapping[str, Any], tested_on: str) -> str:
    """Whether BrainMT predicts at all, and whether it beats the connectomes and the confounds, in honest words.

    It beats a baseline where the paired interval lies above 0 and its own interval above chance: of two models that
    predict nothing none beats the other.

    Args:
        targets: What :func:`scored` returned.
        tested_on: The people that tests were made among.
    """
    own = {
        name: target["models"][BRAINMT].get(f"{tested_on}_{main_metric(target)}")
        for name, target in targets.items()
    }
    predicts = {name: _above(score, chance_level(targets[name])) for name, score in own.items()}
    sentences = []
    if len(targets) == 1:
        ((name, score),) = own.items()
        shown = interval_words(score) if score else f"fewer than {MIN_COUNT} people have it"
        words = "predicts" if predicts[name] else "does not demonstrably predict"
        sentences.append(f"BrainMT {words} {name} ({SYMBOLS[main_metric(targets[name])]} {shown}).")
    else:
        sentences.append(
            f"BrainMT predicts {sum(predicts.values())} of {len(targets)} targets better than chance."
        )
    connectomes = [name for name in TITLES if name.startswith("connectome_")]
    for words, rivals in (("connectome", connectomes), ("confounds alone", ["confounds"])):
        tests = {
            name: {r: target["brainmt_minus"][r] for r in rivals if r in target["brainmt_minus"]}
            for name, target in targets.items()
        }
        tests = {name: found for name, found in tests.items() if found}
        if tests:
            sentences.append(_against(words, tests, predicts))
    if len(sentences) == 1:
        sentences.append("It was compared with neither connectomes nor confounds.")
    return " ".join(sentences)


def chance_level(target: Target | Mapping[str, Any]) -> float:
    """The main metric of saying nothing."""
    return 0.5 if main_metric(target) == "auroc" else 0.0


def _against(words: str, tests: Mapping[str, Mapping[str, Any]], predicts: Mapping[str, bool]) -> str:
    """One sentence on one kind of rival; it has to beat every rival of the kind."""
    wins = [name for name, found in tests.items() if predicts[name] and all(map(_above, found.values()))]
    losses = [name for name, found in tests.items() if any(map(_below, found.values()))]
    every = f"every {words} baseline" if words == "connectome" else words
    if len(tests) > 1:
        worse = f", and does worse than {every.replace('every', 'a')} on {len(losses)}" if losses else ""
        return (
            f"It beats {every} on {len(wins)} of {len(tests)} targets (paired 95 % interval above 0, without "
            f"correction for the number of targets){worse}."
        )
    (found,) = tests.values()
    shown = "; ".join(
        (f"to the {TITLES[r]} " if len(found) > 1 else "") + interval_words(test, signed=True)
        for r, test in found.items()
    )
    if losses:
        verdict = f"does worse than {every.replace('every', 'a')}"
    else:
        verdict = f"beats {every}" if wins else f"does not demonstrably beat {every}"
    return f"It {verdict} (paired difference {shown})."


def in_words(target: Mapping[str, Any], people: str) -> str:
    """The main metric of every model with its interval, in one line: `test R² (n = 60): brainmt 0.31 [...]; ...`."""
    name = f"{people}_{main_metric(target)}"
    scores = {model: found[name] for model, found in target["models"].items() if name in found}
    if not scores:
        return f"fewer than {MIN_COUNT} {people} people have the label"
    each = "; ".join(f"{model} {interval_words(score)}" for model, score in scores.items())
    return f"{people} {SYMBOLS[main_metric(target)]} (n = {scores[BRAINMT]['n']}): {each}"


def interval_words(score: Mapping[str, Any], *, signed: bool = False) -> str:
    """`0.312 [0.201, 0.405]`, or `undefined`."""
    if score["value"] is None:
        return "undefined"
    value, low, high = (
        None if score[k] is None else round(score[k], 3) + 0.0 for k in ("value", "ci_low", "ci_high")
    )
    shown = f"{value:{'+' if signed else ''}.3f}"  # + 0.0: never "-0.000"
    return shown if low is None else f"{shown} [{low:.3f}, {high:.3f}]"


def _above(test: Mapping[str, Any] | None, level: float = 0.0) -> bool:
    return test is not None and test["ci_low"] is not None and test["ci_low"] > level


def _below(test: Mapping[str, Any]) -> bool:
    return test["ci_high"] is not None and test["ci_high"] < 0


def _metrics(people: str, score: Resampled) -> dict[str, Any]:
    found = {}
    for metric, value in score.values.items():
        if metric == "n":
            continue
        low, high = score.interval(metric) if math.isfinite(value) else (math.nan, math.nan)
        found[f"{people}_{metric}"] = {
            "value": _plain(value),
            "ci_low": _plain(low),
            "ci_high": _plain(high),
            "n": int(score.values["n"]),
        }
    return found


def _difference(prefix: str, metric: str, ours: Resampled, theirs: Resampled) -> dict[str, Any]:
    found = paired_difference(ours, theirs, metric)
    return {
        "metric": prefix + metric,
        "value": _plain(found.value),
        "ci_low": _plain(found.ci_low),
        "ci_high": _plain(found.ci_high),
        "p": _plain(found.p),
        "n": int(ours.values["n"]),
    }


def _delong(found: DeLong) -> dict[str, float | None]:
    names = ("value", "se", "ci_low", "ci_high", "p")
    return {name: _plain(getattr(found, name)) for name in names}


def _plain(value: float) -> float | None:
    """None, which JSON has, for NaN, which it has not."""
    return float(value) if math.isfinite(value) else None
