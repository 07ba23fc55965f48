"""What the report says about rivals beyond their scores: paired differences, and who could not be scored.

Everything here takes plain JSON values and returns text or dictionaries of text for the template.
"""

from collections.abc import Mapping
from typing import Any

from align import report_words as words


def paired_rows(paired: Mapping[str, Any], least: int) -> list[dict[str, Any]]:
    """The table of differences: our 2AFC minus each rival's, on the people that both were scored on."""
    rows = []
    for name in dict.fromkeys([*(m for m in words.MODELS if m in paired), *paired]):
        found = paired[name]
        people = {told["people"] for told in found.values()}
        cells = [
            (
                heading,
                [
                    (arrow, difference(found.get(gallery, {}).get(direction)))
                    for direction, arrow in words.DIRECTIONS.items()
                ],
            )
            for gallery, heading in words.GALLERIES.items()
        ]
        title = words.MODELS.get(name, (name.replace("_", " "), ""))[0]
        rows.append({"title": title, "people": words.count(max(people, default=0), least), "cells": cells})
    return rows


def difference(found: Mapping[str, Any] | None) -> dict[str, str] | None:
    """A difference with its sign, interval and p; None where it was not computed."""
    if not found:
        return None
    low, high = (f"{found[end]:+.3f}" for end in ("ci_low", "ci_high"))
    return {"value": f"{found['value']:+.3f}", "interval": f"{low} to {high}", "p": f"{found['p']:.2g}"}


def rival_sentences(rivals: Mapping[str, Any], least: int) -> list[str]:
    """Who lacks the vectors of a rival, and which rivals could not be fitted."""
    sentences = []
    for name, folds in rivals.get("without_vectors", {}).items():
        title = words.MODELS.get(name, (name.replace("_", " "),))[0]
        lacking = ", ".join(f"{words.count(num, least)} in {fold}" for fold, num in folds.items())
        sentences.append(f"People without vectors of {title}: {lacking}; it is scored on the others.")
    for name in rivals.get("unfitted", {}):
        title = words.MODELS.get(name, (name.replace("_", " "),))[0]
        sentences.append(f"{title} was not fitted: too few people have its vectors.")
    return sentences
