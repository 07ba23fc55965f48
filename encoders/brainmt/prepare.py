"""Prepare a cohort: keep what is done, check and store the rest in parallel, write the manifest last.

Every run is an artefact of its own that records the files it was made from and the options, so a killed
preparation resumes, new or changed scans are picked up, and withdrawn ones leave the store.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from encoders.brainmt.config import PrepareFMRI
from encoders.brainmt.discover import Listing, Scan
from encoders.brainmt.quarantine import BETWEEN, RETRY, Quarantined, ScanRefused, write_quarantine
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
    "frames",
    "voxels",
    "tr",
    "mean_fd",
    "grid",
    "background",
    "segments",
    "orientation",
    "space",
    "mask",
    "constant_voxels",
    "nan_voxels",
    "dropped_frames",
    "source_sha256",
    "sources",
]
Entry = dict[str, Any]


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
    try:
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
        if todo or stale:
            (folder / MANIFEST).unlink(missing_ok=True)  # it would list what is about to change
        for path in stale:
            path.unlink()
        results = list(progress(_each(todo, config, folder), "preparing", total=len(todo), unit="scan"))
        outcome = _judge_together(kept, refused, results, removed=_withdrawn(stale, todo))
        write_quarantine(folder / QUARANTINE, outcome.quarantined)
        save_manifest(folder, _manifest(outcome, config))
    except (OSError, SafetensorError) as cause:
        raise InputError(
            f"cannot write to {folder} ({cause}); make room or mend the folder, then run the same command again"
        ) from cause
    return outcome


def dry_run(listing: Listing, folder: Path, config: PrepareFMRI) -> Outcome:
    """What :func:`prepare` would do; reads every new scan whole, writes nothing."""
    kept, refused, todo = _plan(listing, folder, config)
    results = list(progress(_each(todo, config, None), "checking", total=len(todo), unit="scan"))
    stale = stale_files(folder, {entry["file"] for entry in kept})
    return _judge_together(kept, refused, results, removed=_withdrawn(stale, todo))


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


def table(outcome: Outcome) -> Iterator[str]:
    """One line per scan for people: what would happen to it, and why."""
    yield f"{'action':<11} {'frames':>6} {'voxels':>7} {'TR s':>6} {'FD mm':>6}  scan"
    for entry in outcome.runs:
        action = "keep" if entry["name"] in outcome.kept else "prepare"
        moved = "-" if entry["mean_fd"] is None else f"{entry['mean_fd']:.3f}"
        yield (
            f"{action:<11} {entry['frames']:>6} {entry['voxels']:>7} {entry['tr']:>6.3g} {moved:>6}  "
            f"{entry['sources'][0][0]} ({entry['orientation']}, {entry['space']}, mask {entry['mask']})"
        )
    for row in outcome.quarantined:
        yield f"{row.code:<11} {'':>29} {row.file}: {row.sentence}; {row.fix}"


def _plan(
    listing: Listing, folder: Path, config: PrepareFMRI
) -> tuple[list[Entry], list[Quarantined], list[Scan]]:
    """Divide the scans: runs to keep, refusals that stand, scans to prepare."""
    digest = content_digest(config.numbers)
    manifest = load_manifest(folder)
    standing = {}
    if manifest and manifest["options_sha256"] == digest:
        standing = {row["file"]: row for row in manifest["quarantine"] if row["code"] not in RETRY | BETWEEN}
    kept, refused, todo = [], list(listing.refused), []
    for scan in listing.scans:
        entry = _stored(folder, scan, digest)
        before = standing.get(scan.sources[0][0])
        if entry is not None:
            kept.append(entry)
        elif before is not None and before["sources"] == _plain(scan.sources):
            refused.append(Quarantined(**{**before, "sources": scan.sources}))
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
    """Prepare scans as they come, `num_workers` at a time, one scan in memory for each."""
    if config.num_workers == 1 or len(todo) < 2:
        yield from (_prepare_one(scan, config, folder) for scan in todo)
        return
    # leaving the block waits for scans in work: a thread cut off at exit would abort the whole process
    with ThreadPoolExecutor(config.num_workers) as pool:
        futures = [pool.submit(_prepare_one, scan, config, folder) for scan in todo]
        try:
            yield from (future.result() for future in as_completed(futures))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _prepare_one(scan: Scan, config: PrepareFMRI, folder: Path | None) -> Entry | Quarantined:
    from encoders.brainmt.series import read_series

    try:
        series = read_series(scan, config)
    except ScanRefused as cause:
        return scan.refused(cause.code, cause.sentence, cause.fix)
    metadata = {
        **{name: getattr(scan, name) for name in ("name", "subject", "session", "task", "run")},
        **series.metadata,
        "sources": _plain(scan.sources),
        "options_sha256": content_digest(config.numbers),
    }
    if folder is None:
        return {**metadata, "file": "", "sha256": "", "bytes": sum(t.nbytes for t in series.tensors.values())}
    path = folder / RUNS / f"{scan.name}.safetensors"
    save_run(path, series.tensors, metadata)
    return describe_run(path)


def _judge_together(
    kept: list[Entry], refused: list[Quarantined], results: list[Entry | Quarantined], *, removed: int
) -> Outcome:
    """Refuse what can only be seen across scans: the same scan under two names, another grid than the rest."""
    made = [result for result in results if isinstance(result, dict)]
    entries = sorted(kept + made, key=lambda entry: entry["name"])
    twins = defaultdict(list)
    for entry in entries:
        twins[entry["source_sha256"]].append(entry)
    grids = Counter(_grid(entry) for entry in entries)
    usual = grids.most_common(1)[0][0] if grids else None
    good, refused = [], refused + [result for result in results if isinstance(result, Quarantined)]
    for entry in entries:
        same = [twin["sources"][0][0] for twin in twins[entry["source_sha256"]] if twin is not entry]
        if same:
            sentence = f"it is byte for byte the same scan as {', '.join(same[:3])}"
            refused.append(
                _refuse(entry, "E_DUPLICATE", sentence, "find out whose it is and remove the others")
            )
        elif _grid(entry) != usual:
            sentence = (
                f"its grid {entry['grid']} at {entry['affine'][0][3]:g}, {entry['affine'][1][3]:g}, "
                f"{entry['affine'][2][3]:g} mm is not that of {grids[usual]} other scans ({list(usual[0])})"
            )
            refused.append(_refuse(entry, "E_GRID", sentence, "resample it to the grid of the others"))
        else:
            good.append(entry)
    names = {entry["name"] for entry in kept}
    return Outcome(
        runs=good,
        quarantined=sorted(refused, key=lambda row: row.file),
        made=sum(entry["name"] not in names for entry in good),
        kept=names & {entry["name"] for entry in good},
        removed=removed,
    )


def _refuse(entry: Entry, code: str, sentence: str, fix: str) -> Quarantined:
    who = {name: entry[name] for name in ("subject", "session", "task", "run")}
    sources = tuple((path, size, changed) for path, size, changed in entry["sources"])
    return Quarantined(**who, file=sources[0][0], code=code, sentence=sentence, fix=fix, sources=sources)


def _grid(entry: Entry) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return tuple(entry["grid"]), tuple(round(x, 2) for x in itertools.chain(*entry["affine"]))


def _manifest(outcome: Outcome, config: PrepareFMRI) -> dict[str, Any]:
    return {
        "options": config.numbers,
        "options_sha256": content_digest(config.numbers),
        "affine": outcome.runs[0]["affine"] if outcome.runs else None,
        "runs": [{name: entry[name] for name in LISTED} for entry in outcome.runs],
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
