"""Read one NIfTI file in one pass, believing nothing: checksum, size, type, orientation.

T frames · N voxels of the grid · X, Y, Z grid in RAS order (x to the right, y to the front, z up).
"""

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from jaxtyping import Float64, Int, Shaped
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt2axcodes

from encoders.brainmt.preparation.archive import File, open_file
from encoders.brainmt.preparation.nifti_header import grid_and_frames, place_in_space, scaling, voxel_type
from encoders.brainmt.preparation.nifti_stream import UNCHECKED, read_content
from encoders.brainmt.preparation.quarantine import ScanRefused

TIME_UNITS = {0: ("unknown unit", 1.0), 8: ("s", 1.0), 16: ("ms", 1e-3), 24: ("us", 1e-6)}
MNI = 4  # NIFTI_XFORM_MNI_152


@dataclass(frozen=True, kw_only=True)
class Nifti:
    """A decoded file.

    Args:
        stored: (T, N) samples as stored, voxels in the order of the file (first axis fastest).
        order: (X * Y * Z,) where each voxel of the RAS grid (C order) lies in the file's order; several may share one
            column, as all voxels outside a warped scan do.
        grid: Voxels along X, Y, Z.
        affine: (4, 4) RAS voxel indices to mm.
        orientation: Axis codes the file was stored in, such as ``LAS``.
        space_code: NIfTI code of the affine that was used (4 is MNI).
        slope: Scanner units per stored sample.
        intercept: Scanner units of a stored zero.
        tr: Repetition time of the header in s, after its own unit; 0 or NaN as found.
        tr_stated: The same as the header states it, such as ``735 ms``.
        sha256: Of the file as it lies on disk.
        checksum: What vouches for the bytes, ``gzip CRC`` or ``none (not compressed)``.
    """

    stored: Shaped[np.ndarray, "T N"]
    order: Int[np.ndarray, " voxels"]
    grid: tuple[int, int, int]
    affine: Float64[np.ndarray, "4 4"]
    orientation: str
    space_code: int
    slope: float
    intercept: float
    tr: float
    tr_stated: str
    sha256: str
    checksum: str = UNCHECKED


def read_nifti(path: File, *, max_bytes: int) -> Nifti:
    """Read and check one `.nii.gz` or `.nii` file.

    Args:
        path: The file, or the member of a zip archive.
        max_bytes: Largest decompressed size in bytes that its header may declare.

    Raises:
        ScanRefused: E_READ, E_NOT_NIFTI, E_SIZE, E_TRUNCATED, E_CRC, E_DTYPE, E_FRAMES (not a series of
            volumes) or E_AFFINE.
    """
    try:
        with open_file(path) as file:
            return decode_nifti(file, path.name, max_bytes=max_bytes)
    except OSError as cause:
        raise ScanRefused(
            "E_READ", f"it cannot be read ({cause.strerror})", "check the file and its permissions"
        ) from cause


def decode_nifti(file: BinaryIO, name: str, *, max_bytes: int) -> Nifti:
    """As :func:`read_nifti`, from a file that is open at its start."""
    content = read_content(file, name, max_bytes=max_bytes)
    header = content.header
    dtype = voxel_type(header)
    grid, frames = grid_and_frames(header)
    slope, intercept = scaling(header)
    affine, code = place_in_space(header)
    stored_to_ras = io_orientation(affine)
    here = np.arange(np.prod(grid), dtype=np.int32).reshape(grid, order="F")
    order = np.ascontiguousarray(apply_orientation(here, stored_to_ras))
    unit, seconds = TIME_UNITS.get(int(header["xyzt_units"]) & 0x38, ("unknown unit", 1.0))
    tr = float(header["pixdim"][4])
    return Nifti(
        stored=np.frombuffer(content.voxels, dtype, int(np.prod(grid)) * frames).reshape(frames, -1),
        order=order.reshape(-1),
        grid=(order.shape[0], order.shape[1], order.shape[2]),
        affine=_rounded(affine @ inv_ornt_aff(stored_to_ras, grid)),
        orientation="".join(str(axis) for axis in ornt2axcodes(stored_to_ras)),
        space_code=code,
        slope=slope,
        intercept=intercept,
        tr=tr * seconds,
        tr_stated=f"{tr:g} {unit}",
        sha256=content.sha256,
        checksum=content.checksum,
    )


def _rounded(affine: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
    """To what a header of single precision can say in each of the 48 orientations: 1e-5 mm a voxel, origin 1e-3 mm."""
    return np.hstack([affine[:, :3].round(5), affine[:, 3:].round(3)]) + 0.0  # + 0.0 turns -0.0 into 0.0
