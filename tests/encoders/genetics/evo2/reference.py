"""Evo 2 written a second time, in fp64, from the description of the released models, by definition only.

Shares no code with the package. Convolutions are double sums over positions, attention is a full matrix; tensors
are taken as the files hold them (rows of Wqkv per head, inv_freq as stored).
"""

import math

import torch


def run(config, tensors, ids):
    """Every block's output, and those of its MLP, the last norm and the logits: name -> (B, L, channels)."""
    t = {name: tensor.double() for name, tensor in tensors.items()}
    x = t["embedding_layer.weight"][ids]
    found = {"embedding_layer": x}
    for i in range(config["num_layers"]):
        own = {n.removeprefix(f"blocks.{i}."): v for n, v in t.items() if n.startswith(f"blocks.{i}.")}
        z = rms(x, own["pre_norm.scale"], config["eps"])
        mixed = attention(config, own, z) if i in config["attn_layer_idxs"] else hyena(config, own, z, i)
        x = x + mixed
        z = rms(x, own["post_norm.scale"], config["eps"])
        gate = z @ own["mlp.l1.weight"].T
        if i == 0:
            gate = 0.5 * gate * (1 + torch.erf(gate / math.sqrt(2)))
        mlp = (gate * (z @ own["mlp.l2.weight"].T)) @ own["mlp.l3.weight"].T
        x = x + mlp
        found |= {f"blocks.{i}": x, f"blocks.{i}.mlp.l3": mlp}
    found["norm"] = rms(x, t["norm.scale"], config["eps"])
    found["unembed"] = found["norm"] @ t["embedding_layer.weight"].T
    return found


def rms(x, scale, eps):
    return x / (torch.sqrt((x**2).mean(-1, keepdim=True)) + eps) * scale


def causal(x, kernel):
    """y[:, t, d] = sum over s <= t of kernel[d, t - s] x[:, s, d]; kernel beyond its end is 0."""
    length, taps = x.shape[1], kernel.shape[1]
    y = torch.zeros_like(x)
    for t in range(length):
        for s in range(max(0, t - taps + 1), t + 1):
            y[:, t] += kernel[:, t - s] * x[:, s]
    return y


def hyena(config, own, u, i):
    D = config["hidden_size"]
    z = u @ own["projections.weight"].T
    z = causal(z, own["filter.short_filter_weight"][:, 0].flip(1))  # cross-correlation: last tap is now
    x2, x1, v = z[..., 0::3], z[..., 1::3], z[..., 2::3]
    y = x1 * v
    if i in config["hcl_layer_idxs"]:
        time = torch.arange(u.shape[1], dtype=torch.float64)
        kernel = (own["filter.residues"][..., None] * torch.exp(own["filter.log_poles"] * time)).sum(1)
    else:
        kernel = own["filter.h"][:, 0]
        kernel = kernel[torch.arange(D) // (D // kernel.shape[0])]
        if i in config["hcs_layer_idxs"]:
            kernel = kernel.flip(1)  # cross-correlation; the medium one is a convolution
    mixed = causal(y, kernel)
    if i not in config["hcs_layer_idxs"]:
        mixed = mixed + own["filter.D"] * y
    return (x2 * mixed) @ own["out_filter_dense.weight"].T + own["out_filter_dense.bias"]


def attention(config, own, u):
    B, L, D = u.shape
    heads = config["num_attention_heads"]
    size = D // heads
    qkv = (u @ own["inner_mha_cls.Wqkv.weight"].T).view(B, L, heads, 3, size)
    factor = config.get("rotary_emb_scaling_factor", 1)
    angles = torch.arange(L, dtype=torch.float64)[:, None] / factor * own["inner_mha_cls.rotary_emb.inv_freq"]
    cos, sin = torch.cos(angles)[None, :, None], torch.sin(angles)[None, :, None]

    def turned(x):
        a, b = x[..., : size // 2], x[..., size // 2 :]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

    q, k, v = turned(qkv[..., 0, :]), turned(qkv[..., 1, :]), qkv[..., 2, :]
    scores = torch.einsum("bthe,bshe->bhts", q, k) / math.sqrt(size)
    later = torch.arange(L)[None] > torch.arange(L)[:, None]
    weights = torch.softmax(scores.masked_fill(later, -torch.inf), -1)
    mixed = torch.einsum("bhts,bshe->bthe", weights, v).reshape(B, L, D)
    return mixed @ own["inner_mha_cls.out_proj.weight"].T + own["inner_mha_cls.out_proj.bias"]
