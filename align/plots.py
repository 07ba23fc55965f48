"""The report's figures, each drawn to be read at the width of one column, in colour or in grey.

Every figure is drawn at 5 x 3-5 inches with letters of at least 10 pt, and returned as a data URI: line charts as
SVG, the similarity matrix as PNG. No subject id reaches a figure.

N evaluated people · K largest rank drawn · P permutations
"""

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, BRAIN, GENE, PALE = (
    "#22262b",
    "#0b3c5d",
    "#d9782d",
    "#c9ced6",
)  # dark blue and orange differ in grey, too
STYLE = {
    "font.size": 10.5,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.5,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#e4e7ec",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "neurohelix",  # same numbers, same bytes
}
DIRECTIONS = {  # name -> (words, colour, line style, marker, filled)
    "brain_to_gene": ("brain → genome", BRAIN, "-", "o", True),
    "gene_to_brain": ("genome → brain", GENE, "--", "s", False),
}
MODELS = {
    "neurohelix": "NeuroHelix",
    "ridge_cca": "ridge CCA",
    "confounds_only": "confounds only",
    "oracle": "oracle",
}
GALLERIES = {"raw": "Raw", "adjusted": "Confound-adjusted", "matched": "Confound-matched"}
Draw = Callable[..., Figure | None]
Series = tuple[list[float | int], list[float | int]]  # optimizer steps, values


def as_svg(draw: Draw, *data: Any) -> str | None:
    """A figure as an SVG data URI; None if the drawing function had nothing to draw."""
    return _encode(draw, data, "svg", "image/svg+xml", metadata={"Date": None, "Creator": None})


def as_png(draw: Draw, *data: Any) -> str | None:
    """A figure as a PNG data URI at twice the screen's resolution."""
    return _encode(draw, data, "png", "image/png", dpi=192, metadata={"Software": None})


def supervised_curve(metrics: list[dict[str, Any]]) -> Figure | None:
    """BrainMT's pretraining: training loss and validation error above, validation correlation below."""
    loss = _series(metrics, "train_loss") or _series(metrics, "loss")
    if not loss:
        return None
    figure, (top, bottom) = _panels(2, height=4.6, sharex=True)
    top.plot(*loss, color=BRAIN, label="training loss")
    _points(top, _series(metrics, "val_mse"), color=GENE, linestyle="--", marker="s", label="validation")
    top.set(ylabel="mean squared error\n(SD² of the trait)", ylim=(0, None))
    top.legend()
    _points(bottom, _series(metrics, "val_r"), color=GENE, linestyle="--", marker="s", label="validation")
    bottom.axhline(0, color=INK, linewidth=1, linestyle=":")
    bottom.set(xlabel="optimizer steps", ylabel="correlation r\n(validation)")
    return figure


def alignment_curve(metrics: list[dict[str, Any]]) -> Figure | None:
    """Contrastive training of the raw and the adjusted model: losses above, matched 2AFC below."""
    models = list(dict.fromkeys(line["model"] for line in metrics if "model" in line))
    if not models:
        return None
    figure, (top, bottom) = _panels(2, height=4.6, sharex=True)
    for model, colour, marker in zip(models, (GENE, BRAIN), ("s", "o"), strict=False):
        lines = [line for line in metrics if line.get("model") == model]
        if train := _series(lines, "train_loss"):
            top.plot(*train, color=colour, label=f"{model}, training")
        _points(
            top, _series(lines, "val_loss"), color=colour, linestyle="--", marker=marker, label="validation"
        )
        score = _series(lines, "val_auc2afc_matched")
        _points(bottom, score, color=colour, linestyle="-", marker=marker, label=model)
    top.set(ylabel="contrastive loss (nats)")
    top.legend(ncols=2)
    _chance_line(bottom, 0.5)
    bottom.set(xlabel="optimizer steps", ylabel="2AFC, matched\n(validation)")
    bottom.legend(ncols=3)
    return figure


def similarity_matrix(similarity: Float[np.ndarray, "N N"]) -> Figure:
    """Every scan against every genome; a person's own pair lies on the diagonal."""
    figure = Figure(figsize=(5, 4.1), layout="constrained")
    axes = figure.subplots()
    low, high = np.nanquantile(similarity, [0.5, 0.998])  # the lower half is white: the diagonal stands out
    image = axes.imshow(
        similarity, cmap="Greys", vmin=low, vmax=high, interpolation="nearest", rasterized=True
    )
    axes.grid(False)
    axes.set(xlabel="genome of person (random order)", ylabel="scan of person (same order)")
    figure.colorbar(image, ax=axes, label="similarity (cosine)", shrink=0.85, extend="both")
    return figure


def own_against_others(similarity: Float[np.ndarray, "N N"]) -> Figure:
    """How similar a person's scan is to the own genome, and to the genomes of others."""
    figure, (axes,) = _panels(1, height=4.1)
    own = np.diag(similarity)
    others = similarity[~np.eye(len(similarity), dtype=bool)]
    bins = np.histogram_bin_edges(similarity, bins=24)
    for values, words, style in (
        (others, "other people's genome", {"color": PALE, "edgecolor": INK, "histtype": "stepfilled"}),
        (own, "own genome", {"color": BRAIN, "histtype": "step", "linewidth": 2.2}),
    ):
        weights = np.full(len(values), 100 / len(values))
        axes.hist(
            values,
            bins=bins,
            weights=weights,
            label=f"{words} (mean {round(values.mean(), 2) + 0:.2f})",
            **style,
        )
    axes.set(xlabel="similarity to a person's scan (cosine)", ylabel="share of pairs (%)")
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])
    axes.legend(loc="upper right")
    return figure


def recall_curve(tensors: Mapping[str, np.ndarray], gallery: str) -> Figure | None:
    """Share of people whose partner is among the k nearest, with chance and the band of permuted pairings."""
    if f"recall_{gallery}" not in tensors:
        return None
    figure, (axes,) = _panels(1, height=4.1)
    recall, chance = tensors[f"recall_{gallery}"], tensors[f"recall_chance_{gallery}"]
    low, high = (tensors[f"recall_null_{side}_{gallery}"] for side in ("low", "high"))
    k = np.arange(1, recall.shape[1] + 1)
    axes.fill_between(
        k,
        100 * low.min(axis=0),
        100 * high.max(axis=0),
        color=PALE,
        alpha=0.7,
        linewidth=0,
        label="95 % of permuted pairings",
    )
    for row, (words, colour, style, marker, filled) in zip(recall, DIRECTIONS.values(), strict=True):
        axes.plot(
            k,
            100 * row,
            color=colour,
            linestyle=style,
            marker=marker,
            markevery=max(1, len(k) // 8),
            markerfacecolor=colour if filled else "white",
            label=words,
        )
    axes.plot(k, 100 * chance, color=INK, linestyle=":", label="chance")
    axes.set(xlabel="k (number of nearest people looked at)", ylabel="own partner among them (%)")
    axes.set_ylim(0, min(100, 1.05 * 100 * max(recall.max(), high.max())))
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def null_histogram(tensors: Mapping[str, np.ndarray], galleries: Mapping[str, Any]) -> Figure | None:
    """2AFC under permuted pairings, and as observed, in the three galleries on one axis."""
    shown = [name for name in GALLERIES if f"null_{name}" in tensors]
    if not shown:
        return None
    figure, rows = _panels(len(shown), height=1.4 * len(shown) + 1.3, sharex=True)
    everything = np.concatenate([tensors[f"null_{name}"].ravel() for name in shown])
    bins = np.histogram_bin_edges(everything, bins=30)
    for axes, name in zip(rows, shown, strict=True):
        null = tensors[f"null_{name}"]
        weights = np.full(null.size, 100 / null.size)
        axes.hist(null.ravel(), bins=bins, weights=weights, color=PALE, edgecolor="#8b93a0", linewidth=0.6)
        top = axes.get_ylim()[1]
        for height, (direction, (words, colour, style, marker, filled)) in zip(
            (0.95, 0.62), DIRECTIONS.items(), strict=True
        ):
            if direction not in galleries[name]:
                continue
            value = galleries[name][direction]["auc2afc"]["value"]
            axes.plot(
                [value, value],
                [0, height * top],
                color=colour,
                linestyle=style,
                marker=marker,
                markevery=[1],
                markerfacecolor=colour if filled else "white",
                label=words,
            )
        axes.set_title(GALLERIES[name])
        axes.set_ylim(0, 1.08 * top)
    figure.supylabel("share of permutations (%)", fontsize=STYLE["axes.labelsize"])
    rows[-1].set_xlabel("2AFC accuracy (0.5 = chance)")
    handles, words = rows[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside upper center", ncols=2)
    return figure


def comparison_chart(models: Mapping[str, Any]) -> Figure | None:
    """2AFC with its interval: model by model, in the three galleries, both directions."""
    shown = [name for name in (*MODELS, *models) if name in models]
    shown = list(dict.fromkeys(shown))
    if not shown:
        return None
    figure, rows = _panels(len(GALLERIES), height=1.25 + 0.36 * len(shown) * len(GALLERIES), sharex=True)
    for axes, gallery in zip(rows, GALLERIES, strict=True):
        for place, name in enumerate(shown):
            found = models[name].get(gallery) or {}
            for offset, (direction, (words, colour, _, marker, filled)) in zip(
                (-0.16, 0.16), DIRECTIONS.items(), strict=True
            ):
                if direction not in found:
                    continue
                score = found[direction]
                axes.plot(
                    [score["ci_low"], score["ci_high"]], [place + offset] * 2, color=colour, linewidth=1.6
                )
                axes.plot(
                    score["value"],
                    place + offset,
                    color=colour,
                    marker=marker,
                    linestyle="none",
                    markerfacecolor=colour if filled else "white",
                    label=words if place == 0 else None,
                )
        _chance_line(axes, 0.5, vertical=True)
        axes.set_yticks(range(len(shown)), [MODELS.get(name, name.replace("_", " ")) for name in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_title(GALLERIES[gallery])
    rows[-1].set_xlabel("2AFC accuracy (0.5 = chance)")
    handles, words = rows[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside upper center", ncols=3)
    return figure


def _panels(count: int, *, height: float, sharex: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure one column wide with ``count`` panels below each other; height in inches."""
    figure = Figure(figsize=(5, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(count, 1, sharex=sharex)))


def _series(metrics: list[dict[str, Any]], key: str) -> Series | None:
    """Steps and values of the lines that have ``key``."""
    lines = [(line["step"], line[key]) for line in metrics if line.get(key) is not None]
    return ([step for step, _ in lines], [value for _, value in lines]) if lines else None


def _points(axes: Axes, series: Series | None, **style: Any) -> None:
    """A line with about ten markers, white inside; nothing if the run recorded nothing."""
    if series:
        axes.plot(
            *series, markerfacecolor="white", markersize=5, markevery=max(1, len(series[0]) // 10), **style
        )


def _chance_line(axes: Axes, value: float, *, vertical: bool = False) -> None:
    draw = axes.axvline if vertical else axes.axhline
    draw(value, color=INK, linestyle=":", linewidth=1.4, label="chance")


def _encode(draw: Draw, data: tuple[Any, ...], kind: str, mime: str, **options: Any) -> str | None:
    with matplotlib.rc_context(STYLE):
        figure = draw(*data)
        if figure is None:
            return None
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, **options)
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"
