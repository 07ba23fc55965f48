"""A grid as a file stores it, in any of the 48 orientations, and the way from it to RAS.

X, Y, Z grid in RAS order · N voxels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt2axcodes,
)

from encoders.brainmt.preparation.discovery.scan import FSL_MNI
from encoders.brainmt.preparation.nifti import Nifti, read_nifti
from encoders.brainmt.preparation.quarantine import ScanRefused
from encoders.brainmt.preparation.references import EDGE, NAMED
from encoders.runs.errors import InputError


@dataclass(frozen=True, kw_only=True)
class StoredGrid:
    """Where the voxels of a file lie.

    Args:
        shape: Voxels along the three axes as stored.
        affine: (4, 4) stored voxel indices to mm.
        name: What it is called, for records.
        template: MNI template, empty if nothing says which.
    """

    shape: tuple[int, int, int]
    affine: Float64[np.ndarray, "4 4"]
    name: str
    template: str = ""

    @classmethod
    def of(cls, image: Nifti, name: str = "") -> "StoredGrid":
        """The grid in which a decoded file was stored."""
        to_ras = axcodes2ornt(tuple(image.orientation))
        shape = [0, 0, 0]
        for stored_axis, (ras_axis, _) in enumerate(to_ras):
            shape[stored_axis] = image.grid[int(ras_axis)]
        affine = image.affine @ np.linalg.inv(inv_ornt_aff(to_ras, shape))
        return cls(shape=(shape[0], shape[1], shape[2]), affine=affine, name=name)

    @property
    def orientation(self) -> str:
        """Axis codes such as ``LAS``."""
        return "".join(str(axis) for axis in ornt2axcodes(io_orientation(self.affine)))

    @property
    def ras_affine(self) -> Float64[np.ndarray, "4 4"]:
        """(4, 4) RAS voxel indices to mm."""
        return self.affine @ inv_ornt_aff(io_orientation(self.affine), self.shape) + 0.0

    def order(self, *, first_axis_fastest: bool) -> Int[np.ndarray, "X Y Z"]:
        """Where each voxel of the RAS grid lies in the flattened stored one."""
        here = np.arange(np.prod(self.shape), dtype=np.int32)
        here = here.reshape(self.shape, order="F" if first_axis_fastest else "C")
        return np.ascontiguousarray(apply_orientation(here, io_orientation(self.affine)))


def fsl_mni_2mm() -> StoredGrid:
    """The grid of FSL's MNI152_T1_2mm: 91 x 109 x 91 of 2 mm, x from right to left."""
    affine = np.diag([-EDGE, EDGE, EDGE, 1.0])
    affine[:3, 3] = (90, -126, -72)
    return StoredGrid(shape=(91, 109, 91), affine=affine, name="mni2mm_fsl", template=FSL_MNI)


def named_grid(text: str, *, max_bytes: int) -> StoredGrid:
    """The grid that the user names with `--affine`: a known name, or a NIfTI file on it.

    Raises:
        InputError: neither; the message lists the names.
    """
    if text == "mni2mm_fsl":
        return fsl_mni_2mm()
    if text in NAMED:
        template, shape, origin = NAMED[text]
        affine = np.diag([EDGE, EDGE, EDGE, 1.0])
        affine[:3, 3] = origin
        return StoredGrid(shape=shape, affine=affine, name=text, template=template)
    known = f"give {', '.join(['mni2mm_fsl', *NAMED])} or a NIfTI file on the same grid"
    if not Path(text).is_file():
        raise InputError(f"affine is {text!r}, which is neither a known grid nor a file; {known}")
    try:
        return StoredGrid.of(read_nifti(Path(text), max_bytes=max_bytes), name=Path(text).name)
    except ScanRefused as cause:
        raise InputError(f"the affine {text}: {cause.sentence}; {known}", code=cause.code) from cause
