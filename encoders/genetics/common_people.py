"""People who are in two places under one id; ids are compared letter by letter."""

import difflib

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
