"""One recording, read from wherever it lies into one form: a NIfTI file, a member of a zip, a warped scan, a tensor.

Everything after this sees a series and a mask on one MNI grid and need not know where they came from.
"""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from encoders.brainmt.preparation.archive import File
from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discovery.scan import Scan
from encoders.brainmt.preparation.discovery.ukb import located
from encoders.brainmt.preparation.mask import average_image, compute_mask, read_mask
from encoders.brainmt.preparation.nifti import Nifti, read_nifti
from encoders.brainmt.preparation.quarantine import ScanRefused
from encoders.brainmt.preparation.stored_grid import StoredGrid, named_grid
from encoders.runs.errors import InputError

SCANNER, MAKER = "scanner units", "standardised by its maker"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording that was read.

    Args:
        scan: What discovery knew, and what was found inside an archive.
        image: The series, in MNI space unless the scan does not say so.
        mask: Its brain mask, read or still a file; None if there is none.
        mask_source: Where the mask comes from: `file`, `recovered`, or what was warped.
        standardised: Whether its maker has taken mean and deviation out already.
        notes: JSON values for the record: layout, units, and the warp or the stated grid.
    """

    scan: Scan
    image: Nifti
    mask: Nifti | File | None
    mask_source: str
    standardised: bool
    notes: dict[str, Any]


def read_recording(scan: Scan, config: PrepareFMRI) -> Recording:
    """Read the series of a scan, with its warp or the grid that the user states.

    Raises:
        ScanRefused: any file of it cannot be used.
        InputError: an option or package that this kind of file needs is missing.
    """
    max_bytes = round(config.max_gib * 2**30)
    scan = located(scan, max_bytes=max_bytes)
    notes: dict[str, Any] = {"layout": scan.layout, "units": SCANNER}
    if isinstance(scan.path, Path) and scan.path.suffix == ".pt":
        return _tensor(scan, config, max_bytes, notes)
    image = read_nifti(scan.path, max_bytes=max_bytes)
    if scan.warp is None:
        return Recording(
            scan=scan, image=image, mask=scan.mask, mask_source="file", standardised=False, notes=notes
        )
    from encoders.brainmt.preparation.fsl_warp import plain_mask, read_warp, warp_to_mni

    warp = read_warp(scan.warp, image, max_bytes=max_bytes)
    if scan.mask is not None:
        mask, mask_source = read_mask(scan.mask, max_bytes=max_bytes), "file, warped (nearest)"
    else:  # in the scan's own space, where interpolation has not blurred the edge of the brain yet
        mask = plain_mask(compute_mask(average_image(image)), image.affine, image.sha256)
        mask_source = "computed, warped (nearest)"
    image, mask = warp_to_mni(image, mask, warp)
    notes["warp"] = {
        "file": scan.warp.name,
        "sha256": warp.sha256,
        "kind": warp.kind,
        "interpolation": "linear",
    }
    return Recording(
        scan=scan,
        image=image,
        mask=mask,
        mask_source=mask_source,
        standardised=False,
        notes=notes,
    )


def need_options(scans: Iterable[Scan], config: PrepareFMRI) -> None:
    """Refuse a whole preparation at once for want of an option or package that its kind of files needs.

    Raises:
        InputError: tensors, but no `--affine` or `--tr`; scans to be warped, but no fslpy.
    """
    max_bytes = round(config.max_gib * 2**30)
    for scan in scans:
        if isinstance(scan.path, Path) and scan.path.suffix == ".pt":
            _stated(scan, config, max_bytes)
            return
        try:
            warp = located(scan, max_bytes=max_bytes).warp
        except ScanRefused:  # said again when its turn comes
            continue
        if warp is not None:
            from encoders.brainmt.preparation.fsl_warp import need_fslpy

            need_fslpy()
        if scan.layout != "table":  # of a layout one scan speaks for all
            return


def _stated(scan: Scan, config: PrepareFMRI, max_bytes: int) -> tuple[StoredGrid, float]:
    """Grid and repetition time of a tensor, which the user has to state."""
    tr = scan.tr or config.tr
    missing = [name for name, given in (("--affine", config.affine), ("--tr", tr)) if not given]
    if missing or tr is None:
        raise InputError(
            f"tensors of the original BrainMT ({scan.path.name}) hold neither affine nor repetition time: "
            f"{' and '.join(missing)} must be stated, --affine=mni2mm_fsl --tr=0.735 for UK Biobank say"
        )
    return named_grid(config.affine, max_bytes=max_bytes), tr


def _tensor(scan: Scan, config: PrepareFMRI, max_bytes: int, notes: dict[str, Any]) -> Recording:
    from encoders.brainmt.preparation.fsl_warp import plain_mask
    from encoders.brainmt.preparation.tensor_file import read_tensor

    grid, tr = _stated(scan, config, max_bytes)
    tensor = read_tensor(scan.path, grid, tr=tr, max_bytes=max_bytes)
    mask: Nifti | File | None = scan.mask
    if mask is None and tensor.brain is not None:
        mask = plain_mask(tensor.brain, tensor.image.affine, tensor.image.sha256)
    notes |= {
        "units": MAKER,
        "stated": {"affine": grid.name, "tr": tr},
        "background_of_maker": tensor.background,
    }
    scan = dataclasses.replace(scan, space=scan.space or f"{grid.template or 'MNI'}, stated by the user")
    source = "recovered" if scan.mask is None else "file"
    return Recording(
        scan=scan, image=tensor.image, mask=mask, mask_source=source, standardised=True, notes=notes
    )


def is_standard(values: Float32[np.ndarray, "T V"], tolerance: float = 0.02) -> bool:
    """Whether values have mean 0 and deviation 1 over everything, as the original's z-norm leaves them."""
    total = sum(float(frame.sum(dtype=np.float64)) for frame in values)
    squares = sum(float(np.dot(frame, frame)) for frame in values)
    mean = total / values.size
    return abs(mean) < tolerance and abs(math.sqrt(max(squares / values.size - mean**2, 0)) - 1) < tolerance
