"""Which implementation runs, said once per process and only by the main one."""

import functools
import os
import sys


@functools.cache
def announce(part: str, path: str, reason: str) -> None:
    """Print `part: path (reason)` to stderr, the first time it is asked for.

    Args:
        part: What is computed.
        path: Which implementation was taken.
        reason: Why.
    """
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"{part}: {path} ({reason})", file=sys.stderr)
