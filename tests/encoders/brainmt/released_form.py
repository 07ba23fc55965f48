"""The network that was released, as plain functions on tensors under its own names: the yardstick of the converter.

Written from the description of the architecture, with nothing of `encoders` in it: one scan step after the other,
attention spelled out.

Glossary: B batch · T frames · P patches · L = 1 + P T tokens · D width · E inner width · N state · R rank of dt.
"""

import math

import torch
import torch.nn.functional as F


def features(state, x, *, num_heads):
    """[B, T, 1, Y, X, Z] -> [B, D], the CLS row after the last block."""
    batch, frames = x.shape[:2]
    patches = stem(state, x.reshape(batch * frames, *x.shape[2:]))
    grid_size = patches[0, 0].numel()
    tokens = patches.reshape(batch * frames, -1, grid_size).transpose(1, 2)  # (b t) n d
    tokens = tokens + state["pos_embed"][:, 1:]
    tokens = tokens.reshape(batch, frames, grid_size, -1).permute(0, 2, 1, 3)  # b n t d
    tokens = tokens + state["temporal_pos_embedding"][:, None, :frames]
    tokens = tokens.reshape(batch, grid_size * frames, -1)  # patch-major, time inside
    cls = state["cls_token"] + state["pos_embed"][:, :1]
    hidden = torch.cat([cls.expand(batch, -1, -1), tokens], dim=1)

    # add, norm, mixer: the residual is carried beside the hidden state and added once more at the end
    residual = None
    for number in range(count(state, "layers")):
        layer = part(state, f"layers.{number}.")
        residual = hidden if residual is None else hidden + residual
        hidden = mixer(part(layer, "mixer."), rms_norm(residual, layer["norm.weight"]))
    hidden = rms_norm(hidden + residual, state["norm_f.weight"])

    for number in range(count(state, "blocks")):
        hidden = hidden + attention(
            part(state, f"blocks.{number}."), shared_norm(state, hidden), num_heads=num_heads
        )
        hidden = hidden + mlp(part(state, "mlp."), shared_norm(state, hidden))
    return hidden[:, 0]


def predictions(state, x, *, num_heads):
    """[B, K]."""
    return features(state, x, num_heads=num_heads) @ state["head.weight"].T + state["head.bias"]


def stem(state, x):
    x = F.relu(F.conv3d(x, state["patch_embed.conv_down.0.weight"], stride=2, padding=1))
    x = F.relu(F.conv3d(x, state["patch_embed.conv_down.2.weight"], stride=2, padding=1))
    for number in (0, 1):
        block = part(state, f"conv_block{number}.")
        h = F.conv3d(x, block["conv1.weight"], block["conv1.bias"], padding=1)
        h = F.gelu(norm_channels(h, block["norm1.weight"], block["norm1.bias"]), approximate="tanh")
        h = F.conv3d(h, block["conv2.weight"], block["conv2.bias"], padding=1)
        x = x + norm_channels(h, block["norm2.weight"], block["norm2.bias"])
        x = F.conv3d(x, state[f"downsample{number}.reduction.0.weight"], stride=2, padding=1)
    return x


def norm_channels(x, weight, bias):
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * weight[:, None, None, None] + bias[:, None, None, None]


def rms_norm(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def shared_norm(state, x):
    return F.layer_norm(x, x.shape[-1:], state["norm.weight"], state["norm.bias"])


def mixer(own, x):
    """Mamba, forwards: every token sees itself and those before it."""
    batch, length, _ = x.shape
    inner, state_size = own["A_log"].shape
    taps, rank = own["conv1d.weight"].shape[2], own["dt_proj.weight"].shape[1]
    projected = x @ own["in_proj.weight"].T
    u, z = projected[..., :inner], projected[..., inner:]
    padded = F.pad(u.transpose(1, 2), (taps - 1, 0))
    u = F.silu(F.conv1d(padded, own["conv1d.weight"], own["conv1d.bias"], groups=inner)).transpose(1, 2)
    low = u @ own["x_proj.weight"].T
    dt = F.softplus(low[..., :rank] @ own["dt_proj.weight"].T + own["dt_proj.bias"])  # [B, L, E]
    into, out = low[..., rank : rank + state_size], low[..., rank + state_size :]  # [B, L, N]
    decay = -own["A_log"].exp()
    h, rows = x.new_zeros(batch, inner, state_size), []
    for step in range(length):
        now = dt[:, step, :, None]
        h = (now * decay).exp() * h + now * into[:, step, None, :] * u[:, step, :, None]
        rows.append((h * out[:, step, None, :]).sum(-1) + own["D"] * u[:, step])
    return (torch.stack(rows, dim=1) * F.silu(z)) @ own["out_proj.weight"].T


def attention(own, x, *, num_heads):
    batch, length, width = x.shape
    qkv = (x @ own["qkv.weight"].T + own["qkv.bias"]).reshape(batch, length, 3, num_heads, width // num_heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) / math.sqrt(width // num_heads)).softmax(-1)
    mixed = (weights @ v).transpose(1, 2).reshape(batch, length, width)
    return mixed @ own["proj.weight"].T + own["proj.bias"]


def mlp(own, x):
    return F.gelu(x @ own["fc1.weight"].T + own["fc1.bias"]) @ own["fc2.weight"].T + own["fc2.bias"]


def part(state, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def count(state, name):
    return len({key.split(".")[1] for key in state if key.startswith(f"{name}.")})


def random_state(
    *,
    patches,
    frames,
    widths=(3, 4, 6, 8),
    layers=2,
    blocks=2,
    state_size=2,
    expand=2,
    taps=4,
    hidden=16,
    outputs=1,
    seed=0,
):
    """Random weights in the layout of the release: no tensor is zero or one as an initialisation would leave it."""
    random = torch.Generator().manual_seed(seed)

    def weight(*shape):
        fan_in = math.prod(shape[1:])
        return torch.randn(shape, generator=random) / math.sqrt(fan_in)

    def near(value, *shape):
        return value + 0.2 * torch.randn(shape, generator=random)

    a, b, c, d = widths
    e, rank = expand * d, math.ceil(d / 16)
    state = {
        "cls_token": near(0, 1, 1, d),
        "pos_embed": near(0, 1, 1 + patches, d),
        "temporal_pos_embedding": near(0, 1, frames, d),
        "patch_embed.conv_down.0.weight": weight(a, 1, 3, 3, 3),
        "patch_embed.conv_down.2.weight": weight(b, a, 3, 3, 3),
        "downsample0.reduction.0.weight": weight(c, b, 3, 3, 3),
        "downsample1.reduction.0.weight": weight(d, c, 3, 3, 3),
        "norm_f.weight": near(1, d),
        "norm.weight": near(1, d),
        "norm.bias": near(0, d),
        "mlp.fc1.weight": weight(hidden, d),
        "mlp.fc1.bias": near(0, hidden),
        "mlp.fc2.weight": weight(d, hidden),
        "mlp.fc2.bias": near(0, d),
        "head.weight": weight(outputs, d),
        "head.bias": near(0, outputs),
    }
    for number, width in ((0, b), (1, c)):
        for k in (1, 2):
            state |= {
                f"conv_block{number}.conv{k}.weight": weight(width, width, 3, 3, 3),
                f"conv_block{number}.conv{k}.bias": near(0, width),
                f"conv_block{number}.norm{k}.weight": near(1, width),
                f"conv_block{number}.norm{k}.bias": near(0, width),
            }
    for number in range(layers):
        own = f"layers.{number}."
        state |= {
            f"{own}norm.weight": near(1, d),
            f"{own}mixer.in_proj.weight": weight(2 * e, d),
            f"{own}mixer.conv1d.weight": weight(e, 1, taps),
            f"{own}mixer.conv1d.bias": near(0, e),
            f"{own}mixer.x_proj.weight": weight(rank + 2 * state_size, e),
            f"{own}mixer.dt_proj.weight": weight(e, rank),
            f"{own}mixer.dt_proj.bias": near(-2, e),
            f"{own}mixer.A_log": near(0.5, e, state_size),
            f"{own}mixer.D": near(1, e),
            f"{own}mixer.out_proj.weight": weight(d, e),
        }
    for number in range(blocks):
        state |= {
            f"blocks.{number}.qkv.weight": weight(3 * d, d),
            f"blocks.{number}.qkv.bias": near(0, 3 * d),
            f"blocks.{number}.proj.weight": weight(d, d),
            f"blocks.{number}.proj.bias": near(0, d),
        }
    return state


def whole_file(state, *, grid, num_heads=2, epoch=7, val_loss=0.375):
    """The dictionary that the original's trainer saves: optimizer, scheduler and configuration beside the weights.

    grid: voxels along Y, X, Z; the configuration names them in its own order, X, Y, Z.
    """
    import numpy as np

    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in state.values()]
    optimizer = torch.optim.AdamW([{"params": parameters, "lr_scale": 0.75}], lr=2e-4, weight_decay=0.05)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    scheduler = {
        "first_cycle_steps": 500,
        "cycle_mult": 1.0,
        "base_max_lr": 2e-4,
        "max_lr": 2e-4,
        "min_lr": 1e-6,
        "warmup_steps": 25,
        "gamma": 0.9,
        "cur_cycle_steps": 500,
        "cycle": 0,
        "step_in_cycle": epoch,
        "last_epoch": epoch,
        "base_lrs": [1e-6],
        "_step_count": epoch + 1,
        "_last_lr": [np.float64(8.96e-6)],
    }
    y, x, z = grid
    config = {
        "model": {
            "name": "BrainMT",
            "img_size": [x, y, z],
            "patch_size": 4,
            "in_chans": 1,
            "num_classes": len(state["head.weight"]),
            "embed_dim": state["cls_token"].shape[-1],
            "depth": [count(state, "layers"), count(state, "blocks")],
            "rms_norm": True,
            "residual_in_fp32": True,
            "fused_add_norm": True,
            "num_heads": num_heads,
            "qkv_bias": True,
            "num_frames": state["temporal_pos_embedding"].shape[1],
            "drop_rate": 0.0,
            "drop_path_rate": 0.25,
            "attn_drop_rate": 0.0,
            "fc_drop_rate": 0.0,
        },
        "dataset": {"img_path": "/data/somebody/scans", "target_col": "age", "ds_name": "study"},
        "task": {"name": "regression", "loss_fn": "mse"},
        "run": {"seed": 42, "epochs": 20, "use_amp": True, "resume": None},
    }
    return {
        "epoch": epoch,
        "model_state_dict": state,
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": scheduler,
        "val_loss": np.float64(val_loss),
        "config": config,
    }
