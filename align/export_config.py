"""Options of `scripts/export.py`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from encoders.runs.errors import InputError
from encoders.runs.study import DEMO


@dataclass(frozen=True, kw_only=True)
class Export:
    """Aligned vectors as a phenotype table for association tests.

    Args:
        study: Study folder.
        output: File to write; default: private/export/MODALITY_VECTORS.FORMAT.txt of the study.
        format: "regenie" (columns FID IID Y1 Y2 ..., read by REGENIE and PLINK), or
            "plink2" (#FID IID Y1 ...). Missing values are NA.
        modality: Whose vectors: "brain", "genetics", or another that was aligned. Brain vectors tested against variants are
            the usual case.
        vectors: "adjusted" (confounds regressed out) or "raw".
        folds: People of which folds. Training people's vectors were fitted to their own genomes, so an association
            found in them proves nothing: only "test" people are written unless you ask for more.
        fid: First column: "iid" repeats the id, "0" says no family, "family" takes family_id of the table of people.
        components: Principal components of the vectors instead of the vectors themselves, fitted on the people of the
            training fold: 0 writes the vectors. A space of 512 numbers is far from 512 independent traits.
        sample: Write only people in this file, e.g. the .fam, .psam or .sample of the genotypes; the rest is counted.
    """

    study: Path = DEMO
    output: Path | None = None
    format: Literal["regenie", "plink2"] = "regenie"
    modality: str = "brain"
    vectors: Literal["adjusted", "raw"] = "adjusted"
    folds: list[Literal["train", "val", "test"]] = field(default_factory=lambda: ["test"])
    fid: Literal["iid", "0", "family"] = "iid"
    components: int = 0
    sample: Path | None = None

    def __post_init__(self) -> None:
        if not self.folds:
            raise InputError("--folds is empty; some of train, val and test were wanted")
        if self.components < 0:
            raise InputError(f"--components={self.components}; 0 or more was wanted")
