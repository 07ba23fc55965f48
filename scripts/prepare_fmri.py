"""Check, canonicalise and normalise the scans of a study into its fMRI store; resumable.

    python scripts/prepare_fmri.py --study my-study

Exit code 0 if every scan passed, 3 if some are in quarantine (store/quarantine.tsv says which and why).

Many machines: `--dask tcp://host:8786` for a Dask cluster; or a job array of `--shard 1/8` to `--shard 8/8` at the same
time, each with the other options alike, and then once without it, which prepares what is missing and writes the
manifest.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.brainmt.preparation.config import HOW, PrepareFMRI
from encoders.runs import InputError, Stage, Study, command
from encoders.runs.stage import holder_of

if TYPE_CHECKING:
    from encoders.brainmt.preparation.discover import Listing

SOME_QUARANTINED = 3
# what a dry run calls the counts of a run, which has not been
WOULD = {
    "prepared_now": "to_prepare",
    "kept_from_before": "to_keep",
    "removed": "to_remove",
    "quarantined": "to_refuse",
}


@command
def main(config: PrepareFMRI) -> int:
    study = Study(config.study)
    scans = study.need("scans", config.scans)
    store = study.path("store").parent

    from encoders.brainmt.preparation.discover import discover
    from encoders.brainmt.preparation.dry_run_table import summary, table
    from encoders.brainmt.preparation.prepare import dry_run, is_current, prepare
    from encoders.brainmt.preparation.recording import need_options
    from encoders.brainmt.preparation.references import check_references
    from encoders.brainmt.store import load_manifest

    check_references(config)
    listing = discover(scans, layout=config.layout, task=config.task, space=config.space)
    need_options(listing.scans, config)
    left_out = {
        "other_versions_of_the_same_recordings": listing.passed_over,
        "scans_of_other_tasks": listing.other_tasks,
    }
    left_out = {what: count for what, count in left_out.items() if count}
    if config.dry_run:
        outcome = dry_run(listing, store, config)
        print("\n".join([*table(outcome), *summary(listing, outcome)]))
        print("prepare_fmri: dry run, nothing written")
        for key, value in {**outcome.summary, **left_out}.items():
            print(f"  {WOULD.get(key, key).replace('_', ' ')}: {value}")
        return SOME_QUARANTINED if outcome.quarantined else 0

    stage = Stage(
        "prepare_fmri",
        config,
        study=study,
        inputs={"scans": scans},
        outputs=[study.path("store"), store / "quarantine.tsv", store / "runs"],
        ignore=HOW,
        redo=config.redo,
    )
    if config.part:
        return prepare_shard(stage, listing, store, config)
    if stage.finished and is_current(listing, store, config):
        manifest = load_manifest(store) or {}
        return stage.report() or (SOME_QUARANTINED if manifest["quarantine"] else 0)
    if config.dask:
        reach_cluster(config)
    stage.begin()
    for folder in stage.folder.glob("shard-*"):
        refuse_company(folder, "a shard of the same preparation")
    outcome = prepare(listing, store, config)
    return stage.end(**outcome.summary, **left_out) or (SOME_QUARANTINED if outcome.quarantined else 0)


def prepare_shard(whole: Stage, listing: "Listing", store: Path, config: PrepareFMRI) -> int:
    """One part beside others; the whole's folder is shared, and each part has one of its own below it."""
    from encoders.brainmt.preparation.parts import part_file
    from encoders.brainmt.preparation.prepare import prepare_part

    whole.share()
    stage = Stage(
        "prepare_fmri/shard-{}-of-{}".format(*config.part),
        config,
        study=whole.study,
        outputs=[part_file(store, config)],
        ignore=HOW,
    )
    if config.dask:
        reach_cluster(config)
    stage.begin()
    refuse_company(whole.folder, "the preparation of the whole")
    outcome = prepare_part(listing, store, config)
    then = "when all shards are done, run once without --shard: it writes the manifest"
    return stage.end(**outcome.summary, next=then) or (SOME_QUARANTINED if outcome.quarantined else 0)


def reach_cluster(config: PrepareFMRI) -> None:
    """Fail here rather than after an earlier store was discarded."""
    from encoders.brainmt.preparation.on_dask import connect

    connect(config.dask).close()


def refuse_company(folder: Path, what: str) -> None:
    """Refuse to go on beside a process that would delete or judge what this one is about to make."""
    if holder := holder_of(folder):
        raise InputError(
            f"{what} is being done by process {holder['pid']} on {holder['host']}; wait for it, or delete "
            f"{folder / '.lock'} if that process is gone"
        )


if __name__ == "__main__":
    sys.exit(main())
