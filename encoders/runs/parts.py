"""One part of n: how a job of an array says which share of the work is its own."""

import re

from encoders.runs.errors import InputError


def part_of(text: str) -> tuple[int, int] | None:
    """(i, n) of `i/n`, i from 1 to n; None for an empty text: all of the work.

    Raises:
        InputError: anything else.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"shard is {text!r}; give i/n with i from 1 to n, `2/8` say")
    return int(found[1]), int(found[2])
