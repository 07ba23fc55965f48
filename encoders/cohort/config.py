"""Options and defaults of the cohort; imports nothing heavy, so that `--help` is instant."""

from dataclasses import dataclass, field
from pathlib import Path

from encoders.runs.study import DEMO

PCS = tuple(f"pcs_{k}" for k in range(1, 11))
# Ancestry clusters stand beside the PCs: PCs alone are a noisy measure of a cluster, and taking a noisy measure
# out of brain and genome alike would put its noise into both.
DEFAULT_TERMS = ("age", "age^2", "sex", "age:sex", "site", "mean_fd", "head_size", "ancestry", *PCS, "batch")


@dataclass(frozen=True, kw_only=True)
class MakeSplits:
    """Divide people into train, validation and test without cutting a family.

    Args:
        study: Study folder.
        participants: Table of people (TSV or CSV); default: raw/participants.tsv of the study.
        kinship: Kinship table (KING); default: raw/kinship.tsv of the study if it is there.
        kinship_threshold: KING kinship coefficient above which two people count as relatives.
        val_fraction: Share of people for validation, 0-1.
        test_fraction: Share of people held out for the evaluation, 0-1.
        num_folds: Divide everyone into so many folds as well, for cross-validation (count); 0 for none.
        stratify: Columns whose levels are spread evenly over the folds.
        seed: Seed of the shuffle.
        redo: Discard an earlier split made with other options.
    """

    study: Path = DEMO
    participants: Path | None = None
    kinship: Path | None = None
    kinship_threshold: float = 0.0442
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    num_folds: int = 0
    stratify: list[str] = field(default_factory=lambda: ["site", "sex"])
    seed: int = 42
    redo: bool = False
