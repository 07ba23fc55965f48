"""One progress bar for all stages: label, count, rate, time left."""

import os
import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], label: str, *, total: int | None = None, unit: str = "it"
) -> "tqdm[Item]":
    """Wrap an iterable in a progress bar on stderr.

    Silent on all but the main process; where stderr is no terminal, one line every 20 seconds.
    """
    live = sys.stderr.isatty()
    return tqdm(
        items,
        desc=label,
        total=total,
        unit=unit,
        disable=int(os.environ.get("RANK", "0")) != 0,
        mininterval=0.2 if live else 20,
        dynamic_ncols=live,
        leave=live,
    )
