"""Checkpoints of the original BrainMT code (arunkumar-kannan/BrainMT-fMRI), converted both ways.

One table of names, read from left to right and from right to left. Their file says neither grid nor heads in its
weights: those come from the configuration in the file, from the caller, or are assumed and said to be.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoders.brainmt.checkpoint import mismatches
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import FIXED, BrainMTConfig
from encoders.brainmt.released_config import TELLING, count_blocks, released_config
from encoders.brainmt.released_file import read_released
from encoders.runs.artifact import PRIVATE, file_sha256, replacing
from encoders.runs.errors import InputError

# theirs -> ours; {} is the number of a block. Theirs has one norm and one MLP for all attention blocks, which the
# shared modules of our released form name after the first block.
NAMES = {
    "cls_token": "cls_token",
    "pos_embed": "space_table",
    "temporal_pos_embedding": "time_table",
    "patch_embed.conv_down.0.weight": "stem.patch_embed.0.weight",
    "patch_embed.conv_down.2.weight": "stem.patch_embed.2.weight",
    "conv_block0.conv1.weight": "stem.block0.conv1.weight",
    "conv_block0.conv1.bias": "stem.block0.conv1.bias",
    "conv_block0.norm1.weight": "stem.block0.norm1.weight",
    "conv_block0.norm1.bias": "stem.block0.norm1.bias",
    "conv_block0.conv2.weight": "stem.block0.conv2.weight",
    "conv_block0.conv2.bias": "stem.block0.conv2.bias",
    "conv_block0.norm2.weight": "stem.block0.norm2.weight",
    "conv_block0.norm2.bias": "stem.block0.norm2.bias",
    "downsample0.reduction.0.weight": "stem.downsample0.weight",
    "conv_block1.conv1.weight": "stem.block1.conv1.weight",
    "conv_block1.conv1.bias": "stem.block1.conv1.bias",
    "conv_block1.norm1.weight": "stem.block1.norm1.weight",
    "conv_block1.norm1.bias": "stem.block1.norm1.bias",
    "conv_block1.conv2.weight": "stem.block1.conv2.weight",
    "conv_block1.conv2.bias": "stem.block1.conv2.bias",
    "conv_block1.norm2.weight": "stem.block1.norm2.weight",
    "conv_block1.norm2.bias": "stem.block1.norm2.bias",
    "downsample1.reduction.0.weight": "stem.downsample1.weight",
    "layers.{}.norm.weight": "mamba.{}.norm.weight",
    "layers.{}.mixer.in_proj.weight": "mamba.{}.mixer.in_proj.weight",
    "layers.{}.mixer.conv1d.weight": "mamba.{}.mixer.conv1d.weight",
    "layers.{}.mixer.conv1d.bias": "mamba.{}.mixer.conv1d.bias",
    "layers.{}.mixer.x_proj.weight": "mamba.{}.mixer.x_proj.weight",
    "layers.{}.mixer.dt_proj.weight": "mamba.{}.mixer.dt_proj.weight",
    "layers.{}.mixer.dt_proj.bias": "mamba.{}.mixer.dt_proj.bias",
    "layers.{}.mixer.A_log": "mamba.{}.mixer.A_log",
    "layers.{}.mixer.D": "mamba.{}.mixer.D",
    "layers.{}.mixer.out_proj.weight": "mamba.{}.mixer.out_proj.weight",
    "norm_f.weight": "norm_f.weight",
    "norm.weight": "attention.0.norm1.weight",
    "norm.bias": "attention.0.norm1.bias",
    "blocks.{}.qkv.weight": "attention.{}.attention.qkv.weight",
    "blocks.{}.qkv.bias": "attention.{}.attention.qkv.bias",
    "blocks.{}.proj.weight": "attention.{}.attention.proj.weight",
    "blocks.{}.proj.bias": "attention.{}.attention.proj.bias",
    "mlp.fc1.weight": "attention.0.mlp.fc1.weight",
    "mlp.fc1.bias": "attention.0.mlp.fc1.bias",
    "mlp.fc2.weight": "attention.0.mlp.fc2.weight",
    "mlp.fc2.bias": "attention.0.mlp.fc2.bias",
    "head.weight": "head.linear.weight",
    "head.bias": "head.linear.bias",
}
# the second direction, under Vision Mamba's names; the released code never makes it
SECOND_DIRECTION = {
    "layers.{}.mixer.conv1d_b.weight": "mamba.{}.mixer.conv1d_b.weight",
    "layers.{}.mixer.conv1d_b.bias": "mamba.{}.mixer.conv1d_b.bias",
    "layers.{}.mixer.x_proj_b.weight": "mamba.{}.mixer.x_proj_b.weight",
    "layers.{}.mixer.dt_proj_b.weight": "mamba.{}.mixer.dt_proj_b.weight",
    "layers.{}.mixer.dt_proj_b.bias": "mamba.{}.mixer.dt_proj_b.bias",
    "layers.{}.mixer.A_b_log": "mamba.{}.mixer.A_b_log",
    "layers.{}.mixer.D_b": "mamba.{}.mixer.D_b",
}
HARD_WIRED = ("patches", "widths", "d_state", "d_conv", "expand", "mlp_ratio")  # in the original's code


def from_released(
    path: Path, *, grid: tuple[int, int, int] | None = None, num_heads: int | None = None
) -> tuple[BrainMT, dict[str, Any]]:
    """Read a checkpoint of the original; returns the model, ready for inference, and the card to save it with.

    Args:
        path: The `.pth`.
        grid: Voxels along Y, X, Z; default: from the configuration in the file, or 109 x 91 x 91 for 252 patches.
        num_heads: Attention heads (count); default: from the configuration in the file, or 2.

    Raises:
        InputError: an unreadable file, an unknown grid, or weights of another layout; every tensor that is missing,
            unexpected or of another shape is named.
    """
    path = Path(path)
    file = read_released(path)
    names = released_names(
        mamba_layers=count_blocks(file.state, "layers"),
        attention_layers=count_blocks(file.state, "blocks"),
        bidirectional=any(
            name.rpartition(".mixer.")[2] == theirs.rpartition(".mixer.")[2]
            for name in file.state
            for theirs in SECOND_DIRECTION
        ),
    )
    _check_names(path, file.state, names)
    config, notes = released_config(path, file, grid=grid, num_heads=num_heads)
    outputs = len(file.state["head.weight"])
    with torch.device("meta"):  # shapes without memory: a file may declare what does not fit
        wanted = {n: tuple(p.shape) for n, p in BrainMT(config, num_outputs=outputs).named_parameters()}
    _check_shapes(path, file.state, {theirs: wanted[ours] for theirs, ours in names.items()})
    if half := sorted({str(t.dtype) for t in file.state.values()} - {"torch.float32"}):
        notes.append(f"weights stored as {', '.join(half)} became float32")
    model = BrainMT(config, num_outputs=outputs)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for theirs, ours in names.items():
            parameters[ours].copy_(file.state[theirs])
    source = {
        "format": "checkpoint of the original BrainMT code",
        "file": path.name,
        "sha256": file_sha256(path),
        "epoch": file.epoch,
        "val_loss": file.val_loss,
        "notes": notes,
    }
    return model.eval(), {"source": source, "targets": None, "preprocessing": None, "trained_on": None}


def to_released(
    model: BrainMT, path: Path, *, epoch: int | None = None, val_loss: float | None = None
) -> list[str]:
    """Write a model of the released form as the original's trainer does; returns what its user should know.

    Optimizer and scheduler, which inference does not read, are left out; so is everything of the card but the two
    numbers.

    Args:
        model: The model.
        path: The `.pth`, readable by its owner only; an older file is replaced in one step.
        epoch: Epoch of the weights (count); 0 if unknown.
        val_loss: Their validation loss; NaN if unknown.

    Raises:
        InputError: the original has no form for this model.
    """
    config = model.config
    if reason := _not_released(config):
        raise InputError(f"the model cannot be written in the released form: {reason}")
    names = released_names(
        mamba_layers=config.mamba_layers,
        attention_layers=config.attention_layers,
        bidirectional=config.bidirectional,
    )
    parameters = dict(model.named_parameters())
    y, x, z = config.grid
    settings = {
        **FIXED,
        "img_size": [x, y, z],
        "num_classes": model.head.linear.out_features,
        "embed_dim": config.width,
        "depth": [config.mamba_layers, config.attention_layers],
        "num_heads": config.num_heads,
        "num_frames": config.num_frames,
        "drop_path_rate": config.drop_path,
        "attn_drop_rate": config.attention_dropout,
    }
    content = {
        "epoch": epoch or 0,
        "model_state_dict": {
            theirs: parameters[ours].detach().cpu().float().contiguous() for theirs, ours in names.items()
        },
        "val_loss": float("nan") if val_loss is None else float(val_loss),
        "config": {"model": settings},
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)
        temporary.chmod(PRIVATE)
    return _what_theirs_cannot_read(config)


def released_names(*, mamba_layers: int, attention_layers: int, bidirectional: bool) -> dict[str, str]:
    """Theirs -> ours for a network of this depth.

    Args:
        mamba_layers: Mamba blocks (count).
        attention_layers: Attention blocks (count).
        bidirectional: Whether it has a second direction.
    """
    table = NAMES | (SECOND_DIRECTION if bidirectional else {})
    names = {}
    for theirs, ours in table.items():
        blocks = (
            1 if "{}" not in theirs else mamba_layers if theirs.startswith("layers") else attention_layers
        )
        names |= {theirs.format(number): ours.format(number) for number in range(blocks)}
    return names


def _check_names(path: Path, state: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    sentences = mismatches(_shapes(state), dict.fromkeys(names))
    strange = [
        f"{name} is {list(state[name].shape)}, {axes} was wanted"
        for name, axes in TELLING.items()
        if name in state and state[name].ndim != axes.count(",") + 1
    ]
    if strange:
        sentences.append(f"Of another shape ({len(strange)}): {'; '.join(strange)}.")
    elif sentences:
        sentences.append("Shapes were not compared.")
    _refuse(path, sentences)


def _check_shapes(path: Path, state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    _refuse(path, mismatches(_shapes(state), wanted))


def _refuse(path: Path, sentences: list[str]) -> None:
    if sentences:
        raise InputError(
            f"{path} has not the layout of the released BrainMT. {' '.join(sentences)} A checkpoint of the original "
            f"code, unchanged, was wanted; of changed code only weights renamed to this layout can be converted"
        )


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _not_released(config: BrainMTConfig) -> str:
    """Why the original has no form for such a model; empty if it has."""
    if not config.shared_attention_mlp:
        return (
            "its attention blocks have norms and MLPs of their own, the original's share one; train with "
            "--model.shared_attention_mlp=true to be able to"
        )
    if config.embedding != "cls":
        return f"it reads the embedding {config.embedding}, the original's head reads CLS"
    if config.tokens != "all":
        return f"it keeps the patches of the {config.tokens} only, the original all"
    if not (config.mamba_layers and config.attention_layers):
        return "it lacks Mamba blocks or attention blocks, the original has both"
    return ""


def _what_theirs_cannot_read(config: BrainMTConfig) -> list[str]:
    notes = []
    if config.bidirectional:
        notes.append(
            "the second direction is written under Vision Mamba's names (conv1d_b, x_proj_b, dt_proj_b, A_b_log, "
            "D_b); the original's code has none and cannot load them"
        )
    other = [name for name in HARD_WIRED if getattr(config, name) != getattr(BrainMTConfig(), name)]
    if other:
        told = ", ".join(f"{name} {getattr(config, name)}" for name in other)
        notes.append(f"the original's code has its own {', '.join(other)} hard-wired and cannot load {told}")
    return notes
