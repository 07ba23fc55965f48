"""Tiny Evo 2 checkpoints in the layout of the released files: `.pt` or its parts, with their odd entries, and YAML.

All tensors are bf16, but poles, residues and rotary frequencies fp32; the frequencies are rounded to bf16.
"""

import io

import torch
import yaml

BASE = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_filters": 64,
    "attn_layer_idxs": [3],
    "hcl_layer_idxs": [2, 6],
    "hcm_layer_idxs": [1, 5],
    "hcs_layer_idxs": [0, 4],
    "hcm_filter_length": 128,
    "hcl_filter_groups": 64,
    "hcm_filter_groups": 16,
    "hcs_filter_groups": 8,
    "hcs_filter_length": 7,
    "num_layers": 7,
    "short_filter_length": 3,
    "num_attention_heads": 4,
    "short_filter_bias": False,
    "mlp_init_method": "torch.nn.init.zeros_",
    "mlp_output_init_method": "torch.nn.init.zeros_",
    "eps": 0.000001,
    "state_size": 16,
    "rotary_emb_base": 10000,
    "make_vocab_size_divisible_by": 8,
    "inner_size_multiple_of": 16,
    "inner_mlp_size": 96,
    "log_intermediate_values": False,
    "proj_groups": 1,
    "hyena_filter_groups": 1,
    "column_split_hyena": False,
    "column_split": True,
    "interleave": True,
    "evo2_style_activations": True,
    "model_parallel_size": 1,
    "pipe_parallel_size": 1,
    "tie_embeddings": True,
    "mha_out_proj_bias": True,
    "hyena_out_proj_bias": True,
    "hyena_flip_x1x2": False,
    "qkv_proj_bias": False,
    "use_fp8_input_projections": True,
    "max_seqlen": 8192,
    "max_batch_size": 1,
    "final_norm": True,
    "use_flash_attn": True,
    "use_flash_rmsnorm": False,
    "use_flash_depthwise": False,
    "use_flashfft": False,
    "use_laughing_hyena": False,
    "inference_mode": True,
    "tokenizer_type": "CharLevelTokenizer",
    "prefill_style": "fft",
    "mlp_activation": "gelu",
    "print_activations": False,
    "model_name": "tiny",
}


def config(**changes):
    return {**BASE, **changes}


def tensors(config, *, seed=0, scale=1.0, dtype=torch.bfloat16):
    """All weights, in the order of rows and the names of the released files."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape, by=1.0, around=0.0):
        return (torch.randn(*shape, generator=rng) * by + around).to(dtype)

    D, inner, heads = config["hidden_size"], config["inner_mlp_size"], config["num_attention_heads"]
    found = {"embedding_layer.weight": normal(config["vocab_size"], D, by=scale)}
    for block in range(config["num_layers"]):
        own = {
            "pre_norm.scale": normal(D, by=0.2, around=1),
            "post_norm.scale": normal(D, by=0.2, around=1),
            "mlp.l1.weight": normal(inner, D, by=D**-0.5),
            "mlp.l2.weight": normal(inner, D, by=D**-0.5),
            "mlp.l3.weight": normal(D, inner, by=scale * inner**-0.5),
        }
        if block in config["attn_layer_idxs"]:
            steps = torch.arange(0, D // heads, 2, dtype=torch.float32) * heads / D
            frequencies = 1 / config["rotary_emb_base"] ** steps
            own |= {
                "inner_mha_cls.Wqkv.weight": normal(3 * D, D, by=2 * D**-0.5),
                "inner_mha_cls.out_proj.weight": normal(D, D, by=scale * D**-0.5),
                "inner_mha_cls.out_proj.bias": normal(D, by=0.1),
                "inner_mha_cls.rotary_emb.inv_freq": frequencies.bfloat16().float(),
            }
        else:
            own |= {
                "projections.weight": normal(3 * D, D, by=D**-0.5),
                "filter.short_filter_weight": normal(3 * D, 1, 3, by=0.6),
                "out_filter_dense.weight": normal(D, D, by=scale * D**-0.5),
                "out_filter_dense.bias": normal(D, by=0.1),
            }
            if block in config["hcl_layer_idxs"]:
                own["filter.log_poles"] = -torch.exp(torch.randn(D, 16, 1, generator=rng) * 2 - 3)
                own["filter.residues"] = torch.randn(D, 16, generator=rng) * 0.3
            else:
                kind = "hcm" if block in config["hcm_layer_idxs"] else "hcs"
                length, groups = config[f"{kind}_filter_length"], config[f"{kind}_filter_groups"]
                decay = torch.exp(-torch.arange(length) / 30)
                own["filter.h"] = (normal(groups, 1, length, by=0.4).float() * decay).to(dtype)
            if block not in config["hcs_layer_idxs"]:
                own["filter.D"] = normal(D, by=0.5)
        found |= {f"blocks.{block}.{name}": tensor for name, tensor in own.items()}
    return found | {"norm.scale": normal(D, by=0.2, around=1)}


def odd_entries(config, weights):
    """What the released files hold besides the weights."""
    attention, long = config["attn_layer_idxs"], config["hcl_layer_idxs"]
    found = {"unembed.weight": weights["embedding_layer.weight"].clone()}
    for block in range(config["num_layers"]):
        if block in attention:
            found[f"blocks.{block}.mixer.dense._extra_state"] = _blob()
            found[f"blocks.{block}.mixer.attn._extra_state"] = _blob()
        else:
            found[f"blocks.{block}.projections._extra_state"] = _blob()
    return found | {f"blocks.{block}.mixer.mixer.filter.t": torch.arange(512.0)[None, None] for block in long}


def _blob():
    """A pickle inside a BytesIO that must never be opened: it would raise."""
    return io.BytesIO(b"cos\nabort\n(tR.")


def write(folder, *, config, weights, parts=0, name="tiny"):
    """Write NAME.pt, or so many NAME.pt.partN, and NAME.yml; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content = weights | odd_entries(config, weights)
    path = folder / f"{name}.pt"
    torch.save(content, path)
    if parts:
        data = path.read_bytes()
        size = len(data) // parts + 1
        for part in range(parts):
            (folder / f"{name}.pt.part{part}").write_bytes(data[part * size : (part + 1) * size])
        path.unlink()
    (folder / f"{name}.yml").write_text(yaml.safe_dump(config))
    return folder
