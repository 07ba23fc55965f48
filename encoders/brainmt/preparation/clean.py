"""Nuisance regression, detrending and filters of a voxel's time series, by nilearn.signal.clean.

T frames · V voxels · C regressors. The order is nilearn's: detrend, then filter signal and regressors alike (Lindquist
et al. 2019), then regress. Frames that were dropped within a scan are bridged for the filter and left out of the
rest. Each voxel keeps its mean over time, so that the image of the means stays what it was.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64

from encoders.brainmt.preparation.config import Clean
from encoders.brainmt.preparation.quarantine import ScanRefused

BLOCK = 2**13  # voxels cleaned at once, in float64
FILTER_FRAMES = 34  # nilearn's Butterworth filter of order 5 is padded by up to 33 frames
NOTHING_LEFT = 1e-10  # of the variance: rounding


def clean(
    values: Float32[np.ndarray, "T V"],
    kept: Bool[np.ndarray, " T"],
    regressors: Float64[np.ndarray, "T C"] | None,
    tr: float,
    options: Clean,
) -> Float32[np.ndarray, "kept V"]:
    """The kept frames, cleaned; a voxel of which nothing is left becomes constant.

    Args:
        values: Finite signal of all frames; overwritten.
        kept: Frames that are kept; the others must not touch the result.
        regressors: What to regress out; None for nothing.
        tr: Repetition time in s.
        options: Filters and detrending.

    Raises:
        ScanRefused: E_FRAMES or E_CONFOUNDS (too few frames for the filter or the regressors), E_TR (a filter
            above what the repetition time can hold).
    """
    from nilearn import signal

    first, last = np.flatnonzero(kept)[[0, -1]]
    values, kept = values[first : last + 1], kept[first : last + 1]
    regressors = None if regressors is None else regressors[first : last + 1]
    _check(int(kept.sum()), 0 if regressors is None else regressors.shape[1], tr, options)
    made = values if kept.all() else values[kept]  # each block is read before it is overwritten
    filtered = bool(options.high_pass or options.low_pass)
    for start in range(0, values.shape[1], BLOCK):
        part = values[:, start : start + BLOCK].astype(np.float64)
        mean, variance = part[kept].mean(axis=0), part[kept].var(axis=0)
        done = signal.clean(
            part - mean,  # the mean is given back below; without it little is lost to rounding
            detrend=options.detrend,
            standardize=None,
            sample_mask=None if kept.all() else np.flatnonzero(kept),
            confounds=None if regressors is None else regressors.copy(),
            standardize_confounds=True,
            filter="butterworth" if filtered else False,
            high_pass=options.high_pass or None,
            low_pass=options.low_pass or None,
            t_r=tr,
            butterworth__copy=True,  # nilearn otherwise loops over voxels: 377 s for 50 s at full size
        )
        done -= done.mean(axis=0)
        done[:, done.var(axis=0) <= NOTHING_LEFT * variance] = 0
        made[:, start : start + BLOCK] = done + mean
    return made


def _check(num_frames: int, num_regressors: int, tr: float, options: Clean) -> None:
    nyquist = 0.5 / tr
    for name in ("high_pass", "low_pass"):
        if getattr(options, name) >= nyquist:
            raise ScanRefused(
                "E_TR",
                f"clean.{name} is {getattr(options, name):g} Hz, but a repetition time of {tr:g} s holds frequencies below "
                f"{nyquist:.3g} Hz only",
                f"lower --clean.{name}, or leave it out",
            )
    if (options.high_pass or options.low_pass) and num_frames < FILTER_FRAMES:
        raise ScanRefused(
            "E_FRAMES",
            f"{num_frames} frames are left, the filter needs {FILTER_FRAMES}",
            "drop the scan, or leave --clean.high_pass and --clean.low_pass out",
        )
    if num_regressors >= num_frames - 1:
        raise ScanRefused(
            "E_CONFOUNDS",
            f"{num_regressors} columns are to be regressed out of {num_frames} frames: nothing would be left",
            "name fewer columns with --clean.confounds, or drop the scan",
        )
