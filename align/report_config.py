"""What the commands `retrieve` and `report` can be asked. Torch-free, so that `--help` is instant."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from encoders.runs.errors import InputError
from encoders.runs.study import DEMO


@dataclass(frozen=True, kw_only=True)
class Retrieve:
    """Find the people whose vectors in the other modality lie nearest to one person's.

    Args:
        subject: Subject id to look up, e.g. sub-0007. Required.
        study: Study folder.
        from_modality: Which vector of the person is the question: "fmri" (the same as "brain"), "genetics", or any other
            modality that was aligned. --from is the same option.
        to_modality: Among which vectors the answer is sought; default: genetics, or the brain if that is the question.
            --to is the same option.
        k: Number of nearest people to list, a count of at least 1.
        vectors: Aligned vectors with confounds removed (adjusted) or as the towers gave them (raw).
        gallery: Everybody with a vector in the other modality (all), or held-out people only (test).
        format: A table to read, or JSON for a program.
    """

    subject: str
    study: Path = DEMO
    from_modality: str = "fmri"
    to_modality: str = ""
    k: int = 10
    vectors: Literal["adjusted", "raw"] = "adjusted"
    gallery: Literal["all", "test"] = "all"
    format: Literal["table", "json"] = "table"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"--k is {self.k}, but at least 1 nearest person has to be listed; pass --k 10")
        if self.from_modality == self.to_modality:
            raise InputError(
                f"--from and --to are both {self.from_modality}; two different modalities were wanted"
            )


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the self-contained HTML report of a study.

    Args:
        study: Study folder.
        min_count: Smallest count of people that is printed; smaller ones become "< min_count" (people).
        redo: Discard an earlier, different report of this study instead of refusing.
    """

    study: Path = DEMO
    min_count: int = 5
    redo: bool = False

    def __post_init__(self) -> None:
        if self.min_count < 1:
            raise InputError(f"--min_count is {self.min_count}, but must be at least 1; pass --min_count 5")
