"""The brain mask of a scan: the user's for everyone, else the one beside the scan, else computed from its mean.

X, Y, Z grid in RAS order.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from encoders.brainmt.preparation.archive import File
from encoders.brainmt.preparation.nifti import Nifti, read_nifti
from encoders.brainmt.preparation.quarantine import ScanRefused
from encoders.brainmt.preparation.references import CommonMask, Grid, mask_voxels, need_same_template
from encoders.brainmt.preparation.resample import resample_mask


@dataclass(frozen=True, kw_only=True)
class BrainMask:
    """The mask of a scan.

    Args:
        voxels: Which voxels are brain.
        source: `given` (by the user), `file` (beside the scan), `recovered` (from the background of a tensor) or
            `computed`, and whether it was warped or resampled.
        digest: sha256 of grid and voxels: runs with the same digest have the same columns.
    """

    voxels: Bool[np.ndarray, "X Y Z"]
    source: str
    digest: str


def brain_mask(
    beside: File | Nifti | None,
    image: Nifti,
    *,
    own: Grid,
    target: Grid,
    common: CommonMask | None,
    min_extent: float,
    max_bytes: int,
    assume_mni: bool = False,
    beside_source: str = "file",
) -> BrainMask:
    """The mask of a scan on the grid it is brought to.

    Args:
        beside: Mask beside the scan, if there is one; a file, or read already.
        image: The scan.
        own: Grid of the scan.
        target: Grid it is brought to.
        common: Mask that the user gives for everyone.
        min_extent: Smallest extent along each axis in mm.
        max_bytes: Largest decompressed size of the mask file in bytes.
        assume_mni: Take all MNI templates for one.
        beside_source: What is recorded about ``beside``.

    Raises:
        ScanRefused: the mask file is damaged or on another grid, or the mask does not reach across a head.
    """
    if common is not None:
        voxels, lies_on, source = common.voxels, common.grid, "given"
        need_same_template(own, common.grid, assume_mni)
    elif beside is not None:
        voxels, lies_on, source = _read_mask(beside, image, own, max_bytes), own, beside_source
    else:
        voxels, lies_on, source = compute_mask(average_image(image)), own, "computed"
    if not lies_on.is_same(target):
        voxels, source = resample_mask(voxels, lies_on, target), f"{source}, resampled (nearest)"
    _need_extent(voxels, target, source, min_extent)
    return BrainMask(voxels=voxels, source=source, digest=_digest(voxels, target))


def _digest(voxels: Bool[np.ndarray, "X Y Z"], grid: Grid) -> str:
    total = hashlib.sha256(repr((grid.shape, grid.affine.round(2).tolist())).encode())
    total.update(np.packbits(voxels).tobytes())
    return total.hexdigest()


def _need_extent(voxels: Bool[np.ndarray, "X Y Z"], grid: Grid, source: str, min_extent: float) -> None:
    edges = np.linalg.norm(grid.affine[:3, :3], axis=0)
    reach = []
    for axis in range(3):
        there = np.flatnonzero(voxels.any(axis=tuple({0, 1, 2} - {axis})))
        reach.append((there[-1] - there[0] + 1) * edges[axis] if len(there) else 0.0)
    if not voxels.any() or min(reach) < min_extent:
        raise ScanRefused(
            "E_COVERAGE",
            f"its brain mask ({voxels.sum()} voxels, {source}) reaches over "
            f"{' x '.join(f'{length:.0f}' for length in reach)} mm, at least {min_extent:g} mm along each axis "
            f"are wanted",
            "drop the scan (a slab?), put a right mask beside it, or lower --min_extent",
        )


def compute_mask(average: Float[np.ndarray, "X Y Z"]) -> Bool[np.ndarray, "X Y Z"]:
    """The brain in a time-averaged image: Otsu's threshold, largest connected part, holes filled.

    Where a tenth or more of the image is exactly 0 or unknown, the brain was cut out before and what is left is the
    mask. NaN voxels that reach the edge of the image lie outside; what other ones hold is taken from the nearest known
    voxel, so that those of the brain stay in its mask and are counted.
    """
    from scipy import ndimage

    if np.isnan(average).any():
        average = _fill_unknown(average)
    if (average == 0).mean() >= 0.1:
        return average != 0
    counts, edges = np.histogram(average, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, moment = np.cumsum(counts)[:-1], np.cumsum(counts * centres)[:-1]
    above, total = average.size - below, (counts * centres).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * np.square(moment / below - (total - moment) / above)
    mask = average > edges[1:-1][np.nanargmax(between)]
    parts, _ = ndimage.label(mask)
    return ndimage.binary_fill_holes(parts == np.bincount(parts[mask]).argmax())


def _fill_unknown(average: Float[np.ndarray, "X Y Z"]) -> Float[np.ndarray, "X Y Z"]:
    """NaN voxels become what the nearest known one is; 0 those of a region that reaches the edge of the image."""
    from scipy import ndimage

    unknown = np.isnan(average)
    inner = unknown & ndimage.binary_fill_holes(~unknown)
    nearest = ndimage.distance_transform_edt(inner, return_distances=False, return_indices=True)
    return np.where(unknown & ~inner, 0, average)[tuple(nearest)]


def average_image(image: Nifti) -> Float[np.ndarray, "X Y Z"]:
    """Mean over time in scanner units; what is not finite is left out, and NaN where nothing is finite."""
    finite = np.isfinite(image.stored)
    with np.errstate(invalid="ignore", divide="ignore"):
        if finite.all():
            average = image.stored.mean(axis=0, dtype=np.float64)
        else:
            total = np.where(finite, image.stored, 0).sum(axis=0, dtype=np.float64)
            average = total / finite.sum(axis=0)
    average = average[image.order] * image.slope + image.intercept
    known = average[np.isfinite(average)]
    if not len(known):
        raise ScanRefused(
            "E_NAN", "it holds NaN or infinite values everywhere", "check the export of the scan"
        )
    if known.max() == known.min():
        raise ScanRefused(
            "E_CONSTANT", f"it holds {known.max():g} everywhere", "check the export of the scan"
        )
    return average.reshape(image.grid)


def read_mask(path: File, *, max_bytes: int) -> Nifti:
    """A mask file; a refusal says that it is about the mask."""
    try:
        return read_nifti(path, max_bytes=max_bytes)
    except ScanRefused as cause:
        raise ScanRefused(cause.code, f"its brain mask {path.name}: {cause.sentence}", cause.fix) from cause


def _read_mask(beside: File | Nifti, image: Nifti, own: Grid, max_bytes: int) -> Bool[np.ndarray, "X Y Z"]:
    mask = beside if isinstance(beside, Nifti) else read_mask(beside, max_bytes=max_bytes)
    if not Grid(shape=mask.grid, affine=mask.affine, template="", name="").is_same(own):
        raise ScanRefused(
            "E_SPACE",
            f"its brain mask {'' if isinstance(beside, Nifti) else beside.name + ' '}lies on another grid ({mask.grid} voxels, the scan {image.grid})",
            "put the mask of this very scan beside it, or remove it to have one computed",
        )
    return mask_voxels(mask)
