"""A trained BrainMT on disk: one folder that says itself what it is and what it has seen.

model.safetensors   weights, with the whole card in its header; one sha256 over both
card.json           the same card for people; never read back, so that a stale copy cannot mislead

The card of a model trained here names the people it has seen, so that leakage can be refused: both files are
readable by their owner only. A shareable copy (:mod:`encoders.brainmt.shareable`) names nobody.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.shareable import shareable_card
from encoders.runs.artifact import PRIVATE, load_tensor_metadata, load_tensors, save_json, save_tensors
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles, resolve_model
from encoders.runs.stage import release

KIND, FORMAT = "neurohelix.brainmt", 1
CARD_KIND = "neurohelix.brainmt_card"
WEIGHTS, CARD = "model.safetensors", "card.json"
PUBLIC = 0o644
UNKNOWN = ("targets", "preprocessing", "trained_on")  # null in a card that does not say
OF_THE_FILE = ("weights_sha256", "revision")  # what a reader adds about the very file it read


def save_pretrained(model: BrainMT, folder: Path, card: Mapping[str, Any], *, shareable: bool = False) -> str:
    """Write weights and card; returns the sha256 over both.

    Args:
        model: The bare model.
        folder: The folder; an older model in it is replaced in one step.
        card: What else to record: targets with their scale, preprocessing, trained_on, metrics. What it does not
            say of the first three is recorded as unknown (null).
        shareable: Write a copy that names no person and no path, and that everybody may read.
    """
    folder = Path(folder)
    card = {
        **dict.fromkeys(UNKNOWN),
        "versions": {"neurohelix": release(), "torch": str(torch.__version__)},
        **{name: value for name, value in card.items() if name not in OF_THE_FILE},
        "config": asdict(model.config),
        "num_outputs": model.head.linear.out_features,
    }
    if shareable:
        card = shareable_card(card)
    mode = PUBLIC if shareable else PRIVATE
    tensors = {name: p.detach().cpu().float().contiguous().numpy() for name, p in model.named_parameters()}
    digest = save_tensors(folder / WEIGHTS, KIND, FORMAT, tensors, card, mode=mode)
    save_json(folder / CARD, CARD_KIND, FORMAT, {**card, "weights_sha256": digest}, mode=mode)
    return digest


def from_pretrained(
    source: Path | str,
    *,
    revision: str | None = None,
    device: torch.device | str = "cpu",
    option: str = "--model",
) -> tuple[BrainMT, dict[str, Any]]:
    """Read a model written by :func:`save_pretrained`, ready for inference; returns (model, card).

    The card also says `weights_sha256`, and in `revision` the commit on the hub (null for a folder).

    Args:
        source: Its folder, or as text also a hub id `owner/name`, of which only model.safetensors is fetched.
        revision: Commit, tag or branch on the hub; the newest commit of `main` without it.
        device: Where to put the model.
        option: The option that a user gave the source with, for messages.

    Raises:
        InputError: no model there, a damaged one, or weights that do not fit the card.
    """
    files = _files(source, revision, option)
    path = files.folder / WEIGHTS
    tensors, card = load_tensors(path, KIND, FORMAT)
    card["weights_sha256"] = load_tensor_metadata(path, KIND, FORMAT)[1]
    card["revision"] = files.revision
    model = BrainMT(_config_of(card, path), num_outputs=card["num_outputs"])
    load_weights(model, tensors, source=path)
    return model.to(device).eval(), card


def load_weights(model: BrainMT, tensors: Mapping[str, np.ndarray], *, source: Path) -> None:
    """Copy arrays into the model's parameters, strictly: same names, same shapes.

    Parameters that several blocks share (`shared_attention_mlp`) are stored once.

    Raises:
        InputError: names every tensor that is missing, unexpected or of another shape.
    """
    own = dict(model.named_parameters())
    wanted, found = ({n: tuple(t.shape) for n, t in group.items()} for group in (own, tensors))
    if sentences := mismatches(found, wanted):
        raise InputError(
            f"{source}: the tensors do not fit the model that its card describes. {' '.join(sentences)} The file "
            f"was written by another version, or is of another model; use the version it was written with"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(torch.from_numpy(tensors[name]))


def mismatches(
    found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...] | None]
) -> list[str]:
    """One sentence per kind of difference between two sets of tensors, naming every one; empty if they agree.

    Args:
        found: Name -> shape of what is there.
        wanted: Name -> shape of what should be; None where any shape will do.
    """
    missing = [_named(name, shape) for name, shape in wanted.items() if name not in found]
    unexpected = [_named(name, shape) for name, shape in found.items() if name not in wanted]
    wrong = [
        f"{name} is {list(found[name])}, {list(shape)} was wanted"
        for name, shape in wanted.items()
        if name in found and shape is not None and tuple(shape) != tuple(found[name])
    ]
    kinds = (
        ("Missing", missing, ", "),
        ("Unexpected", unexpected, ", "),
        ("Of another shape", wrong, "; "),
    )
    return [f"{kind} ({len(names)}): {between.join(names)}." for kind, names, between in kinds if names]


def _named(name: str, shape: tuple[int, ...] | None) -> str:
    return name if shape is None else f"{name} {list(shape)}"


def _files(source: Path | str, revision: str | None, option: str) -> ModelFiles:
    folder = Path(source).expanduser()
    if folder.is_file():
        raise InputError(
            f"{source} is a file, but the folder of a trained BrainMT was wanted; a checkpoint of the original "
            f"code (.pth) is converted with: python scripts/convert_brainmt.py --source {source} --output FOLDER"
        )
    if isinstance(source, str) and not folder.is_dir():
        return resolve_model(source, files=(WEIGHTS,), revision=revision, option=option)
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder} holds no trained BrainMT ({WEIGHTS} is missing); pass its folder")
    if revision is not None:
        raise InputError(
            f"{folder} is a folder, which has no revision {revision!r}; a revision goes with a hub id"
        )
    return ModelFiles(folder=folder, name=folder.name)


def _config_of(card: Mapping[str, Any], path: Path) -> BrainMTConfig:
    if absent := [name for name in ("config", "num_outputs") if name not in card]:
        raise InputError(f"{path}: the card lacks {' and '.join(absent)}; save the model again")
    known = {option.name for option in fields(BrainMTConfig)}
    if unknown := sorted(set(card["config"]) - known):
        raise InputError(
            f"{path}: the card has options of BrainMT that this release does not know ({', '.join(unknown)}); "
            f"upgrade NeuroHelix"
        )
    return BrainMTConfig.from_json(card["config"])
