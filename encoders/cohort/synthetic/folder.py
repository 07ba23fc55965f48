"""The BIDS folder of a synthetic cohort: where its files lie, whose it is, what is still missing.

Light on purpose: a finished stage asks it without loading pandas, SciPy or nibabel.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.runs.artifact import content_digest, write_text
from encoders.runs.errors import InputError

SPACE = "space-MNI152NLin2009cAsym"
MAKER = "NeuroHelix make_cohort"
DESCRIPTION = "dataset_description.json"
# Every file that this module makes, with the temporary names of interrupted writes.
OURS = re.compile(
    r"(dataset_description\.json|README|participants\.tsv|kinship\.tsv|truth\.json"
    r"|genetics/(cohort\.vcf\.gz(\.tbi)?|reference\.fa(\.fai)?|windows\.bed)"
    r"|(?P<subject>sub-\d+)/func/(?P=subject)_task-rest_[A-Za-z0-9_-]+\.(nii\.gz|json|tsv)"
    r"|(.*/)?\.[^/]+\.tmp(/[^/]+)?)"
)
GENOME_MODEL = "genetics/caduceus/"  # the demo's model, which another stage puts there
README = """\
A simulated cohort. No person, genome or brain in this folder is real.
The truth behind it is in truth.json; delete the whole folder, or make it anew with scripts/make_cohort.py.
"""


@dataclass(frozen=True, kw_only=True)
class ScanFiles:
    """Where one person's files lie; `bold` is written last, so that the others exist if it does."""

    sidecar: Path
    mask: Path
    confounds: Path
    bold: Path

    @classmethod
    def of(cls, folder: Path, subject: str) -> "ScanFiles":
        """Paths below the BIDS root `folder`."""
        stem = f"{folder}/{subject}/func/{subject}_task-rest"
        return cls(
            sidecar=Path(f"{stem}_{SPACE}_desc-preproc_bold.json"),
            mask=Path(f"{stem}_{SPACE}_desc-brain_mask.nii.gz"),
            confounds=Path(f"{stem}_desc-confounds_timeseries.tsv"),
            bold=Path(f"{stem}_{SPACE}_desc-preproc_bold.nii.gz"),
        )

    @property
    def complete(self) -> bool:
        """Whether all four are there."""
        return all(path.exists() for path in (self.bold, self.sidecar, self.mask, self.confounds))


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything which this module did not make: a real study, say."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(
            f"{folder} is a link or a file, but a synthetic cohort needs a folder of its own; "
            f"pass another --study"
        )
    made_by = ""
    if (folder / DESCRIPTION).exists():
        try:
            made_by = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["GeneratedBy"][0]["Name"]
        except (ValueError, KeyError, IndexError, TypeError):
            made_by = "something else"
    foreign = [name for name in list_files(folder) if made_by != MAKER or not OURS.fullmatch(name)]
    if foreign := [name for name in foreign if not name.startswith(GENOME_MODEL)]:
        raise InputError(
            f"{folder} holds {len(foreign)} files that make_cohort did not make, e.g. {foreign[0]}; "
            f"it never writes into a real study, so pass another --study"
        )


def subject_ids(config: SyntheticCohort) -> list[str]:
    """Ids of the people, as in the BIDS tree: `sub-0001` first."""
    width = max(4, len(str(config.people)))
    return [f"sub-{i + 1:0{width}d}" for i in range(config.people)]


def missing_scans(config: SyntheticCohort, folder: Path) -> int:
    """How many people's scans are not there or not complete."""
    return sum(not ScanFiles.of(folder, subject).complete for subject in subject_ids(config))


def claim_folder(config: SyntheticCohort, folder: Path, *, fresh: bool) -> None:
    """Mark the folder as ours, and clear what another configuration or an interrupted write left."""
    digest = content_digest(config.content())
    path = folder / DESCRIPTION
    same = path.exists() and json.loads(path.read_text(encoding="utf-8")).get("CohortDigest") == digest
    for name in list_files(folder):
        stale = fresh or not same or name.endswith(".tmp") or ".tmp/" in name
        if stale and name != DESCRIPTION and not name.startswith(GENOME_MODEL):
            (folder / name).unlink()
    for parent, _, _ in os.walk(folder, topdown=False):
        if parent != str(folder) and not os.listdir(parent):
            os.rmdir(parent)
    description = {
        "Name": f"Synthetic cohort, arm {config.arm}: simulated people, not real ones",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": MAKER, "Description": "scripts/make_cohort.py"}],
        "CohortDigest": digest,
    }
    write_text(path, json.dumps(description, indent=1) + "\n")
    write_text(folder / "README", README)


def list_files(folder: Path) -> list[str]:
    """Every file below the folder, as a path relative to it, in a fixed order."""
    return sorted(
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder)
        for name in names
    )
