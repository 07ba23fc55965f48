"""Options of `scripts/prepare_fmri.py`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from encoders.runs.config import to_plain
from encoders.runs.errors import InputError
from encoders.runs.parts import part_of
from encoders.runs.study import DEMO

PREPARATION = 2  # raise it whenever the same options would give other numbers
GRIDS = ("none", "mni2mm", "mni152nlin2009casym2mm")  # any other `grid` is a file
# options that cannot change a run: which runs there are, and how the work is done
HOW = ("num_workers", "max_memory_gib", "dask", "shard", "dry_run")
NOT_NUMBERS = ("study", "scans", "layout", "task", "space", "redo", *HOW)


@dataclass(frozen=True, kw_only=True)
class Clean:
    """What is taken out of each voxel's time series; nothing by default. The voxel's mean over time is kept.

    Args:
        confounds: Columns of the fMRIPrep confounds table to regress out, as a list such as `[motion6,wm_csf]`: names,
            patterns (`a_comp_cor_0?`), or motion6, motion24, wm_csf, global_signal, acompcor5, cosine.
        high_pass: Slower parts than this are filtered out, Hz; 0 for none.
        low_pass: Faster parts than this are filtered out, Hz; 0 for none.
        detrend: Take a straight line out of each voxel.
    """

    confounds: list[str] = field(default_factory=list)
    high_pass: float = 0.0
    low_pass: float = 0.0
    detrend: bool = False

    def __post_init__(self) -> None:
        for name in ("high_pass", "low_pass"):
            if not getattr(self, name) >= 0:
                raise InputError(
                    f"clean.{name} is {getattr(self, name)}; give a frequency in Hz, or 0 for none"
                )
        if 0 < self.low_pass <= self.high_pass:
            raise InputError(
                f"clean.low_pass ({self.low_pass:g} Hz) is not above clean.high_pass ({self.high_pass:g} Hz): nothing "
                f"would be left; exchange them"
            )

    @property
    def anything(self) -> bool:
        """Whether there is something to do."""
        return bool(self.confounds or self.high_pass or self.low_pass or self.detrend)


@dataclass(frozen=True, kw_only=True)
class PrepareFMRI:
    """From NIfTI scans to the fMRI store: check, canonicalise, mask, normalise; resumable.

    Scans that fail a check go to quarantine (store/quarantine.tsv: file, code, reason, what to do) and the rest
    is prepared; the exit code is then 3 instead of 0.

    Args:
        study: Study folder; the store goes to its `store` folder.
        scans: Root of the scans, or a table of them (TSV or CSV: path, subject, and where known session, run, task,
            mask, confounds, tr, space); default: the study's own `raw`.
        layout: How the files lie below it: `bids` (also fMRIPrep and ABCC), `hcp` (S1200, 7T), `abcd`
            (abcd-hcp-pipeline), `ukb` (field 20227, zips or unpacked), `original` (func_data_MNI_fp16.pt of the
            original BrainMT), `table`; `auto` looks.
        affine: Grid of `.pt` tensors, which hold none: `mni2mm_fsl` (91 x 109 x 91, x from right to left, as FSL's
            MNI152_T1_2mm), `mni152nlin2009casym2mm` (97 x 115 x 97), or a NIfTI file on the same grid.
        task: Prepare only this task label, `rest` say; empty for all.
        space: Prepare only this space label, `MNI152NLin6Asym` say; empty for any, MNI and desc-preproc preferred.
        normalisation: `global` (one mean and deviation for the whole scan, as the original BrainMT) or `voxel`
            (each voxel over time, which removes anatomy and part of the amplitudes).
        background: Value outside the brain mask: `zero`, the mean of the scan, or its `minimum`, as the original
            BrainMT fills it; the minimum lies some 5 deviations off, and in our trials nothing was learned from it.
        mask: One brain mask for everyone, an MNI NIfTI file; default: the one beside each scan, else computed.
        grid: Bring every scan to one grid: `none`, `mni2mm` (91 x 109 x 91, FSL's MNI152NLin6Asym),
            `mni152nlin2009casym2mm` (97 x 115 x 97, TemplateFlow's) or a NIfTI file. Only scans in MNI space, linearly.
        min_frames: Fewest frames a scan must keep (count).
        dummy_frames: Frames to drop at the start of each scan (count); those that the confounds table marks
            non_steady_state_outlier are dropped too.
        max_mean_fd: Largest mean framewise displacement in mm over the frames that are kept; scans without a
            motion table pass, and their mean_fd is recorded as unknown.
        max_fd: Largest framewise displacement of any kept frame in mm.
        fd_threshold: A frame has moved if its framewise displacement is above this, mm.
        max_fd_share: Largest share of kept frames that have moved, 0-1.
        min_extent: Smallest extent of the brain mask along each axis in mm; refuses slabs and single slices.
        min_coverage: Smallest share of mask voxels whose signal varies, 0-1.
        max_nan: Largest share of mask voxels with NaN or infinite values, 0-1; fewer are set to 0 and counted.
        max_constant_frames: Largest share of constant or all-zero frames, 0-1; fewer are dropped and listed.
        max_gib: Largest size of one decompressed scan in GiB, as its header declares it.
        assume_mni: Accept scans that neither carry sform code 4 nor `space-MNI` in their name, and, for grid and
            mask, take the MNI templates for one space.
        tr: Repetition time in s of scans where neither header nor sidecar states one; where one does, all must agree.
        target_tr: Resample every scan in time to this repetition time in s; default: keep each scan's own.
        clean: Nuisance regression and filters, after the checks.
        fix_tr: Repair a repetition time given in ms as s, or missing in the header but in the sidecar.
        dtype: `float16`, or `int8` with a scale and an offset per voxel: half the bytes, with an error of some 0.7 % of
            each voxel's deviation over time.
        num_workers: Scans prepared at the same time, each in a process of its own (count).
        max_memory_gib: Cap on the memory of all workers together in GiB: with large scans fewer of them work at the
            same time. 0 for 80 % of what is free.
        dask: Scheduler of a Dask cluster that prepares the scans instead, `tcp://host:8786`; its workers must see the
            same folders.
        shard: Prepare only the i-th of n parts, `i/n`, so that n jobs can share the work, at the same time and on the
            same folder; then run once without it to judge the whole and write the manifest.
        dry_run: Check every scan and print what would happen to it, without writing anything.
        redo: Discard an earlier store made with other options.
    """

    study: Path = DEMO
    scans: Path | None = None
    layout: Literal["auto", "bids", "hcp", "abcd", "ukb", "original", "table"] = "auto"
    affine: str = ""
    task: str = ""
    space: str = ""
    normalisation: Literal["global", "voxel"] = "global"
    background: Literal["zero", "minimum"] = "zero"
    mask: Path | None = None
    grid: str = "none"
    min_frames: int = 32
    dummy_frames: int = 0
    max_mean_fd: float = 0.5
    max_fd: float = 5.0
    fd_threshold: float = 0.5
    max_fd_share: float = 1.0
    min_extent: float = 100.0
    min_coverage: float = 0.9
    max_nan: float = 0.001
    max_constant_frames: float = 0.01
    max_gib: float = 8.0
    assume_mni: bool = False
    tr: float | None = None
    target_tr: float | None = None
    clean: Clean = field(default_factory=Clean)
    fix_tr: bool = False
    dtype: Literal["float16", "int8"] = "float16"
    num_workers: int = 2
    max_memory_gib: float = 0.0
    dask: str = ""
    shard: str = ""
    dry_run: bool = False
    redo: bool = False

    def __post_init__(self) -> None:
        for name in ("min_coverage", "max_nan", "max_constant_frames", "max_fd_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"{name} is {getattr(self, name)}, but it is a share; give a number from 0 to 1"
                )
        if self.dummy_frames < 0:
            raise InputError(f"dummy_frames is {self.dummy_frames}; give 0 or a number above it")
        for name in ("tr", "target_tr"):
            if (given := getattr(self, name)) is not None and not 0.2 <= given <= 10:
                raise InputError(f"{name} is {given}, but a repetition time lies between 0.2 and 10 s")
        for name in ("min_frames", "max_mean_fd", "max_fd", "fd_threshold", "max_gib", "num_workers"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; give a number above 0")
        if not self.max_memory_gib >= 0:
            raise InputError(
                f"max_memory_gib is {self.max_memory_gib}; give a number above 0, or 0 for a default"
            )
        if self.part is not None and (self.redo or self.dry_run):
            raise InputError(
                "--shard can be combined neither with --redo nor with --dry_run: what one part discards, the others may "
                "just have made; to start anew delete the study's `store` and `runs/prepare_fmri` folders first"
            )

    @property
    def part(self) -> tuple[int, int] | None:
        """(i, n) of ``shard``; None if all scans are prepared."""
        return part_of(self.shard)

    @property
    def numbers(self) -> dict[str, Any]:
        """The options that can change the stored numbers; what each run's fingerprint is made of.

        Files count by their content, not by where they lie.
        """
        options = {name: value for name, value in to_plain(self).items() if name not in NOT_NUMBERS}
        if self.mask is not None:
            options["mask"] = _content(self.mask, "mask")
        if self.grid not in GRIDS:
            options["grid"] = _content(Path(self.grid), "grid")
        return {"preparation": PREPARATION, **options}


def _content(path: Path, option: str) -> str:
    """sha256 of a file that an option names."""
    from encoders.runs.artifact import file_sha256

    if not path.is_file():
        known = f"; `{option}` may also be {', '.join(GRIDS)}" if option == "grid" else ""
        raise InputError(f"{path} is no file, but {option} names it; pass an existing NIfTI file{known}")
    return file_sha256(path)
