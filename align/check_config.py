"""Options of `scripts/check.py`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from encoders.runs.study import DEMO


@dataclass(frozen=True, kw_only=True)
class Check:
    """Prove on the files that nothing of a held-out person was seen by anything that was trained or fitted.

    Args:
        study: Study folder.
        participants: Table of people; default: the study's own.
        kinship: Kinship table; default: the study's own, if it is there.
        kinship_threshold: KING kinship coefficient above which two people count as relatives.
        vectors: Files of vectors; default: all that lie in vectors/ of the study.
        unknown_training: "accept" takes encoders that do not say whom they have seen.
    """

    study: Path = DEMO
    participants: Path | None = None
    kinship: Path | None = None
    kinship_threshold: float = 0.0442
    vectors: list[Path] = field(default_factory=list)
    unknown_training: Literal["refuse", "accept"] = "refuse"
