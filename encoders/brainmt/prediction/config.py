"""Options of `scripts/predict_brainmt.py`. Imports nothing heavy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from encoders.cohort.config import DEFAULT_TERMS
from encoders.runs.errors import InputError
from encoders.runs.study import DEMO

Baseline = Literal["mean", "confounds", "connectome_correlation", "connectome_tangent"]
BASELINES: tuple[Baseline, ...] = ("mean", "confounds", "connectome_correlation", "connectome_tangent")
MIN_COUNT = 5  # smallest count of people in anything that may be shared


@dataclass(frozen=True, kw_only=True)
class PredictBrainMT:
    """Predict with a trained BrainMT, score it on people it has not seen, and compare it with simple models.

    Args:
        study: Study folder.
        store: fMRI store (its manifest.json); default: the study's own.
        splits: Split file; default: the study's own.
        participants: Table with targets and confounds; default: the study's own.
        model: Folder or hub id of a trained BrainMT; default: the study's own best.
        revision: Commit, tag or branch of the model on the hub.
        people: Whom to predict: `test` people, who must be unseen; `val`; `train`; or `all` people of the store,
            scored twice, those the model has not seen by themselves.
        fold: Instead of the hold-out people, the people of this fold (0, 1, ...) by the model that held it out, or
            `all` folds, each person predicted by the one model that has not seen it.
        windows: Evenly spaced windows per run, averaged (count).
        batch_size: Windows per forward pass and process (count).
        mixed_precision: `auto` takes bf16 where a CUDA device has it, else fp32.
        baselines: Simple models fitted on the same training people; `[]` for none.
        atlas: NIfTI file of integer labels in MNI space for the connectomes; default: parcels made from the training
            people's scans.
        parcels: Parcels made where no atlas is given (count); fewer where the mask is small.
        confounds: Terms of the `confounds` baseline; those that contain the target itself are left out for it.
        bootstraps: Resamples of families behind every interval (count).
        seed: Seed of the bootstrap and of the parcels.
        redo: Discard earlier predictions made with other options.
    """

    study: Path = DEMO
    store: Path | None = None
    splits: Path | None = None
    participants: Path | None = None
    model: str = ""
    revision: str | None = None
    people: Literal["test", "val", "train", "all"] = "test"
    fold: int | Literal["all"] | None = None
    windows: int = 4
    batch_size: int = 4
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    baselines: list[Baseline] = field(default_factory=lambda: list(BASELINES))
    atlas: Path | None = None
    parcels: int = 100
    confounds: list[str] = field(default_factory=lambda: list(DEFAULT_TERMS))
    bootstraps: int = 1000
    seed: int = 0
    redo: bool = False

    def __post_init__(self) -> None:
        for name in ("windows", "batch_size", "parcels", "bootstraps"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; give a number above 0")
        if len(set(self.baselines)) < len(self.baselines):
            raise InputError(f"baselines names one twice ({', '.join(self.baselines)}); name each once")
        if self.fold == "all" and (self.model or self.people != "test"):
            raise InputError(
                "fold is `all`, where each fold's own model predicts the people it held out; leave out "
                f"{'model' if self.model else 'people'}, or name one fold"
            )
