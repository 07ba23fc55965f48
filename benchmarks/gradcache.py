"""GradCache beside the whole batch at once: gradients, memory and time of one contrastive step. Two to five minutes.

python benchmarks/gradcache.py        (needs 6 GB of free memory)

A BrainMT of the demo's size (24 frames of 12 x 14 x 12 voxels, drop path 0.1), a projector, CLIP among 1,024 people;
2 threads. Every measurement is one step in a fresh process: how far its resident memory rises above inputs and
libraries, and its time; the two take turns, times are minima. Gradients are compared at 128 people.

The cached step runs the tower forward twice: of three passes' work (a backward pass costs two) it makes four.
"""

import ctypes
import multiprocessing
import re
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from align.gradcache import cached_backward
from align.losses import clip_loss
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig

CONFIG = BrainMTConfig(
    grid=(14, 12, 12),
    num_frames=24,
    widths=(8, 16, 32, 64),
    mamba_layers=2,
    attention_layers=1,
    d_state=4,
    expand=1,
    drop_path=0.1,
    embedding="mean",
)
PEOPLE, CHECKED, CHUNK, THREADS, ROUNDS = 1_024, 128, 16, 2, 2
WHOLE, CACHED = "whole batch", f"chunks of {CHUNK}"
NEEDED = 6  # GB
MEMORY_GOAL, TIME_GOAL, ERROR_GOAL = 10, 1.6, 1e-5


class Step(torch.nn.Module):
    """Tower, projector, temperature and the genomes of so many people."""

    def __init__(self, num: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tower = BrainMT(CONFIG).train()
        self.tower.head.requires_grad_(False)
        self.projector = torch.nn.Linear(CONFIG.width, 128)
        self.log_scale = torch.nn.Parameter(torch.tensor(1.2))
        y, x, z = CONFIG.grid
        self.genes, self.scans = F.normalize(torch.randn(num, 128), dim=1), torch.randn(num, 24, 1, y, x, z)

    def loss(self, vectors: Tensor) -> Tensor:
        return clip_loss(F.normalize(self.projector(vectors), dim=1), self.genes, self.log_scale.exp())

    def backward(self, method: str, chunk: int) -> None:
        """Gradients of the loss among everybody; both methods draw the same drop path."""
        torch.manual_seed(1)
        chunks = list(self.scans.split(chunk))
        if method == CACHED:
            cached_backward(self.tower.forward_features, chunks, self.loss)
        else:
            self.loss(torch.cat([self.tower.forward_features(part) for part in chunks])).backward()


def status_megabytes(field: str) -> float:
    """One line of this process's /proc entry."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e3


def measure(method: str) -> tuple[float, float, float]:
    """Seconds by the clock and of the processor, and MB above the inputs; to be called in a fresh process."""
    torch.set_num_threads(THREADS)
    Step(4).backward(method, 2)  # loads what is loaded on first use
    step = Step(PEOPLE)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before, start, worked = status_megabytes("VmRSS"), time.perf_counter(), time.process_time()
    step.backward(method, CHUNK)
    seconds, processor = time.perf_counter() - start, time.process_time() - worked
    return seconds, processor, status_megabytes("VmHWM") - before


def error() -> float:
    """Largest difference of all gradients, relative to the largest of each kind of parameter's tensor."""
    gradients = []
    for method in (CACHED, WHOLE):
        step = Step(CHECKED)
        step.backward(method, CHUNK)
        gradients.append({name: p.grad for name, p in step.named_parameters() if p.grad is not None})
    largest = max(value.abs().max() for value in gradients[1].values())
    return max(
        ((gradients[0][name] - value).abs().max() / largest).item() for name, value in gradients[1].items()
    )


def main() -> int:
    """Print the table, the goals and one summary line; 1 where a goal is missed or memory is short."""
    free = int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 1e6
    if free < NEEDED:
        print(f"{free:.0f} GB of memory are free, {NEEDED} are needed", file=sys.stderr)
        return 1
    torch.set_num_threads(THREADS)
    print(f"torch {torch.__version__}, {THREADS} threads; one step on {PEOPLE:,} people", flush=True)
    best: dict[str, tuple[float, float, float]] = {}
    for _ in range(ROUNDS):
        for method in (WHOLE, CACHED):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (method,))
            best[method] = tuple(map(min, found, best.get(method, found)))
    print(f"{'method':16}{'seconds':>10}{'cpu s':>9}{'memory MB':>12}   (minima of {ROUNDS} rounds)")
    for method, (seconds, processor, memory) in best.items():
        print(f"{method:16}{seconds:10.2f}{processor:9.2f}{memory:12.0f}")
    goals = [
        ("times less memory than the whole batch", best[WHOLE][2] / best[CACHED][2], ">=", MEMORY_GOAL),
        ("times the processor time", best[CACHED][1] / best[WHOLE][1], "<=", TIME_GOAL),
        ("largest relative difference of gradients", error(), "<=", ERROR_GOAL),
    ]
    met = [value >= wanted if sign == ">=" else value <= wanted for _, value, sign, wanted in goals]
    for (words, value, sign, wanted), good in zip(goals, met, strict=True):
        print(f"{'met' if good else 'MISSED':8}{words}: {value:.3g} (goal {sign} {wanted:g})")
    print(f"{'met' if all(met) else 'MISSED'}: {sum(met)} of {len(met)} goals of GradCache")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
