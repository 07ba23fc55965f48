"""How many scans fit into memory at the same time."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from encoders.brainmt.preparation.archive import open_file
from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import Scan
from encoders.brainmt.preparation.discovery.ukb import located
from encoders.brainmt.preparation.nifti_header import (
    HEADER_BYTES,
    declared_bytes,
    grid_and_frames,
    parse_header,
    voxel_type,
)
from encoders.brainmt.preparation.quarantine import ScanRefused

GIB = 2**30  # bytes
FREE_SHARE = 0.8  # of what is free, where no cap is given
PROCESS = 150 * 2**20  # bytes of a worker before it reads a scan
IN_MASK = 0.5  # share of a grid's voxels that a brain mask may take; 0.26 at 2 mm in MNI space
TRANSFORMED = 24  # bytes per in-mask sample while it is resampled or cleaned, in float64
LOOKED_AT = 256  # headers read to find the largest scan, of the largest files
CGROUP = Path("/sys/fs/cgroup")  # version 2: what the scheduler allows this job


def workers_that_fit(todo: Sequence[Scan], config: PrepareFMRI) -> tuple[int, str]:
    """Number of workers, and a sentence for the user where memory allows fewer than asked for; else empty.

    Every worker holds one scan, so their number times the bytes of the largest scan stays below the cap.
    """
    cap = config.max_memory_gib * GIB or FREE_SHARE * free_bytes()
    each = PROCESS + max((scan_bytes(scan, config) for scan in _largest(todo)), default=0)
    fit = max(int(cap // each), 1)
    if fit >= config.num_workers and each <= cap:
        return config.num_workers, ""
    named = "--max_memory_gib" if config.max_memory_gib else f"{FREE_SHARE:.0%} of the free memory"
    what = f"the largest scan takes about {each / GIB:.2f} GiB, the cap is {cap / GIB:.2f} GiB ({named})"
    if each > cap:
        return 1, f"1 worker, and even one may take more than allowed: {what}"
    return fit, f"{fit} of {config.num_workers} workers: {what}"


def scan_bytes(scan: Scan, config: PrepareFMRI) -> int:
    """Most bytes that preparing one scan takes, as its header declares it; 0 for one that will be refused.

    The scan as stored, and for its in-mask voxels: a copy as stored, float32, and the frames that are written.
    """
    try:
        scan = located(scan, max_bytes=round(config.max_gib * GIB))  # looks into zips
        with open_file(scan.path) as file:
            start = file.read(2**12)
        if scan.path.name.endswith(".pt"):
            return 3 * scan.sources[0][1]
        if start.startswith(b"\x1f\x8b"):
            start = zlib.decompressobj(wbits=31).decompress(start, HEADER_BYTES)
        header = parse_header(start, at_end=False)
        declared, item = declared_bytes(header), voxel_type(header).itemsize
        grid, frames = grid_and_frames(header)
    except (OSError, ScanRefused, zlib.error):
        return 0
    if declared > config.max_gib * GIB:
        return 0
    sample = item + np.dtype(np.float32).itemsize + np.dtype(config.dtype).itemsize
    if config.grid != "none" or config.clean.anything or config.target_tr or scan.warp is not None:
        sample += TRANSFORMED
    return declared + round(IN_MASK * sample * frames * np.prod(grid, dtype=np.float64))


def free_bytes() -> int:
    """Memory that is free now: of the machine, or of the control group this process was put into if that has less."""
    free = psutil.virtual_memory().available
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:  # no control groups of version 2 here
        return free
    return min(free, max(int(limit) - int(used), 0)) if limit.isdigit() else free


def _largest(todo: Sequence[Scan]) -> list[Scan]:
    return sorted(todo, key=lambda scan: scan.sources[0][1], reverse=True)[:LOOKED_AT]
