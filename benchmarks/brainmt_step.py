"""One training step of BrainMT: operations and activations counted at the paper's size, time and memory measured.

python benchmarks/brainmt_step.py

Counted: on meta tensors, so that no memory is needed; the scan and the attention core are stand-ins that keep what the
fused kernels keep. Goals are on the counts. Measured: on a GPU the paper's size in bf16, as share of the 188.7e12
operations of the released form at the rate of a large matrix product; without one a reduced size in fp32, where a full
step would take a quarter of an hour.
"""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

import encoders.ssm.mamba
from encoders.brainmt.flops import matmul_rate, step_flops, total_flops
from encoders.brainmt.model import FRAMES_AT_ONCE, BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.training.log import peak_memory

ROOT = Path(__file__).resolve().parents[1]
MNI_PATCHES = tuple(
    range(130)
)  # which ones does not matter to the count: 130 of 252 touch the MNI brain mask
RELEASED = BrainMTConfig(bidirectional=False, shared_attention_mlp=True, drop_path=0.0)
PAPER = BrainMTConfig(drop_path=0.0)
REDUCED = replace(
    PAPER, grid=(55, 46, 46), num_frames=16, widths=(16, 32, 64, 128), mamba_layers=4, attention_layers=3
)
VARIANTS = {
    "all outputs": {"embedding": "mean"},
    "only CLS in the last block": {},
    "only CLS, brain tokens": {"tokens": "brain"},
    "only CLS, checkpointing": {"use_checkpoint": True},
    "only CLS, brain tokens, checkpointing": {"tokens": "brain", "use_checkpoint": True},
}
GOALS = [  # what, counted share, limit
    ("operations, only CLS in the last block", 0.91),
    ("operations, brain tokens", 0.42),
    ("operations, checkpointing", 1.10),
    ("activations, checkpointing", 0.35),
]
REPEATS = 3


class KeepInputs(torch.autograd.Function):
    """Stands for a fused kernel: keeps its inputs, computes nothing."""

    @staticmethod
    def forward(ctx, *inputs):
        ctx.save_for_backward(*inputs)
        return torch.empty_like(inputs[0])

    @staticmethod
    def backward(ctx, grad):
        return tuple(torch.empty_like(x) for x in ctx.saved_tensors)


def variant(base: BrainMTConfig, changes: dict, patches: tuple[int, ...]) -> BrainMTConfig:
    """The configuration of one row."""
    brain = {"brain_patches": patches} if changes.get("tokens") == "brain" else {}
    return replace(base, **changes, **brain)


def kept_gib(config: BrainMTConfig) -> float:
    """Activations that one window leaves for backward in bf16, and the largest part that is recomputed at once."""
    with torch.device("meta"):
        model = BrainMT(config).train().to(torch.bfloat16)
        x = torch.empty(1, config.num_frames, 1, *config.grid, dtype=torch.bfloat16)
    kept = _kept(model, lambda: model(x))
    if config.use_checkpoint:
        frames = x[0, :FRAMES_AT_ONCE].requires_grad_()
        kept += _kept(model.stem, lambda: model.stem(frames))
    return kept / 2**30


def _kept(module: torch.nn.Module, forward) -> int:
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    sizes: dict[int, int] = {}
    alive = []  # a freed storage's place could be taken by another

    def note(tensor):
        storage = tensor.untyped_storage()
        alive.append(tensor)
        if storage._cdata not in own:
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    scan, attention = encoders.ssm.mamba.scan_directions, F.scaled_dot_product_attention
    encoders.ssm.mamba.scan_directions = lambda u, delta, A, B, C, **_: KeepInputs.apply(u, delta, A, B, C)
    F.scaled_dot_product_attention = lambda q, k, v, **_: KeepInputs.apply(q, k, v)
    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            out = forward()
        out.sum().backward()
    finally:
        encoders.ssm.mamba.scan_directions, F.scaled_dot_product_attention = scan, attention
    return sum(sizes.values())


def recomputed_flops(config: BrainMTConfig) -> float:
    """Operations of a step, the recomputation of convolutions, Mamba blocks and MLPs included."""
    stages = step_flops(config)
    total = total_flops(stages)
    if config.use_checkpoint:
        tokens, hidden = 1 + config.num_patches * config.num_frames, int(config.width * config.mlp_ratio)
        full_blocks = config.attention_layers - (config.embedding == "cls")
        total += sum(stages[name].forward for name in ("convolutions", "mamba projections", "scan"))
        total += full_blocks * 4.0 * tokens * config.width * hidden
    return total


def count() -> list[float]:
    """Print the counted table; returns the shares that have goals."""
    print("counted, one window at the paper's size (109 x 91 x 91 voxels, 200 frames), bf16")
    print(f"{'form':10}{'variant':40}{'10^12 operations':>17}{'share':>8}{'activations GiB':>17}{'share':>8}")
    counts = {}
    for form, base in (("released", RELEASED), ("paper", PAPER)):
        for name, changes in VARIANTS.items():
            config = variant(base, changes, MNI_PATCHES)
            counts[form, name] = flops, memory = recomputed_flops(config), kept_gib(config)
            whole, most = counts[form, "all outputs"]
            print(
                f"{form:10}{name:40}{flops / 1e12:17.1f}{flops / whole:8.2f}{memory:17.1f}{memory / most:8.2f}"
            )
    whole = counts["released", "all outputs"][0]
    brain = variant(RELEASED, {"embedding": "mean", "tokens": "brain"}, MNI_PATCHES)
    plain, saving = counts["paper", "only CLS in the last block"], counts["paper", "only CLS, checkpointing"]
    return [
        counts["released", "only CLS in the last block"][0] / whole,
        total_flops(step_flops(brain)) / whole,
        saving[0] / plain[0],
        saving[1] / plain[1],
    ]


def measure(name: str, scan: str) -> dict[str, float]:
    """Seconds of a step and peak memory, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, name, scan], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure_here(name: str, scan: str) -> None:
    """Child process: train a few steps and print what they took."""
    cuda = torch.cuda.is_available()
    device, dtype = torch.device("cuda" if cuda else "cpu"), torch.bfloat16 if cuda else torch.float32
    base = PAPER if cuda else REDUCED
    y, x, z = base.patches
    patches = MNI_PATCHES if cuda else tuple(range(round(y * x * z * 130 / 252)))
    config = replace(variant(base, VARIANTS[name], patches), scan=scan)
    model = BrainMT(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    volumes = torch.randn(1, config.num_frames, 1, *config.grid, device=device)
    seconds = []
    for _ in range(1 + REPEATS):  # the first one warms up
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
            loss = model(volumes).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    print(
        json.dumps(
            {
                "seconds": min(seconds[1:]),
                "gib": peak_memory(device),
                "flops": total_flops(step_flops(config)),
                "rate": matmul_rate(device, dtype),
            }
        )
    )


def main() -> int:
    """Print both tables, the goals and one summary line; 1 where a goal is missed."""
    shares = count()
    cuda = torch.cuda.is_available()
    where = torch.cuda.get_device_name() if cuda else "CPU, reduced size"
    print(f"\nmeasured, one step of the paper's form, batch 1 ({where}, {torch.get_num_threads()} threads)")
    print(f"{'variant':40}{'seconds':>9}{'speed-up':>10}{'peak GiB':>10}{'of the matmul rate':>20}")
    floor = total_flops(step_flops(replace(RELEASED, embedding="mean")))
    first = None
    rows = [(name, "auto") for name in VARIANTS]
    if not cuda:
        rows.append(("only CLS in the last block", "reference"))
    for name, scan in rows:
        found = measure(name, scan)
        first = first or found["seconds"]
        share = found["flops"] / found["rate"] / found["seconds"]
        label = name if scan == "auto" else "the same with the scan as a plain loop"
        print(
            f"{label:40}{found['seconds']:9.3f}{first / found['seconds']:10.2f}{found['gib']:10.2f}{share:20.1%}"
        )
        if cuda:
            print(
                f"{'':40}{floor / found['rate'] / found['seconds']:.1%} of the floor of 188.7e12 operations"
            )
    print()
    missed = 0
    for (what, limit), share in zip(GOALS, shares, strict=True):
        missed += share > limit
        print(f"{'met' if share <= limit else 'MISSED'}: {what}: {share:.3f} (goal at most {limit})")
    print(f"{'met' if not missed else 'MISSED'}: {len(GOALS) - missed} of {len(GOALS)} goals")
    return 1 if missed else 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure_here(sys.argv[1], sys.argv[2])
    else:
        sys.exit(main())
