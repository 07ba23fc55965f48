"""Scans that were refused: which, why, and what to do about it."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from encoders.runs.artifact import PRIVATE, write_text

RETRY = {"E_READ", "E_WORKER"}  # may pass next time although the file is the same
BETWEEN = {"E_DUPLICATE", "E_GRID"}  # a judgement about several scans, so it changes with the others

# (path below the root of the scans, bytes, time of change in ns) of a scan and of each file read with it
Sources = tuple[tuple[str, int, int], ...]


class ScanRefused(ValueError):
    """A scan failed a check.

    Args:
        code: Fault code such as ``E_TRUNCATED``.
        sentence: What was found and what was wanted, with numbers.
        fix: What the user can do.
    """

    def __init__(self, code: str, sentence: str, fix: str) -> None:
        super().__init__(f"{code}: {sentence}; {fix}")
        self.code, self.sentence, self.fix = code, sentence, fix


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """One refused scan.

    Args:
        subject: Subject id, `sub-0001`.
        session: Session label, empty if none.
        task: Task label, empty if none.
        run: Run index, empty if none.
        file: Path below the root of the scans.
        code: Fault code.
        sentence: What was found and what was wanted.
        fix: What to do.
        sources: Files that were judged, to know whether they have changed since.
    """

    subject: str
    session: str
    task: str
    run: str
    file: str
    code: str
    sentence: str
    fix: str
    sources: Sources = ()


COLUMNS = ("subject", "session", "task", "run", "file", "code", "sentence", "fix")


def write_quarantine(path: Path, rows: Iterable[Quarantined]) -> None:
    """Write the table a user reads; tab-separated, readable by its owner only."""
    lines = ["\t".join(COLUMNS)]
    for row in rows:
        values = dataclasses.asdict(row)
        lines.append("\t".join(" ".join(str(values[name]).split()) for name in COLUMNS))
    write_text(path, "\n".join(lines) + "\n", mode=PRIVATE)
