"""The card of a trained BrainMT without anybody in it: what may leave the machine with the weights.

Only entries known to describe the model itself are kept; of who was seen there remain the digest of the split
and the number of people. Whether weights may be given away at all is for the study's data agreement to say.
"""

import re
from collections.abc import Mapping
from typing import Any

from encoders.runs.errors import InputError

KEPT = (
    "config",
    "num_outputs",
    "targets",
    "preprocessing",
    "trained_on",
    "training",
    "epoch",
    "validation",
    "source",
    "started_from",
    "versions",
)
FEWEST_LETTERS = 4  # of an id that is looked for in text: shorter ones cannot be told from ordinary numbers
PATH_REMOVED = "(path removed)"
NOTE = "The ids of the people this model has seen were removed for sharing; their number and the split's digest remain."


def shareable_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a card that holds no id of a person and no path.

    Raises:
        InputError: an id stands where it cannot be removed without changing what the card says.
    """
    kept = {name: _without_paths(card[name]) for name in KEPT if name in card}
    for target in kept.get("targets") or ():
        if isinstance(target, dict):
            target["weights"] = []  # with the number of people they give away how many are in each class
    seen = card.get("trained_on")
    if seen is None:
        return kept
    ids = seen.get("ids")
    kept["trained_on"] = {
        "split_digest": seen.get("split_digest"),
        "people": len(ids) if ids is not None else seen.get("people"),
        "ids": None,
        "complete": seen.get("complete", ids is not None),
        "note": NOTE,
    }
    if named := sorted(
        set(_places(kept, {name for name in map(str, ids or ()) if len(name) >= FEWEST_LETTERS}))
    ):
        raise InputError(
            f"the card names people that the model has seen, in {', '.join(named)}; rename what is named after a "
            f"person there, and train again, before sharing"
        )
    return kept


def _without_paths(value: Any) -> Any:
    """Text that is a path becomes a note; a path tells names of people, projects and machines."""
    if isinstance(value, Mapping):
        return {str(key): _without_paths(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_paths(entry) for entry in value]
    if isinstance(value, str) and re.search(r"(^|[\s\"'=:])(~|\.{1,2}|[A-Za-z]:)?[/\\]", value):
        return PATH_REMOVED
    return value


def _places(value: Any, ids: set[str], place: str = "card") -> list[str]:
    """Where an id occurs as a word of a key or of text."""
    if isinstance(value, Mapping):
        inside = [found for key, entry in value.items() for found in _places(entry, ids, f"{place}.{key}")]
        return inside + [f"a name below {place}" for key in value if _has_id(str(key), ids)]
    if isinstance(value, (list, tuple)):
        return [found for entry in value for found in _places(entry, ids, place)]
    return [place] if isinstance(value, str) and _has_id(value, ids) else []


def _has_id(text: str, ids: set[str]) -> bool:
    return any(
        re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", text) for name in ids if name in text
    )
