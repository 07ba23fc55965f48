"""From one scan to its in-mask time series: space, repetition time, motion, mask, coverage, normalisation.

T frames · V in-mask voxels · X, Y, Z grid in RAS order.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int8, Int32

from encoders.brainmt.config import PrepareFMRI
from encoders.brainmt.discover import Scan
from encoders.brainmt.gates import repetition_time, space_of, still_enough
from encoders.brainmt.mask import brain_mask
from encoders.brainmt.motion import motion_of
from encoders.brainmt.nifti import Nifti, read_nifti
from encoders.brainmt.quantise import HOLDERS, Frames
from encoders.brainmt.quarantine import ScanRefused

BLOCK = 2**14  # voxels normalised at once, in float64


@dataclass(frozen=True, kw_only=True)
class Series:
    """What the store keeps of one run.

    Args:
        frames: (T, V) normalised signal, time-major.
        scaling: What the store needs beside the frames to read them: ``scale`` and ``offset`` of int8 frames.
        mask_index: (V,) voxels in the C-order flattened X, Y, Z grid, ascending.
        mean: (V,) temporal mean in scanner units.
        sd: (V,) temporal standard deviation in scanner units; 0 where the voxel carries no signal.
        metadata: JSON values: grid, affine, tr, background, counts and the like.
    """

    frames: Float16[np.ndarray, "T V"] | Int8[np.ndarray, "T V"]
    scaling: dict[str, Float32[np.ndarray, " V"]]
    mask_index: Int32[np.ndarray, " V"]
    mean: Float32[np.ndarray, " V"]
    sd: Float32[np.ndarray, " V"]
    metadata: dict[str, Any]

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays by the names they have in the store."""
        arrays = {"frames": self.frames, "mask_index": self.mask_index, "mean": self.mean, "sd": self.sd}
        return arrays | self.scaling


def read_series(scan: Scan, config: PrepareFMRI) -> Series:
    """Read, check and normalise one scan.

    Raises:
        ScanRefused: any check failed.
    """
    max_bytes = round(config.max_gib * 2**30)
    image = read_nifti(scan.path, max_bytes=max_bytes)
    num_frames = len(image.stored)
    _need_frames(num_frames, config.min_frames)
    space = space_of(scan, image, config.assume_mni)
    tr = repetition_time(image, scan.sidecar, fix=config.fix_tr)
    motion = motion_of(scan, num_frames)
    mean_fd = still_enough(motion, config.max_mean_fd)
    mask, mask_source = brain_mask(scan.mask, image, min_extent=config.min_extent, max_bytes=max_bytes)
    mask_index = np.flatnonzero(mask).astype(np.int32)
    values = _scanner_units(image, image.order[mask_index])

    broken = ~np.isfinite(values).all(axis=0)
    if broken.mean() > config.max_nan or broken.all():
        raise ScanRefused(
            "E_NAN",
            f"{broken.sum()} of {broken.size} mask voxels ({broken.mean():.2%}) hold NaN or infinite values, "
            f"the limit is {config.max_nan:.2%}",
            "check the step that made the scan, or raise --max_nan",
        )
    values[:, broken] = 0
    values, dropped = _drop_constant_frames(values, broken, config)
    kept = np.setdiff1d(np.arange(num_frames), dropped)
    held = HOLDERS[config.dtype](values.shape)
    frames, mean, sd, moments = normalise(values, config.normalisation, into=held)
    if config.background == "zero":
        moments["background"] = 0.0
    _need_signal(sd, config.min_coverage)
    metadata = {
        "frames": len(frames),
        "voxels": len(mask_index),
        "grid": list(image.grid),
        "affine": image.affine.tolist(),
        "space": space,
        "orientation": image.orientation,
        "tr": tr,
        "normalisation": config.normalisation,
        **moments,
        **held.record,
        "mask": mask_source,
        "constant_voxels": int((sd == 0).sum() - broken.sum()),
        "nan_voxels": int(broken.sum()),
        "dropped_frames": dropped.tolist(),
        "segments": segments(kept),
        "mean_fd": mean_fd,
        "fd_definition": motion.definition if motion else None,
        "source_sha256": image.sha256,
    }
    return Series(
        frames=frames, scaling=held.scaling, mask_index=mask_index, mean=mean, sd=sd, metadata=metadata
    )


def segments(kept: np.ndarray) -> list[list[int]]:
    """Stretches [first, last + 1) of stored frames that were contiguous in the scan; windows stay inside one."""
    cuts = np.flatnonzero(np.diff(kept) != 1) + 1
    edges = [0, *cuts.tolist(), len(kept)]
    return [[first, last] for first, last in itertools.pairwise(edges)]


def normalise(
    values: Float32[np.ndarray, "T V"], how: str, *, into: Frames | None = None
) -> tuple[
    Float16[np.ndarray, "T V"] | Int8[np.ndarray, "T V"],
    Float32[np.ndarray, " V"],
    Float32[np.ndarray, " V"],
    dict[str, float],
]:
    """Standardise ``global`` (over the whole scan) or per ``voxel`` over time; voxels without signal become 0.

    Voxels without signal are left out of the global mean and deviation.

    Returns:
        Normalised frames; per-voxel mean and deviation in scanner units; and the numbers ``global_mean``,
        ``global_sd`` (scanner units) and ``background``, the smallest normalised value (0 for ``voxel``).
    """
    num_frames, num_voxels = values.shape
    held = Frames(values.shape) if into is None else into
    mean, variance = np.zeros(num_voxels), np.zeros(num_voxels)
    constant = (values == values[0]).all(axis=0)
    for block in _blocks(num_voxels):
        part = values[:, block].astype(np.float64)
        mean[block] = part.mean(axis=0)
        part -= mean[block]
        variance[block] = np.einsum("tv,tv->v", part, part) / num_frames
        if how == "voxel":
            held.put(block, part / np.sqrt(np.where(constant[block], 1, variance[block])))
    variance[constant] = 0
    alive = ~constant
    centre = float(mean[alive].mean()) if alive.any() else 0.0
    spread = float(np.sqrt((variance + np.square(mean - centre))[alive].mean())) if alive.any() else 0.0
    background = 0.0
    if how == "global" and alive.any():
        for block in _blocks(num_voxels):
            part = values[:, block] - np.float32(centre)
            part *= np.float32(1 / spread)
            seen = part if alive[block].all() else part[:, alive[block]]
            background = min(background, float(seen.min(initial=0)))
            held.put(block, part)
    held.clear(constant)
    moments = {"global_mean": centre, "global_sd": spread, "background": float(np.float16(background))}
    return held.frames, mean.astype(np.float32), np.sqrt(variance).astype(np.float32), moments


def _blocks(num_voxels: int) -> list[slice]:
    return [slice(first, first + BLOCK) for first in range(0, num_voxels, BLOCK)]


def _need_frames(found: int, wanted: int) -> None:
    if found < wanted:
        raise ScanRefused(
            "E_FRAMES",
            f"it has {found} frames, at least {wanted} are wanted",
            "drop it, or lower --min_frames",
        )


def _scanner_units(image: Nifti, where: Int32[np.ndarray, " V"]) -> Float32[np.ndarray, "T V"]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is counted as such
        values = image.stored.take(where, axis=1).astype(np.float32)
        values *= np.float32(image.slope)
        values += np.float32(image.intercept)
    return values


def _drop_constant_frames(
    values: Float32[np.ndarray, "T V"], broken: Bool[np.ndarray, " V"], config: PrepareFMRI
) -> tuple[Float32[np.ndarray, "kept V"], np.ndarray]:
    seen = values[:, ~broken] if broken.any() else values
    flat = seen.max(axis=1) == seen.min(axis=1)
    if flat.mean() > config.max_constant_frames:
        raise ScanRefused(
            "E_CONSTANT",
            f"{flat.sum()} of {len(flat)} frames are constant or all zero, the limit is "
            f"{config.max_constant_frames:.1%}",
            "check the export of the scan, or raise --max_constant_frames",
        )
    if flat.any():
        values = values[~flat]
        _need_frames(len(values), config.min_frames)
    return values, np.flatnonzero(flat)


def _need_signal(sd: Float32[np.ndarray, " V"], wanted: float) -> None:
    share = float((sd > 0).mean())
    if share == 0:
        raise ScanRefused(
            "E_CONSTANT", "no mask voxel changes over time", "check the scan: it is no time series"
        )
    if share < wanted:
        raise ScanRefused(
            "E_COVERAGE",
            f"only {share:.1%} of its {sd.size} mask voxels vary over time, at least {wanted:.0%} are wanted",
            "check that mask and scan fit (a cut field of view?), or lower --min_coverage",
        )
