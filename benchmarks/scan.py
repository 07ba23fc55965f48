"""The selective scan on a CPU beside its rivals: time, memory, error against float64. Some six minutes.

python benchmarks/scan.py        (rivals: `make bench` installs them, or pip install -e '.[bench]')

Sizes of one BrainMT layer: B = 1, D = 1024, N = 16, fp32, 2 threads; L up to its 50,401 tokens. Every method gets the
same numbers in the layout that its own interface wants; ours gets [B, D, L], time innermost, its slower one. Times
are minima over rounds in which the methods take turns; memory is what a fresh process needs beyond its inputs.

All run under PyTorch's default allocation, as their users have it. Our scripts keep freed memory (encoders/runs/cpu.py),
which changes nothing for ours and makes mambapy, whose buffers are large, three times as fast: that ratio is printed too.

Rivals: the loop of state-spaces/mamba (`selective_scan_ref`), written out here because the package installs only
beside CUDA; mambapy's parallel scan; the slow path of transformers; our own readable reference.

Glossary: B batch · D channels · L time steps · N numbers of state per channel.
"""

import contextlib
import ctypes
import functools
import importlib.util
import inspect
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from encoders.runs.cpu import tune_cpu
from encoders.ssm.scan import selective_scan

WIDTH, STATE, THREADS = 1024, 16, 2  # D, N
SIZES = {252: 7, 2_048: 7, 12_601: 3, 50_401: 3}  # L: rounds
USUAL, LARGE = (0.001, 0.1), (0.3, 1.1)  # step sizes: Mamba's initial ones; where log-space scans give NaN
QUICK = 2  # seconds: what takes less has three runs a turn
PATIENCE = 4  # seconds: what takes longer has two turns
NEEDED = 12  # GB: mambapy's backward at L = 12,601 takes 8
Inputs = list[Tensor]


def loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """What `selective_scan_ref` of state-spaces/mamba does: all decays and inflows first, then indexed steps."""
    decays = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    inflows = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    state = u.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for step in range(u.shape[2]):
        state = decays[:, :, step] * state + inflows[:, :, step]
        outputs.append(torch.einsum("bdn,bn->bd", state, C[:, :, step]))
    return torch.stack(outputs, dim=2)


def mambapy(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """mambapy 1.2.0's parallel scan between the same two steps as in its `MambaBlock.selective_scan`, [B, L, D]."""
    from mambapy.pscan import pscan

    states = pscan(torch.exp(delta[..., None] * A), delta[..., None] * B[:, :, None] * u[..., None])
    return (states @ C[..., None])[..., 0]


def transformers(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The torch path of transformers' Mamba, whatever kernels are installed."""
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    return inspect.unwrap(mamba_selective_scan)(u, delta, A, B, C)


def own(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *, backend: str, reverse: bool = False
) -> Tensor:
    """Through the same door as the models."""
    return selective_scan(u, delta, A, B, C, delta_softplus=False, backend=backend, reverse=reverse)


CHUNKED, REVERSED, LOOP, MAMBAPY = "ours, chunked", "ours, reversed", "state-spaces loop", "mambapy"
METHODS: dict[str, Callable[..., Tensor]] = {
    CHUNKED: functools.partial(own, backend="chunked"),
    REVERSED: functools.partial(own, backend="chunked", reverse=True),
    "ours, reference": functools.partial(own, backend="reference"),
    LOOP: loop,
    MAMBAPY: mambapy,
    "transformers": transformers,
}
# the longest L for (forward, forward and backward): the loops' backward is quadratic in L
LIMITS = {
    CHUNKED: (50_401, 50_401),
    REVERSED: (50_401, 50_401),
    "ours, reference": (12_601, 2_048),
    LOOP: (12_601, 252),
    MAMBAPY: (12_601, 12_601),
    "transformers": (2_048, 252),
}


def inputs(length: int, steps: tuple[float, float]) -> Inputs:
    """u, delta, A, B, C of one layer; step sizes are log-uniform."""
    generator = torch.Generator().manual_seed(length)
    low, high = (torch.tensor(x).log() for x in steps)
    u = torch.randn(1, WIDTH, length, generator=generator)
    delta = (torch.rand(1, WIDTH, length, generator=generator) * (high - low) + low).exp()
    A = -torch.arange(1.0, STATE + 1).repeat(WIDTH, 1)
    B, C = torch.randn(2, 1, STATE, length, generator=generator)
    return [u, delta, A, B, C]


def prepared(method: str, plain: Inputs) -> tuple[Inputs, Callable[[Tensor], Tensor]]:
    """Leaves in the method's own layout, and what turns its results back."""
    token_major = method == MAMBAPY

    def turn(x: Tensor) -> Tensor:
        return x.mT.contiguous() if token_major and x.dim() == 3 else x

    return [turn(x).clone().requires_grad_() for x in plain], turn


def run(method: str, leaves: Inputs, *, backward: bool) -> list[Tensor]:
    """y, and with ``backward`` the gradients of sum(y)."""
    with contextlib.nullcontext() if backward else torch.no_grad():
        y = METHODS[method](*leaves)
    return [y, *torch.autograd.grad(y, leaves, torch.ones_like(y))] if backward else [y]


def passes(length: int) -> list[tuple[str, bool]]:
    """(method, with backward?) of all that is run at a length."""
    return [(m, back) for m, limits in LIMITS.items() for back in (False, True) if length <= limits[back]]


def times(length: int, rounds: int) -> dict[tuple[str, bool], float]:
    """Seconds: the fastest of several rounds, in each of which every method has its turn."""
    plain = inputs(length, USUAL)
    leaves = {method: prepared(method, plain)[0] for method in METHODS}
    best: dict[tuple[str, bool], float] = {}
    for turn in range(rounds):
        for method, backward in passes(length):
            if turn >= 2 and best[method, backward] > PATIENCE:
                continue
            # again at once where it is quick: in a network the scan runs layer after layer, with warm caches
            for _ in range(1 if best.get((method, backward), 0.0) > QUICK else 3):
                start = time.perf_counter()
                run(method, leaves[method], backward=backward)
                seconds = time.perf_counter() - start
                best[method, backward] = min(seconds, best.get((method, backward), seconds))
    return best


def times_tuned(length: int, methods: tuple[str, ...]) -> dict[str, float]:
    """Seconds with backward under the allocator setting of our scripts; to be called in a fresh process."""
    tune_cpu()
    torch.set_num_threads(THREADS)
    plain, found = inputs(length, USUAL), {}
    for method in methods:
        leaves, taken = prepared(method, plain)[0], []
        for _ in range(7):
            start = time.perf_counter()
            run(method, leaves, backward=True)
            taken.append(time.perf_counter() - start)
        found[method] = min(taken)
    return found


def flipped(x: Tensor) -> Tensor:
    """Back in time, where x has time; A [D, N] has none."""
    return x.flip(2) if x.dim() == 3 else x


def exact(plain: Inputs, *, reverse: bool) -> list[Tensor]:
    """y and gradients in float64, by the readable reference; at large L by the chunked scan, which it confirms."""
    wide = [x.double() for x in plain]
    if reverse:
        y, *gradients = exact(
            [plain[0].flip(2), plain[1].flip(2), plain[2], *(x.flip(2) for x in plain[3:])], reverse=False
        )
        return [y.flip(2), *(g.flip(2) if g.dim() == 3 else g for g in gradients)]
    method = "ours, reference" if plain[0].shape[2] <= LIMITS["ours, reference"][1] else CHUNKED
    return run(method, [x.requires_grad_() for x in wide], backward=True)


def errors(
    length: int, steps: tuple[float, float], methods: list[str]
) -> dict[str, tuple[float, float | None]]:
    """Largest error of (y, gradients), each relative to the largest value of its kind; NaN where one is NaN."""
    plain, found = inputs(length, steps), {}
    for reverse in (False, True):
        wanted = exact(plain, reverse=reverse) if not reverse or REVERSED in methods else []
        for method in methods:
            if (method == REVERSED) != reverse:
                continue
            leaves, turn = prepared(method, plain)
            got = run(method, leaves, backward=length <= LIMITS[method][1])
            off = [
                ((turn(a).double() - b).abs().max() / b.abs().max()).item()
                for a, b in zip(got, wanted, strict=False)
            ]
            found[method] = (off[0], float(torch.tensor(off[1:]).max()) if off[1:] else None)
    return found


def status_kilobytes(field: str) -> int:
    """One line of this process's /proc entry."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def peak_megabytes(method: str, length: int, backward: bool) -> float:
    """How far the resident memory rises above inputs and libraries; to be called in a fresh process."""
    torch.set_num_threads(THREADS)
    run(
        method, prepared(method, inputs(32, USUAL))[0], backward=backward
    )  # loads what is loaded on first use
    leaves, _ = prepared(method, inputs(length, USUAL))
    ctypes.CDLL(None).malloc_trim(0)  # what was freed on the way here must not serve the scan
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = status_kilobytes("VmRSS")
    run(method, leaves, backward=backward)
    return (status_kilobytes("VmHWM") - before) / 1e3


def peaks(length: int) -> dict[str, float]:
    """Peak of each method's longest pass at a length, each in a process of its own."""
    found = {}
    for method, backward in passes(length):  # the pass with backward, if there is one, comes last
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[method] = pool.apply(peak_megabytes, (method, length, backward))
    return found


def print_table(length: int, seconds: dict, memory: dict[str, float], error: dict) -> None:
    """One block of rows."""
    for method in dict.fromkeys(m for m, _ in passes(length)):
        both = f"{seconds[method, True]:10.4f}" if (method, True) in seconds else f"{'-':>10}"
        off_y, off_gradients = error[method]
        gradients = f"{off_gradients:10.1e}" if off_gradients is not None else f"{'-':>10}"
        print(
            f"{method:20}{length:>8,}{seconds[method, False]:11.4f}{both}{memory[method]:11.0f}{off_y:10.1e}{gradients}",
            flush=True,
        )


def missing() -> list[str]:
    """What is not installed or not free, in words."""
    words = [
        f"the rival {name} is missing: make bench, or pip install -e '.[bench]'"
        for name in ("mambapy", "transformers")
        if importlib.util.find_spec(name) is None
    ]
    free = int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 1e6
    return words + [f"{free:.0f} GB of memory are free, {NEEDED} are needed"] * (free < NEEDED)


def main() -> int:
    """Print the table, the goals and one summary line; 1 where a goal is missed or a rival missing."""
    if faults := missing():
        print(*faults, sep="\n", file=sys.stderr)
        return 1
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    torch.set_num_threads(THREADS)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {THREADS} threads")
    print(
        f"{'method':20}{'L':>8}{'forward s':>11}{'+back s':>10}{'memory MB':>11}{'error y':>10}{'error g':>10}"
    )
    seconds, memory, error = {}, {}, {}
    for length, rounds in SIZES.items():
        seconds[length] = times(length, rounds)
        memory[length] = peaks(length)
        error[length] = errors(length, USUAL, list(memory[length]))
        print_table(length, seconds[length], memory[length], error[length])
    large = errors(2_048, LARGE, [CHUNKED, REVERSED])

    def faster(length: int, than: str, *, backward: bool) -> float:
        return seconds[length][than, backward] / seconds[length][CHUNKED, backward]

    ours = [error[length][method] for length in SIZES for method in (CHUNKED, REVERSED)] + list(
        large.values()
    )
    goals = [
        (f"forward, times faster than the {LOOP}, L = 2,048", faster(2_048, LOOP, backward=False), ">=", 10),
        (
            f"forward, times faster than the {LOOP}, L = 12,601",
            faster(12_601, LOOP, backward=False),
            ">=",
            10,
        ),
        (f"+ backward, times faster than the {LOOP}, L = 252", faster(252, LOOP, backward=True), ">=", 20),
        (
            f"+ backward, times faster than {MAMBAPY}, L = 2,048",
            faster(2_048, MAMBAPY, backward=True),
            ">=",
            5,
        ),
        (
            f"+ backward, times faster than {MAMBAPY}, L = 12,601",
            faster(12_601, MAMBAPY, backward=True),
            ">=",
            10,
        ),
        ("memory with backward, MB, L = 12,601", memory[12_601][CHUNKED], "<=", 400),
        ("memory with backward, MB, L = 50,401", memory[50_401][CHUNKED], "<=", 1200),
        ("error of y, also at steps of 0.3 to 1.1", max_or_nan(off for off, _ in ours), "<=", 5e-6),
        ("error of gradients, also there", max_or_nan(off for _, off in ours), "<=", 1e-5),
    ]
    for length in (2_048, 12_601):
        slower = seconds[length][REVERSED, False] / seconds[length][CHUNKED, False]
        goals.append((f"reversed / forward, L = {length:,}", slower, "<=", 1.1))
    for words, length, than, backward in (
        ("forward", 2_048, "ours, reference", False),
        ("forward", 12_601, "ours, reference", False),
        ("forward", 2_048, "transformers", False),
        ("+ backward", 252, "transformers", True),
    ):
        times_faster = faster(length, than, backward=backward)
        print(f"        {words}, times faster than {than}, L = {length:,}: {times_faster:.1f}")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        tuned = pool.apply(times_tuned, (2_048, (CHUNKED, MAMBAPY)))
    ratio = tuned[MAMBAPY] / tuned[CHUNKED]
    print(
        f"        + backward, times faster than {MAMBAPY} where freed memory is kept, L = 2,048: {ratio:.1f}"
    )
    met = [value >= wanted if sign == ">=" else value <= wanted for _, value, sign, wanted in goals]
    for (words, value, sign, wanted), good in zip(goals, met, strict=True):
        print(f"{'met' if good else 'MISSED':8}{words}: {value:.3g} (goal {sign} {wanted:g})")
    print(f"{'met' if all(met) else 'MISSED'}: {sum(met)} of {len(met)} goals of the selective scan")
    return 0 if all(met) else 1


def max_or_nan(values) -> float:
    """The largest; NaN, which no goal admits, if one is NaN."""
    return float(torch.tensor(list(values)).max())


if __name__ == "__main__":
    sys.exit(main())
