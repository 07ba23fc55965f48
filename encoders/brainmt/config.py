"""Options of `scripts/prepare_fmri.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from encoders.runs.config import to_plain
from encoders.runs.errors import InputError
from encoders.runs.study import DEMO

PREPARATION = 1  # raise it whenever the same options would give other numbers
NOT_NUMBERS = ("study", "scans", "task", "space", "num_workers", "dry_run", "redo")


@dataclass(frozen=True, kw_only=True)
class PrepareFMRI:
    """From NIfTI scans to the fMRI store: check, canonicalise, mask, normalise; resumable.

    Scans that fail a check go to quarantine (store/quarantine.tsv: file, code, reason, what to do) and the rest
    is prepared; the exit code is then 3 instead of 0.

    Args:
        study: Study folder; the store goes to its `store` folder.
        scans: Root of a BIDS or fMRIPrep tree (sub-*/[ses-*/]func/*_bold.nii.gz); default: the study's own `raw`.
        task: Prepare only this task label, `rest` say; empty for all.
        space: Prepare only this space label, `MNI152NLin6Asym` say; empty for any, MNI and desc-preproc preferred.
        normalisation: `global` (one mean and deviation for the whole scan, as the original BrainMT) or `voxel`
            (each voxel over time, which removes anatomy and part of the amplitudes).
        background: Value outside the brain mask: `zero`, the mean of the scan, or its `minimum`, as the original
            BrainMT fills it; the minimum lies some 5 deviations off, and in our trials nothing was learned from it.
        min_frames: Fewest frames a scan must keep (count).
        max_mean_fd: Largest mean framewise displacement in mm, read from the confounds table; scans without a
            table pass, and their mean_fd is recorded as unknown.
        min_extent: Smallest extent of the brain mask along each axis in mm; refuses slabs and single slices.
        min_coverage: Smallest share of mask voxels whose signal varies, 0-1.
        max_nan: Largest share of mask voxels with NaN or infinite values, 0-1; fewer are set to 0 and counted.
        max_constant_frames: Largest share of constant or all-zero frames, 0-1; fewer are dropped and listed.
        max_gib: Largest size of one decompressed scan in GiB, as its header declares it.
        assume_mni: Accept scans that neither carry sform code 4 nor `space-MNI` in their name.
        fix_tr: Repair a repetition time given in ms as s, or missing in the header but in the sidecar.
        num_workers: Scans prepared at the same time (count); memory is num_workers times one decompressed scan.
        dry_run: Check every scan and print what would happen to it, without writing anything.
        redo: Discard an earlier store made with other options.
    """

    study: Path = DEMO
    scans: Path | None = None
    task: str = ""
    space: str = ""
    normalisation: Literal["global", "voxel"] = "global"
    background: Literal["zero", "minimum"] = "zero"
    min_frames: int = 32
    max_mean_fd: float = 0.5
    min_extent: float = 100.0
    min_coverage: float = 0.9
    max_nan: float = 0.001
    max_constant_frames: float = 0.01
    max_gib: float = 8.0
    assume_mni: bool = False
    fix_tr: bool = False
    num_workers: int = 2
    dry_run: bool = False
    redo: bool = False

    def __post_init__(self) -> None:
        for name in ("min_coverage", "max_nan", "max_constant_frames"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"{name} is {getattr(self, name)}, but it is a share; give a number from 0 to 1"
                )
        for name in ("min_frames", "max_mean_fd", "max_gib", "num_workers"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; give a number above 0")

    @property
    def numbers(self) -> dict[str, Any]:
        """The options that can change the stored numbers; what each run's fingerprint is made of."""
        options = {name: value for name, value in to_plain(self).items() if name not in NOT_NUMBERS}
        return {"preparation": PREPARATION, **options}
