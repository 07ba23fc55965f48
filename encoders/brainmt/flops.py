"""How much arithmetic one training step of BrainMT is, stage by stage, and how fast the device could do it.

A multiply-add counts as two operations. Backward costs twice forward, the attention core two and a half times (the
fused kernels compute the scores again), the scan likewise. At the paper's size a step is 188.7e12 operations, 77 % of
them in attention cores.

Glossary: T frames · L tokens · D model width · E inner width of the scan · N numbers of state per channel.
"""

import time
from dataclasses import dataclass

import torch

from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.patches import STRIDE

RECOMPUTED = 2.5  # backward over forward where the kernel recomputes
SCAN_OPERATIONS = 7  # per state number: decay (with its exponential as one), input, update, readout


@dataclass(frozen=True, kw_only=True)
class StageFlops:
    """Arithmetic of one stage for one window.

    Args:
        forward: Operations of the forward pass.
        backward: Operations of the backward pass; what is frozen has none.
    """

    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Of a training step."""
        return self.forward + self.backward


def step_flops(
    config: BrainMTConfig, *, frames: int | None = None, unfrozen_blocks: int | None = None
) -> dict[str, StageFlops]:
    """Stage -> operations of a training step on one window.

    Args:
        config: Shape of the network.
        frames: T; default: those of the configuration.
        unfrozen_blocks: Blocks below the head that are trained (count); None for everything.
    """
    frames = frames or config.num_frames
    tokens, dim = 1 + config.num_patches * frames, config.width
    attention_layers = 0 if config.embedding == "voxel" else config.attention_layers  # read before them
    depth = config.mamba_layers + attention_layers
    trained = depth if unfrozen_blocks is None else min(unfrozen_blocks, depth)
    trained_attention = min(trained, attention_layers)
    stages = {"convolutions": _stage(frames * _stem(config), 2.0, 1.0 if unfrozen_blocks is None else 0.0)}
    layers, share = config.mamba_layers, (trained - trained_attention) / max(config.mamba_layers, 1)
    projections, scan = _mamba(config, tokens)
    stages["mamba projections"] = _stage(layers * projections, 2.0, share)
    stages["scan"] = _stage(layers * scan, RECOMPUTED, share)
    hidden = int(dim * config.mlp_ratio)
    core = dense = 0.0
    for layer in range(attention_layers):
        only_cls = config.embedding == "cls" and layer == attention_layers - 1
        queries = 1 if only_cls else tokens
        core += 4.0 * queries * tokens * dim
        dense += 2.0 * (queries * dim * (2 * dim + 2 * hidden) + tokens * dim * 2 * dim)
    share = trained_attention / max(attention_layers, 1)
    stages["attention projections and MLP"] = _stage(dense, 2.0, share)
    stages["attention core"] = _stage(core, RECOMPUTED, share)
    return stages


def total_flops(stages: dict[str, StageFlops]) -> float:
    """Of a training step on one window."""
    return sum(stage.total for stage in stages.values())


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large square matrix product on this device now: what the rest is compared with."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _stage(forward: float, backward: float, share: float) -> StageFlops:
    return StageFlops(forward=forward, backward=forward * backward * share)


def _stem(config: BrainMTConfig) -> float:
    """Of one frame."""
    a, b, c, d = config.widths

    def voxels(stride: int) -> float:
        y, x, z = (-(-n // stride) for n in config.grid)
        return float(y * x * z)

    halves = [(1, a, 2), (a, b, 4), (b, c, 8), (c, d, STRIDE)]
    macs = sum(27 * wide_in * wide_out * voxels(stride) for wide_in, wide_out, stride in halves)
    return 2.0 * (macs + 2 * 27 * (b * b * voxels(4) + c * c * voxels(8)))


def _mamba(config: BrainMTConfig, tokens: int) -> tuple[float, float]:
    """(projections, scan) of one block."""
    dim, inner, directions = config.width, config.expand * config.width, 1 + config.bidirectional
    rank = -(-dim // 16)
    shared = 3 * dim * inner  # in_proj and out_proj
    own = inner * (config.d_conv + 2 * rank + 2 * config.d_state)
    return 2.0 * tokens * (shared + directions * own), float(
        SCAN_OPERATIONS * tokens * directions * inner * config.d_state
    )
