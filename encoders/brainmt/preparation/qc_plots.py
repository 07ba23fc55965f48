"""Figures of the quality report: histograms and sites to share, scans one by one to keep.

T frames · V in-mask voxels · X, Y, Z grid in RAS order. The style is the caller's (`align.plots` has the report's).
"""

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from encoders.brainmt.preparation.qc import MEASURES, Quality, groups_of, shared_sites

INK, BLUE, ORANGE, PALE = "#22262b", "#0b3c5d", "#d9782d", "#c9ced6"
CARPET_VOXELS = 300  # rows drawn


def histogram(quality: Quality, name: str, least: int) -> Figure | None:
    """Distribution of one measure over scans; each bar stands for at least ``least`` people."""
    groups = groups_of(quality.values[name], quality.people, least)
    if groups is None:
        return None
    edges, numbers = groups
    measure = MEASURES[name]
    figure = Figure(figsize=(5, 3.3), layout="constrained")
    axes = figure.subplots()
    widths = np.diff(edges)
    usual = np.median(widths)
    axes.bar(
        edges[:-1], numbers * usual / widths, widths, align="edge", color=PALE, edgecolor=BLUE, linewidth=1.2
    )
    middle = np.nanmedian(quality.values[name])
    axes.axvline(middle, color=INK, linestyle="--")
    axes.set(
        xlabel=f"{measure.unit} (dashed: median {middle:,.{measure.digits}f})",
        ylabel=f"scans per {usual:g}",
        title=measure.title.capitalize(),
    )
    return figure


def site_chart(quality: Quality, name: str, least: int) -> Figure | None:
    """Median and quartiles of one measure at each site; None for fewer than two sites, or where all scans are alike."""
    sites = shared_sites(quality, least)
    values = {site: quality.values[name][runs] for site, runs in sites.items()}
    values = {site: found[np.isfinite(found)] for site, found in values.items()}
    values = {site: found for site, found in values.items() if len(found) >= least}
    if len(values) < 2 or len(np.unique(np.concatenate([*values.values()]))) < 2:
        return None
    measure = MEASURES[name]
    figure = Figure(figsize=(5, 1.3 + 0.32 * len(values)), layout="constrained")
    axes = figure.subplots()
    for place, found in enumerate(values.values()):
        low, middle, high = np.percentile(found, [25, 50, 75])
        axes.plot([low, high], [place, place], color=PALE, linewidth=7, solid_capstyle="butt")
        axes.plot(middle, place, marker="o", color=BLUE, markersize=7)
    axes.axvline(np.nanmedian(quality.values[name]), color=INK, linestyle="--", linewidth=1.2)
    axes.set_yticks(range(len(values)), [site if len(site) < 24 else site[:21] + "…" for site in values])
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set(xlabel=f"{measure.title} ({measure.unit})", title=f"{measure.title.capitalize()} by site")
    return figure


def thumbnail(
    mean: Float[np.ndarray, " V"],
    frames: Float[np.ndarray, "T V"],
    mask_index: Int[np.ndarray, " V"],
    grid: tuple[int, int, int],
) -> Figure:
    """Private: three slices through the mean image, and the carpet: voxels by time, each in units of its deviation."""
    volume = np.full(grid, np.nan, np.float32)
    volume.reshape(-1)[mask_index] = mean
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    *slices, carpet = figure.subplots(1, 4, gridspec_kw={"width_ratios": [1, 1, 1, 4]})
    middle = [n // 2 for n in grid]
    cuts = [volume[middle[0]], volume[:, middle[1]], volume[:, :, middle[2]]]
    for axes, cut in zip(slices, cuts, strict=True):
        axes.imshow(cut.T, origin="lower", cmap="gray", interpolation="nearest")
        axes.set_axis_off()
    rows = np.linspace(0, len(mask_index) - 1, min(CARPET_VOXELS, len(mask_index))).astype(int)
    signal = frames[:, rows].astype(np.float32)
    signal = signal - signal.mean(axis=0)
    deviation = signal.std(axis=0)
    signal = (signal / np.where(deviation > 0, deviation, 1)).T
    carpet.imshow(signal, aspect="auto", cmap="gray", vmin=-2, vmax=2, interpolation="nearest")
    carpet.set(xlabel="frame", yticks=[], ylabel="voxels")
    carpet.grid(False)
    return figure
