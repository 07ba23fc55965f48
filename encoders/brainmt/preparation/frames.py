"""Which frames of a scan are kept: dummies at its start and constant frames are dropped.

T frames · V in-mask voxels.
"""

import itertools

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.confound_columns import marked_dummies
from encoders.brainmt.preparation.quarantine import ScanRefused


def need_frames(found: int, wanted: int, what: str = "it has") -> None:
    """Refuse a scan of too few frames (E_FRAMES)."""
    if found < wanted:
        raise ScanRefused(
            "E_FRAMES",
            f"{what} {found} frames, at least {wanted} are wanted",
            "drop it, or lower --min_frames",
        )


def first_steady_frame(
    columns: dict[str, Float64[np.ndarray, " T"]], num_frames: int, config: PrepareFMRI
) -> int:
    """Dummy frames at the start: as many as the user says, or more where the confounds table marks more (count).

    Raises:
        ScanRefused: E_FRAMES; too few would be left.
    """
    first = max(config.dummy_frames, marked_dummies(columns))
    if first:
        need_frames(num_frames - min(first, num_frames), config.min_frames, f"without {first} dummies it has")
    return first


def changing_frames(
    values: Float32[np.ndarray, "T V"], broken: Bool[np.ndarray, " V"], config: PrepareFMRI
) -> Bool[np.ndarray, " T"]:
    """Frames that are not one and the same number (0, say) in every voxel.

    Args:
        values: Signal in scanner units.
        broken: Voxels that are not to be looked at.
        config: The limits.

    Raises:
        ScanRefused: E_CONSTANT, too many are; E_FRAMES, too few would be left.
    """
    seen = values[:, ~broken] if broken.any() else values
    flat = seen.max(axis=1) == seen.min(axis=1)
    if flat.all():
        raise ScanRefused(
            "E_CONSTANT",
            f"each of its {len(flat)} frames holds one and the same number in all {seen.shape[1]} mask voxels",
            "check the export of the scan: is it a mask? No option takes it",
        )
    if flat.mean() > config.max_constant_frames:
        raise ScanRefused(
            "E_CONSTANT",
            f"{flat.sum()} of {len(flat)} frames are constant or all zero, the limit is "
            f"{config.max_constant_frames:.1%}",
            "check the export of the scan, or raise --max_constant_frames",
        )
    if flat.any():
        need_frames(int((~flat).sum()), config.min_frames)
    return ~flat


def segments(kept: Int[np.ndarray, " T"]) -> list[list[int]]:
    """Stretches [first, last + 1) of stored frames that were contiguous in the scan; windows stay inside one.

    Args:
        kept: Numbers of the stored frames in the scan, ascending.
    """
    cuts = np.flatnonzero(np.diff(kept) != 1) + 1
    edges = [0, *cuts.tolist(), len(kept)]
    return [[first, last] for first, last in itertools.pairwise(edges)]
