"""What a dry run prints: what would happen to each scan, with every step that changes its numbers, and a summary."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from encoders.brainmt.preparation.discovery.scan import Listing
from encoders.brainmt.preparation.judgement import Entry
from encoders.brainmt.preparation.prepare import Outcome


def table(outcome: Outcome) -> Iterator[str]:
    """One line per scan: action, numbers, and what would be done to it; or the reason why it is refused."""
    yield f"{'action':<11} {'frames':>6} {'voxels':>7} {'TR s':>6} {'FD mm':>6}  scan"
    for entry in outcome.runs:
        action = "keep" if entry["name"] in outcome.kept else "prepare"
        moved = "-" if entry["mean_fd"] is None else f"{entry['mean_fd']:.3f}"
        yield (
            f"{action:<11} {entry['frames']:>6} {entry['voxels']:>7} {entry['tr']:>6.3g} {moved:>6}  "
            f"{entry['sources'][0][0]} ({', '.join(_steps(entry))})"
        )
    for row in outcome.quarantined:
        yield f"{row.code:<11} {'':>29} {row.file}: {row.sentence}; {row.fix}"


def summary(listing: Listing, outcome: Outcome) -> Iterator[str]:
    """Counts by layout and by code."""
    refused = Counter(row.code for row in outcome.quarantined)
    yield f"layout {listing.layout}: {len(listing.scans) + len(listing.refused)} found"
    actions = {"prepare": outcome.made, "keep": len(outcome.kept)}
    for action, count in {**actions, **dict(sorted(refused.items()))}.items():
        if count:
            yield f"  {action:<11} {count:>6}"


def _steps(entry: Entry) -> Iterator[str]:
    """Where a scan lies and what is done to it, in words; nothing that is only usual."""
    yield entry["orientation"]
    yield entry["space"]
    yield f"mask {entry['mask']}"
    if warp := entry.get("warp"):
        yield f"warped to MNI by {warp['file']} ({warp['kind']}, {warp['interpolation']})"
    if dropped := len(entry.get("dropped_frames") or []):
        yield f"{dropped} frame{'s' * (dropped > 1)} dropped"
    if nan := entry.get("nan_voxels"):
        yield f"{nan} NaN voxel{'s' * (nan > 1)} set to 0"
    if cleaned := entry.get("cleaned"):
        yield f"cleaned of {', '.join(_taken_out(cleaned))}"
    if retimed := entry.get("retimed"):
        yield f"retimed from {retimed['from_tr']:g} s"
    if entry.get("fd_definition"):
        yield f"FD {entry['fd_definition']}"
    if entry.get("normalised_by", "this preparation") != "this preparation":
        yield f"normalised by {entry['normalised_by']}"


def _taken_out(cleaned: dict[str, Any]) -> Iterator[str]:
    """What nuisance regression and filters take out, from the record of :class:`encoders.brainmt.preparation.config.Clean`."""
    if names := cleaned["confounds"]:
        yield f"{len(names)} confound{'s' * (len(names) > 1)}"
    if cleaned["high_pass"]:
        yield f"what is slower than {cleaned['high_pass']:g} Hz"
    if cleaned["low_pass"]:
        yield f"what is faster than {cleaned['low_pass']:g} Hz"
    if cleaned["detrend"]:
        yield "a linear trend"
