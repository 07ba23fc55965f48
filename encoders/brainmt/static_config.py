"""Options of `scripts/export_static.py`. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path

from encoders.runs.errors import InputError
from encoders.runs.study import DEMO

VECTORS = "vectors/brain_static.safetensors"  # below the study


@dataclass(frozen=True, kw_only=True)
class ExportStatic:
    """The time-averaged image of each person as a modality of its own: the control that knows no dynamics.

    Each run's image of temporal means in scanner units is divided by its mean over the voxels that all runs share, so
    that the gain of the scanner drops out; runs are averaged per person. Align these vectors as you aligned BrainMT's:
    what those reach beyond them is what dynamics add.

    Args:
        study: Study folder; the vectors go to its vectors/brain_static.safetensors.
        store: fMRI store (its manifest.json); default: the study's own.
        splits: Split file, needed with components only; default: the study's own.
        block_mm: Average voxels over cubes of this edge in mm, so that many people fit into memory; 0 keeps voxels.
        components: Principal components kept (count), fitted on the training people of the split alone; 0 for none.
        control: Folder of a study to make for the control: people, split, settings and genome vectors are links to this
            study's, the brain vectors are these, so that align, evaluate and report run there unchanged.
        redo: Discard earlier vectors made with other options.
    """

    study: Path = DEMO
    store: Path | None = None
    splits: Path | None = None
    block_mm: float = 0.0
    components: int = 0
    control: Path | None = None
    redo: bool = False

    def __post_init__(self) -> None:
        for name in ("block_mm", "components"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}; give 0 or a number above it")
