"""What the user names for all scans at once: a grid to bring them to, a brain mask; and which MNI template is meant.

X, Y, Z grid in RAS order. MNI152NLin6Asym (FSL, HCP, UK Biobank) and MNI152NLin2009cAsym (fMRIPrep's default) are
two templates: the same coordinates lie up to some mm apart in them.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from encoders.brainmt.preparation.config import GRIDS, PrepareFMRI
from encoders.brainmt.preparation.discovery.scan import FSL_MNI
from encoders.brainmt.preparation.nifti import MNI, Nifti, read_nifti
from encoders.brainmt.preparation.quarantine import ScanRefused
from encoders.runs.errors import InputError

SAME_GRID = 1e-2  # mm
# name -> template, voxels along X, Y, Z, mm of the first voxel; all of 2 mm and RAS
NAMED = {
    "mni2mm": (FSL_MNI, (91, 109, 91), (-90.0, -126.0, -72.0)),
    "mni152nlin2009casym2mm": ("MNI152NLin2009cAsym", (97, 115, 97), (-96.5, -132.5, -78.5)),
}
EDGE = 2.0  # mm


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where voxels lie.

    Args:
        shape: Voxels along X, Y, Z.
        affine: (4, 4) RAS voxel indices to mm.
        template: MNI template such as ``MNI152NLin6Asym``; empty if nothing says which.
        name: As the user calls it.
    """

    shape: tuple[int, int, int]
    affine: Float64[np.ndarray, "4 4"]
    template: str
    name: str

    def is_same(self, other: "Grid") -> bool:
        """Whether every voxel lies where that of ``other`` lies, to 0.01 mm."""
        return self.shape == other.shape and np.allclose(self.affine, other.affine, atol=SAME_GRID)

    @property
    def record(self) -> dict[str, Any]:
        """Where a scan lay before it was resampled, as JSON values."""
        return {"from_grid": list(self.shape), "from_affine": self.affine.tolist()}


@dataclass(frozen=True, kw_only=True)
class CommonMask:
    """A mask for everyone.

    Args:
        voxels: Which voxels are brain.
        grid: Where they lie.
    """

    voxels: Bool[np.ndarray, "X Y Z"]
    grid: Grid


def grid_of(image: Nifti, space: str) -> Grid:
    """The grid of a scan whose ``space`` is as :func:`encoders.brainmt.preparation.gates.space_of` says."""
    return Grid(shape=image.grid, affine=image.affine, template=template_of(space), name="its own grid")


def target_grid(config: PrepareFMRI) -> Grid | None:
    """The grid that all scans are brought to; None for each scan's own.

    Raises:
        InputError: the file that is named cannot be read or does not lie in MNI space.
    """
    if config.grid == "none":
        return None
    if config.grid in NAMED:
        template, shape, origin = NAMED[config.grid]
        affine = np.diag([EDGE, EDGE, EDGE, 1.0])
        affine[:3, 3] = origin
        return Grid(shape=shape, affine=affine, template=template, name=config.grid)
    return _grid_of_file(_read(Path(config.grid), "grid", config), Path(config.grid), "grid", config)


def common_mask(config: PrepareFMRI) -> CommonMask | None:
    """The mask that the user gives for everyone; None if each scan has its own.

    Raises:
        InputError: the file cannot be read, does not lie in MNI space or is empty.
    """
    if config.mask is None:
        return None
    image = _read(config.mask, "mask", config)
    grid, voxels = _grid_of_file(image, config.mask, "mask", config), mask_voxels(image)
    if not voxels.any():
        raise InputError(f"the mask {config.mask} is empty; pass a mask whose voxels above 0.5 are brain")
    return CommonMask(voxels=voxels, grid=grid)


def check_references(config: PrepareFMRI) -> None:
    """Read what the options name before the scans: a wrong file is one error and not one per scan.

    Raises:
        InputError: as :func:`target_grid` and :func:`common_mask`.
    """
    target_grid(config)
    common_mask(config)


def mask_voxels(image: Nifti) -> Bool[np.ndarray, "X Y Z"]:
    """What is above one half in the first frame."""
    return (image.stored[0][image.order] * image.slope + image.intercept > 0.5).reshape(image.grid)


def template_of(text: str) -> str:
    """The MNI template that a space label or a file name states; empty if none."""
    if text.startswith("MNI152_T1"):  # FSL's own files
        return FSL_MNI
    found = re.search(r"(?:^|space-|tpl-)(MNI[0-9A-Za-z]+)", text)
    return found[1] if found and found[1] != "MNI152" else ""


def need_same_template(scan: Grid, other: Grid, assume_mni: bool) -> str:
    """Which templates meet when a scan and another grid are brought together, in words.

    Raises:
        ScanRefused: E_SPACE; two different templates, and the user has not said that they are one for him.
    """
    if scan.template and other.template and scan.template != other.template and not assume_mni:
        raise ScanRefused(
            "E_SPACE",
            f"it lies in {scan.template}, {other.name} in {other.template}: two templates, in which the same place has "
            f"coordinates some mm apart",
            "take a grid or mask of the scan's template, warp the scan to the other one, or pass --assume_mni=true to "
            "take the two for one",
        )
    return f"{scan.template or 'unstated template'} to {other.template or 'unstated template'}"


def _read(path: Path, option: str, config: PrepareFMRI) -> Nifti:
    try:
        stat = path.stat()
        return _read_once(path, stat.st_size, stat.st_mtime_ns, round(config.max_gib * 2**30))
    except OSError as cause:
        known = f"; `grid` may also be {', '.join(GRIDS)}" if option == "grid" else ""
        raise InputError(
            f"{path} cannot be read ({cause.strerror}), but {option} names it; pass an existing NIfTI file{known}"
        ) from cause
    except ScanRefused as cause:
        raise InputError(f"the {option} {path}: {cause.sentence}; {cause.fix}", code=cause.code) from cause


@functools.lru_cache(maxsize=2)
def _read_once(path: Path, size: int, changed: int, max_bytes: int) -> Nifti:
    return read_nifti(path, max_bytes=max_bytes)


def _grid_of_file(image: Nifti, path: Path, option: str, config: PrepareFMRI) -> Grid:
    template = template_of(path.name)
    if not template and image.space_code != MNI and not config.assume_mni:
        raise InputError(
            f"nothing says that the {option} {path} lies in MNI space (its affine has code {image.space_code}, its name "
            f"no space-MNI or tpl-MNI); pass one that does, or --assume_mni=true if it is",
            code="E_SPACE",
        )
    return Grid(shape=image.grid, affine=image.affine, template=template, name=f"the {option} {path.name}")
