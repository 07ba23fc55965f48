"""Options of `scripts/qc_fmri.py`. Torch-free, so that `--help` is instant."""

from dataclasses import dataclass
from pathlib import Path

from encoders.runs.errors import InputError
from encoders.runs.study import DEMO


@dataclass(frozen=True, kw_only=True)
class QCFMRI:
    """Write the quality report of a study's fMRI store: one page to share, and on request one of every scan, private.

    Args:
        study: Study folder with a store.
        thumbnails: Also write private/qc_scans.html: mean image and carpet plot of each scan, with its id.
        most_scans: Most scans on that page, the most unusual first (count).
        threshold: A value is an outlier if its robust z (distance from the median over 1.4826 MAD) is beyond this.
        min_count: Smallest count that the page prints; smaller ones become "< min_count".
        redo: Discard an earlier, different report of this study instead of refusing.
    """

    study: Path = DEMO
    thumbnails: bool = False
    most_scans: int = 100
    threshold: float = 3.5
    min_count: int = 5
    redo: bool = False

    def __post_init__(self) -> None:
        for name in ("most_scans", "threshold", "min_count"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; give a number above 0")
