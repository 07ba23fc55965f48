"""What can only be seen across scans: the same scan under two names, another grid than the rest."""

import itertools
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from encoders.brainmt.preparation.quarantine import Quarantined
from encoders.brainmt.preparation.references import SAME_GRID

Entry = dict[str, Any]  # metadata of a run in the store, with its file


def judge_together(entries: list[Entry]) -> tuple[list[Entry], list[Quarantined]]:
    """Divide runs, sorted by name, into good ones and refusals."""
    if not entries:
        return [], []
    twins = defaultdict(list)
    for entry in entries:
        twins[entry["source_sha256"]].append(entry)
    most, number = Counter(_grid(entry) for entry in entries).most_common(1)[0]
    usual = next(entry for entry in entries if _grid(entry) == most)
    good, refused = [], []
    for entry in entries:
        same = [twin["sources"][0][0] for twin in twins[entry["source_sha256"]] if twin is not entry]
        if same:
            sentence = f"it is byte for byte the same scan as {', '.join(same[:3])}"
            refused.append(
                _refuse(entry, "E_DUPLICATE", sentence, "find out whose it is and remove the others")
            )
        elif not _same_grid(entry, usual):
            sentence = (
                f"its grid {_place(entry)} is not that of {number} other scans, which is {_place(usual)}"
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


def _place(entry: Entry) -> str:
    corner = ", ".join(f"{row[3]:g}" for row in entry["affine"][:3])
    return f"{entry['grid']} at {corner} mm"


def _same_grid(entry: Entry, other: Entry) -> bool:
    """To 0.01 mm, however each was rounded: two headers may say one place in different last digits."""
    return entry["grid"] == other["grid"] and np.allclose(entry["affine"], other["affine"], atol=SAME_GRID)


def _grid(entry: Entry) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return tuple(entry["grid"]), tuple(round(x, 2) for x in itertools.chain(*entry["affine"]))
