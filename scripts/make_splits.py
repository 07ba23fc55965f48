"""Divide the people of a study into train, validation and test; no family is cut.

python scripts/make_splits.py --study my-study
"""

import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.cohort.config import MakeSplits
from encoders.runs import Stage, Study, command


@command
def main(config: MakeSplits) -> int:
    study = Study(config.study)
    inputs = {"participants": study.need("participants", config.participants)}
    if config.kinship or study.path("kinship").exists():
        inputs["kinship"] = study.need("kinship", config.kinship)
    output = study.path("splits")
    stage = Stage("make_splits", config, study=study, inputs=inputs, outputs=[output], redo=config.redo)
    if stage.finished:
        return stage.report()
    stage.begin()

    from encoders.cohort import Cohort, groups_of, make_split, read_kinship

    cohort = Cohort.load(inputs["participants"])
    related = (
        read_kinship(inputs["kinship"], threshold=config.kinship_threshold) if "kinship" in inputs else []
    )
    sources = ["family_id"] * ("family_id" in cohort.frame) + ["kinship"] * ("kinship" in inputs)
    groups = groups_of(cohort, related)
    split = make_split(
        cohort,
        groups,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        stratify=config.stratify,
        num_folds=config.num_folds,
        seed=config.seed,
        grouped_by=" and ".join(sources),
    )
    split.save(output)
    if not sources:
        print(
            "warning: no family_id column and no kinship table: relatives may lie in different folds",
            flush=True,
        )
    return stage.end(
        people=len(cohort.ids),
        train=len(split.train),
        validation=len(split.val),
        test=len(split.test),
        **({"folds_of_everyone": ", ".join(str(len(fold)) for fold in split.folds)} if split.folds else {}),
        families_of_two_or_more=sum(size > 1 for size in Counter(groups.values()).values()),
        grouped_by=" and ".join(sources) or "nothing: everyone counts as unrelated",
    )


if __name__ == "__main__":
    sys.exit(main())
