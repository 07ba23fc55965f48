"""Divide the people of a study into train, validation and test; no family, and if asked no site, is cut.

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
    if config.held_out_people:
        inputs["held_out_people"] = study.need("held_out_people", config.held_out_people)
    if config.kinship or study.path("kinship").exists():
        inputs["kinship"] = study.need("kinship", config.kinship)
    output = study.path("splits")
    stage = Stage("make_splits", config, study=study, inputs=inputs, outputs=[output], redo=config.redo)
    if stage.finished:
        return stage.report()

    from encoders.cohort import Cohort, read_kinship
    from encoders.cohort.divide import divide
    from encoders.runs.artifact import PRIVATE, write_text

    cohort = Cohort.load(inputs["participants"])
    related = (
        read_kinship(inputs["kinship"], threshold=config.kinship_threshold) if "kinship" in inputs else []
    )
    sources = ["family_id"] * ("family_id" in cohort.frame) + ["kinship"] * ("kinship" in inputs)
    split, left_out = divide(cohort, related, config, sources=sources)
    stage.begin()
    split.save(output)
    told = {}
    if left_out:
        listed = study.private / "left_out_of_split.tsv"
        rows = "".join(f"{name}\t{reason}\n" for name, reason in left_out.items())
        write_text(listed, "participant_id\treason\n" + rows, mode=PRIVATE)
        told = {"left_out": f"{len(left_out)}, listed in {listed}"}
    if not sources:
        print(
            "warning: no family_id column and no kinship table: relatives may lie in different folds",
            flush=True,
        )
    kept = [*split.train, *split.val, *split.test]
    return stage.end(
        people=len(kept),
        **told,
        train=len(split.train),
        validation=len(split.val),
        test=len(split.test),
        **({"folds_of_everyone": ", ".join(str(len(fold)) for fold in split.folds)} if split.folds else {}),
        families_of_two_or_more=sum(
            size > 1 for size in Counter(split.groups[name] for name in kept).values()
        ),
        grouped_by=split.grouped_by or "nothing: everyone counts as unrelated",
    )


if __name__ == "__main__":
    sys.exit(main())
