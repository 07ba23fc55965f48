"""Caduceus weights in the hub's layout: one table of names, read both ways, loaded strictly.

The hub stores each projection that the two directions share once, under `mamba_fwd`; there is no head, it is
tied to the embedding. transformers leaves the tied weights uninitialised when it reads such a file.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from encoders.genetics.caduceus import CaduceusConfig, CaduceusModel
from encoders.genetics.sequence_encoder import RANDOM_MARK
from encoders.genetics.tokenizer import VOCAB_SIZE, complement_map
from encoders.runs.artifact import replacing, write_text
from encoders.runs.errors import InputError

# Of random weights. With the usual width the network is almost linear, its mean over bases little more than
# base composition; three times wider it tells k-mers apart, and alleles in all directions of the vector.
GAIN = 3.0

# ours -> theirs, inside one mixer; the backward direction has its own convolution, scan and skip
MIXER_NAMES = {
    "in_proj.weight": "mamba_fwd.in_proj.weight",
    "out_proj.weight": "mamba_fwd.out_proj.weight",
    "conv1d.weight": "mamba_fwd.conv1d.weight",
    "conv1d.bias": "mamba_fwd.conv1d.bias",
    "x_proj.weight": "mamba_fwd.x_proj.weight",
    "dt_proj.weight": "mamba_fwd.dt_proj.weight",
    "dt_proj.bias": "mamba_fwd.dt_proj.bias",
    "A_log": "mamba_fwd.A_log",
    "D": "mamba_fwd.D",
    "conv1d_b.weight": "mamba_rev.conv1d.weight",
    "conv1d_b.bias": "mamba_rev.conv1d.bias",
    "x_proj_b.weight": "mamba_rev.x_proj.weight",
    "dt_proj_b.weight": "mamba_rev.dt_proj.weight",
    "dt_proj_b.bias": "mamba_rev.dt_proj.bias",
    "A_b_log": "mamba_rev.A_log",
    "D_b": "mamba_rev.D",
}
TIED = ("in_proj.weight", "out_proj.weight")
HEAD = ("lm_head.weight", "lm_head.lm_head.weight", "lm_head.complement_map")  # known, not needed for vectors


def hub_names(config: CaduceusConfig) -> dict[str, str]:
    """Name of each tensor of :class:`CaduceusModel` -> its name in the hub's file."""
    backbone = "caduceus.backbone"
    norm = "norm.submodule.weight" if config.rcps and not config.exchange else "norm.weight"
    last = "norm_f.submodule.weight" if config.rcps and not config.exchange else "norm_f.weight"
    words = f"{backbone}.embeddings.word_embeddings"
    names = {
        "embedding.weight": f"{words}.embedding.weight" if config.rcps else f"{words}.weight",
        "norm_f.weight": f"{backbone}.{last}",
    }
    if config.rcps:
        names["complement_map"] = f"{words}.complement_map"
    mixer = "mixer.submodule" if config.rcps else "mixer"
    for layer in range(config.num_layers):
        names[f"layers.{layer}.norm.weight"] = f"{backbone}.layers.{layer}.{norm}"
        for ours, theirs in MIXER_NAMES.items():
            names[f"layers.{layer}.mixer.{ours}"] = f"{backbone}.layers.{layer}.{mixer}.{theirs}"
    return names


def read_config(folder: Path) -> tuple[CaduceusConfig, bool]:
    """Read config.json: the architecture, and whether it says that the weights are random.

    Raises:
        InputError: it is not readable, or not that of a Caduceus.
    """
    path = Path(folder) / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise InputError(f"{path} is not readable ({cause}); a Caduceus config.json was wanted") from cause
    return CaduceusConfig.from_hub(content, str(path)), RANDOM_MARK in content


def load_caduceus(folder: Path) -> tuple[CaduceusModel, bool]:
    """Read config.json and model.safetensors of a folder in the hub's layout.

    Returns:
        The model in fp32 and evaluation mode, and whether its configuration says that its weights are random.

    Raises:
        InputError: unreadable files, tensors missing, left over, of another shape or not finite.
    """
    config, is_random = read_config(folder)
    weights_path = Path(folder) / "model.safetensors"
    try:
        with safe_open(weights_path, framework="pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as cause:
        raise InputError(
            f"{weights_path} is not a readable safetensors file ({cause}); download it again"
        ) from cause
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        model = CaduceusModel(config)
    model.load_state_dict(_ours(model, stored, config, weights_path), assign=True)
    return model.eval().requires_grad_(False), is_random


def write_random_checkpoint(
    folder: Path,
    *,
    kind: str = "ph",
    d_model: int = 32,
    n_layer: int = 2,
    d_state: int = 4,
    expand: int = 1,
    seed: int = 0,
) -> None:
    """Write a Caduceus with seeded random weights in the hub's exact layout, and a README that says so.

    Args:
        folder: Receives config.json, model.safetensors and README.md.
        kind: "ph" or "ps".
        d_model: Width of one strand.
        n_layer: Layers.
        d_state: Numbers of state per channel of the scan; the released models have 16, which costs three times
            the time and tells alleles apart no better when weights are random.
        expand: Inner width / ``d_model``; the released models have 2.
        seed: Of the weights; equal seeds give equal files.
    """
    if kind not in ("ph", "ps"):
        raise ValueError(f"kind {kind!r}; 'ph' or 'ps' was wanted")
    content = _hub_config(kind == "ps", d_model, n_layer, d_state, expand) | {RANDOM_MARK: seed}
    config = CaduceusConfig.from_hub(content, "the written configuration")
    random = torch.Generator().manual_seed(seed)
    names = hub_names(config)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in CaduceusModel(config).state_dict().items()}
    tensors = {names[ours]: _random(ours, shapes[ours], n_layer, random) for ours in sorted(names)}
    if config.rcps:
        tensors["lm_head.complement_map"] = complement_map()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(
        folder / "README.md", _README.format(kind=kind.upper(), seed=seed, d_model=d_model, n_layer=n_layer)
    )
    write_text(folder / "config.json", json.dumps(content, indent=2) + "\n")
    with replacing(folder / "model.safetensors") as temporary:  # last: it marks the folder as complete
        save_file(tensors, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)


_README = """# Random weights

This folder has the layout of a Caduceus-{kind} model of kuleshov-group on the Hugging Face hub, but its weights
are random numbers (seed {seed}, width {d_model}, {n_layer} layers). It is NOT a trained genome model and knows
nothing about biology. Vectors made with it tell apart sequences that differ, no more, which is enough to try
out every step on a synthetic cohort. For real data pass a trained model to `scripts/embed_genome.py --model`.
"""


def _ours(
    model: CaduceusModel, stored: dict[str, Tensor], config: CaduceusConfig, path: Path
) -> dict[str, Tensor]:
    """The stored tensors under our names, after all checks."""
    if any(name.startswith("backbone.") for name in stored):  # saved without the class for language modelling
        stored = {f"caduceus.{name}": tensor for name, tensor in stored.items()}
    for layer in range(config.num_layers):
        mixer = f"caduceus.backbone.layers.{layer}." + ("mixer.submodule" if config.rcps else "mixer")
        for name in TIED:
            forward, reverse = f"{mixer}.mamba_fwd.{name}", f"{mixer}.mamba_rev.{name}"
            if reverse in stored:  # stored twice, or once under the other of its two names
                tensor = stored.pop(reverse)
                if not torch.equal(stored.setdefault(forward, tensor), tensor):
                    raise InputError(f"{path}: {forward} and {reverse} differ, but Caduceus ties them")
    names = hub_names(config)
    expected = set(names.values())
    missing = sorted(expected - set(stored))
    unexpected = sorted(set(stored) - expected - set(HEAD))
    if missing or unexpected:
        raise InputError(
            f"{path} does not hold the tensors of its configuration (Caduceus-{config.kind.upper()}, "
            f"{config.num_layers} layers): {len(missing)} missing ({_few(missing)}), {len(unexpected)} unexpected "
            f"({_few(unexpected)}); pass the config.json and model.safetensors of one model"
        )
    ours = {}
    for name, reference in model.state_dict().items():
        if name not in names:  # Ph keeps no complement map in its file
            ours[name] = complement_map()
            continue
        tensor = stored[names[name]]
        if tensor.shape != reference.shape:
            raise InputError(
                f"{path}: {names[name]} has shape {tuple(tensor.shape)}, its configuration wants "
                f"{tuple(reference.shape)}; pass the config.json and model.safetensors of one model"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {names[name]} holds NaN or infinite numbers; download it again")
        ours[name] = tensor.to(reference.dtype)
    return ours


def _few(names: list[str]) -> str:
    return "none" if not names else ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _random(name: str, shape: torch.Size, n_layer: int, random: torch.Generator) -> Tensor:
    """One tensor as Mamba initialises it (Gu & Dao 2023, section 3.6), with wider `in_proj` and `conv1d`."""
    if name == "complement_map":
        return complement_map()
    if name == "embedding.weight":
        return torch.randn(shape, generator=random)
    if name.endswith(("norm.weight", "norm_f.weight", ".D", ".D_b")):
        return torch.ones(shape)
    if name.endswith("_log"):
        return torch.arange(1.0, shape[1] + 1).log().expand(shape).contiguous()
    uniform = torch.rand(shape, generator=random)
    if name.endswith(("dt_proj.bias", "dt_proj_b.bias")):
        step = torch.exp(uniform * math.log(0.1 / 0.001) + math.log(0.001))
        return step + torch.log(-torch.expm1(-step))  # the inverse of softplus
    fan_in = shape[1:].numel() if len(shape) > 1 else 4  # the bias of a convolution of 4 taps
    bound = fan_in**-0.5
    if name.endswith("out_proj.weight"):
        bound /= math.sqrt(n_layer)
    if name.endswith(("in_proj.weight", "conv1d.weight", "conv1d_b.weight")):
        bound *= GAIN
    return (2 * uniform - 1) * bound


def _hub_config(rcps: bool, d_model: int, n_layer: int, d_state: int, expand: int) -> dict[str, Any]:
    """config.json with the fields of the released models."""
    return {
        "architectures": ["CaduceusForMaskedLM"],
        "bidirectional": True,
        "bidirectional_strategy": "add",
        "bidirectional_weight_tie": True,
        "complement_map": {str(k): int(v) for k, v in enumerate(complement_map())} if rcps else None,
        "d_model": d_model,
        "fused_add_norm": True,
        "initializer_cfg": {
            "initializer_range": 0.02,
            "n_residuals_per_layer": 1,
            "rescale_prenorm_residual": True,
        },
        "model_type": "caduceus",
        "n_layer": n_layer,
        "norm_epsilon": 1e-05,
        "pad_vocab_size_multiple": 8,
        "rcps": rcps,
        "residual_in_fp32": False,
        "rms_norm": True,
        "ssm_cfg": {
            "bias": False,
            "conv_bias": True,
            "d_conv": 4,
            "d_state": d_state,
            "dt_init": "random",
            "dt_init_floor": 0.0001,
            "dt_max": 0.1,
            "dt_min": 0.001,
            "dt_rank": "auto",
            "dt_scale": 1.0,
            "expand": expand,
            "use_fast_path": True,
        },
        "torch_dtype": "float32",
        "vocab_size": VOCAB_SIZE,
    }
