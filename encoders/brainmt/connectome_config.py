"""Options of `scripts/export_connectome.py`. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from encoders.runs.errors import InputError
from encoders.runs.study import DEMO

VECTORS = "vectors/brain_connectome.safetensors"  # below the study


@dataclass(frozen=True, kw_only=True)
class ExportConnectome:
    """Functional connectomes of everyone as a modality of its own: the rival that a deep model has to beat.

    Voxels are averaged over parcels, each run becomes a matrix of how parcels move together, runs are averaged per
    person. Whatever is learned (parcels, the mean matrix of `tangent`) is learned from training people. `evaluate` puts
    a ridge CCA of these vectors beside the alignment where it finds them.

    Args:
        study: Study folder; the vectors go to its vectors/brain_connectome.safetensors.
        store: fMRI store (its manifest.json); default: the study's own.
        splits: Split file; default: the study's own.
        kind: "tangent": covariances seen from the training people's mean, which keep amplitudes; "correlation": the
            usual correlations.
        atlas: NIfTI file of integer labels in MNI space, 0 outside; default: parcels made from training people's scans.
        parcels: Parcels made where no atlas is given (count); fewer where the mask is small.
        seed: Seed of the choice of runs that parcels are made from.
        control: Folder of a study to make for the rival: people, split, settings and genome vectors are links to this
            study's, the brain vectors are these, so that align, evaluate and report run there unchanged.
        redo: Discard earlier vectors made with other options.
    """

    study: Path = DEMO
    store: Path | None = None
    splits: Path | None = None
    kind: Literal["tangent", "correlation"] = "tangent"
    atlas: Path | None = None
    parcels: int = 100
    seed: int = 0
    control: Path | None = None
    redo: bool = False

    def __post_init__(self) -> None:
        if self.parcels < 1:
            raise InputError(f"parcels is {self.parcels}; a number above 0 was wanted")
