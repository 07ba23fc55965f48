"""What must hold before a scan's numbers are looked at: repetition time, space, motion."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import Scan
from encoders.brainmt.preparation.motion import Motion
from encoders.brainmt.preparation.nifti import MNI, Nifti
from encoders.brainmt.preparation.quarantine import ScanRefused

PLAUSIBLE_TR = (0.2, 10.0)  # s
TR_TOLERANCE = 1e-3  # s


def repetition_time(image: Nifti, sidecar: Path | None, *, fix: bool, stated: float | None = None) -> float:
    """Seconds from frame to frame; header, sidecar and user must all be plausible and agree.

    Args:
        image: The scan, with what its header says in the header's own unit.
        sidecar: JSON file with RepetitionTime, if there is one.
        fix: Divide a value in milliseconds that claims to be in seconds by 1,000, and take one that is missing in the
            header from the sidecar. A real disagreement is never repaired.
        stated: What the user says, in s; stands alone where the header says nothing (0 or NaN) and no sidecar does.

    Raises:
        ScanRefused: E_TR, with all values.
    """
    found = {"header": image.tr}
    if (value := _sidecar_value(sidecar)) is not None:
        found["sidecar"] = value
    shown = dict(found)
    if fix:
        found = {where: tr / 1000 if _plausible(tr / 1000) else tr for where, tr in found.items()}
    missing = not found["header"] > 0
    if missing and (stated is not None or (fix and "sidecar" in found)):
        del found["header"]
    if stated is not None:
        found["user"] = stated
    times = list(found.values())
    if all(map(_plausible, times)) and max(times) - min(times) <= TR_TOLERANCE:
        return round(found.get("sidecar", times[-1]), 6)
    sidecar_says = f"the sidecar {shown['sidecar']:g} s" if "sidecar" in shown else "no sidecar says more"
    user_says = f", --tr {stated:g} s" if stated is not None else ""
    raise ScanRefused(
        "E_TR",
        f"the header states a repetition time of {image.tr_stated}, {sidecar_says}{user_says}; all must agree and lie "
        f"between {PLAUSIBLE_TR[0]} and {PLAUSIBLE_TR[1]:g} s",
        "correct the one that is wrong; --fix_tr=true repairs milliseconds and a missing header value, --tr states it "
        "where header and sidecar say nothing",
    )


def _sidecar_value(sidecar: Path | None) -> float | None:
    if sidecar is None:
        return None
    try:
        value = json.loads(sidecar.read_text(encoding="utf-8")).get("RepetitionTime")
        return None if value is None else float(value)
    except (OSError, ValueError, TypeError, AttributeError) as cause:
        raise ScanRefused(
            "E_TR", f"its sidecar {sidecar.name} cannot be read ({cause})", "mend or remove the sidecar"
        ) from cause


def space_of(scan: Scan, image: Nifti, assume_mni: bool) -> str:
    """What says that a scan lies in MNI space: its name, else its affine's code, else the user."""
    if scan.space.startswith("MNI"):
        return scan.space
    if image.space_code == MNI and not scan.space:
        return "MNI (NIfTI code 4)"
    if assume_mni:
        return "assumed MNI"
    raise ScanRefused(
        "E_SPACE",
        f"nothing says that it lies in MNI space: its affine has code {image.space_code} (4 is MNI) and its name "
        f"{'says space-' + scan.space if scan.space else 'has no space-MNI'}",
        "warp it to MNI first (fMRIPrep --output-spaces, FSL applywarp), or pass --assume_mni=true if it is",
    )


def still_enough(motion: Motion | None, config: PrepareFMRI, *, first: int = 0) -> dict[str, Any]:
    """What is recorded about head motion, after it was found to be small enough; None where it is unknown.

    Args:
        motion: Displacement of all frames.
        config: The limits.
        first: First frame that is kept; how far the head moved before it, or to it, does not count.

    Raises:
        ScanRefused: E_MOTION; mean, largest displacement or share of frames that moved is above its limit.
    """
    if motion is not None and first:
        motion = replace(motion, fd=np.append(np.nan, motion.fd[first + 1 :]))
    if motion is None or np.isnan(motion.fd).all():
        return {"mean_fd": None, "max_fd": None, "fd_share": None, "fd_definition": None}
    mean, largest, share = motion.mean, motion.max, motion.share_over(config.fd_threshold)
    found = [
        (mean, config.max_mean_fd, f"mean framewise displacement is {mean:.3f} mm", "mm", "max_mean_fd"),
        (largest, config.max_fd, f"its largest framewise displacement is {largest:.3f} mm", "mm", "max_fd"),
        (
            100 * share,
            100 * config.max_fd_share,
            f"{share:.1%} of its frames moved more than {config.fd_threshold:g} mm",
            "%",
            "max_fd_share",
        ),
    ]
    for value, limit, sentence, unit, option in found:
        if not value <= limit:
            raise ScanRefused(
                "E_MOTION",
                f"{sentence} ({motion.definition}), the limit is {limit:g} {unit}",
                f"drop the scan, or raise --{option}",
            )
    return {
        "mean_fd": round(mean, 6),
        "max_fd": round(largest, 6),
        "fd_share": round(share, 6),
        "fd_definition": motion.definition,
    }


def _plausible(tr: float) -> bool:
    return PLAUSIBLE_TR[0] <= tr <= PLAUSIBLE_TR[1]
