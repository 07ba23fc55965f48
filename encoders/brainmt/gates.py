"""What must hold before a scan's numbers are looked at: repetition time, space, motion."""

import json
from pathlib import Path

from encoders.brainmt.discover import Scan
from encoders.brainmt.motion import Motion
from encoders.brainmt.nifti import MNI, Nifti
from encoders.brainmt.quarantine import ScanRefused

PLAUSIBLE_TR = (0.2, 10.0)  # s
TR_TOLERANCE = 1e-3  # s


def repetition_time(image: Nifti, sidecar: Path | None, *, fix: bool) -> float:
    """Seconds from frame to frame; header and sidecar must both be plausible and agree.

    With ``fix``, a value in milliseconds that claims to be in seconds is divided by 1,000, and one that is
    missing in the header is taken from the sidecar. A real disagreement is never repaired.
    """
    stated = {"header": image.tr}
    if sidecar is not None:
        try:
            content = json.loads(sidecar.read_text(encoding="utf-8"))
            if (value := content.get("RepetitionTime")) is not None:
                stated["sidecar"] = float(value)
        except (OSError, ValueError, TypeError, AttributeError) as cause:
            raise ScanRefused(
                "E_TR", f"its sidecar {sidecar.name} cannot be read ({cause})", "mend or remove the sidecar"
            ) from cause
    found = stated
    if fix:
        found = {where: tr / 1000 if _plausible(tr / 1000) else tr for where, tr in stated.items()}
        if "sidecar" in found and not found["header"] > 0:
            found["header"] = found["sidecar"]
    times = list(found.values())
    if all(map(_plausible, times)) and max(times) - min(times) <= TR_TOLERANCE:
        return round(times[-1], 6)
    sidecar_says = f"the sidecar {stated['sidecar']:g} s" if "sidecar" in stated else "no sidecar says more"
    raise ScanRefused(
        "E_TR",
        f"the header states a repetition time of {image.tr_stated}, {sidecar_says}; both must agree and lie "
        f"between {PLAUSIBLE_TR[0]} and {PLAUSIBLE_TR[1]:g} s",
        "correct the one that is wrong, or let --fix_tr=true repair milliseconds and a missing header value",
    )


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


def still_enough(motion: Motion | None, limit: float) -> float | None:
    """Mean framewise displacement in mm, at most ``limit``; None where motion is unknown."""
    if motion is None:
        return None
    if not motion.mean <= limit:
        raise ScanRefused(
            "E_MOTION",
            f"mean framewise displacement is {motion.mean:.3f} mm ({motion.definition}), the limit is {limit:g} mm",
            "drop the scan, or raise --max_mean_fd",
        )
    return round(motion.mean, 6)


def _plausible(tr: float) -> bool:
    return PLAUSIBLE_TR[0] <= tr <= PLAUSIBLE_TR[1]
