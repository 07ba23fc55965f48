"""Find the scans of a BIDS or fMRIPrep tree, with the sidecar, mask and confounds table of each.

    sub-<id>/[ses-<id>/]func/sub-<id>_..._bold.nii.gz

Runs and sessions are kept apart. Where one recording lies there in several versions, the one in MNI space
and preprocessed (`space-MNI*`, `desc-preproc`) is taken and the others are counted.
"""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from encoders.brainmt.quarantine import Quarantined, Sources
from encoders.runs.errors import InputError

SCAN = "_bold.nii.gz"
VERSION = ("space", "cohort", "res", "den", "desc")  # entities that tell versions of one recording apart
GRID = ("space", "cohort", "res")  # a mask must agree with its scan in these


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One recording and the files beside it.

    Args:
        name: Unique name of the recording: its entities without space, resolution and description.
        subject: Subject id, `sub-0001`.
        session: Session label, empty if none.
        task: Task label, empty if none.
        run: Run index, empty if none.
        space: Space label, empty if none.
        path: The scan.
        sidecar: JSON file with RepetitionTime, if there is one.
        mask: Brain mask, if there is one.
        confounds: Confounds table, if there is one.
        sources: The scan (first) and the files read with it, with size and time of change.
    """

    name: str
    subject: str
    session: str
    task: str
    run: str
    space: str
    path: Path
    sidecar: Path | None
    mask: Path | None
    confounds: Path | None
    sources: Sources

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
    """

    scans: list[Scan]
    refused: list[Quarantined]
    passed_over: int = 0
    other_tasks: int = 0


@dataclass(frozen=True, kw_only=True)
class _File:
    name: str
    path: Path
    entities: dict[str, str] = field(default_factory=dict)
    suffix: str = ""  # with extension: bold.nii.gz


def discover(root: Path, *, task: str = "", space: str = "") -> Listing:
    """List the scans below ``root``, only of one ``task`` or ``space`` if given.

    Raises:
        InputError: there is none; the message says what layout was looked for.
    """
    found: dict[str, list[Scan]] = defaultdict(list)
    refused: list[Quarantined] = []
    total = other_tasks = 0
    for folder in _func_folders(root):
        files = [_parse(entry) for entry in sorted(_visible(folder))]
        for file in files:
            if not file.name.endswith(SCAN):
                continue
            total += 1
            if wrong := _misnamed(file, root):
                refused.append(_refuse_name(file, root, wrong))
            elif task and file.entities.get("task", "") != task:
                other_tasks += 1
            elif not space or file.entities.get("space", "") == space:
                scan = _with_companions(file, files, root)
                found[scan.name].append(scan)
    if not found and not refused:
        raise _nothing(root, total, task, space)
    scans, passed_over = [], 0
    for name in sorted(found):
        best, others = _prefer(found[name])
        passed_over += others
        if len(best) == 1:
            scans.append(best[0])
        else:
            refused += [_refuse_duplicate(scan, best) for scan in best]
    return Listing(scans=scans, refused=refused, passed_over=passed_over, other_tasks=other_tasks)


def _func_folders(root: Path) -> Iterable[Path]:
    for subject in sorted(_visible(root)):
        if subject.name.startswith("sub-") and subject.is_dir():
            sessions = [path for path in sorted(_visible(subject)) if path.name.startswith("ses-")]
            yield from (f for f in (p / "func" for p in [subject, *sessions]) if f.is_dir())


def _visible(folder: Path) -> list[Path]:
    """Entries of a folder but hidden ones (macOS leaves `._` twins of every file)."""
    return [folder / name for name in os.listdir(folder) if not name.startswith(".")]


def _parse(path: Path) -> _File:
    *pairs, suffix = path.name.split("_")
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    return _File(name=path.name, path=path, entities=entities, suffix=suffix)


def _misnamed(file: _File, root: Path) -> str:
    """Why a file's name cannot be trusted, or nothing."""
    folders = file.path.relative_to(root).parts
    subject, session = folders[0].removeprefix("sub-"), folders[1].removeprefix("ses-")
    if "sub" not in file.entities:
        return "its name has no sub-<id> entity"
    if file.entities["sub"] != subject:
        return f"its name says sub-{file.entities['sub']}, its folder {folders[0]}"
    if folders[1] != "func" and file.entities.get("ses", session) != session:
        return f"its name says ses-{file.entities['ses']}, its folder {folders[1]}"
    return ""


def _with_companions(file: _File, files: list[_File], root: Path) -> Scan:
    folders = file.path.relative_to(root).parts
    session = file.entities.get("ses", "" if folders[1] == "func" else folders[1].removeprefix("ses-"))
    first = {"sub": file.entities["sub"]} | ({"ses": session} if session else {})
    entities = first | {key: value for key, value in file.entities.items() if key not in first}
    if entities.get("run", "").isdigit():
        entities["run"] = str(int(entities["run"]))  # run-1 and run-01 are the same run
    sidecar = _beside(file, files, ("bold.json",), {})
    confounds = _beside(file, files, ("timeseries.tsv", "regressors.tsv"), {"desc": "confounds"})
    mask = _beside(file, files, ("mask.nii.gz",), {"desc": "brain"}, same=GRID)
    companions = [path for path in (sidecar, mask, confounds) if path]
    return Scan(
        name="_".join(f"{key}-{value}" for key, value in entities.items() if key not in VERSION),
        subject=f"sub-{entities['sub']}",
        session=session,
        task=entities.get("task", ""),
        run=entities.get("run", ""),
        space=entities.get("space", ""),
        path=file.path,
        sidecar=sidecar,
        mask=mask,
        confounds=confounds,
        sources=tuple(_source(path, root) for path in [file.path, *companions]),
    )


def _beside(
    scan: _File,
    files: list[_File],
    suffixes: tuple[str, ...],
    wanted: dict[str, str],
    same: tuple[str, ...] = (),
) -> Path | None:
    """The file whose entities all agree with the scan's, the most specific one first."""
    agreeing = [
        file
        for file in files
        if file.suffix in suffixes
        and all(file.entities.get(key) == value for key, value in wanted.items())
        and all(file.entities.get(key) == scan.entities.get(key) for key in same)
        and all(scan.entities.get(k) == v for k, v in file.entities.items() if k not in wanted)
    ]
    return max(agreeing, key=lambda file: len(file.entities)).path if agreeing else None


def _source(path: Path, root: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except OSError:  # a dangling link: reading it will say so
        return (path.relative_to(root).as_posix(), -1, 0)
    return (path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns)


def _prefer(versions: list[Scan]) -> tuple[list[Scan], int]:
    """The best versions of one recording, and how many are passed over."""

    def rank(scan: Scan) -> tuple[bool, bool]:
        return scan.space.startswith("MNI"), "_desc-preproc" in scan.path.name

    top = max(map(rank, versions))
    best = [scan for scan in versions if rank(scan) == top]
    return best, len(versions) - len(best)


def _refuse_name(file: _File, root: Path, why: str) -> Quarantined:
    source = _source(file.path, root)
    return Quarantined(
        subject=file.path.relative_to(root).parts[0],
        session=file.entities.get("ses", ""),
        task=file.entities.get("task", ""),
        run=file.entities.get("run", ""),
        file=source[0],
        code="E_NAME",
        sentence=f"it cannot be attributed to one person: {why}",
        fix="rename the file or move it to the right folder",
        sources=(source,),
    )


def _refuse_duplicate(scan: Scan, twins: list[Scan]) -> Quarantined:
    others = ", ".join(twin.sources[0][0] for twin in twins if twin is not scan)
    return scan.refused(
        "E_DUPLICATE",
        f"the same recording lies here more than once, also as {others}",
        "keep one of them, or choose one space with --space=LABEL",
    )


def _nothing(root: Path, total: int, task: str, space: str) -> InputError:
    if total:
        asked = " and ".join(f"{key}-{value}" for key, value in (("task", task), ("space", space)) if value)
        return InputError(
            f"none of the {total} scans below {root} has {asked} in its name; pass another label"
        )
    nested = [path for path in sorted(root.glob("derivatives/*")) if any(path.glob("sub-*"))]
    hint = f"try --scans={nested[0]}" if nested else "pass the root of such a tree with --scans=FOLDER"
    return InputError(
        f"no scan found below {root}: looked for the BIDS / fMRIPrep layout sub-*/[ses-*/]func/*{SCAN}; {hint}"
    )
