"""Figures of predictions: what may be shared, and what stays private.

Only :func:`scatter` shows people one by one. All other figures show groups of at least five people, or curves over
everyone. Colours differ in grey, too. The style is the caller's (`align.plots` has the report's).

Glossary: S people · C classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from encoders.brainmt.prediction.config import MIN_COUNT
from encoders.brainmt.prediction.scores import TITLES, main_metric

INK, BLUE, ORANGE, PALE = "#22262b", "#0b3c5d", "#d9782d", "#c9ced6"
LINES = {  # colour, line style, width
    "brainmt": (BLUE, "-", 2.2),
    "connectome_tangent": (ORANGE, "--", 1.8),
    "connectome_correlation": (ORANGE, ":", 1.8),
    "confounds": (INK, "-.", 1.4),
}
FEWEST_BINS, MOST_BINS = 4, 10  # where there are enough people


def comparison_chart(targets: Mapping[str, Any], people: str) -> Figure | None:
    """The main metric of every model with its 95 % interval, one panel per target."""
    shown = {name: t for name, t in targets.items() if any(t["models"].values())}
    if not shown:
        return None
    models = list(next(iter(shown.values()))["models"])
    figure = Figure(figsize=(5, 1 + len(shown) * (0.55 + 0.32 * len(models))), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(shown), 1))
    for axes, (name, target) in zip(panels, shown.items(), strict=True):
        metric = main_metric(target)
        for place, model in enumerate(models):
            score = target["models"][model].get(f"{people}_{metric}")
            if score is None or score["value"] is None:
                axes.text(0.02, place, "undefined", transform=axes.get_yaxis_transform(), va="center")
                continue
            ours = model == "brainmt"
            style = {"color": BLUE, "edgecolor": BLUE} if ours else {"color": PALE, "edgecolor": INK}
            axes.barh(place, score["value"], height=0.62, linewidth=0.8, **style)
            if score["ci_low"] is not None:
                axes.plot(
                    [score["ci_low"], score["ci_high"]],
                    [place] * 2,
                    color=INK if not ours else ORANGE,
                    linewidth=2.4,
                )
        chance = 0.5 if target["classes"] else 0.0
        axes.axvline(chance, color=INK, linestyle=":", linewidth=1.4)
        axes.set_yticks(range(len(models)), [TITLES.get(model, model) for model in models])
        axes.set_ylim(len(models) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_title(name)
        axes.set_xlabel(f"{'AUROC' if target['classes'] else 'R²'} (dotted: chance)")
    return figure


def scatter(predicted: Float[np.ndarray, " S"], wanted: Float[np.ndarray, " S"], name: str) -> Figure:
    """Private: observed against predicted, and residuals below, one dot per person."""
    figure = Figure(figsize=(5, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    dots = {"color": BLUE, "s": 14, "alpha": 0.6, "linewidths": 0}
    top.scatter(predicted, wanted, **dots)
    ends = np.array([min(predicted.min(), wanted.min()), max(predicted.max(), wanted.max())])
    top.plot(ends, ends, color=INK, linestyle=":", label="perfect")
    if len(wanted) > 2 and np.ptp(predicted) > 0:
        slope, start = np.polyfit(predicted, wanted, 1)
        inside = np.array([predicted.min(), predicted.max()])
        top.plot(
            inside, start + slope * inside, color=ORANGE, linestyle="--", label=f"fit, slope {slope:.2f}"
        )
    top.set(ylabel=f"observed {name}", title=f"{name}: private, one dot per person")
    top.legend()
    bottom.scatter(predicted, wanted - predicted, **dots)
    bottom.axhline(0, color=INK, linestyle=":")
    bottom.set(xlabel=f"predicted {name}", ylabel="observed − predicted")
    return figure


def binned(predicted: Float[np.ndarray, " S"], wanted: Float[np.ndarray, " S"], name: str) -> Figure | None:
    """Mean observed against mean predicted value of groups of people with similar predictions, ± standard error."""
    groups = bins_of(predicted)
    if len(groups) < 2:
        return None
    figure = Figure(figsize=(5, 4.1), layout="constrained")
    axes = figure.subplots()
    x = np.array([predicted[rows].mean() for rows in groups])
    y = np.array([wanted[rows].mean() for rows in groups])
    error = np.array([wanted[rows].std(ddof=1) / np.sqrt(len(rows)) for rows in groups])
    ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
    axes.plot(ends, ends, color=INK, linestyle=":", label="perfect")
    axes.errorbar(x, y, yerr=error, color=BLUE, marker="o", linestyle="-", capsize=2, label="BrainMT")
    axes.set(xlabel=f"predicted {name}, group mean", ylabel=f"observed {name}, group mean ± SE")
    axes.legend()
    return figure


def roc_curves(
    predicted: Mapping[str, Float[np.ndarray, "S C"]], wanted: Int[np.ndarray, " S"], positive: int, name: str
) -> Figure | None:
    """Receiver operating characteristic of every model for one class against the rest.

    None with fewer than five people on either side: each step would be a person.
    """
    from sklearn.metrics import roc_curve

    truth = wanted == positive
    if min(truth.sum(), (~truth).sum()) < MIN_COUNT:
        return None
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=PALE, linewidth=1.4, label="chance")
    for model, (colour, line, width) in LINES.items():
        if model in predicted:
            false, true, _ = roc_curve(truth, predicted[model][:, positive])
            axes.plot(false, true, color=colour, linestyle=line, linewidth=width, label=TITLES[model])
    axes.set(
        xlabel="false positive rate",
        ylabel="true positive rate",
        title=name,
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    axes.set_aspect("equal")
    axes.legend(loc="lower right")
    return figure


def confusion_matrix(
    probabilities: Float[np.ndarray, "S C"], wanted: Int[np.ndarray, " S"], classes: list[str], name: str
) -> Figure:
    """People by true and predicted class; counts of 1 to 4 are written as `< 5` and drawn alike."""
    counts = confusion_counts(probabilities, wanted)
    figure = Figure(figsize=(5, 1.6 + 0.55 * len(classes)), layout="constrained")
    axes = figure.subplots()
    small = (counts > 0) & (counts < MIN_COUNT)
    shades = np.where(small, MIN_COUNT / 2, counts).astype(float)
    axes.imshow(shades, cmap="Greys", vmin=0, vmax=max(shades.max() * 1.4, MIN_COUNT), aspect="auto")
    for row in range(len(classes)):
        for column in range(len(classes)):
            text = f"< {MIN_COUNT}" if small[row, column] else f"{counts[row, column]:,}"
            dark = shades[row, column] > 0.75 * shades.max() and shades.max() > MIN_COUNT
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else INK)
    axes.grid(False)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted class", ylabel="true class", title=name)
    return figure


def calibration(
    probabilities: Float[np.ndarray, "S C"],
    wanted: Int[np.ndarray, " S"],
    positive: int,
    label: str,
    name: str,
) -> Figure | None:
    """Share of people of a class among groups with similar predicted probability of it, with Wilson intervals."""
    p = probabilities[:, positive]
    groups = bins_of(p)
    if len(groups) < 2:
        return None
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    x = np.array([p[rows].mean() for rows in groups])
    share = np.array([(wanted[rows] == positive).mean() for rows in groups])
    size = np.array([len(rows) for rows in groups])
    z = 1.96
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    axes.plot([0, 1], [0, 1], color=INK, linestyle=":", label="perfect")
    axes.vlines(x, middle - half, middle + half, color=ORANGE, linewidth=2.2, label="95 % interval")
    axes.plot(x, share, color=BLUE, marker="o", linestyle="-", label="BrainMT")
    axes.set(
        xlabel=f"predicted probability of {label}, group mean",
        ylabel=f"share of {label} among them",
        title=name,
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    axes.legend(loc="upper left")
    return figure


def confusion_counts(
    probabilities: Float[np.ndarray, "S C"], wanted: Int[np.ndarray, " S"]
) -> Int[np.ndarray, "C C"]:
    """People by true class (rows) and most probable class (columns)."""
    counts = np.zeros((probabilities.shape[1],) * 2, int)
    np.add.at(counts, (wanted, probabilities.argmax(axis=1)), 1)
    return counts


def bins_of(values: Float[np.ndarray, " S"]) -> list[Int[np.ndarray, " N"]]:
    """Rows in groups of neighbouring values: of about twenty people, of at least five, and at most ten groups."""
    count = min(MOST_BINS, max(len(values) // 20, min(len(values) // MIN_COUNT, FEWEST_BINS)))
    return np.array_split(np.argsort(values, kind="stable"), count) if count else []
