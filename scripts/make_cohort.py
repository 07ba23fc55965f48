"""Make a synthetic cohort with known truth: BIDS scans, phased variants, tables, and the truth behind them.

python scripts/make_cohort.py --study my-study --config configs/tiny/make_cohort.yaml
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.folder import check_folder, missing_scans
from encoders.runs import InputError, Stage, Study, command

OUTPUTS = ("truth", "participants", "kinship", "variants", "reference", "windows")


@command
def main(config: SyntheticCohort) -> int:
    study = Study(config.study)
    folder = study.path("scans")
    check_folder(folder)  # before the stage, which with --redo=true deletes outputs
    outputs = [study.path(name) for name in OUTPUTS]
    stage = Stage(
        "make_cohort", config, study=study, outputs=outputs, ignore=("num_workers",), redo=config.redo
    )
    if stage.finished and not missing_scans(config, folder):
        return stage.report()
    stage.begin()

    from encoders.cohort.synthetic.write import write_cohort

    try:
        summary = write_cohort(config, folder, fresh=config.redo)
    except OSError as cause:
        raise InputError(
            f"cannot write to {folder} ({cause}); make room or pass another --study, and run this again to resume"
        ) from cause
    return stage.end(**summary)


if __name__ == "__main__":
    sys.exit(main())
