"""The released Evo 2 models by name: their shapes, how to recognise one, and which need FP8.

The hub's repositories hold weights only; the shapes are those of the `evo2` package (0.6.0). A folder may hold a
YAML of its own with the same keys.
"""

import re
from typing import Any

from encoders.genetics.evo2.config import Evo2Config
from encoders.runs.errors import InputError

MODEL_TYPE = "evo2"  # in config.json of a converted model


def _cycle(num_layers: int, attention: tuple[int, ...]) -> dict[str, Any]:
    """Attention where named; the other blocks take turns: short, medium, long."""
    hyena = [block for block in range(num_layers) if block not in attention]
    kinds = {f"{kind}_layer_idxs": hyena[at::3] for at, kind in enumerate(("hcs", "hcm", "hcl"))}
    return {"num_layers": num_layers, "attn_layer_idxs": list(attention), **kinds}


def _sizes(width: int, heads: int, inner: int, groups: int) -> dict[str, Any]:
    filters = {"num_filters": width, "hcl_filter_groups": width}
    groups_of = {"hcs_filter_groups": groups, "hcm_filter_groups": groups}
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "inner_mlp_size": inner,
        **filters,
        **groups_of,
    }


def _longer(factor: int, max_seqlen: int) -> dict[str, Any]:
    return {
        "rotary_emb_scaling_factor": factor,
        "use_interpolated_rotary_pos_emb": True,
        "max_seqlen": max_seqlen,
    }


_7B = _cycle(32, (3, 10, 17, 24, 31)) | {"rotary_emb_base": 10_000}
_40B = _cycle(50, (3, 10, 17, 24, 31, 35, 42, 49)) | {"rotary_emb_base": 1_000_000}
RELEASED: dict[str, dict[str, Any]] = {
    "1b_base": _cycle(25, (3, 10, 17, 24)) | _sizes(1920, 15, 5120, 128) | {"max_seqlen": 8_192},
    "7b_base": _7B | _sizes(4096, 32, 11008, 256) | {"max_seqlen": 32_768},
    "7b_262k": _7B | _sizes(4096, 32, 11008, 256) | _longer(32, 262_144),
    "7b": _7B | _sizes(4096, 32, 11264, 256) | _longer(128, 1_048_576),
    "7b_microviridae": _7B | _sizes(4096, 32, 11008, 256) | {"max_seqlen": 32_768},
    "20b": _cycle(24, (3, 10, 17))
    | _sizes(8192, 64, 22528, 512)
    | {"rotary_emb_base": 1_000_000}
    | _longer(128, 1_048_576),
    "40b_base": _40B | _sizes(8192, 64, 21888, 512) | {"max_seqlen": 8_192},
    "40b": _40B | _sizes(8192, 64, 22528, 512) | _longer(128, 1_048_576),
}
NEEDS_FP8 = (
    "1b_base",
    "20b",
    "40b",
    "40b_base",
)  # trained with FP8 projections; the 7B family is right without


def released_config(name: str) -> Evo2Config:
    """The configuration of a released model, e.g. "7b" or "evo2_7b".

    Raises:
        InputError: an unknown name.
    """
    short = released_name(name)
    if short is None:
        raise InputError(f"{name} is no released Evo 2; known are {', '.join(RELEASED)}")
    return Evo2Config.from_official(RELEASED[short] | {"model_name": f"evo2_{short}"}, f"evo2_{short}")


def released_name(text: str) -> str | None:
    """Which released model a file, a folder or a hub id names; None if none.

    "arcinstitute/evo2_7b" -> "7b"; "evo-design/evo-2-7b-8k-microviridae" -> "7b_microviridae".
    """
    last = text.rstrip("/").rpartition("/")[2].lower()
    if "microviridae" in last:
        return "7b_microviridae"
    last = re.sub(r"^evo[-_]?2[-_]", "", re.sub(r"\.pt(\.part\d+)?$", "", last))
    return last if last in RELEASED else None


def is_evo2(config: dict[str, Any], names: frozenset[str]) -> bool:
    """Whether a folder or repository holds an Evo 2, by its config.json and the names of its files."""
    if config.get("model_type") == MODEL_TYPE or "hcl_layer_idxs" in config:
        return True
    weights = [name for name in names if name.endswith(".pt") or ".pt.part" in name]
    shaped = any(name.endswith((".yml", ".yaml")) for name in names)
    return any(shaped or released_name(name) is not None for name in weights)


def needs_fp8(config: Evo2Config) -> bool:
    """Whether this is the shape of a released model that was trained with FP8 projections and differs without."""
    shapes = {(RELEASED[name]["hidden_size"], RELEASED[name]["num_layers"]) for name in NEEDS_FP8}
    return (config.hidden_size, config.num_layers) in shapes


def fp8_warning(config: Evo2Config) -> str:
    """What a user of such a model is told."""
    return (
        f"{config.model_name or 'this Evo 2'} was trained with FP8 input projections, which only Transformer Engine on "
        f"a Hopper GPU computes. Here they are computed without FP8: its vectors and scores DIFFER from the authors' and "
        f"are worse (for the 1B a loss of about 1.24 instead of 1.08 was reported). Take a model of the 7B family, "
        f"which is right without FP8, or --backend=evo2 on a Hopper GPU"
    )
