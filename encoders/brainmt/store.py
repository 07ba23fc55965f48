"""The fMRI store: one safetensors file per run, in-mask voxels only, time-major, and a manifest.

    store/manifest.json        options, runs (with sha256), quarantine
    store/quarantine.tsv       the refused scans, for people
    store/runs/<name>.safetensors   frames [T, V] float16 · mask_index [V] int32 · mean, sd [V] float32
                                    frames [T, V] int8 if so prepared, then also scale, offset [V] float32
    store/shards/                   what the parts of a divided preparation refused, until a run judges the whole

The metadata of a run hold its grid, affine, repetition time, mask id, normalisation, the sha256 of its source and the
fingerprint of the options it was made with; kind, format version and sha256 are those of every artefact.

T frames · V in-mask voxels · W frames of a window. Time-major, so that a window of frames is one contiguous read.
"""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, Int8, Int32

from encoders.brainmt.quantise import dequantise
from encoders.brainmt.run_file import RunFile
from encoders.runs.artifact import (
    PRIVATE,
    load_json_with_digest,
    load_tensor_metadata,
    load_tensors,
    save_json,
    save_tensors,
)
from encoders.runs.errors import InputError
from encoders.runs.progress import progress

STORE_KIND, STORE_FORMAT = "neurohelix.fmri_store", 2
RUN_KIND, RUN_FORMAT = "neurohelix.fmri", 2  # 2: frames may be int8
MANIFEST, QUARANTINE, RUNS = "manifest.json", "quarantine.tsv", "runs"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run in the store.

    Args:
        name: Unique name, `sub-0001_ses-1_task-rest_run-1`.
        subject: Subject id, `sub-0001`.
        session: Session label, empty if none.
        task: Task label, empty if none.
        run: Run index, empty if none.
        file: Path below the store.
        sha256: Of the content of the file.
        frames: T.
        voxels: V.
        tr: Repetition time in s.
        mean_fd: Mean framewise displacement in mm, None if unknown.
        grid: Voxels along X, Y, Z.
        background: Value of what lies outside the mask.
        segments: Contiguous stretches [first, last + 1) of frames.
    """

    name: str
    subject: str
    session: str
    task: str
    run: str
    file: str
    sha256: str
    frames: int
    voxels: int
    tr: float
    mean_fd: float | None
    grid: tuple[int, int, int]
    background: float
    segments: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Frames of a run as they lie on disk.

    Args:
        frames: (W, V) float16 numbers, or int8 levels.
        mask_index: (V,) place of each column in the C-order flattened X, Y, Z grid.
        scale: (V,) number per level; None if the frames are numbers.
        offset: (V,) number of level 0; None likewise.
    """

    frames: Float16[np.ndarray, "W V"] | Int8[np.ndarray, "W V"]
    mask_index: Int32[np.ndarray, " V"]
    scale: Float32[np.ndarray, " V"] | None = None
    offset: Float32[np.ndarray, " V"] | None = None


class FMRIStore:
    """Read a store written by `scripts/prepare_fmri.py`.

    Opening reads the manifest alone. Call :meth:`verify_all` once per training or embedding: windows are read
    without a check of their own.

    Args:
        folder: The store folder, or its manifest.

    Raises:
        InputError: no manifest, a damaged one, or no run in it.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).parent if Path(folder).name == MANIFEST else Path(folder)
        self.manifest, self.digest = load_json_with_digest(self.folder / MANIFEST, STORE_KIND, STORE_FORMAT)
        self.runs: list[Run] = [_run(entry) for entry in self.manifest["runs"]]
        if not self.runs:
            raise InputError(
                f"{self.folder} holds no run: all {len(self.manifest['quarantine'])} scans are in quarantine, "
                f"see {self.folder / QUARANTINE}"
            )

    @property
    def subjects(self) -> list[str]:
        """Ids of the people with at least one run, sorted."""
        return sorted({run.subject for run in self.runs})

    @property
    def grid(self) -> tuple[int, int, int]:
        """Voxels along X, Y, Z, the same for all runs."""
        return self.runs[0].grid

    @property
    def options(self) -> dict[str, Any]:
        """The options the store was prepared with, normalisation among them."""
        return self.manifest["options"]

    def of(self, subject: str) -> list[Run]:
        """All runs of one person, every session and task."""
        return [run for run in self.runs if run.subject == subject]

    def load(
        self, run: Run, start: int = 0, frames: int | None = None
    ) -> Float16[np.ndarray, "W V"] | Float32[np.ndarray, "W V"]:
        """Frames ``start`` to ``start + frames`` (by default to the end) as numbers, however they are stored.

        One contiguous read, not checked against the sha256: float16, or float32 if the store holds int8.
        """
        return self.window(run, start, run.frames - start if frames is None else frames)[0]

    def mask_index(self, run: Run) -> Int32[np.ndarray, " V"]:
        """Where each column of the frames lies in the C-order flattened X, Y, Z grid."""
        return self.stored(run, 0, 0).mask_index

    def window(
        self, run: Run, start: int, frames: int
    ) -> tuple[Float16[np.ndarray, "W V"] | Float32[np.ndarray, "W V"], Int32[np.ndarray, " V"]]:
        """:meth:`load` and :meth:`mask_index` with one opening of the file."""
        stored = self.stored(run, start, frames)
        return dequantise(stored.frames, stored.scale, stored.offset), stored.mask_index

    def stored(self, run: Run, start: int, frames: int) -> Stored:
        """A window as it lies on disk: what to move to a device before it is made into numbers there."""
        if not 0 <= start <= start + frames <= run.frames:
            raise ValueError(f"frames {start} to {start + frames} of {run.name}, which has {run.frames}")
        with RunFile(self.folder / run.file) as file:
            return Stored(
                frames=file.rows("frames", start, frames),
                mask_index=file.rows("mask_index"),
                scale=file.rows("scale") if "scale" in file else None,
                offset=file.rows("offset") if "offset" in file else None,
            )

    def read(self, run: Run) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All tensors and metadata of a run, every byte checked; ``frames`` are numbers, however they are stored.

        Raises:
            InputError: E_HASH; the file is damaged, missing, or not the one the manifest lists.
        """
        tensors, metadata = self._read(run)
        scale, offset = tensors.pop("scale", None), tensors.pop("offset", None)
        return tensors | {"frames": dequantise(tensors["frames"], scale, offset)}, metadata

    def read_stored(self, run: Run) -> Stored:
        """A whole run as it lies on disk, every byte checked as by :meth:`read`."""
        tensors, _ = self._read(run)
        return Stored(
            frames=tensors["frames"],
            mask_index=tensors["mask_index"],
            scale=tensors.get("scale"),
            offset=tensors.get("offset"),
        )

    def _read(self, run: Run) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        path = self.folder / run.file
        tensors, metadata = load_tensors(path, RUN_KIND, RUN_FORMAT)
        if load_tensor_metadata(path, RUN_KIND, RUN_FORMAT)[1] != run.sha256:
            raise InputError(
                f"{path} is not the file that {MANIFEST} lists; run prepare_fmri again", code="E_HASH"
            )
        return tensors, metadata

    def verify(self, run: Run) -> None:
        """Check every byte of a run against its sha256; see :meth:`read`."""
        self._read(run)

    def verify_all(self) -> None:
        """Check every run, with a progress bar; 300 MB take about a second."""
        for run in progress(self.runs, "checking the fMRI store", unit="run"):
            self.verify(run)


def save_run(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
    """Write one run whole or not at all."""
    save_tensors(path, RUN_KIND, RUN_FORMAT, tensors, metadata)


def describe_run(path: Path) -> dict[str, Any]:
    """Metadata of a run that lies in the store, with its file, sha256 and bytes; reads the header alone.

    Raises:
        InputError: it is no readable run.
    """
    metadata, digest = load_tensor_metadata(path, RUN_KIND, RUN_FORMAT)
    return {**metadata, "file": f"{RUNS}/{path.name}", "sha256": digest, "bytes": path.stat().st_size}


def save_manifest(folder: Path, content: dict[str, Any]) -> str:
    """Write the manifest, last of all files; returns its digest."""
    return save_json(folder / MANIFEST, STORE_KIND, STORE_FORMAT, content, mode=PRIVATE)


def load_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest's content, or None where there is none or it cannot be read."""
    try:
        return load_json_with_digest(folder / MANIFEST, STORE_KIND, STORE_FORMAT)[0]
    except (InputError, OSError):  # then all that is there is judged by itself, and a new one is written
        return None


def stale_files(folder: Path, wanted: set[str]) -> list[Path]:
    """What lies among the runs but is not wanted: withdrawn scans, half-written files of a killed process."""
    names = os.listdir(folder / RUNS) if (folder / RUNS).is_dir() else []
    return [folder / RUNS / name for name in sorted(names) if f"{RUNS}/{name}" not in wanted]


def _run(entry: dict[str, Any]) -> Run:
    values = {field.name: entry[field.name] for field in fields(Run)}
    values["grid"] = tuple(entry["grid"])
    values["segments"] = tuple((first, last) for first, last in entry["segments"])
    return Run(**values)
