"""People who are in two places under one id; ids are compared letter by letter."""

import difflib
import re

from encoders.genetics.reference import some
from encoders.runs.errors import InputError


def nobody_in_common(listed: list[str], found: list[str], where: str, advice: str) -> InputError:
    """The error for ids that do not meet anywhere, with near misses.

    Args:
        listed: Ids of the table of people.
        found: The other ids.
        where: What holds them, such as "samples of cohort.vcf.gz".
        advice: What to do about it.
    """
    near = [
        f"{name!r} and {match[0]!r}"
        for name in listed[:50]
        if (match := difflib.get_close_matches(name, found[:5000], n=1, cutoff=0.5))
    ]
    hint = f"near misses: {'; '.join(near[:3])}; " if near else ""
    return InputError(
        f"none of the {len(listed)} people of the table is among the {len(found)} {where} (table: {some(listed, 2)}; "
        f"there: {some(found, 2)}; {hint}ids are compared letter by letter); {advice}",
        code="E_SAMPLE",
    )


def near_misses(absent: list[str], found: list[str]) -> dict[str, str]:
    """Ids of ``absent`` that differ from one of ``found`` by their spelling only: `7` and `007`, `x` and `x_x`.

    They are never joined by it: whether they are the same person is for the user to say.
    """
    plain: dict[str, str] = {}
    for name in found:
        plain.setdefault(_plain(name), name)
    return {name: plain[key] for name in absent if (key := _plain(name)) in plain}


def _plain(name: str) -> str:
    """An id without case, punctuation, `sub-`, leading zeros, `.0` of numbers read as floats, or its repetition."""
    bare = name.strip().lower().removeprefix("sub-").removesuffix(".0")
    half, middle, other = bare.partition("_")
    if middle and half == other:  # PLINK's FID_IID
        bare = half
    return re.sub(r"[^0-9a-z]", "", bare).lstrip("0")
