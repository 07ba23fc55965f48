"""From one repetition time to another by band-limited interpolation.

Kaiser-windowed sinc, as in scipy.signal.resample_poly (10 zero crossings to each side, beta 5), but evaluated at the
very times that are wanted, so that 0.735 s to 1 s or 0.72 s to 0.8 s need no ratio of small integers. Where the new
rate is slower the sinc is stretched to it and so is the filter against aliasing. The signal is continued beyond the
ends of a segment by odd reflection, and each segment is treated by itself: nothing is invented in a gap.

T frames before · N frames after · V voxels.
"""

import itertools

import numpy as np
from jaxtyping import Float32, Float64
from scipy import sparse

CROSSINGS = 10  # zero crossings of the sinc to each side
BETA = 5.0  # of the Kaiser window: some 50 dB
SAME_TR = 1e-3  # s; closer ones are not told apart
METHOD = "Kaiser-windowed sinc (10 zero crossings, beta 5), odd reflection at the ends, per segment"


def retime(
    values: Float32[np.ndarray, "T V"], segments: list[list[int]], tr: float, wanted: float
) -> tuple[Float32[np.ndarray, "N V"], list[list[int]]]:
    """Resample every segment; its first frame stays where it is.

    Args:
        values: Signal, segments one after another.
        segments: First and last + 1 frame of each contiguous stretch.
        tr: Repetition time of ``values`` in s.
        wanted: The new one in s.

    Returns:
        The signal every ``wanted`` seconds, and the segments in its frames.
    """
    matrices = [_weights(last - first, tr, wanted) for first, last in segments]
    edges = np.cumsum([0, *(matrix.shape[0] for matrix in matrices)]).tolist()
    made = np.empty((edges[-1], values.shape[1]), np.float32)
    new = [[start, end] for start, end in itertools.pairwise(edges)]
    for matrix, (first, last), (start, end) in zip(matrices, segments, new, strict=True):
        made[start:end] = matrix @ values[first:last]
    return made, new


def _weights(num_frames: int, tr: float, wanted: float) -> sparse.csr_array:
    """(N, T) weights of the old frames in each new one; every row sums to 1."""
    ratio = wanted / tr
    times = np.arange(int((num_frames - 1) / ratio + 1e-6) + 1) * ratio  # in old frames
    stretch = max(ratio, 1.0)
    reach = CROSSINGS * stretch
    dense = np.zeros((len(times), num_frames))
    for row, time in zip(dense, times, strict=True):
        near = np.arange(int(np.ceil(time - reach)), int(np.floor(time + reach)) + 1)
        weight = np.sinc((near - time) / stretch) * _kaiser((near - time) / reach)
        _add(row, near, weight / weight.sum())
    return sparse.csr_array(dense.astype(np.float32))


def _kaiser(place: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    return np.i0(BETA * np.sqrt(np.clip(1 - place**2, 0, None))) / np.i0(BETA)


def _add(row: Float64[np.ndarray, " T"], near: np.ndarray, weight: Float64[np.ndarray, " n"]) -> None:
    """Spread weights over the frames that exist; beyond an end x(-k) stands for 2 x(0) - x(k)."""
    last = len(row) - 1
    if last == 0:
        row[0] += weight.sum()
        return
    for place, part in zip(near.tolist(), weight.tolist(), strict=True):
        sign = 1.0
        while not 0 <= place <= last:
            end = 0 if place < 0 else last
            row[end] += 2 * sign * part
            place, sign = 2 * end - place, -sign
        row[place] += sign * part
