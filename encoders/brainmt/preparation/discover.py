"""Find the scans of a cohort with the files that belong to each: the door to the layouts in `discovery`.

| layout | what lies below the root |
|---|---|
| bids | `sub-*/[ses-*/]func/*_bold.nii.gz`: BIDS, fMRIPrep, ABCC |
| hcp | `<id>/MNINonLinear/Results/rfMRI_REST1_LR/rfMRI_REST1_LR[_hp2000_clean].nii.gz`: S1200, 7T, HCP-A/D |
| abcd | `sub-*/ses-*/files/MNINonLinear/Results/ses-*_task-*_run-*/`: abcd-hcp-pipeline |
| ukb | `<eid>_20227_<instance>_<array>.zip`, or unpacked: `<eid>.../fMRI/rfMRI.ica/` |
| original | `[img/]<id>/func_data_MNI_fp16.pt`: what the original BrainMT's preprocessing wrote |
| table | no folder, but a TSV or CSV file: path, subject and what else is known |
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from encoders.brainmt.preparation.discovery.abcd import discover_abcd, looks_like_abcd
from encoders.brainmt.preparation.discovery.bids import discover_bids, looks_like_bids
from encoders.brainmt.preparation.discovery.hcp import discover_hcp, looks_like_hcp
from encoders.brainmt.preparation.discovery.original import discover_original, looks_like_original
from encoders.brainmt.preparation.discovery.scan import Layout, Listing, Scan
from encoders.brainmt.preparation.discovery.table import discover_table
from encoders.brainmt.preparation.discovery.ukb import discover_ukb, looks_like_ukb
from encoders.runs.errors import InputError

__all__ = ["Listing", "Scan", "discover"]

FOLDERS: dict[Layout, tuple[Callable[[Path], bool], Callable[..., Listing]]] = {
    "bids": (looks_like_bids, discover_bids),
    "hcp": (looks_like_hcp, discover_hcp),
    "abcd": (looks_like_abcd, discover_abcd),
    "ukb": (looks_like_ukb, discover_ukb),
    "original": (looks_like_original, discover_original),
}


def discover(
    root: Path, *, layout: Literal["auto"] | Layout = "auto", task: str = "", space: str = ""
) -> Listing:
    """List the scans below ``root``, only of one ``task`` or ``space`` if given.

    Args:
        root: Folder, or table of paths.
        layout: How the scans lie below it; `auto` looks.
        task: Task label to keep; empty for all.
        space: Space label to keep; empty for any.

    Raises:
        InputError: there is none, or several layouts lie in one folder; the message says what was looked for.
    """
    if layout == "table" or (layout == "auto" and root.is_file()):
        return discover_table(root, task=task, space=space)
    if not root.is_dir():
        raise InputError(
            f"{root} is a file, but the layout {layout} is a folder; pass --layout=table for a table"
        )
    if layout == "auto":
        found = [name for name, (looks_like, _) in FOLDERS.items() if looks_like(root)]
        if len(found) > 1:
            raise InputError(
                f"{root} holds several layouts: {', '.join(found)}; name the one to prepare with --layout="
                f"{'|'.join(found)}, each into a study of its own, or list the files in a table"
            )
        layout = found[0] if found else "bids"
    return FOLDERS[layout][1](root, task=task, space=space)
