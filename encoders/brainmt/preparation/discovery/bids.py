"""BIDS and fMRIPrep trees (ABCC too): scans with the sidecar, mask and confounds table of each.

    sub-<id>/[ses-<id>/]func/sub-<id>_..._bold.nii.gz

Runs and sessions are kept apart. Where one recording lies there in several versions, the one in MNI space
and preprocessed (`space-MNI*`, `desc-preproc`) is taken and the others are counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from encoders.brainmt.preparation.discovery.scan import Listing, MotionFile, Scan, source, sources, visible
from encoders.brainmt.preparation.discovery.select import select
from encoders.brainmt.preparation.quarantine import Quarantined

SCAN = ("_bold.nii.gz", "_bold.nii")
VERSION = ("space", "cohort", "res", "den", "desc")  # entities that tell versions of one recording apart
GRID = ("space", "cohort", "res")  # a mask must agree with its scan in these


@dataclass(frozen=True, kw_only=True)
class _File:
    name: str
    path: Path
    entities: dict[str, str] = field(default_factory=dict)
    suffix: str = ""  # with extension: bold.nii.gz


def discover_bids(root: Path, *, task: str = "", space: str = "") -> Listing:
    """List the scans below ``root``, only of one ``task`` or ``space`` if given.

    Raises:
        InputError: there is none; the message says what layout was looked for.
    """
    found: list[Scan] = []
    refused: list[Quarantined] = []
    for folder in _func_folders(root):
        files = [_parse(entry) for entry in visible(folder)]
        for file in files:
            if not file.name.endswith(SCAN):
                continue
            if wrong := _misnamed(file, root):
                refused.append(_refuse_name(file, root, wrong))
            else:
                found.append(_with_companions(file, files, root))
    return select(
        found,
        root,
        layout="bids",
        task=task,
        space=space,
        wanted=f"the BIDS / fMRIPrep layout sub-*/[ses-*/]func/*{SCAN[0]}",
        rank=lambda scan: (scan.space.startswith("MNI"), "_desc-preproc" in scan.path.name),
        refused=refused,
        clash="keep one of them, or choose one space with --space=LABEL",
    )


def looks_like_bids(root: Path) -> bool:
    """Whether a folder `func` lies where BIDS has it."""
    return next(iter(_func_folders(root)), None) is not None


def _func_folders(root: Path) -> Iterable[Path]:
    for subject in visible(root):
        if subject.name.startswith("sub-") and subject.is_dir():
            sessions = [path for path in visible(subject) if path.name.startswith("ses-")]
            yield from (f for f in (p / "func" for p in [subject, *sessions]) if f.is_dir())


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
    mask = _beside(file, files, ("mask.nii.gz", "mask.nii"), {"desc": "brain"}, same=GRID)
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
        sources=sources([file.path, sidecar, mask, confounds], root),
        motion=MotionFile(path=confounds, form="fmriprep") if confounds else None,
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


def _refuse_name(file: _File, root: Path, why: str) -> Quarantined:
    found = source(file.path, root)
    return Quarantined(
        subject=file.path.relative_to(root).parts[0],
        session=file.entities.get("ses", ""),
        task=file.entities.get("task", ""),
        run=file.entities.get("run", ""),
        file=found[0],
        code="E_NAME",
        sentence=f"it cannot be attributed to one person: {why}",
        fix="rename the file or move it to the right folder",
        sources=(found,),
    )
