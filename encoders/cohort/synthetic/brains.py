"""The brain of a synthetic cohort: an MNI grid, a mask of two hemispheres, twelve smooth bilateral networks.

X, Y, Z grid · V in-mask voxels, in the order in which a NIfTI file stores them (x fastest) · 12 networks.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float32, Float64

BOX_MM = (144.0, 176.0, 144.0)  # extent of the grid
CENTRE_MM = (0.0, -16.0, 8.0)  # its middle, MNI152 coordinates
RADII_MM = (66.0, 83.0, 66.0)  # of the ellipsoid that stands for the brain
FLAT_BELOW_MM = -50.0
BLOB_MM = 16.0  # standard deviation of a network's blob

# name -> centre in the right hemisphere, MNI mm; the left one mirrors it
CENTRES = {
    "visual": (12.0, -86.0, 4.0),
    "dorsal_attention": (28.0, -56.0, 52.0),
    "motor": (40.0, -22.0, 54.0),
    "auditory": (52.0, -22.0, 6.0),
    "salience": (38.0, 18.0, 0.0),
    "frontoparietal": (36.0, 36.0, 30.0),
    "default_anterior": (8.0, 54.0, 14.0),
    "default_posterior": (8.0, -54.0, 28.0),
    "limbic": (40.0, 2.0, -36.0),
    "ventral_visual": (34.0, -56.0, -20.0),
    "supplementary_motor": (8.0, 0.0, 62.0),
    "striatum": (14.0, 4.0, -2.0),
}


@dataclass(frozen=True, kw_only=True)
class Brain:
    """Geometry shared by everyone.

    Args:
        shape: Voxels along X, Y, Z.
        affine: (4, 4) voxel indices to MNI mm; RAS+.
        mask: (Z, Y, X) in-brain voxels, so that C order is the order of a NIfTI file.
        maps: (12, V) network maps with peak 1, in the order of `CENTRES`.
        anatomy: (V,) time-averaged image, standardised over voxels.
        slopes: (3, V) gradients along which the averages of people differ, standardised.
        reader: (V, 12) what turns a demeaned scan into the time courses of the networks: the pseudo-inverse of
            the maps and a constant map, so that the global signal is regressed out.
    """

    shape: tuple[int, int, int]
    affine: Float64[np.ndarray, "4 4"]
    mask: Bool[np.ndarray, "Z Y X"]
    maps: Float32[np.ndarray, "12 V"]
    anatomy: Float32[np.ndarray, " V"]
    slopes: Float32[np.ndarray, "3 V"]
    reader: Float32[np.ndarray, "V 12"]


@lru_cache(maxsize=4)
def make_brain(voxel_mm: float) -> Brain:
    """The brain at one resolution; at 8 mm 18 x 22 x 18 voxels, about 3,000 of them in the mask."""
    shape = tuple(round(extent / voxel_mm) for extent in BOX_MM)
    axes = [
        middle + voxel_mm * (np.arange(count) - (count - 1) / 2)
        for middle, count in zip(CENTRE_MM, shape, strict=True)
    ]
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = [axis[0] for axis in axes]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    distance = sum(
        ((here - middle) / radius) ** 2
        for here, middle, radius in zip((x, y, z), CENTRE_MM, RADII_MM, strict=True)
    )
    fissure = (np.abs(x) < 5) & (z > 36) & (np.abs(y - CENTRE_MM[1]) > 40)
    mask = (distance <= 1) & (z >= FLAT_BELOW_MM) & ~fissure
    where = np.stack([x[mask], y[mask], z[mask]], axis=1)
    maps = np.stack([_bilateral_blob(where, np.array(centre)) for centre in CENTRES.values()])
    layers = np.concatenate([maps, np.ones((1, maps.shape[1]))])
    folds = np.cos(where[:, 0] / 17) * np.cos(where[:, 1] / 19) * np.cos(where[:, 2] / 13)
    return Brain(
        shape=(shape[0], shape[1], shape[2]),
        affine=affine,
        mask=mask,
        maps=maps.astype(np.float32),
        anatomy=_standard(folds - 1.5 * distance[mask]).astype(np.float32),
        slopes=_standard(where).T.astype(np.float32),
        reader=np.linalg.pinv(layers)[:, :-1].astype(np.float32),
    )


def _bilateral_blob(where: np.ndarray, centre: np.ndarray) -> np.ndarray:
    blobs = [np.exp(-(((where - centre * [side, 1, 1]) / BLOB_MM) ** 2).sum(axis=1) / 2) for side in (1, -1)]
    total = blobs[0] + blobs[1]
    return total / total.max()


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / values.std(axis=0)
