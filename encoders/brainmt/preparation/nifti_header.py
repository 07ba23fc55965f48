"""The header of a NIfTI file: what it declares, checked before a voxel is looked at."""

import nibabel as nib
import numpy as np
from jaxtyping import Float64
from nibabel.spatialimages import HeaderDataError

from encoders.brainmt.preparation.quarantine import ScanRefused

HEADER_BYTES = 540  # NIfTI-2; NIfTI-1 has 348
COPY_AGAIN = "copy or download it again"
# NIfTI datatype codes that hold one real number per voxel; int64 is not among them: nibabel only casts it
NUMBERS = {256: "i1", 2: "u1", 4: "i2", 512: "u2", 8: "i4", 768: "u4", 16: "f4", 64: "f8"}


def parse_header(start: bytes, at_end: bool) -> nib.Nifti1Header:
    """The header in the first bytes of the decompressed content; ``at_end`` if that is all there is.

    Raises:
        ScanRefused: E_NOT_NIFTI, or E_TRUNCATED within the header.
    """
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        size = kind.sizeof_hdr
        if len(start) >= size and size in (
            int.from_bytes(start[:4], "little"),
            int.from_bytes(start[:4], "big"),
        ):
            header = kind(start[:size], check=False)
            if header["magic"].item().startswith(b"n+"):
                return header
    if at_end and len(start) < nib.Nifti1Header.sizeof_hdr:
        raise ScanRefused(
            "E_TRUNCATED", f"it ends after {len(start)} bytes, before the end of the header", COPY_AGAIN
        )
    raise ScanRefused(
        "E_NOT_NIFTI", "its decompressed content has no NIfTI header of a single file", COPY_AGAIN
    )


def declared_bytes(header: nib.Nifti1Header) -> int:
    """Bytes up to the last voxel, from the header alone; Python integers cannot overflow.

    Raises:
        ScanRefused: E_NOT_NIFTI; the header is impossible.
    """
    num_axes, *axes = (int(n) for n in header["dim"])
    offset, bits = float(header["vox_offset"]), int(header["bitpix"])
    if not 1 <= num_axes <= 7 or any(n < 1 for n in axes[:num_axes]) or bits < 1 or not 348 <= offset < 2**31:
        raise ScanRefused(
            "E_NOT_NIFTI",
            f"its header is impossible (axes {axes[: max(num_axes, 0)]}, {bits} bits per voxel, data at {offset:g})",
            COPY_AGAIN,
        )
    voxels = 1
    for axis in axes[:num_axes]:
        voxels *= axis
    return int(offset) + (voxels * bits + 7) // 8


def voxel_type(header: nib.Nifti1Header) -> np.dtype:
    """Type of one stored voxel, in the byte order of the file.

    Raises:
        ScanRefused: E_DTYPE; a voxel is not one real number.
    """
    code = int(header["datatype"])
    if code not in NUMBERS or np.dtype(NUMBERS[code]).itemsize * 8 != int(header["bitpix"]):
        label = nib.nifti1.data_type_codes.label
        found = label[code] if code in label.keys() else "unknown"  # noqa: SIM118 (a Recoder is no dict)
        raise ScanRefused(
            "E_DTYPE",
            f"its voxels are of type {found} (code {code}, {int(header['bitpix'])} bits), real numbers of up to "
            f"64 bits (float, or integer of up to 32) were wanted",
            "convert it to float32, for complex data its magnitude",
        )
    return np.dtype(NUMBERS[code]).newbyteorder(header.endianness)


def grid_and_frames(header: nib.Nifti1Header) -> tuple[tuple[int, int, int], int]:
    """Voxels along the three axes as stored, and the number of frames.

    Raises:
        ScanRefused: E_FRAMES; it is not a series of volumes.
    """
    num_axes, *axes = (int(n) for n in header["dim"])
    axes = [*axes[:num_axes], 1, 1, 1]
    if any(n > 1 for n in axes[4:]):
        raise ScanRefused(
            "E_FRAMES",
            f"it has {num_axes} axes {tuple(axes[:num_axes])}, four were wanted (x, y, z, time)",
            "split it into one file per run",
        )
    return (axes[0], axes[1], axes[2]), axes[3]


def scaling(header: nib.Nifti1Header) -> tuple[float, float]:
    """Scanner units per stored sample, and those of a stored zero.

    Raises:
        ScanRefused: E_NOT_NIFTI; they are not finite.
    """
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as cause:
        raise ScanRefused("E_NOT_NIFTI", f"its scaling is impossible ({cause})", COPY_AGAIN) from cause
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


def place_in_space(header: nib.Nifti1Header) -> tuple[Float64[np.ndarray, "4 4"], int]:
    """The sform if it has a code, else the qform, and the code; never an invented affine.

    Raises:
        ScanRefused: E_AFFINE.
    """
    fix = "export it again with a valid sform or qform"
    try:
        qform, qcode = header.get_qform(coded=True)
    except (ValueError, HeaderDataError) as cause:
        raise ScanRefused("E_AFFINE", f"its qform is impossible ({cause})", fix) from cause
    sform, scode = header.get_sform(coded=True)
    if scode <= 0 and qcode <= 0:
        raise ScanRefused(
            "E_AFFINE", "sform and qform code are 0: nothing says where left and right are", fix
        )
    affine, code = (sform, scode) if scode > 0 else (qform, qcode)
    affine = np.asarray(affine, np.float64)
    edges = affine[:3, :3]
    volume = np.linalg.det(edges) if np.isfinite(affine).all() else 0.0
    if not abs(volume) > 1e-3 * np.prod(np.linalg.norm(edges, axis=0)):  # also where it is NaN
        raise ScanRefused("E_AFFINE", "its affine is singular or not finite", fix)
    if scode > 0 and qcode > 0 and np.linalg.det(qform[:3, :3]) * volume < 0:
        raise ScanRefused("E_AFFINE", "its sform and qform disagree on which side is left", fix)
    return affine, int(code)
