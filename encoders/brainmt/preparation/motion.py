"""Framewise displacement (FD) from whatever file an origin leaves beside its scans.

T frames.

| form | file | what is in it | definition of FD |
|---|---|---|---|
| fmriprep | `*_desc-confounds_timeseries.tsv` | column framewise_displacement, mm | fMRIPrep framewise_displacement |
| hcp_rms | `Movement_RelativeRMS.txt` | one number per frame, mm | Jenkinson relative RMS |
| hcp_regressors | `Movement_Regressors.txt` | x y z in mm, three rotations in degrees, their derivatives | Power |
| mcflirt_par | `prefiltered_func_data_mcf.par` | three rotations in radians, x y z in mm | Power |

Power's FD (Power et al. 2012, NeuroImage 59:2142) is the sum of the six absolute changes from frame to frame, rotations
as arcs on a sphere of 50 mm. Jenkinson's relative RMS comes out at about half of it; `_abs.rms`, which UK Biobank ships
too, is the distance to one reference frame and no FD at all. The first frame has no predecessor: its FD is unknown.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from encoders.brainmt.preparation.archive import read_text
from encoders.brainmt.preparation.discovery.scan import MotionFile, Scan
from encoders.brainmt.preparation.quarantine import ScanRefused

HEAD_RADIUS = 50.0  # mm
FD_COLUMNS = ("framewise_displacement", "FramewiseDisplacement")  # fMRIPrep since and before 1.2
MISSING = ("n/a", "nan", "")
DEFINITIONS = {
    "fmriprep": "fMRIPrep framewise_displacement",
    "hcp_rms": "Jenkinson relative RMS",
    "hcp_regressors": "Power",
    "mcflirt_par": "Power",
}
FIX = "make the motion file again, or remove it to skip the motion check"


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How much a head moved from frame to frame.

    Args:
        fd: (T,) framewise displacement in mm; NaN where it is unknown, at the first frame at least.
        definition: What FD means here: Power, Jenkinson relative RMS or fMRIPrep framewise_displacement.
        source: Name of the file it was read from.
    """

    fd: Float64[np.ndarray, " T"]
    definition: str
    source: str

    @property
    def mean(self) -> float:
        """Mean over the frames where it is known, mm."""
        return float(np.nanmean(self.fd))

    @property
    def max(self) -> float:
        """Largest displacement, mm."""
        return float(np.nanmax(self.fd))

    def share_over(self, threshold: float) -> float:
        """Share of the known frames that moved more than ``threshold`` mm, 0-1."""
        known = self.fd[np.isfinite(self.fd)]
        return float((known > threshold).mean())


def motion_of(scan: Scan, num_frames: int) -> Motion | None:
    """Framewise displacement of a scan; None where no file or no such column is there.

    Args:
        scan: The scan, with its motion file.
        num_frames: Frames of the scan (T), to which the file must fit.

    Raises:
        ScanRefused: E_MOTION, the file cannot be read or does not fit the scan.
    """
    return None if scan.motion is None else read_motion(scan.motion, num_frames)


def read_motion(file: MotionFile, num_frames: int) -> Motion | None:
    """Framewise displacement from one file; as :func:`motion_of`."""
    name = file.path.name
    try:
        lines = read_text(file.path).splitlines()
        fd = _confounds_column(lines) if file.form == "fmriprep" else _from_numbers(lines, file.form)
    except (OSError, ValueError, IndexError) as cause:
        raise ScanRefused("E_MOTION", f"{name} cannot be read ({cause})", FIX) from cause
    if fd is None:
        return None
    if len(fd) != num_frames:
        raise ScanRefused("E_MOTION", f"{name} has {len(fd)} rows for {num_frames} frames", FIX)
    if np.isinf(fd).any() or (fd < 0).any():
        raise ScanRefused("E_MOTION", f"{name} holds infinite or negative displacements", FIX)
    if not np.isfinite(fd).any():
        return None
    return Motion(fd=fd, definition=DEFINITIONS[file.form], source=name)


def power_fd(
    shifts: Float64[np.ndarray, "T 3"], turns: Float64[np.ndarray, "T 3"]
) -> Float64[np.ndarray, " T"]:
    """Power's framewise displacement in mm; NaN at the first frame.

    Args:
        shifts: Translations in mm.
        turns: Rotations in radians.
    """
    moved = np.abs(np.diff(shifts, axis=0)).sum(axis=1)
    moved += HEAD_RADIUS * np.abs(np.diff(turns, axis=0)).sum(axis=1)
    return np.concatenate([[np.nan], moved])


def _confounds_column(lines: list[str]) -> Float64[np.ndarray, " T"] | None:
    names, *rows = [line.split("\t") for line in lines]
    column = next((name for name in FD_COLUMNS if name in names), None)
    if column is None:
        return None
    cells = [row[names.index(column)].strip() for row in rows]
    return np.array([np.nan if cell.lower() in MISSING else float(cell) for cell in cells], np.float64)


def _from_numbers(lines: list[str], form: str) -> Float64[np.ndarray, " T"]:
    rows = [[float(cell) for cell in line.split()] for line in lines if line.strip()]
    wanted = 1 if form == "hcp_rms" else 6
    short = next((number for number, row in enumerate(rows, 1) if len(row) < wanted), None)
    if short or not rows or (form == "hcp_rms" and max(map(len, rows)) > 1):
        counts = sorted({len(row) for row in rows})
        raise ValueError(f"rows of {counts} numbers, {wanted} were wanted")
    values = np.array([row[:wanted] for row in rows], np.float64)
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinite values")
    if form == "hcp_rms":
        return np.concatenate([[np.nan], values[1:, 0]])
    if form == "hcp_regressors":
        return power_fd(values[:, :3], np.deg2rad(values[:, 3:]))
    return power_fd(values[:, 3:], values[:, :3])
