"""One progress bar for all stages: label, count, rate, time left."""

import os
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

EVERY = 20.0  # seconds between lines where stderr is no terminal


def progress(
    items: Iterable[Item], label: str, *, total: int | None = None, unit: str = "it"
) -> "tqdm[Item]":
    """Wrap an iterable in a progress bar on stderr.

    Silent on all but the main process. Where stderr is no terminal, one line of its own every 20 seconds, from the
    20th second on: what is done sooner leaves nothing in a log.
    """
    live = sys.stderr.isatty()
    return tqdm(
        items,
        desc=label,
        total=total,
        unit=unit,
        disable=int(os.environ.get("RANK", "0")) != 0,
        file=None if live else _Lines(sys.stderr),
        delay=0 if live else EVERY,
        mininterval=0.2 if live else EVERY,
        miniters=None if live else 1,  # looks at the clock after every item
        dynamic_ncols=live,
        leave=live,
    )


class _Lines:
    """Turns the redrawings of a bar into lines of a log."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            self._file.write(f"{line}\n")

    def flush(self) -> None:
        self._file.flush()
