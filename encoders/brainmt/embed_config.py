"""Options of `scripts/embed_fmri.py`. Imports nothing heavy."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from encoders.runs.errors import InputError
from encoders.runs.study import DEMO


@dataclass(frozen=True, kw_only=True)
class EmbedFMRI:
    """One vector per person of the fMRI store: windows, then runs, then the person averaged.

    Args:
        study: Study folder; the vectors go to its vectors/NAME.safetensors, those of single runs beside them.
        name: "brain", or another name for the vectors of another model, such as one per fold: brain_fold-0.
        store: fMRI store (its manifest.json); default: the study's own.
        model: Folder of a trained BrainMT; default: the study's own best.
        strategy: `rsfmri_brainmt_windows_v1`: evenly spaced windows as long as the model was trained on, its own
            embedding; `rsfmri_brainmt_segments_v1`: consecutive segments of 32 frames, mean over tokens.
        windows: Evenly spaced windows per run (count); only for the windows strategy.
        batch_size: Windows per forward pass (count).
        redo: Discard earlier vectors made with other options.
    """

    study: Path = DEMO
    name: str = "brain"
    store: Path | None = None
    model: Path | None = None
    strategy: Literal["rsfmri_brainmt_windows_v1", "rsfmri_brainmt_segments_v1"] = "rsfmri_brainmt_windows_v1"
    windows: int = 4
    batch_size: int = 16
    redo: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", self.name):
            raise InputError(f"--name={self.name!r}; small letters, digits, _ and - were wanted")
