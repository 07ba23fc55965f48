"""Writes a tiny GENERator with seeded random weights in the layout of GenerTeam's repositories on the hub."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from encoders.genetics.kmer_tokenizer import VOCAB

TRAP = "raise SystemExit('code from a model folder must not run')\n"


def hub_config(*, hidden_size, layers, heads, kv_heads, mlp, positions):
    return {
        "architectures": ["GENERatorForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": "modeling_generator.GENERatorConfig",
            "AutoModel": "modeling_generator.GENERatorModel",
            "AutoModelForCausalLM": "modeling_generator.GENERatorForCausalLM",
        },
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": mlp,
        "max_position_embeddings": positions,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "pad_token_id": 3,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.44.0",
        "use_cache": True,
        "vocab_size": len(VOCAB),
    }


def write_random_generator(
    folder: Path,
    *,
    hidden_size: int = 32,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    mlp: int = 44,
    positions: int = 256,
    shards: int = 1,
    scale: float = 0.2,
    seed: int = 0,
    changes: dict | None = None,
) -> dict[str, torch.Tensor]:
    """Write config.json, the weights in one file or several, vocab.txt and booby-trapped code; returns the tensors."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = hub_config(
        hidden_size=hidden_size, layers=layers, heads=heads, kv_heads=kv_heads, mlp=mlp, positions=positions
    )
    (folder / "config.json").write_text(json.dumps(config | (changes or {}), indent=2))
    head = hidden_size // heads
    shapes = {"model.embed_tokens.weight": (len(VOCAB), hidden_size)}
    for i in range(layers):
        layer = f"model.layers.{i}"
        shapes |= {
            f"{layer}.input_layernorm.weight": (hidden_size,),
            f"{layer}.self_attn.q_proj.weight": (heads * head, hidden_size),
            f"{layer}.self_attn.k_proj.weight": (kv_heads * head, hidden_size),
            f"{layer}.self_attn.v_proj.weight": (kv_heads * head, hidden_size),
            f"{layer}.self_attn.o_proj.weight": (hidden_size, heads * head),
            f"{layer}.post_attention_layernorm.weight": (hidden_size,),
            f"{layer}.mlp.gate_proj.weight": (mlp, hidden_size),
            f"{layer}.mlp.up_proj.weight": (mlp, hidden_size),
            f"{layer}.mlp.down_proj.weight": (hidden_size, mlp),
        }
    shapes |= {"model.norm.weight": (hidden_size,), "lm_head.weight": (len(VOCAB), hidden_size)}
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=random)
        tensors[name] = 1 + 0.3 * noise if len(shape) == 1 else (noise if "embed" in name else scale * noise)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        names = list(tensors)
        places = {}
        for k in range(shards):
            file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
            own = names[k::shards]
            save_file({name: tensors[name] for name in own}, folder / file, metadata={"format": "pt"})
            places |= dict.fromkeys(own, file)
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "vocab.txt").write_text("".join(f"{token} {number}\n" for number, token in enumerate(VOCAB)))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["tokenizer.DNAKmerTokenizer", None]}, "k": 6})
    )
    for code in ("modeling_generator.py", "tokenizer.py"):
        (folder / code).write_text(TRAP)
    return tensors
