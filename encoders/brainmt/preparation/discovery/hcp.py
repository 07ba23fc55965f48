"""HCP trees: S1200 at 3T and 7T, HCP-Aging and Development; and what abcd-hcp-pipeline shares with them.

    <id>/MNINonLinear/Results/rfMRI_REST1_LR/rfMRI_REST1_LR_hp2000_clean.nii.gz

Beside the scan lie `brainmask_fs.2.nii.gz` (or `.2.0`; at 7T `.1.60`), `Movement_Regressors.txt` and
`Movement_RelativeRMS.txt`; the mask may lie in `MNINonLinear` instead. The four runs of a person differ in the number of
the session (REST1, REST2) and in the direction of phase encoding (LR, RL), which become run and acq. Of one recording
the version cleaned by FIX is taken; concatenations of several runs are passed over.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from encoders.brainmt.preparation.discovery.scan import (
    FSL_MNI,
    Layout,
    Listing,
    MotionFile,
    Scan,
    entity_name,
    sources,
    visible,
)
from encoders.brainmt.preparation.discovery.select import select

RESULTS = Path("MNINonLinear/Results")
FOLDER = re.compile(r"[rt]fMRI_(?P<task>[A-Za-z]+)(?P<run>\d*)_(?P<acq>(?:7T_)?(?:LR|RL|AP|PA))")
WAVE = re.compile(r"(?P<subject>HC[A-Z]\d+)_(?P<session>V\d+)(?:_[A-Z]+)?")  # HCA6002236_V1_MR of HCP-Aging
# versions of one recording, best first; what follows the name of its folder
VERSIONS = [re.compile(ending) for ending in (r"_hp\d+_clean", r"_hp\d+_clean_rclean_tclean", "")]
NIFTI = (".nii.gz", ".nii")
MASK = re.compile(r"brainmask_fs\.\d+(\.\d+)?\.nii(\.gz)?")


def discover_hcp(root: Path, *, task: str = "", space: str = "") -> Listing:
    """List the scans below ``root``, only of one ``task`` or ``space`` if given.

    Raises:
        InputError: there is none; the message says what layout was looked for.
    """
    found, passed_over = [], 0
    for person in _people(root):
        wave = WAVE.fullmatch(person.name)
        subject, session = (wave["subject"], wave["session"]) if wave else (person.name, "")
        for folder in visible(person / RESULTS):
            versions = version_files(folder)
            match = FOLDER.fullmatch(folder.name)
            passed_over += len(versions) - 1 if match and versions else len(versions)
            if match and versions:
                entities = {
                    "task": match["task"].lower(),
                    "acq": match["acq"].replace("_", ""),
                    "run": match["run"],
                }
                scan = results_scan(
                    versions[0], root, layout="hcp", subject=subject, session=session, **entities
                )
                found.append(scan)
    return select(
        found,
        root,
        layout="hcp",
        task=task,
        space=space,
        wanted="the HCP layout <id>/MNINonLinear/Results/rfMRI_REST1_LR/rfMRI_REST1_LR[_hp2000_clean].nii.gz",
        passed_over=passed_over,
    )


def looks_like_hcp(root: Path) -> bool:
    """Whether somebody has `MNINonLinear/Results`."""
    return next(iter(_people(root)), None) is not None


def version_files(folder: Path) -> list[Path]:
    """The 4D files of one run, best first: `<folder>/<folder><ending>.nii.gz` for each known ending."""
    if not folder.is_dir():
        return []
    names = {path.name: path for path in visible(folder)}
    endings = [
        (name, name.removeprefix(folder.name).removesuffix(kind))
        for name in names
        for kind in NIFTI
        if name.startswith(folder.name) and name.endswith(kind)
    ]
    return [names[name] for version in VERSIONS for name, ending in endings if version.fullmatch(ending)]


def results_scan(
    path: Path, root: Path, *, layout: Layout, subject: str, session: str, task: str, run: str, acq: str = ""
) -> Scan:
    """A scan of a `Results` folder with the mask and motion file that the HCP pipelines leave beside it."""
    folder = path.parent
    masks = [
        file
        for place in (folder, folder.parent.parent)
        for file in sorted(visible(place), key=lambda file: ("s.2" in file.name) == acq.startswith("7T"))
        if MASK.fullmatch(file.name)
    ]
    motion = None
    for name, form in (
        ("Movement_RelativeRMS.txt", "hcp_rms"),
        ("Movement_Regressors.txt", "hcp_regressors"),
    ):
        if motion is None and (folder / name).is_file():
            motion = MotionFile(path=folder / name, form=form)
    mask = masks[0] if masks else None
    label = subject.removeprefix("sub-")
    run = str(int(run)) if run.isdigit() else run
    return Scan(
        name=entity_name(sub=label, ses=session, task=task, acq=acq, run=run),
        subject=subject,
        session=session,
        task=task,
        run=run,
        space=FSL_MNI,
        path=path,
        sidecar=None,
        mask=mask,
        confounds=None,
        sources=sources([path, mask, motion.path if motion else None], root),
        layout=layout,
        motion=motion,
    )


def _people(root: Path) -> Iterable[Path]:
    return (person for person in visible(root) if (person / RESULTS).is_dir())
