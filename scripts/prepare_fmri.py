"""Check, canonicalise and normalise the scans of a study into its fMRI store; resumable.

    python scripts/prepare_fmri.py --study my-study

Exit code 0 if every scan passed, 3 if some are in quarantine (store/quarantine.tsv says which and why).
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.brainmt.config import PrepareFMRI
from encoders.runs import Stage, Study, command

SOME_QUARANTINED = 3


@command
def main(config: PrepareFMRI) -> int:
    study = Study(config.study)
    scans = study.need("scans", config.scans)
    store = study.path("store").parent

    from encoders.brainmt.discover import discover
    from encoders.brainmt.prepare import dry_run, is_current, prepare, table
    from encoders.brainmt.store import load_manifest

    listing = discover(scans, layout=config.layout, task=config.task, space=config.space)
    left_out = {
        "other_versions_of_the_same_recordings": listing.passed_over,
        "scans_of_other_tasks": listing.other_tasks,
    }
    left_out = {what: count for what, count in left_out.items() if count}
    if config.dry_run:
        outcome = dry_run(listing, store, config)
        print("\n".join(table(outcome)))
        print("prepare_fmri: dry run, nothing written")
        for key, value in {**outcome.summary, **left_out}.items():
            print(f"  {key.replace('_', ' ')}: {value}")
        return SOME_QUARANTINED if outcome.quarantined else 0

    stage = Stage(
        "prepare_fmri",
        config,
        study=study,
        inputs={"scans": scans if scans.is_dir() else scans.parent},  # rows may be added to a table
        outputs=[study.path("store"), store / "quarantine.tsv", store / "runs"],
        ignore=("num_workers", "dry_run"),
        redo=config.redo,
    )
    if stage.finished and is_current(listing, store, config):
        manifest = load_manifest(store) or {}
        return stage.report() or (SOME_QUARANTINED if manifest["quarantine"] else 0)
    stage.begin()
    outcome = prepare(listing, store, config)
    return stage.end(**outcome.summary, **left_out) or (SOME_QUARANTINED if outcome.quarantined else 0)


if __name__ == "__main__":
    sys.exit(main())
