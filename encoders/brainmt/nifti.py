"""Read one gzipped NIfTI file in one pass, believing nothing: checksum, size, type, orientation.

T frames · N voxels of the grid · X, Y, Z grid in RAS order (x to the right, y to the front, z up).

nibabel reads lazily and does not check the gzip CRC: one flipped bit in a real scan loaded silently wrong in
51 of 60 trials. Here the stream is drained to its end, and hashed on the way.
"""

import hashlib
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float64, Int, Shaped
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt2axcodes
from nibabel.spatialimages import HeaderDataError

from encoders.brainmt.quarantine import ScanRefused

GZIP = b"\x1f\x8b"
PIECE = 2**16  # bytes of compressed data taken at once
HEADER_BYTES = 540  # NIfTI-2; NIfTI-1 has 348
SLACK = 2**20  # bytes allowed after the voxels a header declares
COPY_AGAIN = "copy or download it again"
# NIfTI datatype codes that hold one real number per voxel; int64 is not among them: nibabel only casts it
NUMBERS = {256: "i1", 2: "u1", 4: "i2", 512: "u2", 8: "i4", 768: "u4", 16: "f4", 64: "f8"}
TIME_UNITS = {0: ("unknown unit", 1.0), 8: ("s", 1.0), 16: ("ms", 1e-3), 24: ("us", 1e-6)}
MNI = 4  # NIFTI_XFORM_MNI_152


@dataclass(frozen=True, kw_only=True)
class Nifti:
    """A decoded file.

    Args:
        stored: (T, N) samples as stored, voxels in the order of the file (first axis fastest).
        order: (X * Y * Z,) where each voxel of the RAS grid (C order) lies in the file's order.
        grid: Voxels along X, Y, Z.
        affine: (4, 4) RAS voxel indices to mm.
        orientation: Axis codes the file was stored in, such as ``LAS``.
        space_code: NIfTI code of the affine that was used (4 is MNI).
        slope: Scanner units per stored sample.
        intercept: Scanner units of a stored zero.
        tr: Repetition time of the header in s, after its own unit; 0 or NaN as found.
        tr_stated: The same as the header states it, such as ``735 ms``.
        sha256: Of the compressed file.
    """

    stored: Shaped[np.ndarray, "T N"]
    order: Int[np.ndarray, " N"]
    grid: tuple[int, int, int]
    affine: Float64[np.ndarray, "4 4"]
    orientation: str
    space_code: int
    slope: float
    intercept: float
    tr: float
    tr_stated: str
    sha256: str


def read_nifti(path: Path, *, max_bytes: int) -> Nifti:
    """Read and check one `.nii.gz` file.

    Args:
        path: The file.
        max_bytes: Largest decompressed size in bytes that its header may declare.

    Raises:
        ScanRefused: E_READ, E_NOT_NIFTI, E_SIZE, E_TRUNCATED, E_CRC, E_DTYPE, E_FRAMES (not a series of
            volumes) or E_AFFINE.
    """
    try:
        with open(path, "rb") as file:
            header, content, digest = _drain(file, max_bytes)
    except OSError as cause:
        raise ScanRefused(
            "E_READ", f"it cannot be read ({cause.strerror})", "check the file and its permissions"
        ) from cause
    dtype = _dtype(header)
    grid, frames = _shape(header)
    slope, intercept = _scaling(header)
    affine, code = _affine(header)
    stored_to_ras = io_orientation(affine)
    here = np.arange(np.prod(grid), dtype=np.int32).reshape(grid, order="F")
    order = np.ascontiguousarray(apply_orientation(here, stored_to_ras))
    unit, seconds = TIME_UNITS.get(int(header["xyzt_units"]) & 0x38, ("unknown unit", 1.0))
    tr = float(header["pixdim"][4])
    return Nifti(
        stored=np.frombuffer(content, dtype, int(np.prod(grid)) * frames).reshape(frames, -1),
        order=order.reshape(-1),
        grid=(order.shape[0], order.shape[1], order.shape[2]),
        affine=affine @ inv_ornt_aff(stored_to_ras, grid) + 0.0,  # + 0.0 turns -0.0 into 0.0
        orientation="".join(str(axis) for axis in ornt2axcodes(stored_to_ras)),
        space_code=code,
        slope=slope,
        intercept=intercept,
        tr=tr * seconds,
        tr_stated=f"{tr:g} {unit}",
        sha256=digest,
    )


def _drain(file: BufferedReader, max_bytes: int) -> tuple[nib.Nifti1Header, np.ndarray, str]:
    """Decompress to the end of the stream; returns header, voxel bytes, sha256 of the compressed file."""
    piece = file.read(PIECE)
    if not piece.startswith(GZIP):
        raise ScanRefused("E_NOT_NIFTI", _what_is(piece), COPY_AGAIN)
    total = hashlib.sha256(piece)
    try:
        header = _header(zlib.decompressobj(wbits=31).decompress(piece, HEADER_BYTES), len(piece) < PIECE)
        declared = _declared_bytes(header)
        if declared > max_bytes:
            raise ScanRefused(
                "E_SIZE",
                f"its header declares {declared / 2**30:.1f} GiB of voxels, the limit is {max_bytes / 2**30:.1f} GiB",
                "check the file; if it is right, raise --max_gib",
            )
        content, filled = np.empty(declared, np.uint8), 0  # takes no memory before it is filled
        stream = zlib.decompressobj(wbits=31)
        while piece:
            while piece.lstrip(b"\0") if stream.eof else piece:  # zeros may pad the end of a stream
                if stream.eof:
                    stream = zlib.decompressobj(wbits=31)  # pigz and bgzip write several streams in a row
                part = np.frombuffer(stream.decompress(piece, declared + SLACK - filled), np.uint8)
                content[filled : filled + len(part)] = part[: max(declared - filled, 0)]
                filled += len(part)
                if filled == declared + SLACK:
                    raise ScanRefused(
                        "E_SIZE", f"it holds more than the {declared} bytes its header declares", COPY_AGAIN
                    )
                piece = stream.unused_data if stream.eof else stream.unconsumed_tail
            piece = file.read(PIECE)
            total.update(piece)
    except zlib.error as cause:
        raise ScanRefused("E_CRC", f"its compressed data is damaged ({cause})", COPY_AGAIN) from cause
    if not stream.eof or filled < declared:
        raise ScanRefused(
            "E_TRUNCATED", f"it ends after {filled} of {declared} decompressed bytes", COPY_AGAIN
        )
    return header, content[int(header["vox_offset"]) :], total.hexdigest()


def _what_is(start: bytes) -> str:
    if not start:
        return "the file is empty"
    if start.lstrip()[:1] == b"<":
        return "it is a web page or XML, not a gzipped NIfTI file"
    return f"it starts with {start[:4].hex()}, not with the mark of a gzip file (1f8b)"


def _header(start: bytes, at_end: bool) -> nib.Nifti1Header:
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


def _declared_bytes(header: nib.Nifti1Header) -> int:
    """Bytes up to the last voxel, from the header alone; Python integers cannot overflow."""
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


def _dtype(header: nib.Nifti1Header) -> np.dtype:
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


def _shape(header: nib.Nifti1Header) -> tuple[tuple[int, int, int], int]:
    num_axes, *axes = (int(n) for n in header["dim"])
    axes = [*axes[:num_axes], 1, 1, 1]
    if any(n > 1 for n in axes[4:]):
        raise ScanRefused(
            "E_FRAMES",
            f"it has {num_axes} axes {tuple(axes[:num_axes])}, four were wanted (x, y, z, time)",
            "split it into one file per run",
        )
    return (axes[0], axes[1], axes[2]), axes[3]


def _scaling(header: nib.Nifti1Header) -> tuple[float, float]:
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as cause:
        raise ScanRefused("E_NOT_NIFTI", f"its scaling is impossible ({cause})", COPY_AGAIN) from cause
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


def _affine(header: nib.Nifti1Header) -> tuple[np.ndarray, int]:
    """The sform if it has a code, else the qform; never an invented one."""
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
