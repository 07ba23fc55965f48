"""A sweep without a server: the same YAML file that W&B reads, enumerated or drawn here, one run after another.

Glossary: a *point* is one choice of a value for every parameter.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from encoders.runs.errors import InputError
from encoders.runs.tracking import read_metrics

Point = dict[str, Any]

MARKED = ("${env}", "${program}", "${args}", "${interpreter}")


def read_sweep(path: Path) -> dict[str, Any]:
    """A sweep file, checked for what an offline sweep needs.

    Raises:
        InputError: not a sweep, or with a parameter that cannot be drawn.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; a sweep file (YAML) was wanted")
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as cause:
        raise InputError(f"{path} is not readable YAML ({cause})") from cause
    wanted = ("program", "method", "metric", "parameters")
    if not isinstance(content, dict) or any(name not in content for name in wanted):
        raise InputError(f"{path} lacks some of {', '.join(wanted)}; a W&B sweep file was wanted")
    if content["method"] not in ("grid", "random", "bayes"):
        raise InputError(f"{path}: method {content['method']!r}; grid, random or bayes was wanted")
    if content["metric"].get("goal") not in ("maximize", "minimize"):
        raise InputError(f"{path}: the metric's goal must be maximize or minimize")
    rng = np.random.default_rng(0)
    for name, parameter in content["parameters"].items():
        _draw(name, parameter, rng)
    return content


def points(sweep: dict[str, Any], *, runs: int, seed: int) -> Iterator[Point]:
    """The points of a sweep: the whole grid in order, or ``runs`` random ones.

    Bayesian sweeps are drawn at random too: what they would learn from earlier runs is W&B's business.

    Args:
        sweep: As :func:`read_sweep` returns it.
        runs: How many points; 0 for the whole grid.
        seed: Seed of random points; the same seed gives the same points.

    Raises:
        InputError: a grid over a range, or no number of runs for a random sweep.
    """
    parameters = sweep["parameters"]
    if sweep["method"] == "grid":
        lists = [_listed(name, parameter) for name, parameter in parameters.items()]
        grid = (dict(zip(parameters, values, strict=True)) for values in itertools.product(*lists))
        yield from itertools.islice(grid, runs or None)
        return
    if runs < 1:
        raise InputError(f"a {sweep['method']} sweep has no end by itself; pass --runs=20, say")
    rng = np.random.default_rng(seed)
    for _ in range(runs):
        yield {name: _draw(name, parameter, rng) for name, parameter in parameters.items()}


def arguments(sweep: dict[str, Any], point: Point) -> list[str]:
    """Options of the program for one point: those that the sweep's command fixes, without W&B, then the point's."""
    fixed = [
        str(word)
        for word in sweep.get("command", [])
        if str(word).startswith("--") and not str(word).startswith("--wandb")
    ]
    return fixed + [f"--{name}={_text(value)}" for name, value in point.items()]


def best_value(folder: Path, metric: str, goal: str) -> float | None:
    """The best value of a metric in all `metrics.jsonl` below a run folder; None if it was never recorded."""
    values = [
        line[metric]
        for path in sorted(Path(folder).rglob("metrics.jsonl"))
        for line in read_metrics(path.parent)
        if metric in line and math.isfinite(line[metric])
    ]
    if not values:
        return None
    return max(values) if goal == "maximize" else min(values)


def _listed(name: str, parameter: dict[str, Any]) -> list[Any]:
    if "values" in parameter:
        return list(parameter["values"])
    if "value" in parameter:
        return [parameter["value"]]
    raise InputError(f"{name} has a range, but a grid needs a list of values; use method: random")


def _draw(name: str, parameter: dict[str, Any], rng: np.random.Generator) -> Any:
    """One value of a parameter, with W&B's meaning of its distribution.

    Raises:
        InputError: a distribution that is not known here.
    """
    if "value" in parameter:
        return parameter["value"]
    if "values" in parameter:
        return parameter["values"][int(rng.integers(len(parameter["values"])))]
    if "min" not in parameter or "max" not in parameter:
        raise InputError(
            f"parameter {name}: value, values, or min and max were wanted, got {sorted(parameter)}"
        )
    low, high = parameter["min"], parameter["max"]
    whole = isinstance(low, int) and isinstance(high, int)
    kind = parameter.get("distribution", "int_uniform" if whole else "uniform")
    if kind == "int_uniform":
        return int(rng.integers(low, high + 1))
    if kind in ("uniform", "q_uniform"):
        value = float(rng.uniform(low, high))
    elif kind in ("log_uniform_values", "q_log_uniform_values"):
        value = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    elif kind in ("log_uniform", "q_log_uniform"):  # W&B's bounds are exponents of e here
        value = float(np.exp(rng.uniform(low, high)))
    else:
        raise InputError(
            f"parameter {name}: distribution {kind!r} is not known here; use a uniform one or values"
        )
    step = parameter.get("q", 1) if kind.startswith("q_") else None
    return round(value / step) * step if step else float(f"{value:.4g}")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
