"""From one MNI grid to another, linearly for signals and by the nearest voxel for masks; nothing is warped.

T frames · V voxels of the mask on the new grid · X, Y, Z grid in RAS order.
"""

import numpy as np
from jaxtyping import Bool, Float32, Int32

from encoders.brainmt.nifti import Nifti
from encoders.brainmt.references import Grid


def resample_mask(mask: Bool[np.ndarray, "X Y Z"], old: Grid, new: Grid) -> Bool[np.ndarray, "x y z"]:
    """The mask on the new grid; what lies outside the old one is no brain."""
    return _resampled(mask.astype(np.uint8), old, new, "nearest") > 0


def resample_frames(
    image: Nifti, old: Grid, new: Grid, where: Int32[np.ndarray, " V"]
) -> Float32[np.ndarray, "T V"]:
    """Voxels ``where`` of the new grid in scanner units, one frame in memory at a time.

    A voxel that touches a NaN or infinite one is NaN; one outside the old grid is 0 throughout.
    """
    values = np.empty((len(image.stored), len(where)), np.float32)
    for frame, stored in zip(values, image.stored, strict=True):
        with np.errstate(over="ignore"):
            volume = stored[image.order].astype(np.float32)
            volume *= np.float32(image.slope)
            volume += np.float32(image.intercept)
        finite = np.isfinite(volume)
        broken = None if finite.all() else ~finite
        if broken is not None:
            volume[broken] = 0  # nilearn would guess them from their neighbours
        frame[:] = _resampled(volume.reshape(old.shape), old, new, "linear").reshape(-1)[where]
        if broken is not None:
            touched = _resampled(broken.astype(np.float32).reshape(old.shape), old, new, "linear")
            frame[touched.reshape(-1)[where] > 0] = np.nan
    return values


def _resampled(volume: np.ndarray, old: Grid, new: Grid, interpolation: str) -> np.ndarray:
    import warnings

    import nibabel as nib
    from nilearn.image import resample_img

    image = nib.Nifti1Image(volume, old.affine)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Resampling binary images")  # where a voxel is broken
        done = resample_img(
            image,
            target_affine=new.affine,
            target_shape=new.shape,
            interpolation=interpolation,
            copy=False,
            clip=False,
            order="C",
        )
    return np.ascontiguousarray(done.dataobj)
