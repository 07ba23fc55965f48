"""BrainMT: convolutions per volume, bidirectional Mamba over time, attention over everything.

Kannan, Lindquist, Caffo 2025, "BrainMT: A Hybrid Mamba-Transformer Architecture for Modeling Long-Range
Dependencies in Functional MRI Data", arXiv 2506.22591. We build what the paper describes. The released code
differs: it scans forwards only, shares one norm and one MLP among all attention blocks, and zeroes the step
sizes' bias; `bidirectional=False, shared_attention_mlp=True` gives its form and its 39,104,961 parameters.

Tokens are in temporal-first order: CLS, then patch by patch the frames of that patch (patch-major, time
inner), so that neighbours in the scan are neighbours in time.

With `tokens="brain"` only patches that touch the brain become tokens.

Glossary: B batch · T frames · Y X Z voxels · P patches per frame · L = 1 + P T tokens · D width · K outputs.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from encoders.brainmt.attention import AttentionBlock, DropPath, Mlp
from encoders.brainmt.convolution import ConvStem
from encoders.brainmt.model_config import BrainMTConfig
from encoders.runs.errors import InputError
from encoders.ssm import BiMamba, MambaMixer, RMSNorm
from heads import TaskHead

FRAMES_AT_ONCE = 64  # volumes convolved together where their activations need not be kept


class MambaBlock(nn.Module):
    """x + drop_path(mixer(norm(x))); the residual stream stays in fp32.

    Args:
        config: Shape of the network.
        drop_path: Probability of skipping the branch.
    """

    def __init__(self, config: BrainMTConfig, drop_path: float) -> None:
        super().__init__()
        mixer = BiMamba if config.bidirectional else MambaMixer
        self.norm = RMSNorm(config.width)
        self.mixer = mixer(
            config.width,
            d_state=config.d_state,
            d_conv=config.d_conv,
            expand=config.expand,
            backend=config.scan,
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return x + self.drop_path(self.mixer(self.norm(x)))


class BrainMT(nn.Module):
    """fMRI windows -> vectors and predictions.

    Args:
        config: Shape of the network; the paper's by default.
        num_outputs: K.
        known: Instead of `config`, the names people know: embed_dim, depth, num_heads, num_frames,
            num_classes, use_checkpoint ... (:meth:`BrainMTConfig.known`).

    Raises:
        InputError: `tokens="brain"` without the numbers of the patches to keep.
    """

    def __init__(self, config: BrainMTConfig | None = None, *, num_outputs: int = 1, **known: Any) -> None:
        super().__init__()
        if config is not None and known:
            raise TypeError(f"give either a config or options by name, not both: {sorted(known)}")
        num_outputs = known.pop("num_classes", num_outputs)
        self.config = config = config or BrainMTConfig.known(**known)
        self.card: dict[str, Any] = {}  # of the file it was read from
        if config.tokens == "brain" and not config.brain_patches:
            raise InputError(
                "tokens=brain needs brain_patches, the numbers of the patches to keep; "
                "encoders.brainmt.patches.brain_patches finds them in a mask"
            )
        dim, (y, x, z) = config.width, config.patches
        self.stem = ConvStem(config.widths)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.space_table = nn.Parameter(torch.empty(1, 1 + y * x * z, dim))  # row 0 belongs to CLS
        self.time_table = nn.Parameter(torch.empty(1, config.num_frames, dim))
        depth = config.mamba_layers + config.attention_layers
        drops = [config.drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.mamba = nn.ModuleList(MambaBlock(config, drop) for drop in drops[: config.mamba_layers])
        self.norm_f = RMSNorm(dim)
        self.attention = nn.ModuleList(_attention_blocks(config, drops[config.mamba_layers :]))
        self.head = TaskHead(dim, num_outputs)
        for table in (self.cls_token, self.space_table, self.time_table):
            nn.init.trunc_normal_(table, std=0.02)
        # CLS reaches the head without a norm: a head of std 0.02 starts with hardly any gradient below it
        nn.init.trunc_normal_(self.head.linear.weight, std=dim**-0.5)

    def forward(self, x: Float[Tensor, "B T 1 Y X Z"]) -> Float[Tensor, "B K"]:
        """Predictions from the embedding that the configuration names."""
        return self.head(self.forward_features(x))

    def forward_features(self, x: Float[Tensor, "B T 1 Y X Z"]) -> Float[Tensor, "B D"]:
        """One vector per window: `cls`, `mean` or `voxel`, as the configuration says."""
        tokens = self.scanned_tokens(x)
        if self.config.embedding == "voxel":
            return tokens[:, 1:].mean(1)
        only_cls = self.config.embedding == "cls"
        tokens = self.attended_tokens(tokens, num_queries=1 if only_cls else None)
        return tokens[:, 0] if only_cls else tokens[:, 1:].mean(1)

    def voxel_features(self, x: Float[Tensor, "B T 1 Y X Z"]) -> Float[Tensor, "B P D"]:
        """Spatially resolved: the tokens after the Mamba blocks, averaged over time."""
        return self.scanned_tokens(x)[:, 1:].unflatten(1, (-1, x.shape[1])).mean(2)

    def scanned_tokens(self, x: Float[Tensor, "B T 1 Y X Z"]) -> Float[Tensor, "B L D"]:
        """CLS and patch tokens as they leave the Mamba blocks (after `norm_f`)."""
        tokens = self.embed_tokens(x)
        for block in self.mamba:
            tokens = self._recomputing(block, tokens)
        return self.norm_f(tokens)

    def attended_tokens(
        self, tokens: Float[Tensor, "B L D"], *, num_queries: int | None = None
    ) -> Float[Tensor, "B Q D"]:
        """Tokens after the attention blocks; the last block computes only the ``num_queries`` first ones."""
        for i, block in enumerate(self.attention, start=1):
            last = i == len(self.attention)
            tokens = block(tokens, num_queries=num_queries if last else None)
        return tokens[:, :num_queries]

    def embed_tokens(self, x: Float[Tensor, "B T 1 Y X Z"]) -> Float[Tensor, "B L D"]:
        """Convolve each frame, add positions, order the tokens: CLS, then patch-major with time inside."""
        batch, frames = x.shape[:2]
        volumes = x.flatten(0, 1).to(self.cls_token.dtype)
        if torch.is_grad_enabled() and not (self.config.use_checkpoint and self.training):
            patches = self.stem(volumes)
        else:
            parts = [self._recomputing(self.stem, part) for part in volumes.split(FRAMES_AT_ONCE)]
            patches = torch.cat(parts)
        grid = tuple(patches.shape[2:])
        patches = patches.flatten(2).mT.unflatten(0, (batch, frames)).transpose(1, 2)  # [B, P, T, D]
        space, time = self._space_positions(grid), self.time_positions(frames)
        places = space[:, 1:]
        if self.config.tokens == "brain":
            patches, places = (kept[:, self._brain_patches(grid)] for kept in (patches, places))
        # the residual stream is wide whatever the weights are
        wide = torch.promote_types(patches.dtype, torch.float32)
        tokens = (patches.to(wide) + places[:, :, None] + time[:, None]).flatten(1, 2)
        cls = (self.cls_token + space[:, :1]).expand(batch, -1, -1)
        return torch.cat([cls.to(tokens.dtype), tokens], dim=1)

    def _brain_patches(self, grid: tuple[int, ...]) -> Tensor:
        if grid != self.config.patches:
            raise InputError(
                f"volumes with {' x '.join(map(str, grid))} patches were given to a model that keeps the brain's "
                f"patches of {' x '.join(map(str, self.config.patches))}; give volumes of its own grid"
            )
        return torch.tensor(self.config.brain_patches, device=self.cls_token.device)

    def _space_positions(self, grid: tuple[int, ...]) -> Tensor:
        """[1, 1 + P, D]; trilinear between the table's rows for another patch grid."""
        own = self.config.patches
        if grid == own:
            return self.space_table
        table = self.space_table[:, 1:].mT.unflatten(2, own)
        table = F.interpolate(table, size=grid, mode="trilinear", align_corners=False)
        return torch.cat([self.space_table[:, :1], table.flatten(2).mT], dim=1)

    def time_positions(self, frames: int) -> Tensor:
        """[1, T, D]: the first T rows for shorter windows, linear between rows for longer ones."""
        if frames <= self.config.num_frames:
            return self.time_table[:, :frames]
        return F.interpolate(self.time_table.mT, size=frames, mode="linear", align_corners=False).mT

    def _recomputing(self, module: nn.Module, x: Tensor) -> Tensor:
        if not (self.config.use_checkpoint and self.training):
            return module(x)
        return checkpoint(module, x, use_reentrant=False)

    def compile_dense(self, **options: Any) -> None:
        """Compile what is dense, the convolutions and the attention blocks, each as one graph.

        The scan stays as it is: it has kernels of its own, and tracing it would unroll its loop over time.

        Args:
            options: Of `torch.compile`.
        """
        for part in (self.stem, *self.attention):
            part.compile(fullgraph=True, **options)

    def save_pretrained(self, folder: Path | str, card: dict[str, Any] | None = None) -> str:
        """Write weights and card (:func:`encoders.brainmt.checkpoint.save_pretrained`); returns their sha256.

        Args:
            folder: The folder.
            card: What else to record; default: the card it was read with. After training on, give one that says so.
        """
        from encoders.brainmt.checkpoint import save_pretrained

        return save_pretrained(self, Path(folder), self.card if card is None else card)

    @classmethod
    def from_pretrained(cls, source: Path | str, *, revision: str | None = None) -> "BrainMT":
        """A trained model from its folder or a hub id, ready for inference; its attribute `card` is the card."""
        from encoders.brainmt.checkpoint import from_pretrained

        model, model.card = from_pretrained(source, revision=revision)
        return model


def _attention_blocks(config: BrainMTConfig, drops: list[float]) -> list[AttentionBlock]:
    dim = config.width
    make_norm = partial(nn.LayerNorm, dim)
    make_mlp = partial(Mlp, dim, int(dim * config.mlp_ratio))
    norm, mlp = make_norm(), make_mlp()
    blocks = []
    for drop in drops:
        own = {"norm1": make_norm(), "norm2": make_norm(), "mlp": make_mlp()}
        parts = {"norm1": norm, "norm2": norm, "mlp": mlp} if config.shared_attention_mlp else own
        block = AttentionBlock(
            dim,
            config.num_heads,
            **parts,
            attention_dropout=config.attention_dropout,
            drop_path=drop,
            use_checkpoint=config.use_checkpoint,
        )
        for linear in block.modules():
            if isinstance(linear, nn.Linear):
                nn.init.xavier_uniform_(linear.weight)  # scales with the width, unlike a fixed 0.02
                nn.init.zeros_(linear.bias)
        blocks.append(block)
    return blocks
