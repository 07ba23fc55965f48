"""What all layouts do with the scans they found: choose task and space, one version of each recording, or say why none."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from encoders.brainmt.preparation.discovery.scan import Layout, Listing, Scan
from encoders.brainmt.preparation.quarantine import Quarantined
from encoders.runs.errors import InputError


def select(
    found: Iterable[Scan],
    root: Path,
    *,
    layout: Layout,
    task: str,
    space: str,
    wanted: str,
    rank: Callable[[Scan], Any] = lambda scan: 0,
    refused: Iterable[Quarantined] = (),
    passed_over: int = 0,
    clash: str = "keep one of them",
) -> Listing:
    """A listing of the scans of one task and space.

    Args:
        found: All scans below the root.
        root: Where they were looked for.
        layout: What was looked for.
        task: Task label to keep; empty for all.
        space: Space label to keep; empty for any.
        wanted: The layout in words, for the message if there is nothing.
        rank: Of several versions of one recording, those of the highest rank are taken.
        refused: Files that cannot be attributed.
        passed_over: Versions that were not even listed (count).
        clash: What to do about two equally good versions.

    Raises:
        InputError: nothing is left.
    """
    scans, bad = list(found), list(refused)
    of_task = [scan for scan in scans if not task or scan.task == task]
    kept = [scan for scan in of_task if not space or scan.space == space]
    if not kept and not bad:
        raise _nothing(root, len(scans), task, space, wanted)
    versions: dict[str, list[Scan]] = defaultdict(list)
    for scan in kept:
        versions[scan.name].append(scan)
    chosen = []
    for name in sorted(versions):
        top = max(map(rank, versions[name]))
        best = [scan for scan in versions[name] if rank(scan) == top]
        passed_over += len(versions[name]) - len(best)
        if len(best) == 1:
            chosen.append(best[0])
        else:
            bad += [_refuse_duplicate(scan, best, clash) for scan in best]
    return Listing(
        scans=chosen,
        refused=bad,
        passed_over=passed_over,
        other_tasks=len(scans) - len(of_task),
        layout=layout,
    )


def _refuse_duplicate(scan: Scan, twins: list[Scan], clash: str) -> Quarantined:
    others = ", ".join(twin.sources[0][0] for twin in twins if twin is not scan)
    return scan.refused(
        "E_DUPLICATE", f"the same recording lies here more than once, also as {others}", clash
    )


def _nothing(root: Path, total: int, task: str, space: str, wanted: str) -> InputError:
    if total:
        asked = " and ".join(f"{key}-{value}" for key, value in (("task", task), ("space", space)) if value)
        return InputError(
            f"none of the {total} scans below {root} has {asked} in its name; pass another label"
        )
    nested = [path for path in sorted(root.glob("derivatives/*")) if any(path.glob("sub-*"))]
    hint = f"try --scans={nested[0]}" if nested else "pass the root of such a tree with --scans=FOLDER"
    return InputError(f"no scan found below {root}: looked for {wanted}; {hint}")
