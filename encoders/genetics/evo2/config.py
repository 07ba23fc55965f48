"""The shape of an Evo 2 (StripedHyena 2), read from the official YAML keys, and the names of its layers.

Brixi et al. 2025, "Genome modeling and design across all domains of life with Evo 2".
"""

import dataclasses
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from encoders.runs.errors import InputError

KINDS = ("hcs", "hcm", "hcl", "attn")  # Hyena with a short, medium, long filter; attention
# Explicit filters of so many taps or more are convolutions with a skip beside them, shorter ones are neither.
LONG_TAPS = 128
# Layers of a block, in order; "" is its end.
COMMON = ("post_norm", "mlp.l1", "mlp.l2", "mlp.l3", "mlp", "")
HYENA_LAYERS = ("pre_norm", "projections", "filter", "out_filter_dense", *COMMON)
ATTENTION_LAYERS = (
    "pre_norm",
    "inner_mha_cls.Wqkv",
    "inner_mha_cls.inner_attn",
    "inner_mha_cls.out_proj",
    "inner_mha_cls",
    *COMMON,
)


@dataclass(frozen=True, kw_only=True)
class Evo2Config:
    """One StripedHyena 2; names of fields are the official YAML keys.

    Args:
        vocab_size: Rows of the embedding; token ids are bytes.
        hidden_size: D.
        num_layers: Blocks.
        num_attention_heads: Heads of the attention blocks.
        inner_mlp_size: I, inner width of the MLPs.
        hcs_layer_idxs: Blocks with a short explicit filter.
        hcm_layer_idxs: Blocks with a medium explicit filter.
        hcl_layer_idxs: Blocks with a long implicit filter.
        attn_layer_idxs: Blocks with attention.
        hcs_filter_length: Taps of the short filter.
        hcm_filter_length: Taps of the medium filter.
        hcs_filter_groups: Distinct short filters of a block.
        hcm_filter_groups: Distinct medium filters of a block.
        short_filter_length: Taps of the filter behind the input projections.
        state_size: Poles per channel of the long filter.
        eps: Added to the root mean square, outside the root.
        rotary_emb_base: Base of the rotary frequencies; the stored frequencies win.
        rotary_emb_scaling_factor: Positions are divided by it (longer contexts); 1: not.
        max_seqlen: Longest input, bases.
        mlp_activation: "gelu" or "silu".
        evo2_style_activations: The activation is in block 0 only; all other MLPs are bilinear.
        use_fp8_input_projections: The authors run the projections of Hyena blocks in FP8.
        model_name: What the authors call it.
    """

    vocab_size: int = 512
    hidden_size: int
    num_layers: int
    num_attention_heads: int
    inner_mlp_size: int
    hcs_layer_idxs: tuple[int, ...]
    hcm_layer_idxs: tuple[int, ...]
    hcl_layer_idxs: tuple[int, ...]
    attn_layer_idxs: tuple[int, ...]
    hcs_filter_length: int = 7
    hcm_filter_length: int = 128
    hcs_filter_groups: int
    hcm_filter_groups: int
    short_filter_length: int = 3
    state_size: int = 16
    eps: float = 1e-6
    rotary_emb_base: float = 10_000.0
    rotary_emb_scaling_factor: float = 1.0
    max_seqlen: int = 8_192
    mlp_activation: str = "gelu"
    evo2_style_activations: bool = True
    use_fp8_input_projections: bool = True
    model_name: str = ""

    def kind(self, block: int) -> str:
        """Kind of a block: one of KINDS."""
        return next(kind for kind in KINDS if block in getattr(self, f"{kind}_layer_idxs"))

    @property
    def head_size(self) -> int:
        """Channels of one head."""
        return self.hidden_size // self.num_attention_heads

    def operations(self, length: int, *, layer: str = "unembed") -> float:
        """Floating-point operations of one pass over one sequence up to a named layer, counted on paper.

        A multiplication and an addition count as two; norms, gates and rotations are left out (below 1 %).
        """
        D, half = self.hidden_size, length * (length + 1) / 2
        last = block_of(layer)
        total = 0.0
        for block in range(self.num_layers if last is None else last + 1):
            kind = self.kind(block)
            if kind == "attn":
                total += 2 * length * 4 * D * D + 2 * 2 * half * D
            else:
                taps = {
                    "hcs": self.hcs_filter_length,
                    "hcm": self.hcm_filter_length,
                    "hcl": 2 * self.state_size,
                }
                filters = 3 * self.short_filter_length + taps[kind]
                total += 2 * length * (4 * D * D + filters * D)
            total += 2 * length * 3 * D * self.inner_mlp_size
        if last is None and layer == "unembed":
            total += 2 * length * D * self.vocab_size
        return 0.0 if layer == "embedding_layer" else total

    def layers(self) -> list[str]:
        """Names of all layers whose output can be had, in order, as the authors' package calls them."""
        inner = [
            f"blocks.{block}.{name}".rstrip(".")
            for block in range(self.num_layers)
            for name in (ATTENTION_LAYERS if self.kind(block) == "attn" else HYENA_LAYERS)
        ]
        return ["embedding_layer", *inner, "norm", "unembed"]

    def check_layer(self, layer: str) -> None:
        """Refuse a layer that the model does not have.

        Raises:
            InputError: with names that it has.
        """
        if layer not in self.layers():
            block = min(block_of(layer) or 0, self.num_layers - 1)
            near = [name for name in self.layers() if block_of(name) in (None, block)]
            raise InputError(
                f"this Evo 2 has no layer {layer!r}; it has {self.num_layers} blocks, and layers such as {', '.join(near)}"
            )

    def width(self, layer: str) -> int:
        """Channels of a layer's output."""
        D, last = self.hidden_size, layer.rpartition(".")[2]
        special = {"l1": self.inner_mlp_size, "l2": self.inner_mlp_size, "unembed": self.vocab_size}
        return special.get(last, 3 * D if last in ("projections", "Wqkv") else D)

    def default_layer(self) -> str:
        """Whose output is the embedding, where nobody says: as the authors advise, or at the same depth.

        7B: `blocks.28.mlp.l3` (README of evo2). 40B: block 20 (ArcInstitute/evo2 issue 129, best on BRCA1).
        Others, for which no advice is known: the MLP at seven eighths of the depth, as in the 7B.
        """
        block = 20 if self.num_layers == 50 else min(7 * self.num_layers // 8, self.num_layers - 1)
        return f"blocks.{block}.mlp.l3"

    @classmethod
    def from_yaml(cls, path: Path) -> "Evo2Config":
        """Read a YAML file with the official keys.

        Raises:
            InputError: unreadable, or not a model that this code can run.
        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as cause:
            raise InputError(
                f"{path} is not a readable YAML file ({cause}); an Evo 2 configuration was wanted"
            ) from cause
        if not isinstance(content, dict):
            raise InputError(
                f"{path} holds no mapping; an Evo 2 configuration (hidden_size: 4096, ...) was wanted"
            )
        return cls.from_official(content, str(path))

    @classmethod
    def from_official(cls, content: Mapping[str, Any], where: str) -> "Evo2Config":
        """From the official keys, parsed.

        Args:
            content: Key -> value; keys that only steer training, kernels or logging are left aside.
            where: What messages call it.

        Raises:
            InputError: keys missing, of a wrong kind or out of range, or a dialect that no released model has.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        content = {**content, "inner_mlp_size": content.get("inner_mlp_size", _inner_size(content))}
        missing = [
            name
            for name, field in fields.items()
            if field.default is dataclasses.MISSING and content.get(name) is None
        ]
        if missing:
            raise InputError(f"{where} lacks {', '.join(missing)}; an Evo 2 configuration has them")
        for key, wanted in FIXED.items():
            if key in content and content[key] != wanted:
                raise InputError(
                    f"{where}: {key} is {content[key]!r}; every released Evo 2 has {wanted!r}, and nothing else is supported"
                )
        if content.get("hcl_filter_groups", content["hidden_size"]) != content["hidden_size"]:
            raise InputError(
                f"{where}: hcl_filter_groups differs from hidden_size, which no released Evo 2 has"
            )
        unknown = sorted(set(content) - set(fields) - set(FIXED) - set(IDLE))
        if unknown:
            warnings.warn(f"{where}: {', '.join(unknown)} unknown to this release and not used", stacklevel=2)
        if not content.get("use_interpolated_rotary_pos_emb", False):
            content.pop("rotary_emb_scaling_factor", None)
        config = cls(
            **{name: _read(field, content[name], where) for name, field in fields.items() if name in content}
        )
        config._check(where)
        return config

    def official(self) -> dict[str, Any]:
        """The official keys and values, as :meth:`from_official` reads them."""
        content = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }
        scaled = self.rotary_emb_scaling_factor != 1
        if not scaled:
            del content["rotary_emb_scaling_factor"]
        sizes = {"num_filters": self.hidden_size, "hcl_filter_groups": self.hidden_size}
        return content | sizes | FIXED | {"use_interpolated_rotary_pos_emb": scaled}

    def _check(self, where: str) -> None:
        blocks = sorted(block for kind in KINDS for block in getattr(self, f"{kind}_layer_idxs"))
        if blocks != list(range(self.num_layers)):
            raise InputError(
                f"{where}: hcs, hcm, hcl and attn_layer_idxs name blocks {blocks}; each of 0 to {self.num_layers - 1} was wanted once"
            )
        for key, divisor in (
            ("num_attention_heads", self.num_attention_heads),
            ("hcs_filter_groups", self.hcs_filter_groups),
            ("hcm_filter_groups", self.hcm_filter_groups),
        ):
            if divisor < 1 or self.hidden_size % divisor:
                raise InputError(f"{where}: hidden_size {self.hidden_size} is no multiple of {key} {divisor}")
        if self.head_size % 2:
            raise InputError(
                f"{where}: heads of {self.head_size} channels; rotary embedding needs an even number"
            )
        if self.mlp_activation not in ("gelu", "silu"):
            raise InputError(f"{where}: mlp_activation is {self.mlp_activation!r}; gelu or silu was wanted")
        if self.hcs_filter_length >= LONG_TAPS or self.hcm_filter_length < LONG_TAPS:
            raise InputError(
                f"{where}: filters of {self.hcs_filter_length} (short) and {self.hcm_filter_length} taps (medium); "
                f"the authors' code tells the two kinds apart by having fewer than {LONG_TAPS} taps or not"
            )


# What every released model has; other values mean another network.
FIXED: dict[str, Any] = {
    "column_split_hyena": False,
    "column_split": True,
    "interleave": True,
    "hyena_flip_x1x2": False,
    "proj_groups": 1,
    "hyena_filter_groups": 1,
    "tie_embeddings": True,
    "final_norm": True,
    "mha_out_proj_bias": True,
    "hyena_out_proj_bias": True,
    "qkv_proj_bias": False,
    "short_filter_bias": False,
    "tokenizer_type": "CharLevelTokenizer",
}
# Keys that do not change what the network computes here.
IDLE = (
    "num_filters",
    "hcl_filter_groups",
    "use_interpolated_rotary_pos_emb",
    "make_vocab_size_divisible_by",
    "inner_size_multiple_of",
    "model_parallel_size",
    "pipe_parallel_size",
    "mlp_init_method",
    "mlp_output_init_method",
    "log_intermediate_values",
    "max_batch_size",
    "use_flash_attn",
    "use_flash_rmsnorm",
    "use_flash_depthwise",
    "use_flashfft",
    "use_laughing_hyena",
    "inference_mode",
    "prefill_style",
    "print_activations",
    "hyena_block_dtype",
    "attn_block_dtype",
    "mlp_dtype",
    "params_dtype",
    "depthwise_dtype",
    "low_mem_mode",
    "compile",
    "seqlen",
    "ground_truth_activations_path",
    "use_hcs_kernel",
    "use_hcm_kernel",
    "use_hcl_kernel",
    "random_weights_seed",
)


def block_of(layer: str) -> int | None:
    """Block that a layer lies in; None for `embedding_layer`, `norm` and `unembed`."""
    found = re.match(r"blocks\.(\d+)(\.|$)", layer)
    return int(found[1]) if found else None


def _inner_size(content: Mapping[str, Any]) -> int | None:
    """Without `inner_mlp_size`: eight thirds of the width, rounded up."""
    width, sizes = (
        content.get("hidden_size"),
        (
            content.get("inner_size_multiple_of", 64),
            content.get("model_parallel_size", 1),
        ),
    )
    if any(type(size) is not int or size < 1 for size in (width, *sizes)):
        return None
    multiple = sizes[0] * sizes[1]
    return -(-int(2 * width * 4 / 3) // multiple) * multiple


def _read(field: dataclasses.Field, value: Any, where: str) -> Any:
    """A value of the kind of its field; YAML 1.1 reads 1e6 as text."""
    if field.name.endswith("_idxs"):
        if isinstance(value, list | tuple) and all(type(item) is int for item in value):
            return tuple(value)
    elif field.type is float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = 0.0
        if number > 0 and not isinstance(value, bool):
            return number
    elif type(value) is field.type and (field.type is not int or value > 0):
        return value
    raise InputError(
        f"{where}: {field.name} is {value!r}; {_WANTED.get(field.type, 'a list of blocks')} was wanted"
    )


_WANTED = {int: "a number above 0", float: "a number above 0", bool: "true or false", str: "text"}
