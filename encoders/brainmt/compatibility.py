"""Whether a trained model may be used on a store and on these people: same preparation, nobody it has seen."""

from collections.abc import Iterable, Mapping
from typing import Any

from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.store import FMRIStore
from encoders.runs.errors import InputError

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


def seen_people(card: Mapping[str, Any]) -> set[str] | None:
    """Ids of everyone the model was trained or chosen on; None if its card does not say."""
    trained_on = card.get("trained_on")
    return None if not trained_on or trained_on.get("ids") is None else set(trained_on["ids"])


def check_unseen(card: Mapping[str, Any], people: Iterable[str], groups: Mapping[str, str]) -> list[str]:
    """Refuse a model that has seen some of the people or their relatives; returns what could not be checked.

    Args:
        card: The model's card.
        people: Who must be unseen.
        groups: Id -> family.

    Raises:
        InputError: it has seen a family.
    """
    seen = seen_people(card)
    if seen is None:
        return ["the model does not say whom it was trained on; make sure that nobody held out is among them"]
    families = {groups[name] for name in people}
    if overlap := {groups[name] for name in seen if name in groups} & families:
        raise InputError(
            f"the model was trained on {len(overlap)} of the {len(families)} families that must be unseen; "
            f"use a model that was trained on the present split"
        )
    return []
