"""UK Biobank's bulk field 20227 (resting-state fMRI), as zips or unpacked.

    <eid>_20227_<instance>_<array>.zip         or  <eid>/<eid>_20227_<instance>_<array>.zip
    <eid>_20227_<instance>_<array>/fMRI/...    or  <eid>/[<eid>_20227_..._0/]fMRI/...

What UK Biobank ships is the cleaned series in each person's own space, `fMRI/rfMRI.ica/filtered_func_data_clean.nii.gz`,
and the warp to MNI, `reg/example_func2standard_warp.nii.gz`: with these a scan is warped as it is read. The original
BrainMT expects `fMRI/filtered_func_data_clean_MNI.nii.gz`, which UK Biobank does not ship: users made it with FSL's
applywarp. Where it is there, it is taken. The instance is the session. Zips are looked into when they are read.
"""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from encoders.brainmt.preparation.archive import File, Member, find, list_members
from encoders.brainmt.preparation.discovery.scan import (
    FSL_MNI,
    Listing,
    MotionFile,
    Scan,
    entity_name,
    source,
    sources,
    visible,
)
from encoders.brainmt.preparation.discovery.select import select
from encoders.brainmt.preparation.quarantine import Quarantined, ScanRefused

BULK = re.compile(r"(?P<eid>[A-Za-z0-9]+)_20227_(?P<instance>\d+)_(?P<array>\d+)")
FIELD = "_20227_"
ICA = "fMRI/rfMRI.ica"
WARPED = "fMRI/filtered_func_data_clean_MNI.nii.gz"
NATIVE = "fMRI/rfMRI.ica/filtered_func_data_clean.nii.gz"
MASK = "fMRI/rfMRI.ica/mask.nii.gz"
WARP = "fMRI/rfMRI.ica/reg/example_func2standard_warp.nii.gz"
MOTION = "fMRI/rfMRI.ica/mc/prefiltered_func_data_mcf.par"


def discover_ukb(root: Path, *, task: str = "", space: str = "") -> Listing:
    """List the scans below ``root``, only of one ``task`` or ``space`` if given.

    Raises:
        InputError: there is none; the message says what layout was looked for.
    """
    places = list(_places(root))
    return select(
        [_scan(place, root) for place in places if not place.wrong],
        root,
        layout="ukb",
        task=task,
        space=space,
        wanted="UK Biobank's <eid>_20227_<instance>_<array>.zip, or unpacked <eid>/fMRI/rfMRI.ica/",
        refused=[_refuse(place, root) for place in places if place.wrong],
        clash="keep either the zip or the unpacked folder",
    )


def looks_like_ukb(root: Path) -> bool:
    """Whether there is a zip of field 20227 or what lies in one."""
    return any(
        place.bulk or (place.path / ICA).is_dir() or (place.path / WARPED).exists() for place in _places(root)
    )


def located(scan: Scan, *, max_bytes: int) -> Scan:
    """The scan with its files: a zip is looked into, and what neither is nor can be brought to MNI is refused.

    Args:
        scan: A scan of any layout; others than UK Biobank's come back as they are.
        max_bytes: Largest decompressed size of one member of a zip in bytes.

    Raises:
        ScanRefused: E_ARCHIVE, E_SIZE, E_LAYOUT (no series) or E_SPACE (no warp).
    """
    if scan.layout != "ukb":
        return scan
    if isinstance(scan.path, Path) and scan.path.suffix == ".zip":
        names = list_members(scan.path, max_bytes=max_bytes)

        def member(ending: str) -> File | None:
            name = find(names, ending)
            return None if name is None else Member(archive=scan.path, member=name)

        files = {ending: member(ending) for ending in (WARPED, NATIVE, MASK, WARP, MOTION)}
        scan = dataclasses.replace(scan, **_roles(files))
    if scan.path.name not in (Path(WARPED).name, Path(NATIVE).name):
        raise ScanRefused(
            "E_LAYOUT",
            f"it holds neither {NATIVE}, which UK Biobank's field 20227 ships, nor {WARPED}",
            "fetch the bulk file again (ukbfetch, field 20227); field 20225 holds DICOM and will not do",
        )
    if scan.path.name == Path(NATIVE).name and scan.warp is None:
        raise ScanRefused(
            "E_SPACE",
            f"it holds UK Biobank's series in the person's own space ({NATIVE}), but not {WARP}, which would take it to "
            f"MNI; nor {WARPED}, which the original BrainMT expects and UK Biobank does not ship: its users warp it "
            f"themselves",
            f"add the folder reg of the same zip, or make the latter with FSL: applywarp --ref=MNI152_T1_2mm "
            f"--in={Path(NATIVE).name} --warp={Path(WARP).name} --out={Path(WARPED).name}",
        )
    return scan


@dataclass(frozen=True, kw_only=True)
class _Place:
    path: Path  # the zip, or the folder that holds `fMRI`
    eid: str
    instance: str = ""
    array: str = ""
    bulk: bool = False  # named as UK Biobank names its bulk files
    wrong: str = ""  # why it cannot be attributed to one person


def _places(root: Path) -> Iterable[_Place]:
    for entry in visible(root):
        if FIELD in entry.name or (entry / "fMRI").is_dir():
            yield _place(entry, "")
        elif entry.is_dir():
            yield from (_place(inner, entry.name) for inner in visible(entry) if FIELD in inner.name)


def _place(path: Path, above: str) -> _Place:
    stem = path.name.removesuffix(".zip")
    bulk = BULK.fullmatch(stem)
    if FIELD in path.name and not bulk:
        wrong = "its name is not <eid>_20227_<instance>_<array>"
        return _Place(path=path, eid=above or stem.partition("_")[0], bulk=True, wrong=wrong)
    if not bulk:
        return _Place(path=path, eid=path.name)
    wrong = f"its name says {bulk['eid']}, its folder {above}" if above not in ("", bulk["eid"]) else ""
    return _Place(path=path, **bulk.groupdict(), bulk=True, wrong=wrong)


def _refuse(place: _Place, root: Path) -> Quarantined:
    found = source(place.path, root)
    return Quarantined(
        subject=place.eid,
        session=place.instance,
        task="rest",
        run="",
        file=found[0],
        code="E_NAME",
        sentence=f"it cannot be attributed to one person: {place.wrong}",
        fix="rename it or move it to the right folder",
        sources=(found,),
    )


def _scan(place: _Place, root: Path) -> Scan:
    entities = {"session": place.instance, "task": "rest", "run": place.array.lstrip("0")}
    roles = {"path": place.path, "mask": None, "motion": None, "warp": None, "space": FSL_MNI}
    if place.path.suffix != ".zip":
        files = {
            name: place.path / name if (place.path / name).exists() else None
            for name in (WARPED, NATIVE, MASK, WARP, MOTION)
        }
        roles |= _roles(files)
    motion = roles["motion"]
    return Scan(
        name=entity_name(sub=place.eid, ses=place.instance, task="rest", run=entities["run"]),
        subject=place.eid,
        **entities,
        **roles,
        sidecar=None,
        confounds=None,
        sources=sources([roles["path"], roles["mask"], roles["warp"], motion.path if motion else None], root),
        layout="ukb",
    )


def _roles(files: dict[str, File | None]) -> dict[str, object]:
    """Which file is the scan and what goes with it; the series in MNI space wins, whose own mask is unknown."""
    motion = MotionFile(path=files[MOTION], form="mcflirt_par") if files[MOTION] else None
    roles: dict[str, object] = {"motion": motion, "space": FSL_MNI}
    if files[WARPED]:
        return {**roles, "path": files[WARPED], "mask": None, "warp": None}
    if files[NATIVE]:
        return {**roles, "path": files[NATIVE], "mask": files[MASK], "warp": files[WARP]}
    return roles
