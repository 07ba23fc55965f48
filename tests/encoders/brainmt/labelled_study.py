"""The tiny study with more in its table: classes, confounds, families, and a split with folds."""

import csv
import importlib.util
from pathlib import Path

import numpy as np

from encoders.cohort import Split
from encoders.runs.study import Study

spec = importlib.util.spec_from_file_location("tiny_study", Path(__file__).with_name("tiny_study.py"))
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

FAMILY = 2  # people per family; the last one may be alone
FOLDS = 3


def make_study(
    folder: Path,
    *,
    train: int = 21,
    val: int = 9,
    test: int = 7,
    task: str = "regression",
    targets: str = "trait_*",
) -> Study:
    """``patient`` is yes where trait_1 is high, ``stage`` is a third of trait_2; age, sex and site say nothing."""
    study = tiny.make_study(folder, train=train, val=val, test=test)
    path = study.path("participants")
    with open(path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    rng = np.random.default_rng(7)
    traits = np.array([[tiny_number(row[name]) for name in ("trait_1", "trait_2")] for row in rows])
    for k, row in enumerate(rows):
        high = traits[k, 0] > np.nanmedian(traits[:, 0])
        third = np.searchsorted(np.nanquantile(traits[:, 1], [1 / 3, 2 / 3]), traits[k, 1])
        row["patient"] = "n/a" if np.isnan(traits[k, 0]) else "yes" if high else "no"
        row["stage"] = "n/a" if np.isnan(traits[k, 1]) else ("early", "late", "middle")[third]
        row["age"] = f"{rng.uniform(20, 80):.1f}"
        row["sex"] = "MF"[rng.integers(2)]
        row["site"] = ("north", "south")[rng.integers(2)]
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    made = Split.load(study.path("splits"))
    groups = {}
    for part in (made.train, made.val, made.test):  # relatives never lie in two parts
        for k, name in enumerate(part):
            groups[name] = f"family of {part[k - k % FAMILY]}"
    families = sorted(set(groups.values()))
    folds = [[name for name in groups if families.index(groups[name]) % FOLDS == k] for k in range(FOLDS)]
    Split(train=made.train, val=made.val, test=made.test, groups=groups, seed=0, folds=folds).save(
        study.path("splits")
    )
    settings = study.folder / "configs" / "pretrain_brainmt.yaml"
    text = settings.read_text(encoding="utf-8").replace('targets: ["trait_*"]', f"targets: [{targets!r}]")
    settings.write_text(text + f"task: {task}\n", encoding="utf-8")
    return study


def tiny_number(cell: str) -> float:
    """A number of the table, NaN where it is missing."""
    return float("nan") if cell == "n/a" else float(cell)
