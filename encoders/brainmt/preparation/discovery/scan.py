"""One recording and the files that belong to it, whatever the layout it was found in."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from encoders.brainmt.preparation.archive import File, Member
from encoders.brainmt.preparation.quarantine import Quarantined, Sources
from encoders.runs.errors import InputError

Layout = Literal["bids", "hcp", "abcd", "ukb", "original", "table"]
MotionForm = Literal["fmriprep", "hcp_rms", "hcp_regressors", "mcflirt_par"]
FSL_MNI = (
    "MNI152NLin6Asym"  # TemplateFlow's name of the template that FSL ships, on which HCP, ABCD and UKB lie
)


@dataclass(frozen=True, kw_only=True)
class MotionFile:
    """A file from which framewise displacement can be had.

    Args:
        path: The file.
        form: What it holds: `fmriprep` (confounds table), `hcp_rms` (relative RMS in mm per frame), `hcp_regressors`
            (mm and degrees) or `mcflirt_par` (radians and mm).
    """

    path: File
    form: MotionForm


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One recording and the files beside it.

    Args:
        name: Unique name of the recording: its entities without space, resolution and description.
        subject: Subject id as the layout writes it, `sub-0001` or `100307`.
        session: Session label, empty if none.
        task: Task label, empty if none.
        run: Run index, empty if none.
        space: Space label, empty if none.
        path: The scan; for a zip that was not looked into, the archive.
        sidecar: JSON file with RepetitionTime, if there is one.
        mask: Brain mask, if there is one, on the grid of the scan.
        confounds: fMRIPrep's confounds table, if there is one.
        sources: The scan (first) and the files read with it, with size and time of change.
        layout: Where it was found.
        motion: File with head motion, if there is one.
        warp: FSL warp field that takes a scan in its own space to MNI; None for one that is in MNI already.
        tr: Repetition time in s that a table of paths states; None if it does not.
    """

    name: str
    subject: str
    session: str
    task: str
    run: str
    space: str
    path: File
    sidecar: Path | None
    mask: File | None
    confounds: Path | None
    sources: Sources
    layout: Layout = "bids"
    motion: MotionFile | None = None
    warp: File | None = None
    tr: float | None = None

    def refused(self, code: str, sentence: str, fix: str) -> Quarantined:
        """This scan as an entry of the quarantine."""
        return Quarantined(
            subject=self.subject,
            session=self.session,
            task=self.task,
            run=self.run,
            file=self.sources[0][0],
            code=code,
            sentence=sentence,
            fix=fix,
            sources=self.sources,
        )


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What lies below a root.

    Args:
        scans: One per recording, sorted by name.
        refused: Files that cannot be attributed to one recording.
        passed_over: Other versions (spaces, resolutions) of the same recordings (count).
        other_tasks: Scans left out because another task was asked for (count).
        layout: The layout that was found.
    """

    scans: list[Scan]
    refused: list[Quarantined]
    passed_over: int = 0
    other_tasks: int = 0
    layout: Layout = "bids"


def source(file: File, root: Path) -> tuple[str, int, int]:
    """A file as the store remembers it: path below the root, bytes, time of change in ns.

    A member of an archive is remembered as the archive, for that is what can change.
    """
    path = file.archive if isinstance(file, Member) else file
    shown = path.relative_to(root) if path.is_relative_to(root) else path
    try:
        found = path.stat()
    except OSError:  # a dangling link: reading it will say so
        return (shown.as_posix(), -1, 0)
    return (shown.as_posix(), found.st_size, found.st_mtime_ns)


def sources(files: Iterable[File | None], root: Path) -> Sources:
    """:func:`source` of each file that is there, in order, each once."""
    return tuple(dict.fromkeys(source(file, root) for file in files if file is not None))


def visible(folder: Path) -> list[Path]:
    """Entries of a folder but hidden ones (macOS leaves `._` twins of every file), sorted.

    Raises:
        InputError: the folder cannot be listed; leaving it out would lose people silently.
    """
    try:
        names = os.listdir(folder)
    except OSError as cause:
        raise InputError(
            f"the folder {folder} cannot be listed ({cause.strerror}); mend its permissions, or take it out of the tree"
        ) from cause
    return [folder / name for name in sorted(names) if not name.startswith(".")]


def entity_name(**entities: str) -> str:
    """`sub-100307_task-rest_run-1` from the entities that are not empty."""
    return "_".join(f"{key}-{value}" for key, value in entities.items() if value)
