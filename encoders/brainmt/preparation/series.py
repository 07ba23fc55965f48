"""From one scan to its in-mask time series: space, repetition time, motion, mask, coverage, normalisation.

T frames · V in-mask voxels · X, Y, Z grid in RAS order.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float16, Float32, Float64, Int8, Int32

from encoders.brainmt.preparation.clean import clean
from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.confound_columns import read_columns, regressors_of
from encoders.brainmt.preparation.discover import Scan
from encoders.brainmt.preparation.frames import changing_frames, first_steady_frame, need_frames, segments
from encoders.brainmt.preparation.gates import repetition_time, space_of, still_enough
from encoders.brainmt.preparation.mask import brain_mask
from encoders.brainmt.preparation.motion import motion_of
from encoders.brainmt.preparation.nifti import Nifti
from encoders.brainmt.preparation.quarantine import ScanRefused
from encoders.brainmt.preparation.recording import is_standard, read_recording
from encoders.brainmt.preparation.references import common_mask, grid_of, need_same_template, target_grid
from encoders.brainmt.preparation.resample import resample_frames
from encoders.brainmt.preparation.retime import METHOD, SAME_TR, retime
from encoders.brainmt.quantise import HOLDERS, Frames
from encoders.runs.config import to_plain

BLOCK = 2**14  # voxels normalised at once, in float64
OURS = {False: "this preparation", True: "its maker, then this preparation"}


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
    recording = read_recording(scan, config)
    scan, image = recording.scan, recording.image
    num_frames = len(image.stored)
    need_frames(num_frames, config.min_frames)
    space = space_of(scan, image, config.assume_mni)
    tr = repetition_time(image, scan.sidecar, fix=config.fix_tr, stated=scan.tr or config.tr)
    motion = motion_of(scan, num_frames)
    columns = read_columns(scan.confounds, num_frames) if scan.confounds else {}
    first = first_steady_frame(columns, num_frames, config)
    image = replace(image, stored=image.stored[first:])
    moved = still_enough(motion, config, first=first)

    own = grid_of(image, space)
    target = target_grid(config) or own
    mask = brain_mask(
        recording.mask,
        image,
        own=own,
        target=target,
        common=common_mask(config),
        min_extent=config.min_extent,
        max_bytes=max_bytes,
        assume_mni=config.assume_mni,
        beside_source=recording.mask_source,
    )
    mask_index = np.flatnonzero(mask.voxels).astype(np.int32)
    if own.is_same(target):
        values, resampled = _scanner_units(image, image.order[mask_index]), None
    else:
        templates = need_same_template(own, target, config.assume_mni)
        values = resample_frames(image, own, target, mask_index)
        resampled = {**own.record, "to": target.name, "templates": templates, "interpolation": "linear"}
        space = f"{space}, resampled to {target.name} (linear)"

    broken = ~np.isfinite(values).all(axis=0)
    if broken.mean() > config.max_nan or broken.all():
        raise ScanRefused(
            "E_NAN",
            f"{broken.sum()} of {broken.size} mask voxels ({broken.mean():.2%}) hold NaN or infinite values, "
            f"the limit is {config.max_nan:.2%}",
            "check the step that made the scan, or raise --max_nan",
        )
    values[:, broken] = 0
    changing = changing_frames(values, broken, config)
    values, pieces, changes = _transform(
        values, changing, {k: c[first:] for k, c in columns.items()}, tr, scan, config
    )
    held = HOLDERS[config.dtype](values.shape)
    as_it_is = recording.standardised and config.normalisation == "global" and is_standard(values)
    frames, mean, sd, moments = normalise(values, config.normalisation, into=held, as_it_is=as_it_is)
    if config.background == "zero":
        moments["background"] = 0.0
    _need_signal(sd, config.min_coverage)
    metadata = {
        "frames": len(frames),
        "voxels": len(mask_index),
        "grid": list(target.shape),
        "affine": target.affine.tolist(),
        "space": space,
        "orientation": image.orientation,
        "resampled": resampled,
        "tr": tr,
        **changes,
        "normalisation": config.normalisation,
        "normalised_by": "its maker" if as_it_is else OURS[recording.standardised],
        **moments,
        **held.record,
        "mask": mask.source,
        "mask_sha256": mask.digest,
        "constant_voxels": int((sd == 0).sum() - broken.sum()),
        "nan_voxels": int(broken.sum()),
        "dummy_frames": first,
        "dropped_frames": [*range(first), *(np.flatnonzero(~changing) + first).tolist()],
        "segments": pieces,
        **moved,
        **recording.notes,
        "source_sha256": image.sha256,
        "source_checksum": image.checksum,
    }
    return Series(
        frames=frames, scaling=held.scaling, mask_index=mask_index, mean=mean, sd=sd, metadata=metadata
    )


def _transform(
    values: Float32[np.ndarray, "T V"],
    changing: Bool[np.ndarray, " T"],
    columns: dict[str, Float64[np.ndarray, " T"]],
    tr: float,
    scan: Scan,
    config: PrepareFMRI,
) -> tuple[Float32[np.ndarray, "N V"], list[list[int]], dict[str, Any]]:
    """Drop, clean and retime frames as asked; returns them, their segments and what was done."""
    kept = values if changing.all() else values[changing]
    pieces = segments(np.flatnonzero(changing))
    dead = (kept == kept[0]).all(axis=0)
    still = kept[0, dead]
    done: dict[str, Any] = {"cleaned": None, "retimed": None}
    if config.clean.anything:
        names, regressors = regressors_of(columns, config.clean.confounds, scan.confounds)
        kept = clean(values, changing, regressors, tr, config.clean)
        done["cleaned"] = {**to_plain(config.clean), "confounds": names, "mean_kept": True}
    if config.target_tr is not None and abs(config.target_tr - tr) > SAME_TR:
        kept, pieces = retime(kept, pieces, tr, config.target_tr)
        done |= {"retimed": {"from_tr": tr, "method": METHOD}, "tr": config.target_tr}
        need_frames(len(kept), config.min_frames, f"at {config.target_tr:g} s it has")
    if any(done.values()):
        kept[:, dead] = still  # rounding must not make signal of what has none
    return kept, pieces, done


def normalise(
    values: Float32[np.ndarray, "T V"], how: str, *, into: Frames | None = None, as_it_is: bool = False
) -> tuple[
    Float16[np.ndarray, "T V"] | Int8[np.ndarray, "T V"],
    Float32[np.ndarray, " V"],
    Float32[np.ndarray, " V"],
    dict[str, float],
]:
    """Standardise ``global`` (over the whole scan) or per ``voxel`` over time; voxels without signal become 0.

    Voxels without signal are left out of the global mean and deviation. With ``as_it_is``, ``global`` takes out
    neither: the values have been standardised before.

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
    if as_it_is:
        centre, spread = 0.0, 1.0
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


def _scanner_units(image: Nifti, where: Int32[np.ndarray, " V"]) -> Float32[np.ndarray, "T V"]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is counted as such
        if image.stored.flags.c_contiguous:
            values = image.stored.take(where, axis=1).astype(np.float32)
        else:  # a tensor that lies voxel by voxel: turned block by block, ten times faster than frame by frame
            values = np.empty((len(image.stored), len(where)), np.float32)
            for block in _blocks(len(where)):
                values[:, block] = image.stored.T[where[block]].T
        values *= np.float32(image.slope)
        values += np.float32(image.intercept)
    return values


def _need_signal(sd: Float32[np.ndarray, " V"], wanted: float) -> None:
    share = float((sd > 0).mean())
    if share == 0 and wanted > 0:
        raise ScanRefused(
            "E_CONSTANT",
            "no mask voxel changes over time",
            "check the scan: it is no time series; --min_coverage=0 keeps its mean image, with frames of 0",
        )
    if share < wanted:
        raise ScanRefused(
            "E_COVERAGE",
            f"only {share:.1%} of its {sd.size} mask voxels vary over time, at least {wanted:.0%} are wanted",
            "check that mask and scan fit (a cut field of view?), or lower --min_coverage",
        )
