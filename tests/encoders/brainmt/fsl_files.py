"""Write warp files as FSL does, from the convention alone: mm from the corner, x mirrored where the file is neurological."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np


def fsl_coordinates(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """(4, 4) voxel indices to FSL coordinates of a file with this grid."""
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    to_fsl = np.diag([*edges, 1.0])
    if np.linalg.det(affine) > 0:
        to_fsl[0, 0], to_fsl[0, 3] = -edges[0], (shape[0] - 1) * edges[0]
    return to_fsl


def at(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """An affine applied to (..., 3) points."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def voxels(shape: tuple[int, ...]) -> np.ndarray:
    """(X, Y, Z, 3) indices of all voxels."""
    return np.stack(np.meshgrid(*[np.arange(n) for n in shape[:3]], indexing="ij"), axis=-1).astype(float)


def warp_field(reference, source, move: np.ndarray, *, absolute: bool = False) -> np.ndarray:
    """(X, Y, Z, 3) field on ``reference`` (shape, affine) that takes mm ``x`` of it from mm ``move @ x`` of ``source``."""
    here = voxels(reference[0])
    origin = at(move, at(reference[1], here))
    origin = at(fsl_coordinates(*source), at(np.linalg.inv(source[1]), origin))
    return origin if absolute else origin - at(fsl_coordinates(*reference), here)


def save_warp(
    path: Path, field: np.ndarray, affine: np.ndarray, *, intent: int = 2006, code: int = 4
) -> Path:
    """A warp file; ``code`` 0 leaves out where its voxels lie."""
    image = nib.Nifti1Image(field.astype(np.float32), affine)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header["intent_code"] = intent
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes(), 1, mtime=0))
    return path
