"""Options of BrainMT, of its supervised training and of embedding with it. Imports nothing heavy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from encoders.runs.errors import InputError
from encoders.runs.study import DEMO


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
    use_checkpoint: bool = False
    scan: Literal["auto", "reference", "chunked", "cuda"] = "auto"

    def __post_init__(self) -> None:
        if self.widths[-1] % self.num_heads:
            raise InputError(
                f"model width {self.widths[-1]} is no multiple of num_heads {self.num_heads}; change one"
            )
        if min(*self.grid, *self.widths, self.num_frames, self.d_state, self.num_heads) < 1:
            raise InputError("grid, widths, num_frames, d_state and num_heads must all be at least 1")

    @property
    def width(self) -> int:
        """Width of tokens and of the vector."""
        return self.widths[-1]

    @property
    def patches(self) -> tuple[int, int, int]:
        """Patches along Y, X, Z: four convolutions of stride 2 halve the grid, rounding up."""
        y, x, z = ((n + 15) // 16 for n in self.grid)
        return y, x, z

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "BrainMTConfig":
        """From what `dataclasses.asdict` became in a JSON file, where tuples are lists."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    @classmethod
    def known(cls, **options: Any) -> "BrainMTConfig":
        """From the original's constructor names: embed_dim, depth, img_size, drop_path_rate, attn_drop_rate.

        `embed_dim` sets all four widths (1/8, 1/4, 1/2, 1), `depth` is (Mamba blocks, attention blocks);
        `img_size` is (X, Y, Z). All other options go by their own names.
        """
        if (width := options.pop("embed_dim", None)) is not None:
            options["widths"] = (width // 8, width // 4, width // 2, width)
        if (depth := options.pop("depth", None)) is not None:
            options["mamba_layers"], options["attention_layers"] = depth
        if (size := options.pop("img_size", None)) is not None:
            options["grid"] = (size[1], size[0], size[2])
        for theirs, ours in (("drop_path_rate", "drop_path"), ("attn_drop_rate", "attention_dropout")):
            if theirs in options:
                options[ours] = options.pop(theirs)
        return cls(**options)


@dataclass(frozen=True, kw_only=True)
class PretrainBrainMT:
    """Train BrainMT to predict columns of the participants table; resumes by itself after an interruption.

    The defaults are the paper's size, for GPUs; configs/demo/pretrain_brainmt.yaml takes minutes on two cores. People held
    out for the test are never trained on.

    Args:
        study: Study folder.
        store: fMRI store (its manifest.json); default: the study's own.
        splits: Split file; default: the study's own.
        participants: Table with the targets; default: the study's own.
        targets: Columns to predict; `*` and `?` are wildcards.
        model: Shape of the network.
        epochs: Passes over the training people (count); each takes one random window of every run.
        batch_size: Windows per batch and process (count).
        accumulate: Batches per optimizer step (count).
        lr: Peak learning rate, reached at the end of the warm-up.
        layer_decay: Factor on the learning rate per layer below the head; 1 for training from scratch.
        weight_decay: Decoupled weight decay (AdamW); biases, norms, tokens, position tables, A_log and D have none.
        betas: AdamW's two decay rates.
        warmup_epochs: Epochs over which the learning rate rises linearly; then it falls as a cosine.
        clip: Largest norm of the gradient; longer ones are scaled down.
        eval_every: Epochs between evaluations on the validation people (count).
        eval_windows: Evenly spaced windows per run in evaluations, averaged (count).
        select_by: Validation metric of the best model: `r` (mean correlation over targets) or `mse`.
        patience: Stop after so many evaluations without improvement (count); 0 trains to the end.
        mixed_precision: `auto` takes bf16 where a CUDA device has it, else fp32.
        preload: Keep the whole store in memory; false reads each window from disk.
        seed: Seed of weights, order and windows.
        wandb: W&B project; empty for none.
        redo: Discard an earlier run made with other options.
    """

    study: Path = DEMO
    store: Path | None = None
    splits: Path | None = None
    participants: Path | None = None
    targets: list[str] = field(default_factory=lambda: ["trait_*"])
    model: BrainMTConfig = field(default_factory=BrainMTConfig)
    epochs: int = 70
    batch_size: int = 2
    accumulate: int = 4
    lr: float = 2e-4
    layer_decay: float = 1.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_epochs: float = 5.0
    clip: float = 1.0
    eval_every: int = 1
    eval_windows: int = 4
    select_by: Literal["r", "mse"] = "r"
    patience: int = 0
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    preload: bool = False
    seed: int = 0
    wandb: str = ""
    redo: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "lr", "clip", "eval_every", "eval_windows"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; give a number above 0")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise InputError(
                f"warmup_epochs is {self.warmup_epochs} of {self.epochs} epochs; give a number from 0 to epochs"
            )
        if not self.targets:
            raise InputError("targets is empty; name at least one column of the participants table")


@dataclass(frozen=True, kw_only=True)
class EmbedFMRI:
    """One vector per person of the fMRI store: windows, then runs, then the person averaged.

    Args:
        study: Study folder; the vectors go to its vectors/brain.safetensors.
        store: fMRI store (its manifest.json); default: the study's own.
        model: Folder of a trained BrainMT; default: the study's own best.
        strategy: `rsfmri_brainmt_windows_v1`: evenly spaced windows as long as the model was trained on, its own
            embedding; `rsfmri_brainmt_segments_v1`: consecutive segments of 32 frames, mean over tokens.
        windows: Evenly spaced windows per run (count); only for the windows strategy.
        batch_size: Windows per forward pass (count).
        redo: Discard earlier vectors made with other options.
    """

    study: Path = DEMO
    store: Path | None = None
    model: Path | None = None
    strategy: Literal["rsfmri_brainmt_windows_v1", "rsfmri_brainmt_segments_v1"] = "rsfmri_brainmt_windows_v1"
    windows: int = 4
    batch_size: int = 16
    redo: bool = False
