"""A model to train: from scratch, or from the weights of a trained one."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from encoders.brainmt.checkpoint import from_pretrained
from encoders.brainmt.compatibility import check_preparation, check_unseen, trained_on
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.targets import Targets
from encoders.brainmt.training.config import PretrainBrainMT
from encoders.cohort import Split

# what a fine-tuning may set anew; everything else belongs to the weights
FREE = ("num_frames", "drop_path", "attention_dropout", "embedding", "use_checkpoint", "scan")


@dataclass(frozen=True, kw_only=True)
class Start:
    """A model before its first step.

    Args:
        model: The bare model.
        seen: Whom its weights have seen already: `ids` and whether they are `complete`.
        origin: What the card of the trained model will say about where its weights came from; None from scratch.
        said: Sentences for the user: what was carried over, and what could not be checked.
    """

    model: BrainMT
    seen: dict[str, Any]
    origin: dict[str, Any] | None
    said: list[str]


def starting_model(
    config: PretrainBrainMT,
    shape: BrainMTConfig,
    *,
    targets: Targets,
    store: FMRIStore,
    split: Split,
) -> Start:
    """Seeded random weights, or those that `weights` names.

    Args:
        config: Options of the training.
        shape: Shape of the network, if it is made from scratch.
        targets: What the head predicts.
        store: fMRI store.
        split: Who is held out.

    Raises:
        InputError: the weights were trained on other preparation or have seen held-out families.
    """
    if not config.weights:
        nobody = {"ids": [], "complete": True}
        return Start(model=BrainMT(shape, num_outputs=targets.num_outputs), seen=nobody, origin=None, said=[])
    trained, card = from_pretrained(config.weights, revision=config.revision, option="--weights")
    said = check_preparation(store, trained.config, card)
    said += check_unseen(card, split.test, split.groups)
    shape = replace(trained.config, **{name: getattr(config.model, name) for name in FREE})
    model = BrainMT(shape, num_outputs=targets.num_outputs)
    same_head = card.get("targets") == targets.to_card()
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if name == "time_table":
                own[name].copy_(trained.time_positions(shape.num_frames))
            elif same_head or not name.startswith("head."):
                own[name].copy_(parameter)
    said.append(
        f"starting from {config.weights} ({'with its head' if same_head else 'with a new head'}); the shape of the "
        f"network is its own, `model` sets {', '.join(FREE)}"
    )
    origin = {"weights_sha256": card["weights_sha256"], "revision": card["revision"]}
    return Start(model=model, seen=trained_on(card), origin=origin, said=said)
