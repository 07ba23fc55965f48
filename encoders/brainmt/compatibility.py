"""Whether a trained model may be used on a store and on these people: same preparation, nobody it has seen."""

from collections.abc import Iterable, Mapping
from typing import Any

from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.store import FMRIStore
from encoders.runs.errors import InputError

UNKNOWN = (
    "the model does not name all the people it was trained on; make sure that nobody held out is among them"
)
PREPARED_ALIKE = ("normalisation", "background")  # options of the store that a model cannot do without


def check_preparation(store: FMRIStore, config: BrainMTConfig, card: Mapping[str, Any]) -> list[str]:
    """Refuse a store that was not prepared as the model's training data; returns what could not be checked.

    Args:
        store: The fMRI store.
        config: Shape of the model.
        card: Its card.

    Raises:
        InputError: another grid, normalisation or background.
    """
    x, y, z = store.grid
    if (y, x, z) != config.grid:
        own = config.grid
        raise InputError(
            f"the store's scans have {x} x {y} x {z} voxels, the model was trained on "
            f"{own[1]} x {own[0]} x {own[2]}; prepare the scans on the grid of the training data"
        )
    if not card.get("preprocessing"):
        return [
            "the model does not say how its training scans were prepared; make sure that this store was prepared "
            "in the same way (the original code: --normalisation=global --background=minimum)"
        ]
    trained = card["preprocessing"]["options"]
    for name in PREPARED_ALIKE:
        if trained.get(name) != store.options.get(name):
            raise InputError(
                f"the store was prepared with {name} {store.options.get(name)!r}, the scans that the model was trained "
                f"on with {trained.get(name)!r}; prepare the scans with --{name}={trained.get(name)}"
            )
    return []


def trained_on(card: Mapping[str, Any]) -> dict[str, Any]:
    """Whom a model has seen, as vectors and models made with it record: `split_digest`, `ids` and `complete`.

    `ids` is None where the card names nobody; `complete` is false where the model, or the weights it started from,
    saw people whom nobody recorded.
    """
    found = card.get("trained_on") or {"split_digest": None, "ids": None}
    return {"complete": found["ids"] is not None, **found}


def check_unseen(card: Mapping[str, Any], people: Iterable[str], groups: Mapping[str, str]) -> list[str]:
    """Refuse a model that has seen some of the people or their relatives; returns what could not be checked.

    Args:
        card: The model's card.
        people: Who must be unseen.
        groups: Id -> family.

    Raises:
        InputError: it has seen a family.
    """
    seen = trained_on(card)
    families = {groups[name] for name in people}
    if overlap := {groups[name] for name in seen["ids"] or () if name in groups} & families:
        raise InputError(
            f"the model was trained on {len(overlap)} of the {len(families)} families that must be unseen; "
            f"use a model that was trained on the present split"
        )
    return [] if seen["complete"] and seen["ids"] is not None else [UNKNOWN]
