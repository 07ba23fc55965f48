"""Prepare a cohort: keep what is done, check and store the rest in parallel, write the manifest last.

Every run is an artefact of its own that records the files it was made from and the options, so a killed
preparation resumes, new or changed scans are picked up, and withdrawn ones leave the store.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError
from tqdm import tqdm

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import Listing, Scan
from encoders.brainmt.preparation.judgement import Entry, judge_together
from encoders.brainmt.preparation.memory import workers_that_fit
from encoders.brainmt.preparation.on_dask import on_dask
from encoders.brainmt.preparation.parts import forget_parts, load_parts, part_of, save_part
from encoders.brainmt.preparation.quarantine import BETWEEN, RETRY, Quarantined, ScanRefused, write_quarantine
from encoders.brainmt.preparation.workers import WorkerDied, in_processes, in_this_process
from encoders.brainmt.store import (
    MANIFEST,
    QUARANTINE,
    RUNS,
    describe_run,
    load_manifest,
    save_manifest,
    save_run,
    stale_files,
)
from encoders.runs.artifact import content_digest
from encoders.runs.errors import InputError
from encoders.runs.progress import progress

# what the manifest says about each run; the run's own file says more
LISTED = [
    "name",
    "subject",
    "session",
    "task",
    "run",
    "file",
    "sha256",
    "bytes",
    "dtype",
    "frames",
    "voxels",
    "tr",
    "mean_fd",
    "max_fd",
    "fd_share",
    "fd_definition",
    "tsnr",
    "grid",
    "background",
    "segments",
    "orientation",
    "space",
    "mask",
    "mask_sha256",
    "constant_voxels",
    "nan_voxels",
    "dropped_frames",
    "source_sha256",
    "options_sha256",
    "sources",
]
FEW_BYTES = 2**24  # of compressed scans, for which starting processes does not pay


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the scans.

    Args:
        runs: Entry of every run that can be used, sorted by name.
        quarantined: Refused scans, sorted by file.
        made: Runs prepared this time (count); the others were kept from before.
        kept: Names of the runs kept from before.
        removed: Files of withdrawn or outdated runs deleted (count).
    """

    runs: list[Entry]
    quarantined: list[Quarantined]
    made: int
    kept: set[str]
    removed: int = 0

    @property
    def summary(self) -> dict[str, int | str]:
        """Counts for the end of the stage."""
        people = {entry["subject"] for entry in self.runs}
        lost = {row.subject for row in self.quarantined} - people
        codes = ", ".join(
            f"{code} {n}" for code, n in sorted(Counter(r.code for r in self.quarantined).items())
        )
        return {
            "people": len(people),
            "scans": len(self.runs),
            "prepared_now": self.made,
            "kept_from_before": len(self.kept),
            "removed": self.removed,
            "quarantined": f"{len(self.quarantined)} ({codes})" if codes else 0,
            "people_without_any_scan_left": len(lost),
            "megabytes": round(sum(entry["bytes"] for entry in self.runs) / 1e6),
        }


def prepare(listing: Listing, folder: Path, config: PrepareFMRI) -> Outcome:
    """Bring the store in ``folder`` up to date with the scans in ``listing``.

    Raises:
        InputError: the store cannot be written (a full disk, say); what is done is kept.
    """
    kept, refused, todo = _plan(listing, folder, config)
    stale = stale_files(folder, {entry["file"] for entry in kept})
    with _writing(folder):
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
        if todo or stale:
            (folder / MANIFEST).unlink(missing_ok=True)  # it would list what is about to change
        for path in stale:
            path.unlink()
        results = list(progress(_each(todo, config, folder), "preparing", total=len(todo), unit="scan"))
        outcome = _judge(kept, refused, results, removed=_withdrawn(stale, todo))
        write_quarantine(folder / QUARANTINE, outcome.quarantined)
        save_manifest(folder, _manifest(outcome, config))
        forget_parts(folder)
    return outcome


def prepare_part(listing: Listing, folder: Path, config: PrepareFMRI) -> Outcome:
    """Prepare the scans of one part (``config.part``), beside others that do so at the same time.

    Nothing is judged together, nothing deleted, no manifest written: :func:`prepare` does so afterwards.

    Raises:
        InputError: as :func:`prepare`.
    """
    kept, refused, todo = _plan(part_of(listing, config), folder, config)
    with _writing(folder):
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
        if todo:
            (folder / MANIFEST).unlink(missing_ok=True)  # it would list what is about to change
        results = list(progress(_each(todo, config, folder), "preparing", total=len(todo), unit="scan"))
        made = [result for result in results if isinstance(result, dict)]
        refused += [result for result in results if isinstance(result, Quarantined)]
        save_part(folder, config, refused)
    return Outcome(
        runs=sorted(kept + made, key=lambda entry: entry["name"]),
        quarantined=sorted(refused, key=lambda row: row.file),
        made=len(made),
        kept={entry["name"] for entry in kept},
    )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as cause:
        raise InputError(
            f"cannot write to {folder} ({cause}); make room or mend the folder, then run the same command again"
        ) from cause


def dry_run(listing: Listing, folder: Path, config: PrepareFMRI) -> Outcome:
    """What :func:`prepare` would do; reads every new scan whole, writes nothing."""
    kept, refused, todo = _plan(listing, folder, config)
    results = list(progress(_each(todo, config, None), "checking", total=len(todo), unit="scan"))
    stale = stale_files(folder, {entry["file"] for entry in kept})
    return _judge(kept, refused, results, removed=_withdrawn(stale, todo))


def is_current(listing: Listing, folder: Path, config: PrepareFMRI) -> bool:
    """Whether the store was made with these options from exactly these files, and all of it is still there."""
    manifest = load_manifest(folder)
    if manifest is None or manifest["options_sha256"] != content_digest(config.numbers):
        return False
    judged = sorted(entry["sources"] for entry in manifest["runs"] + manifest["quarantine"])
    found = sorted(_plain(item.sources) for item in [*listing.scans, *listing.refused])
    return (
        judged == found
        and not any(row["code"] in RETRY for row in manifest["quarantine"])
        and all(_bytes(folder / entry["file"]) == entry["bytes"] for entry in manifest["runs"])
    )


def _plan(
    listing: Listing, folder: Path, config: PrepareFMRI
) -> tuple[list[Entry], list[Quarantined], list[Scan]]:
    """Divide the scans: runs to keep, refusals that stand, scans to prepare."""
    digest = content_digest(config.numbers)
    manifest = load_manifest(folder)
    before = [*load_parts(folder), *([manifest] if manifest else [])]
    standing = {
        row["file"]: row
        for judged in before
        if judged["options_sha256"] == digest
        for row in judged["quarantine"]
        if row["code"] not in RETRY | BETWEEN
    }
    kept, refused, todo = [], list(listing.refused), []
    for scan in listing.scans:
        entry = _stored(folder, scan, digest)
        verdict = standing.get(scan.sources[0][0])
        if entry is not None:
            kept.append(entry)
        elif verdict is not None and verdict["sources"] == _plain(scan.sources):
            refused.append(Quarantined(**{**verdict, "sources": scan.sources}))
        else:
            todo.append(scan)
    return kept, refused, todo


def _stored(folder: Path, scan: Scan, digest: str) -> Entry | None:
    """The run of a scan if it is there and was made from the same files with the same options."""
    path = folder / RUNS / f"{scan.name}.safetensors"
    if not path.exists():
        return None
    try:
        entry = describe_run(path)
    except InputError:  # damaged or of an older format: made anew
        return None
    same = entry["sources"] == _plain(scan.sources) and entry["options_sha256"] == digest
    return entry if same else None


def _each(todo: list[Scan], config: PrepareFMRI, folder: Path | None) -> Iterator[Entry | Quarantined]:
    """Prepare scans as they come: on the cluster, in processes, or right here if they are few and small."""
    prepare_one = partial(_prepare_one, config=config, folder=folder)
    if config.dask:
        each = on_dask(prepare_one, todo, address=config.dask)
    elif config.num_workers == 1 or len(todo) < 2 or sum(s.sources[0][1] for s in todo) < FEW_BYTES:
        each = in_this_process(prepare_one, todo)
    else:
        num_workers, sentence = workers_that_fit(todo, config)
        if sentence:
            tqdm.write(f"prepare_fmri: {sentence}", file=sys.stderr)  # on a line of its own, above the bar
        each = in_processes(prepare_one, todo, num_workers=num_workers)
    with closing(each):
        for scan, result in each:
            yield _refuse_lost(scan, result) if isinstance(result, WorkerDied) else result


def _refuse_lost(scan: Scan, died: WorkerDied) -> Quarantined:
    return scan.refused(
        "E_WORKER",
        f"the process that prepared it died ({died.how}), perhaps for want of memory",
        "run the same command again, with a lower --max_memory_gib or fewer --num_workers if it dies again",
    )


def _prepare_one(scan: Scan, config: PrepareFMRI, folder: Path | None) -> Entry | Quarantined:
    from encoders.brainmt.preparation.recording import SCANNER
    from encoders.brainmt.preparation.series import read_series

    try:
        series = read_series(scan, config)
    except ScanRefused as cause:
        return scan.refused(cause.code, cause.sentence, cause.fix)
    metadata = {
        **{name: getattr(scan, name) for name in ("name", "subject", "session", "task", "run")},
        **series.metadata,
        "tsnr": _temporal_snr(series.mean, series.sd) if series.metadata["units"] == SCANNER else None,
        "sources": _plain(scan.sources),
        "options_sha256": content_digest(config.numbers),
    }
    if folder is None:
        return {**metadata, "file": "", "sha256": "", "bytes": sum(t.nbytes for t in series.tensors.values())}
    path = folder / RUNS / f"{scan.name}.safetensors"
    save_run(path, series.tensors, metadata)
    return describe_run(path)


def _temporal_snr(mean: Float32[np.ndarray, " V"], sd: Float32[np.ndarray, " V"]) -> float | None:
    """Median over voxels with signal of mean / standard deviation over time; None if there is none."""
    alive = sd > 0
    return round(float(np.median(mean[alive] / sd[alive])), 3) if alive.any() else None


def _judge(
    kept: list[Entry], refused: list[Quarantined], results: list[Entry | Quarantined], *, removed: int
) -> Outcome:
    """The outcome, after the scans have been judged together."""
    made = [result for result in results if isinstance(result, dict)]
    good, unfit = judge_together(sorted(kept + made, key=lambda entry: entry["name"]))
    refused = refused + [result for result in results if isinstance(result, Quarantined)] + unfit
    names = {entry["name"] for entry in kept}
    return Outcome(
        runs=good,
        quarantined=sorted(refused, key=lambda row: row.file),
        made=sum(entry["name"] not in names for entry in good),
        kept=names & {entry["name"] for entry in good},
        removed=removed,
    )


def _manifest(outcome: Outcome, config: PrepareFMRI) -> dict[str, Any]:
    return {
        "options": config.numbers,
        "options_sha256": content_digest(config.numbers),
        "affine": outcome.runs[0]["affine"] if outcome.runs else None,
        "runs": [{name: entry.get(name) for name in LISTED} for entry in outcome.runs],
        "quarantine": [asdict(row) for row in outcome.quarantined],
    }


def _withdrawn(stale: list[Path], todo: list[Scan]) -> int:
    """Runs that leave the store for good: neither half-written nor about to be made anew."""
    coming = {f"{scan.name}.safetensors" for scan in todo}
    return sum(not path.name.startswith(".") and path.name not in coming for path in stale)


def _plain(sources: Any) -> list[list[Any]]:
    """Sources as they come back from JSON."""
    return [list(source) for source in sources]


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1
