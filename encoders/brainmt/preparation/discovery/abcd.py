"""ABCD as abcd-hcp-pipeline (DCAN Labs) leaves it; ABCC's fMRIPrep derivatives are BIDS and found as such.

    sub-NDARINV.../ses-.../files/MNINonLinear/Results/ses-..._task-rest_run-01/ses-..._task-rest_run-01.nii.gz

Mask and motion files lie beside the scan under the HCP's names. Older releases call the folders `task-rest01`.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from encoders.brainmt.preparation.discovery.hcp import RESULTS, results_scan, version_files
from encoders.brainmt.preparation.discovery.scan import Listing, Scan, source, visible
from encoders.brainmt.preparation.discovery.select import select
from encoders.brainmt.preparation.quarantine import Quarantined

FOLDER = re.compile(
    r"(?:sub-(?P<subject>[A-Za-z0-9]+)_)?(?:ses-(?P<session>[A-Za-z0-9]+)_)?task-(?P<task>[A-Za-z0-9]*[A-Za-z])(?P<number>\d*)"
    r"(?:_acq-(?P<acq>[A-Za-z0-9]+))?(?:_run-(?P<run>\d+))?"
)


def discover_abcd(root: Path, *, task: str = "", space: str = "") -> Listing:
    """List the scans below ``root``, only of one ``task`` or ``space`` if given.

    Raises:
        InputError: there is none; the message says what layout was looked for.
    """
    found: list[Scan] = []
    refused: list[Quarantined] = []
    passed_over = 0
    for visit in _visits(root):
        subject, session = visit.parent.name, visit.name.removeprefix("ses-")
        for folder in visible(visit / "files" / RESULTS):
            versions = version_files(folder)
            match = FOLDER.fullmatch(folder.name)
            if not versions or not match:
                passed_over += len(versions)
                continue
            passed_over += len(versions) - 1
            if why := _contradiction(match, subject, session):
                refused.append(_refuse(versions[0], root, subject, session, why))
                continue
            entities = {
                "task": match["task"],
                "acq": match["acq"] or "",
                "run": match["run"] or match["number"],
            }
            scan = results_scan(
                versions[0], root, layout="abcd", subject=subject, session=session, **entities
            )
            found.append(scan)
    return select(
        found,
        root,
        layout="abcd",
        task=task,
        space=space,
        wanted="the layout of abcd-hcp-pipeline, sub-*/ses-*/files/MNINonLinear/Results/ses-*_task-*_run-*/",
        refused=refused,
        passed_over=passed_over,
    )


def looks_like_abcd(root: Path) -> bool:
    """Whether some visit has `files/MNINonLinear/Results`."""
    return next(iter(_visits(root)), None) is not None


def _visits(root: Path) -> Iterable[Path]:
    for person in visible(root):
        if person.name.startswith("sub-") and person.is_dir():
            for visit in visible(person):
                if visit.name.startswith("ses-") and (visit / "files" / RESULTS).is_dir():
                    yield visit


def _contradiction(match: re.Match[str], subject: str, session: str) -> str:
    if match["subject"] and match["subject"] != subject.removeprefix("sub-"):
        return f"its folder says sub-{match['subject']}, the one above {subject}"
    if match["session"] and match["session"] != session:
        return f"its folder says ses-{match['session']}, the one above ses-{session}"
    return ""


def _refuse(path: Path, root: Path, subject: str, session: str, why: str) -> Quarantined:
    found = source(path, root)
    return Quarantined(
        subject=subject,
        session=session,
        task="",
        run="",
        file=found[0],
        code="E_NAME",
        sentence=f"it cannot be attributed to one visit: {why}",
        fix="rename the folder or move it to the right place",
        sources=(found,),
    )
