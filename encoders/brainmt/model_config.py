"""Shape of BrainMT's network. Imports nothing heavy."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from encoders.runs.errors import InputError

# the original's names for options of ours, and its switches, of which only one setting exists here
KNOWN_AS = {"drop_path_rate": "drop_path", "attn_drop_rate": "attention_dropout", "bimamba": "bidirectional"}
FIXED = {
    "name": "BrainMT",
    "patch_size": 4,
    "in_chans": 1,
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "qkv_bias": True,
    "drop_rate": 0.0,
    "fc_drop_rate": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class BrainMTConfig:
    """Shape of the network; the defaults are those of the paper (200 frames of 2 mm MNI volumes).

    Args:
        grid: Voxels along Y, X, Z (the original's axis order); training takes them from the fMRI store.
        num_frames: Frames of a window, at one per repetition time (count).
        widths: Channels after the two patch convolutions and the two downsamplings; the last is the model width.
        mamba_layers: Blocks that scan the tokens (count).
        attention_layers: Blocks of full attention after them (count).
        num_heads: Attention heads (count).
        mlp_ratio: Hidden width of the attention blocks' MLP as a multiple of the model width.
        bidirectional: Scan both ways, as the paper says; false is the released code, whose CLS token sees
            nothing before the attention.
        shared_attention_mlp: One LayerNorm and one MLP for all attention blocks, as in the released code.
        d_state: Numbers of state per channel (count).
        d_conv: Taps of the convolution before the scan (count).
        expand: Inner width of the scan as a multiple of the model width.
        drop_path: Probability of skipping the last block in training; falls linearly to 0 at the first one.
        attention_dropout: Probability of dropping an attention weight in training.
        embedding: What a window's vector is: the `cls` token, the `mean` over patch tokens, or `voxel`: the
            mean over the tokens as they leave the Mamba blocks.
        tokens: `all` patches, or only those that touch the `brain`: 130 of 252 with the MNI mask, 0.4 of the FLOPs.
        brain_patches: Numbers of the patches kept by `tokens=brain`; training takes them from the masks of the
            training people, and the checkpoint keeps them.
        use_checkpoint: Recompute convolutions, Mamba blocks and MLPs in backward to save memory; attention
            cores, which cost most, are never recomputed.
        scan: Implementation of the selective scan.
    """

    grid: tuple[int, int, int] = (109, 91, 91)
    num_frames: int = 200
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    mamba_layers: int = 12
    attention_layers: int = 8
    num_heads: int = 2
    mlp_ratio: float = 2.0
    bidirectional: bool = True
    shared_attention_mlp: bool = False
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    drop_path: float = 0.1
    attention_dropout: float = 0.0
    embedding: Literal["cls", "mean", "voxel"] = "cls"
    tokens: Literal["all", "brain"] = "all"
    brain_patches: tuple[int, ...] = ()
    use_checkpoint: bool = False
    scan: Literal["auto", "reference", "chunked", "cuda"] = "auto"

    def __post_init__(self) -> None:
        for name in ("grid", "widths", "num_frames", "num_heads", "d_state", "d_conv", "expand"):
            given = getattr(self, name)
            if min(given if isinstance(given, tuple) else (given,)) < 1:
                raise InputError(f"{name} is {given}; give 1 or more")
        for name in ("mamba_layers", "attention_layers"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; give 0 or more")
        for name in ("drop_path", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give a probability from 0 to below 1")
        if self.width % self.num_heads:
            raise InputError(
                f"model width {self.width} is no multiple of num_heads {self.num_heads}; change one"
            )
        if not self.width * self.mlp_ratio >= 1:
            raise InputError(
                f"mlp_ratio is {self.mlp_ratio}; give at least 1 / {self.width}, one hidden number"
            )
        y, x, z = self.patches
        if self.brain_patches and not 0 <= min(self.brain_patches) <= max(self.brain_patches) < y * x * z:
            raise InputError(
                f"brain_patches holds numbers from {min(self.brain_patches)} to {max(self.brain_patches)}, but the "
                f"grid has patches 0 to {y * x * z - 1}; leave it to training"
            )

    @property
    def width(self) -> int:
        """Width of tokens and of the vector."""
        return self.widths[-1]

    @property
    def patches(self) -> tuple[int, int, int]:
        """Patches along Y, X, Z: four convolutions of stride 2 halve the grid, rounding up."""
        y, x, z = ((n + 15) // 16 for n in self.grid)
        return y, x, z

    @property
    def num_patches(self) -> int:
        """Patch tokens per frame."""
        y, x, z = self.patches
        return len(self.brain_patches) if self.tokens == "brain" else y * x * z

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "BrainMTConfig":
        """From what `dataclasses.asdict` became in a JSON file, where tuples are lists."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    @classmethod
    def known(cls, **options: Any) -> "BrainMTConfig":
        """From the original's constructor names: embed_dim, depth, img_size, drop_path_rate, attn_drop_rate.

        `embed_dim` sets all four widths (1/8, 1/4, 1/2, 1), `depth` is (Mamba blocks, attention blocks);
        `img_size` is (X, Y, Z). The original's switches (:data:`FIXED`) are accepted with the value that they have
        there. All other options go by their own names.

        Raises:
            InputError: a value that this network has no form for.
        """
        for name, value in FIXED.items():
            if (given := options.pop(name, value)) != value:
                raise InputError(f"{name}={given!r} was asked for, but BrainMT has {name}={value!r} only")
        if (width := options.pop("embed_dim", None)) is not None:
            options["widths"] = (width // 8, width // 4, width // 2, width)
        if (depth := options.pop("depth", None)) is not None:
            if isinstance(depth, int) or len(depth) != 2:
                raise InputError(
                    f"depth is {depth!r}; two numbers were wanted, Mamba and attention blocks: depth=(12, 8)"
                )
            options["mamba_layers"], options["attention_layers"] = depth
        if (size := options.pop("img_size", None)) is not None:
            options["grid"] = (size[1], size[0], size[2])
        for theirs, ours in KNOWN_AS.items():
            if theirs in options:
                options[ours] = options.pop(theirs)
        if unknown := sorted(set(options) - {field.name for field in fields(cls)}):
            raise TypeError(f"BrainMT has no option {', '.join(unknown)}; see BrainMTConfig")
        return cls(**options)
