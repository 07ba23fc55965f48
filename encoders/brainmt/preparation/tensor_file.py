"""The original BrainMT's `func_data_MNI_fp16.pt`, read without running anything that lies in it.

T frames · X, Y, Z as stored, N voxels.

One tensor [X, Y, Z, T] in half precision, standardised over the brain by its maker, without affine, repetition time or
mask: grid and time are stated by the user, the mask is recovered. The maker filled what was 0, the background, with
the minimum of the scan (or with 0): voxels that hold that one value in all frames.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from encoders.brainmt.preparation.archive import list_members
from encoders.brainmt.preparation.nifti import MNI, Nifti
from encoders.brainmt.preparation.quarantine import ScanRefused
from encoders.brainmt.preparation.stored_grid import StoredGrid
from encoders.runs.artifact import file_sha256

AGAIN = "copy it again, or make it again where it was made"
FEWEST = 0.1  # share of background voxels below which the field of view counts as brain throughout


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """A decoded tensor.

    Args:
        image: The scan.
        brain: (X, Y, Z) RAS, what is not background; None if there is no background to tell it from.
        background: Value that the maker put outside the brain; None if there is none.
    """

    image: Nifti
    brain: Bool[np.ndarray, "X Y Z"] | None
    background: float | None


def read_tensor(path: Path, grid: StoredGrid, *, tr: float, max_bytes: int) -> TensorFile:
    """Read one tensor.

    Args:
        path: The file.
        grid: Where its voxels lie, as the user states.
        tr: Repetition time in s, as the user states.
        max_bytes: Largest size of the tensor in bytes.

    Raises:
        ScanRefused: E_READ, E_PICKLE (it holds anything but a tensor; nothing of it is run), E_TRUNCATED, E_ARCHIVE,
            E_DTYPE, E_FRAMES, E_SIZE, E_AFFINE (it is not on the stated grid) or E_NAN.
    """
    try:
        tensor = _load(path, max_bytes)
        digest = file_sha256(path)
        size = path.stat().st_size
    except OSError as cause:
        raise ScanRefused(
            "E_READ", f"it cannot be read ({cause.strerror})", "check the file and its permissions"
        ) from cause
    _check(tensor, grid, size, max_bytes)
    by_voxel = tensor.reshape(-1, tensor.shape[-1])
    outside, background = _background(by_voxel)
    order = grid.order(first_axis_fastest=False)
    image = Nifti(
        stored=by_voxel.numpy().T,
        order=order.reshape(-1),
        grid=(order.shape[0], order.shape[1], order.shape[2]),
        affine=grid.ras_affine,
        orientation=grid.orientation,
        space_code=MNI,
        slope=1.0,
        intercept=0.0,
        tr=tr,
        tr_stated=f"{tr:g} s (by the user)",
        sha256=digest,
    )
    brain = None if outside is None else ~outside[order]
    return TensorFile(image=image, brain=brain, background=background)


def _load(path: Path, max_bytes: int) -> Any:
    import torch

    from encoders.brainmt.released_file import DAMAGE, FORBIDDEN

    zipped = zipfile.is_zipfile(path)
    if zipped:
        list_members(path, max_bytes=max_bytes)
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise ScanRefused("E_ARCHIVE", "it is compressed; torch.save does not do that", AGAIN)
                if (member := archive.testzip()) is not None:  # PyTorch itself does not look at the checksums
                    raise ScanRefused("E_CRC", f"{member} in it does not match its checksum", AGAIN)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except ScanRefused:
        raise
    except PermissionError:
        raise
    except DAMAGE as cause:
        if found := FORBIDDEN.search(str(cause)):
            raise ScanRefused(
                "E_PICKLE",
                f"it asks for {found[1] or found[2]}, which is no tensor; nothing of it was run",
                "find out who made it; a file of torch.save with one tensor [X, Y, Z, T] was wanted",
            ) from cause
        reason = str(cause).strip().splitlines()
        raise ScanRefused(
            "E_TRUNCATED",
            f"it is damaged or no file of torch.save ({reason[0].split('.')[0] if reason else type(cause).__name__}); "
            f"nothing of it was run",
            AGAIN,
        ) from cause


def _check(tensor: Any, grid: StoredGrid, size: int, max_bytes: int) -> None:
    import torch

    fix = "a file of torch.save with one half-precision tensor [X, Y, Z, T] was wanted"
    if not isinstance(tensor, torch.Tensor):
        raise ScanRefused("E_DTYPE", f"it holds no tensor but {type(tensor).__name__}", fix)
    strange = tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu"
    if strange or tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        raise ScanRefused("E_DTYPE", f"it holds {tensor.dtype} in layout {tensor.layout}", fix)
    if tensor.ndim != 4 or 0 in tensor.shape:
        raise ScanRefused(
            "E_FRAMES", f"its axes are {tuple(tensor.shape)}, four were wanted (x, y, z, time)", fix
        )
    declared = tensor.numel() * tensor.element_size()
    if declared > size:  # a view that repeats one number declares any size at no cost
        raise ScanRefused("E_SIZE", f"its tensor declares {declared} bytes, but the file has {size}", AGAIN)
    if declared > max_bytes:
        raise ScanRefused(
            "E_SIZE",
            f"its tensor has {declared / 2**30:.1f} GiB, the limit is {max_bytes / 2**30:.1f} GiB",
            "check the file; if it is right, raise --max_gib",
        )
    if tuple(tensor.shape[:3]) != grid.shape:
        raise ScanRefused(
            "E_AFFINE",
            f"it has {' x '.join(map(str, tensor.shape[:3]))} voxels, the grid stated by --affine ({grid.name}) has "
            f"{' x '.join(map(str, grid.shape))}",
            "state the grid it was made on: a known name, or the NIfTI file it was made from",
        )


def _background(by_voxel: Any) -> tuple[Bool[np.ndarray, " N"] | None, float | None]:
    """Which voxels hold the filling in all frames, and the filling; the maker's is the minimum, or 0."""
    import torch

    lowest, highest = by_voxel.amin(dim=1), by_voxel.amax(dim=1)
    finite = torch.isfinite(lowest)
    if not finite.any():
        raise ScanRefused(
            "E_NAN",
            "every voxel holds NaN or infinite values: one NaN in a scan spoils the whole tensor of the original",
            "prepare the NIfTI file it was made from instead",
        )
    for filling in (lowest[finite].amin(), torch.zeros((), dtype=lowest.dtype)):
        outside = (lowest == filling) & (highest == filling)
        if outside.float().mean() >= FEWEST:
            return outside.numpy(), float(filling)
    return None, None
