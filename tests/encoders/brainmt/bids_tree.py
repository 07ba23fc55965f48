"""Build small BIDS trees of NIfTI files from bytes, so that every header field can be made wrong."""

import gzip
import itertools
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

GRID = (5, 7, 6)
AFFINE = np.array([[24.0, 0, 0, -48], [0, 24, 0, -90], [0, 0, 24, -60], [0, 0, 0, 1]])
CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "c8": 32, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024}
RGB = 128


def brain() -> np.ndarray:
    """An ellipsoid that reaches every side of the grid; (X, Y, Z) bool."""
    axes = np.meshgrid(*[np.linspace(-0.9, 0.9, n) for n in GRID], indexing="ij")
    return sum(axis**2 for axis in axes) <= 1


def bold(seed: int, frames: int = 40) -> np.ndarray:
    """(X, Y, Z, T) int16: anatomy plus noise inside the brain, 0 outside."""
    rng = np.random.default_rng(seed)
    anatomy = 5000 + 400 * rng.standard_normal(GRID)
    data = anatomy[..., None] + 60 * rng.standard_normal((*GRID, frames))
    return np.where(brain()[..., None], data, 0).astype(np.int16)


def nifti(
    data: np.ndarray,
    *,
    affine: np.ndarray = AFFINE,
    sform: int = 4,
    qform: int = 0,
    tr: float = 2.0,
    unit: int = 8,
    slope: float = 1.0,
    intercept: float = 0.0,
    code: int | None = None,
    bits: int | None = None,
    dim: tuple[int, ...] | None = None,
    endian: str = "<",
) -> bytes:
    """An uncompressed NIfTI-1 file; any header field can be overridden."""
    dim = dim or data.shape
    kind = data.dtype.str[1:]
    header = bytearray(352)

    def put(offset: int, form: str, *values: float) -> None:
        struct.pack_into(endian + form, header, offset, *values)

    put(0, "i", 348)
    put(40, "8h", len(dim), *dim, *[1] * (7 - len(dim)))
    put(70, "2h", CODES[kind] if code is None else code, data.dtype.itemsize * 8 if bits is None else bits)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    put(76, "8f", 1.0, *edges, tr, 0, 0, 0)
    put(108, "3f", 352.0, slope, intercept)
    header[123] = 2 | unit
    put(252, "2h", qform, sform)
    put(268, "3f", *affine[:3, 3])
    put(280, "12f", *affine[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header) + data.astype(data.dtype.newbyteorder(endian)).tobytes(order="F")


def pack(content: bytes) -> bytes:
    """gzip with a fixed time stamp."""
    return gzip.compress(content, 1, mtime=0)


def orientations(
    data: np.ndarray, place: np.ndarray = AFFINE
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """One array over `GRID` stored in all 48 ways: (name, stored array, its affine)."""
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product([1, -1], repeat=3):
            stored = data.transpose(*axes, *range(3, data.ndim))[tuple(slice(None, None, f) for f in flips)]
            move = np.zeros((4, 4))  # stored voxel -> RAS voxel
            move[3, 3] = 1
            for ours, (theirs, flip) in enumerate(zip(axes, flips, strict=True)):
                move[theirs, ours] = flip
                move[theirs, 3] = 0 if flip == 1 else data.shape[theirs] - 1
            yield "".join(map(str, axes)) + str(flips), stored, place @ move


class BidsTree:
    """A tree of scans below `root`; :meth:`add` returns the path of the scan."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        subject: str,
        *,
        session: str = "",
        task: str = "rest",
        run: str = "",
        space: str = "MNI152NLin2009cAsym",
        desc: str = "preproc",
        data: np.ndarray | None = None,
        content: bytes | None = None,
        sidecar: dict | None = None,
        mask: np.ndarray | bytes | None = None,
        fd: float | None = 0.1,
        frames: int = 40,
        **header: object,
    ) -> Path:
        """Write one scan with sidecar (TR 2 s), mask and confounds table; `content` replaces the whole file."""
        folder = self.root / f"sub-{subject}" / (f"ses-{session}/func" if session else "func")
        folder.mkdir(parents=True, exist_ok=True)
        pairs = {"sub": subject, "ses": session, "task": task, "run": run}
        who = "_".join(f"{key}-{value}" for key, value in pairs.items() if value)
        where = f"{who}_space-{space}" if space else who
        scan = folder / (f"{where}_desc-{desc}_bold.nii.gz" if desc else f"{where}_bold.nii.gz")
        if content is None:
            seed = sum(map(ord, who))
            content = pack(nifti(bold(seed, frames) if data is None else data, **header))
        scan.write_bytes(content)
        sidecar = {"RepetitionTime": 2.0} if sidecar is None else sidecar
        if sidecar:
            scan.with_name(scan.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
        mask = brain() if mask is None else mask
        if isinstance(mask, np.ndarray) and mask.any():
            mask = pack(nifti(mask.astype("u1"), affine=header.get("affine", AFFINE)))
        if isinstance(mask, bytes):
            (folder / f"{where}_desc-brain_mask.nii.gz").write_bytes(mask)
        if fd is not None:
            count = frames if data is None else data.shape[-1]
            rows = ["framewise_displacement\ttrans_x", "n/a\t0.0", *[f"{fd}\t0.0"] * (count - 1)]
            (folder / f"{who}_desc-confounds_timeseries.tsv").write_text("\n".join(rows) + "\n")
        return scan
