"""Files of one person's scan, named and laid out as fMRIPrep leaves them."""

import gzip
import json
import zlib
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np

from encoders.cohort.synthetic.bold import SLOPE, Scan
from encoders.cohort.synthetic.brains import Brain, make_brain
from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.folder import ScanFiles
from encoders.runs.artifact import PRIVATE, replacing, write_text

MNI = 4  # NIfTI code of the coordinate system


def write_scan(files: ScanFiles, config: SyntheticCohort, brain: Brain, scan: Scan) -> None:
    """Write the four files of one run."""
    sidecar = {"TaskName": "rest", "RepetitionTime": config.tr, "SkullStripped": True}
    write_text(files.sidecar, json.dumps(sidecar, indent=1) + "\n", mode=PRIVATE)
    write_text(files.confounds, _table(scan), mode=PRIVATE)
    _write_bytes(files.mask, _mask_bytes(float(brain.affine[0, 0])))
    volume = np.zeros((len(scan.values), *brain.mask.shape), dtype="<i2")
    volume[:, brain.mask] = scan.values
    header = _header(brain, np.int16, frames=len(scan.values), tr=config.tr)
    # Noise has no repeats worth searching for, only the zeros around the brain: run lengths and Huffman
    # codes give the size of the slowest setting in a seventh of its time.
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16, 9, zlib.Z_RLE)
    parts = [packer.compress(header), packer.compress(volume.data), packer.flush()]
    _write_bytes(files.bold, b"".join(parts))


def _header(brain: Brain, dtype: type, *, frames: int = 1, tr: float = 0.0) -> bytes:
    """NIfTI-1 header and the four empty extension bytes, ready to be followed by the voxels."""
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(brain.shape + ((frames,) if tr else ()))
    header.set_zooms((float(brain.affine[0, 0]),) * 3 + ((tr,) if tr else ()))
    header.set_xyzt_units("mm", "sec" if tr else None)
    header.set_sform(brain.affine, code=MNI)
    header.set_qform(brain.affine, code=MNI)
    header.set_slope_inter(SLOPE if tr else 1.0, 0.0)
    header["vox_offset"] = 352
    return header.binaryblock + b"\0" * 4


@lru_cache(maxsize=4)
def _mask_bytes(voxel_mm: float) -> bytes:
    brain = make_brain(voxel_mm)
    return gzip.compress(_header(brain, np.uint8) + brain.mask.astype(np.uint8).tobytes(), mtime=0)


def _table(scan: Scan) -> str:
    names = list(scan.confounds)
    rows = zip(*(scan.confounds[name].tolist() for name in names), strict=True)
    lines = ["\t".join(f"{value:.6g}" if value == value else "n/a" for value in row) for row in rows]
    return "\n".join(["\t".join(names), *lines]) + "\n"


def _write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
        temporary.chmod(PRIVATE)
