"""What a folder says about an Evo 2: its configuration, and what a plan needs to know.

Imports no torch: a plan asks before any weight is read.
"""

import json

from encoders.genetics.encoder_choice import EncoderFacts
from encoders.genetics.evo2.config import Evo2Config
from encoders.genetics.evo2.released import MODEL_TYPE, RELEASED, released_config, released_name
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles

RANDOM_MARK = "random_weights_seed"  # in the configuration: not trained


def read_config(files: ModelFiles) -> tuple[Evo2Config, bool]:
    """Configuration of a model, and whether it says of itself that it was never trained.

    Looked for in this order: a YAML file with the official keys; the name of the weights (`evo2_7b.pt`), of the
    repository or of the folder; config.json with the official keys, as the converter writes it.

    Raises:
        InputError: none of them, or several YAML files.
    """
    yamls = sorted(path for path in files.folder.glob("*") if path.suffix in (".yml", ".yaml"))
    if len(yamls) > 1:
        raise InputError(
            f"{files.folder} holds {len(yamls)} YAML files ({', '.join(path.name for path in yamls)}); leave the one "
            f"configuration of its weights"
        )
    if yamls:
        config = Evo2Config.from_yaml(yamls[0])
        return config, RANDOM_MARK in yamls[0].read_text(encoding="utf-8")
    names = files.listed | frozenset(path.name for path in files.folder.glob("*"))
    weights = [name for name in sorted(names) if name.endswith(".pt") or ".pt.part" in name]
    for name in [*weights, files.name] if weights else []:
        if released_name(name) is not None:
            return released_config(name), False
    path = files.folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        content = {"reason": str(cause)}
    if not isinstance(content, dict) or "hcl_layer_idxs" not in content:
        raise InputError(
            f"{files.folder} says nowhere what shape its Evo 2 has; put the YAML of the authors' package beside the "
            f"weights (evo2/configs/*.yml), or give the weights a released name: "
            f"{', '.join(f'evo2_{name}.pt' for name in RELEASED)}"
        )
    content.pop("model_type", None)
    return Evo2Config.from_official(content, str(path)), RANDOM_MARK in content


def evo2_facts(files: ModelFiles, *, layer: str | None = None) -> EncoderFacts:
    """What the configuration says; no weights are read.

    Raises:
        InputError: no configuration, or no such layer.
    """
    config, _ = read_config(files)
    layer = layer or config.default_layer()
    config.check_layer(layer)
    return EncoderFacts(
        name=MODEL_TYPE,
        dim=config.width(layer),
        context=config.max_seqlen,
        operations=lambda length: 2 * config.operations(length, layer=layer),
    )
