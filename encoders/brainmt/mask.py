"""The brain mask of a scan: the one beside it, or computed from the time-averaged image.

X, Y, Z grid in RAS order.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from encoders.brainmt.nifti import Nifti, read_nifti
from encoders.brainmt.quarantine import ScanRefused

SAME_GRID = 1e-2  # mm


def brain_mask(
    path: Path | None, image: Nifti, *, min_extent: float, max_bytes: int
) -> tuple[Bool[np.ndarray, "X Y Z"], str]:
    """The mask of a scan and where it comes from, `file` or `computed`.

    Args:
        path: Mask beside the scan, if there is one.
        image: The scan.
        min_extent: Smallest extent along each axis in mm.
        max_bytes: Largest decompressed size of the mask file in bytes.

    Raises:
        ScanRefused: the mask file is damaged or on another grid, or the mask does not reach across a head.
    """
    if path is None:
        mask, source = compute_mask(_average(image)), "computed"
    else:
        mask, source = _read_mask(path, image, max_bytes), "file"
    edges = np.linalg.norm(image.affine[:3, :3], axis=0)
    reach = []
    for axis in range(3):
        there = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        reach.append((there[-1] - there[0] + 1) * edges[axis] if len(there) else 0.0)
    if not mask.any() or min(reach) < min_extent:
        raise ScanRefused(
            "E_COVERAGE",
            f"its brain mask ({mask.sum()} voxels, {source}) reaches over "
            f"{' x '.join(f'{length:.0f}' for length in reach)} mm, at least {min_extent:g} mm along each axis "
            f"are wanted",
            "drop the scan (a slab?), put a right mask beside it, or lower --min_extent",
        )
    return mask, source


def compute_mask(average: Float[np.ndarray, "X Y Z"]) -> Bool[np.ndarray, "X Y Z"]:
    """The brain in a time-averaged image: Otsu's threshold, largest connected part, holes filled.

    Where a tenth or more of the image is exactly 0, the brain was cut out before and what is not 0 is the mask.
    """
    from scipy import ndimage

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


def _average(image: Nifti) -> Float[np.ndarray, "X Y Z"]:
    """Mean over time in scanner units; what is not finite is left out, and 0 where nothing is finite."""
    finite = np.isfinite(image.stored)
    with np.errstate(invalid="ignore"):
        if finite.all():
            average = image.stored.mean(axis=0, dtype=np.float64)
        else:
            total = np.where(finite, image.stored, 0).sum(axis=0, dtype=np.float64)
            average = total / finite.sum(axis=0)
    average = np.nan_to_num(average[image.order] * image.slope + image.intercept)
    if average.max() == average.min():
        raise ScanRefused(
            "E_CONSTANT", f"it holds {average.max():g} everywhere", "check the export of the scan"
        )
    return average.reshape(image.grid)


def _read_mask(path: Path, image: Nifti, max_bytes: int) -> Bool[np.ndarray, "X Y Z"]:
    try:
        mask = read_nifti(path, max_bytes=max_bytes)
    except ScanRefused as cause:
        raise ScanRefused(cause.code, f"its brain mask {path.name}: {cause.sentence}", cause.fix) from cause
    if mask.grid != image.grid or not np.allclose(mask.affine, image.affine, atol=SAME_GRID):
        raise ScanRefused(
            "E_SPACE",
            f"its brain mask {path.name} lies on another grid ({mask.grid} voxels, the scan {image.grid})",
            "put the mask of this very scan beside it, or remove it to have one computed",
        )
    return (mask.stored[0][mask.order] * mask.slope + mask.intercept > 0.5).reshape(mask.grid)
