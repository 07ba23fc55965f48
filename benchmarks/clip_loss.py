"""Contrastive losses in tiles beside the full forms: time and memory of forward and backward. Two to four minutes.

python benchmarks/clip_loss.py        (needs 6 GB of free memory)

Batch 16,384, width 512, fp32, 2 threads, inverse temperature 1/0.07. Every measurement is one pass in a fresh process
under PyTorch's default allocation: its time, and how far its resident memory rises above inputs and libraries, the
gradients included. The methods take turns; times are minima over the rounds. Idle threads sleep, as in our scripts
(encoders/runs/cpu.py): on a machine that others use, spinning ones multiply the time of whatever has many short steps. The full forms are open_clip's ClipLoss
and SigLipLoss (loss.py by file: its package imports torchvision) and our own losses without tiles.

Our full CLIP loss forms its logits once for both directions (3 matrix products), open_clip's once for each (6); tiles
form them once forward and once backward (4), and save the traffic of matrices of 1 GB.
"""

import ctypes
import importlib.util
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from align.losses import clip_loss, siglip_loss
from encoders.runs.cpu import SPINS

NUM, WIDTH, SIDE, THREADS = 16_384, 512, 1_536, 2
CHECKED = 4_096  # people of the batch whose values and gradients are compared
ROUNDS, PATIENCE = 3, 150  # a further round starts only within so many seconds
NEEDED = 6  # GB
OPEN_CLIP, FULL, TILED = "open_clip", "ours, full", "ours, tiles"
SIG_OPEN_CLIP, SIG_TILED = "open_clip SigLIP", "ours, SigLIP tiles"
TIMED, ONCE = (OPEN_CLIP, FULL, TILED), (SIG_OPEN_CLIP, SIG_TILED)
MEMORY_GOAL, TIME_GOAL, ERROR_GOAL = 20, 1.3, 1e-5


def open_clip(name: str) -> torch.nn.Module:
    """One of open_clip's losses."""
    package = importlib.util.find_spec("open_clip")
    spec = importlib.util.spec_from_file_location("open_clip_loss", Path(package.origin).with_name("loss.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)()


def loss_of(method: str) -> Callable[..., Tensor]:
    """The loss that a method's name stands for."""
    return {
        OPEN_CLIP: lambda left, right, scale, bias: open_clip("ClipLoss")(left, right, scale),
        FULL: lambda left, right, scale, bias: clip_loss(left, right, scale),
        TILED: lambda left, right, scale, bias: clip_loss(left, right, scale, chunk=SIDE),
        SIG_OPEN_CLIP: lambda *batch: open_clip("SigLipLoss")(*batch),
        SIG_TILED: lambda *batch: siglip_loss(*batch, chunk=SIDE),
    }[method]


def batch(num: int) -> list[Tensor]:
    """Unit vectors of two modalities that agree a little, inverse temperature and bias."""
    torch.manual_seed(0)
    shared = torch.randn(num, WIDTH)
    left, right = (F.normalize(shared + torch.randn(num, WIDTH), dim=1) for _ in range(2))
    return [x.requires_grad_() for x in (left, right, torch.tensor(1 / 0.07), torch.tensor(-10.0))]


def status_megabytes(field: str) -> float:
    """One line of this process's /proc entry."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e3


def measure(method: str) -> tuple[float, float, float]:
    """Seconds by the clock and of the processor, and MB above the inputs; to be called in a fresh process."""
    torch.set_num_threads(THREADS)
    loss = loss_of(method)
    loss(*batch(SIDE)).backward()  # loads what is loaded on first use
    inputs = batch(NUM)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed on the way here must not serve the loss
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before, start, worked = status_megabytes("VmRSS"), time.perf_counter(), time.process_time()
    loss(*inputs).backward()
    seconds, processor = time.perf_counter() - start, time.process_time() - worked
    return seconds, processor, status_megabytes("VmHWM") - before


def error(method: str, reference: str) -> float:
    """Largest difference of value and gradients, each relative to the reference's largest number of its kind."""
    results = []
    for name in (method, reference):
        inputs = batch(CHECKED)
        value = loss_of(name)(*inputs)
        value.backward()
        results.append([value.detach(), *(x.grad for x in inputs if x.grad is not None)])
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(*results, strict=True))


def missing() -> list[str]:
    """What is not installed or not free, in words."""
    words = []
    if importlib.util.find_spec("open_clip") is None:
        words.append("open_clip is missing: make setup, or pip install --no-deps open_clip_torch==3.3.0")
    free = int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 1e6
    return words + [f"{free:.0f} GB of memory are free, {NEEDED} are needed"] * (free < NEEDED)


def main() -> int:
    """Print the table, the goals and one summary line; 1 where a goal is missed or something is missing."""
    if faults := missing():
        print(*faults, sep="\n", file=sys.stderr)
        return 1
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read by the processes started below
    torch.set_num_threads(THREADS)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {THREADS} threads")
    print(f"batch {NUM:,} x {WIDTH}, forward and backward, tiles of {SIDE} x {SIDE}", flush=True)
    best: dict[str, tuple[float, float, float]] = {}
    start = time.perf_counter()
    for turn in range(ROUNDS):
        if turn and time.perf_counter() - start > PATIENCE:
            break
        for method in TIMED + (ONCE if not turn else ()):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (method,))
            best[method] = tuple(map(min, found, best.get(method, found)))
        done = turn + 1
    print(
        f"{'method':20}{'seconds':>10}{'cpu s':>9}{'memory MB':>12}   (minima of {done} rounds; SigLIP of one)"
    )
    for method, (seconds, processor, memory) in best.items():
        print(f"{method:20}{seconds:10.2f}{processor:9.2f}{memory:12.0f}")

    def ratio(rival: str, ours: str, column: int) -> float:
        return best[rival][column] / best[ours][column]

    print(f"        processor time, times less than open_clip: {ratio(OPEN_CLIP, TILED, 1):.2f}")
    print(f"        processor time, times less than {FULL}: {ratio(FULL, TILED, 1):.2f}")
    print(f"        times faster than {FULL}: {ratio(FULL, TILED, 0):.2f}")
    print(f"        SigLIP, times faster than open_clip: {ratio(SIG_OPEN_CLIP, SIG_TILED, 0):.2f}")
    goals = [
        ("CLIP, times less memory than open_clip", ratio(OPEN_CLIP, TILED, 2), ">=", MEMORY_GOAL),
        (f"CLIP, times less memory than {FULL}", ratio(FULL, TILED, 2), ">=", MEMORY_GOAL),
        ("SigLIP, times less memory than open_clip", ratio(SIG_OPEN_CLIP, SIG_TILED, 2), ">=", MEMORY_GOAL),
        ("CLIP, times faster than open_clip", ratio(OPEN_CLIP, TILED, 0), ">=", TIME_GOAL),
        ("CLIP, largest difference to open_clip", error(TILED, OPEN_CLIP), "<=", ERROR_GOAL),
        ("SigLIP, largest difference to open_clip", error(SIG_TILED, SIG_OPEN_CLIP), "<=", ERROR_GOAL),
    ]
    met = [value >= wanted if sign == ">=" else value <= wanted for _, value, sign, wanted in goals]
    for (words, value, sign, wanted), good in zip(goals, met, strict=True):
        print(f"{'met' if good else 'MISSED':8}{words}: {value:.3g} (goal {sign} {wanted:g})")
    print(f"{'met' if all(met) else 'MISSED'}: {sum(met)} of {len(met)} goals of the contrastive losses")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
