"""A trained BrainMT on disk: one folder that says itself what it is and what it has seen.

model.safetensors   weights, with the whole card in its header; one sha256 over both
card.json           the same card for people; never read back, so that a stale copy cannot mislead
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.runs.artifact import load_tensor_metadata, load_tensors, save_json, save_tensors
from encoders.runs.errors import InputError

KIND, FORMAT = "neurohelix.brainmt", 1
CARD_KIND = "neurohelix.brainmt_card"
WEIGHTS, CARD = "model.safetensors", "card.json"


def save_pretrained(model: BrainMT, folder: Path, card: dict[str, Any]) -> str:
    """Write weights and card; returns the sha256 over both.

    Args:
        model: The bare model.
        folder: The folder; an older model in it is replaced in one step.
        card: What else to record: targets with their scale, preprocessing, trained_on, metrics.
    """
    card = {**card, "config": asdict(model.config), "num_outputs": model.head.linear.out_features}
    tensors = {name: p.detach().cpu().contiguous().numpy() for name, p in model.named_parameters()}
    digest = save_tensors(folder / WEIGHTS, KIND, FORMAT, tensors, card)
    save_json(folder / CARD, CARD_KIND, FORMAT, {**card, "weights_sha256": digest}, mode=0o600)
    return digest


def from_pretrained(folder: Path, *, device: torch.device | str = "cpu") -> tuple[BrainMT, dict[str, Any]]:
    """Read a model written by :func:`save_pretrained`, ready for inference; returns (model, card).

    Raises:
        InputError: no model there, a damaged one, or weights that do not fit the card.
    """
    path = Path(folder) / WEIGHTS
    if not path.exists():
        raise InputError(f"{folder} holds no trained BrainMT ({WEIGHTS} is missing); pass its folder")
    tensors, card = load_tensors(path, KIND, FORMAT)
    card["weights_sha256"] = load_tensor_metadata(path, KIND, FORMAT)[1]
    model = BrainMT(BrainMTConfig.from_json(card["config"]), num_outputs=card["num_outputs"])
    load_weights(model, tensors, source=path)
    return model.to(device).eval(), card


def load_weights(model: BrainMT, tensors: dict[str, np.ndarray], *, source: Path) -> None:
    """Copy arrays into the model's parameters, strictly: same names, same shapes.

    Parameters that several blocks share (`shared_attention_mlp`) are stored once.
    """
    own = dict(model.named_parameters())
    wrong = sorted(set(own) ^ set(tensors))
    wrong += [n for n in own if n in tensors and own[n].shape != tensors[n].shape]
    if wrong:
        raise InputError(
            f"{source}: {len(wrong)} tensors do not fit the model its card describes, e.g. {wrong[0]}; "
            f"the file was written by another version"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(torch.from_numpy(tensors[name]))
