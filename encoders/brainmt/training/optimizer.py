"""AdamW for BrainMT: what is trained at all, which parameters decay, how fast each layer learns, and when."""

import math
from typing import Any

import torch

from encoders.brainmt.model import BrainMT

# beyond biases and norms (one axis): tokens and tables are added to activations, A_log sets time scales
NO_DECAY = ("cls_token", "space_table", "time_table", "A_log", "A_b_log")
LAST_SHARE = 0.01  # of the peak learning rate, at the end of the cosine


def freeze(model: BrainMT, unfrozen_blocks: int | None) -> None:
    """Leave only the head and the last blocks trainable, and what the embedding does not read untrained.

    Args:
        model: The bare model.
        unfrozen_blocks: Mamba or attention blocks below the head that stay trainable (count); None for everything.
    """
    top = _layer_of("head.", model)
    lowest = 0 if unfrozen_blocks is None else max(top - unfrozen_blocks, 0)
    for name, parameter in model.named_parameters():
        unread = name.startswith("attention.") and model.config.embedding == "voxel"
        parameter.requires_grad_(_layer_of(name, model) >= lowest and not unread)


def training_mode(model: BrainMT) -> None:
    """Put the model into training mode, but its frozen parts, drop path among them, into evaluation mode."""
    model.train()
    for part in (model.stem, *model.mamba, *model.attention):
        if not any(parameter.requires_grad for parameter in part.parameters()):
            part.eval()


def make_optimizer(
    model: BrainMT, *, lr: float, layer_decay: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """AdamW of :func:`layer_groups`.

    Args:
        model: The bare model, not wrapped for distributed training.
        lr: Peak learning rate of the head.
        layer_decay: Factor per layer below the head.
        weight_decay: Of the decayed parameters.
        betas: AdamW's two decay rates.
    """
    groups = layer_groups(model, lr=lr, layer_decay=layer_decay, weight_decay=weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def layer_groups(
    model: BrainMT, *, lr: float, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """One optimizer group per (layer, decayed or not); each carries its `peak_lr` and its `layer`.

    Args:
        model: The bare model, not wrapped for distributed training: layers are found by parameter name. Frozen
            parameters get no group.
        lr: Peak learning rate of the head.
        layer_decay: Factor per layer below the head.
        weight_decay: Of the decayed parameters.
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    top = _layer_of("head.", model)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = _layer_of(name, model)
        decays = parameter.ndim > 1 and name.rpartition(".")[2] not in NO_DECAY
        peak = lr * layer_decay ** (top - layer)
        empty = {
            "params": [],
            "layer": layer,
            "peak_lr": peak,
            "lr": peak,
            "weight_decay": weight_decay if decays else 0.0,
        }
        groups.setdefault((layer, decays), empty)["params"].append(parameter)
    return list(groups.values())


def lr_share(
    step: int, *, steps: int, warmup: int, restart: int = 0, mult: float = 1.0, gamma: float = 1.0
) -> float:
    """Share of the peak learning rate at optimizer step ``step`` (from 0): linear rise, then one or more cosines.

    The last warm-up step has exactly the peak. With ``restart`` the rate jumps back up after every cosine (SGDR,
    Loshchilov and Hutter 2017); the last one is cut where training ends.

    Args:
        step: Steps done.
        steps: All steps of the training (count).
        warmup: Steps of the linear rise (count).
        restart: Steps of the first cosine (count); 0: one cosine to the end.
        mult: Each cosine is this many times as long as the one before.
        gamma: Each cosine starts at this share of the one before.
    """
    if step < warmup:
        return (step + 1) / warmup
    past, length, peak = step + 1 - warmup, float(restart or max(steps - warmup, 1)), 1.0
    while restart and past > length:
        past, length, peak = past - length, length * mult, peak * gamma
    share = LAST_SHARE + (1 - LAST_SHARE) * 0.5 * (1 + math.cos(math.pi * min(past / length, 1.0)))
    return peak * share


def set_lr(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Give every group its share of its own peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share


def _layer_of(name: str, model: BrainMT) -> int:
    """True depth of a parameter: 0 for tables and patch convolutions, the head on top."""
    part, _, rest = name.partition(".")
    config = model.config
    before_mamba = 3
    if part == "stem":
        return {"patch_embed": 0, "block0": 1, "downsample0": 1, "block1": 2, "downsample1": 2}[
            rest.partition(".")[0]
        ]
    if part == "mamba":
        return before_mamba + int(rest.partition(".")[0])
    if part == "norm_f":
        return before_mamba + max(config.mamba_layers - 1, 0)
    if part == "attention":
        return before_mamba + config.mamba_layers + int(rest.partition(".")[0])
    if part == "head":
        below = 0 if config.embedding == "voxel" else config.attention_layers  # which that one does not read
        return before_mamba + config.mamba_layers + below
    return 0
