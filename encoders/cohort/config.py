"""Options and defaults of the cohort; imports nothing heavy, so that `--help` is instant."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from encoders.runs.errors import InputError
from encoders.runs.study import DEMO

PCS = tuple(f"pcs_{k}" for k in range(1, 11))
# Ancestry clusters stand beside the PCs: PCs alone are a noisy measure of a cluster, and taking a noisy measure
# out of brain and genome alike would put its noise into both.
DEFAULT_TERMS = ("age", "age^2", "sex", "age:sex", "site", "mean_fd", "head_size", "ancestry", *PCS, "batch")


@dataclass(frozen=True, kw_only=True)
class MakeSplits:
    """Divide people into train, validation and test without cutting a family, or a site.

    Args:
        study: Study folder.
        participants: Table of people (TSV or CSV); default: raw/participants.tsv of the study.
        kinship: Kinship table (KING); default: raw/kinship.tsv of the study if it is there.
        kinship_threshold: KING kinship coefficient above which two people count as relatives.
        val_fraction: Share of people for validation, 0-1.
        test_fraction: Share of people held out for the evaluation, 0-1.
        num_folds: Divide everyone into so many folds as well, for cross-validation (count); 0 for none.
        by: What is never cut: "family" (shared family_id or kinship), or "site": whole sites, families not cut either.
        held_out_sites: The people of these sites are the test people, nobody else is.
        held_out_people: File with one subject id per line: these are the test people, nobody else is.
        leave_site_out: The folds of the cross-validation are the sites, one fold each; implies --by=site.
        prune_relatives: Leave people out until no two of the rest are related, instead of keeping families together.
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
    by: Literal["family", "site"] = "family"
    held_out_sites: list[str] = field(default_factory=list)
    held_out_people: Path | None = None
    leave_site_out: bool = False
    prune_relatives: bool = False
    stratify: list[str] = field(default_factory=lambda: ["site", "sex"])
    seed: int = 42
    redo: bool = False

    def __post_init__(self) -> None:
        if self.held_out_sites and self.held_out_people:
            raise InputError("pass --held_out_sites or --held_out_people, not both")
        if self.leave_site_out and self.num_folds:
            raise InputError("--leave_site_out makes a fold of every site; drop --num_folds")
