"""What can only be seen across scans: the same scan under two names, another grid than the rest."""

import itertools
from collections import Counter, defaultdict
from typing import Any

from encoders.brainmt.preparation.quarantine import Quarantined

Entry = dict[str, Any]  # metadata of a run in the store, with its file


def judge_together(entries: list[Entry]) -> tuple[list[Entry], list[Quarantined]]:
    """Divide runs, sorted by name, into good ones and refusals."""
    twins = defaultdict(list)
    for entry in entries:
        twins[entry["source_sha256"]].append(entry)
    grids = Counter(_grid(entry) for entry in entries)
    usual = grids.most_common(1)[0][0] if grids else None
    good, refused = [], []
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
            refused.append(
                _refuse(entry, "E_GRID", sentence, "bring all to one grid with --grid, or leave it out")
            )
        else:
            good.append(entry)
    return good, refused


def _refuse(entry: Entry, code: str, sentence: str, fix: str) -> Quarantined:
    who = {name: entry[name] for name in ("subject", "session", "task", "run")}
    sources = tuple((path, size, changed) for path, size, changed in entry["sources"])
    return Quarantined(**who, file=sources[0][0], code=code, sentence=sentence, fix=fix, sources=sources)


def _grid(entry: Entry) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return tuple(entry["grid"]), tuple(round(x, 2) for x in itertools.chain(*entry["affine"]))
