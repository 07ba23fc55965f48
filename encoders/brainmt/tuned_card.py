"""The card of a BrainMT tuned against vectors of another modality: above all, whom it has seen by now.

That is everybody it was trained on before, the people it was tuned on or chosen by, and everybody whom the encoder of
the other modality was trained on: what that encoder learned of them has gone into the tower.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from encoders.brainmt.compatibility import trained_on
from encoders.brainmt.store import FMRIStore
from encoders.cohort import Split
from encoders.runs.artifact import content_digest
from encoders.runs.stage import release


def tuned_card(
    card: Mapping[str, Any],
    *,
    people: Iterable[str],
    partner: Mapping[str, Any],
    split: Split,
    store: FMRIStore,
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """What to record with the weights.

    Args:
        card: Of the model before.
        people: Training people, and the validation people who chose the epoch.
        partner: Provenance of the other modality's vectors.
        split: Who is held out.
        store: The fMRI store.
        training: Options of the tuning that made a difference.
    """
    before, other = trained_on(card), partner.get("trained_on")
    seen, complete = {*people, *(before["ids"] or ())}, before["complete"] and before["ids"] is not None
    if other:
        ids = other["ids"]
        if ids is None and other["split_digest"] == split.digest:  # it names nobody, but these they are
            ids = [*split.train, *split.val]
        seen |= set(ids or ())
        complete = complete and ids is not None and other.get("complete", True)
    return {
        "targets": None,  # the head does not fit the tuned trunk
        "preprocessing": {
            "id": content_digest(store.options),
            "store_digest": store.digest,
            "options": store.options,
        },
        "trained_on": {"split_digest": split.digest, "ids": sorted(seen), "complete": bool(complete)},
        "started_from": {"weights_sha256": card["weights_sha256"], "revision": card["revision"]},
        "training": dict(training),
        "versions": {"neurohelix": release(), "torch": str(torch.__version__)},
    }
