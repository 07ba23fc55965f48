"""Evo 2 at reduced width: time and memory per window against its length, 1k to 131k bases. Some five minutes.

python benchmarks/evo2.py

Seven blocks (all four kinds) of width 128, random weights, fp32, two threads, one window at a time, one
strand, up to the default layer. Time is a minimum over rounds; memory is what a process of its own needs at
its peak beyond the loaded model. Goals: memory grows no faster than length (at 131k at most 1.25 times what a
straight line through 16k and 65k says, so that no constant part can hide a square), and from 8,192 bases on a
pass takes at most 2.5 times the time that its matrix products and attention take alone. The floor is
operations counted on paper over the throughput of PyTorch's own matrix product and attention in the shapes of
the model, measured before and after every length; the faster counts. Shorter windows are shown and not
judged: at this width, norms, gates and fixed costs take most of their time (20 to 43 % of the floor's speed
was measured at 4,096). A machine that others use at the same time can miss the goal, for waiting counts as
time. On a GPU the real 7B shape follows, random weights in bf16.

Attention costs the square of the length, as in every implementation; blocks are counted apart from it.

Glossary: L bases of a window · D width.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from encoders.genetics.evo2.checkpoint import empty_model
from encoders.genetics.evo2.config import Evo2Config
from encoders.genetics.evo2.model import FP32, Evo2Model
from encoders.genetics.evo2.released import RELEASED, released_config
from encoders.runs.cpu import tune_cpu

LENGTHS = (1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072)
ROUNDS = {1_024: 8, 2_048: 8, 4_096: 8, 8_192: 6, 16_384: 4, 32_768: 2}  # others: 1
GPU_LENGTHS = (8_192, 32_768, 131_072)
JUDGED = 3  # from the fourth length on, a pass is held to the floor
THREADS, WIDTH = 2, 128
LINEAR, SHARE = 1.25, 1 / 2.5


def reduced() -> Evo2Config:
    """The 7B's kinds of block, size of heads and ratios of widths, and far fewer of all."""
    blocks = {"num_layers": 7, "attn_layer_idxs": [3], "hcs_layer_idxs": [0, 4], "hcm_layer_idxs": [1, 5]}
    sizes = {
        "hidden_size": WIDTH,
        "num_filters": WIDTH,
        "hcl_filter_groups": WIDTH,
        "inner_mlp_size": 11 * WIDTH // 4,
    }
    groups = {
        "hcs_filter_groups": WIDTH // 16,
        "hcm_filter_groups": WIDTH // 16,
        "num_attention_heads": WIDTH // 128,
    }
    limits = {"hcl_layer_idxs": [2, 6], "max_seqlen": LENGTHS[-1]}
    return Evo2Config.from_official(RELEASED["7b"] | blocks | sizes | groups | limits, "the reduced shape")


def random_model(config: Evo2Config, device: str, dtype: torch.dtype) -> Evo2Model:
    """Weights of sensible sizes, made where they stay."""
    model = empty_model(config).to(dtype)
    for name, tensor in model.state_dict().items():
        wide = name.rpartition(".")[2] in FP32
        made = torch.randn(tensor.shape, device=device, dtype=torch.float32 if wide else dtype)
        if name.endswith("log_poles"):
            made = -torch.exp(made - 3)
        elif name.endswith("inv_freq"):
            made = 10_000.0 ** -torch.linspace(0, 1, len(made), device=device)
        elif tensor.dim() > 1:
            made *= tensor.shape[-1] ** -0.5
        owner, _, last = name.rpartition(".")
        module = model.get_submodule(owner)
        if last in module._parameters:
            module._parameters[last] = torch.nn.Parameter(made, requires_grad=False)
        else:
            module._buffers[last] = made
    return model.eval()


def bases(length: int, device: str = "cpu") -> torch.Tensor:
    return torch.tensor([65, 67, 71, 84], device=device)[torch.randint(0, 4, (1, length), device=device)]


def fastest(run: Callable[[], object], rounds: int, *, cuda: bool = False) -> float:
    """Seconds of the fastest of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def one_length(length: int, results: multiprocessing.Queue) -> None:
    """Peak memory and time of one window, in a process of its own."""
    torch.set_num_threads(THREADS)
    config = reduced()
    model, layer = random_model(config, "cpu", torch.float32), config.default_layer()
    with torch.inference_mode():
        model.output(bases(256), layer=layer)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        first = fastest(lambda: model.output(bases(length), layer=layer), 1)
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        rounds = ROUNDS.get(length, 1) - 1
        seconds = min(first, fastest(lambda: model.output(bases(length), layer=layer), rounds))
    results.put((seconds, memory))


def throughput(config: Evo2Config) -> tuple[float, float]:
    """Operations per second of PyTorch's matrix product and attention, in the shapes of the model."""
    D, length = config.hidden_size, 8_192
    x, w = torch.randn(length, D), torch.randn(config.inner_mlp_size, D)
    product = 2 * x.numel() * len(w) / fastest(lambda: F.linear(x, w), 10)
    q = torch.randn(1, config.num_attention_heads, length, config.head_size)
    seconds = fastest(lambda: F.scaled_dot_product_attention(q, q, q, is_causal=True), 2)
    return product, 2 * length * (length + 1) * D / seconds


def main() -> int:
    tune_cpu()
    torch.set_num_threads(THREADS)
    config = reduced()
    layer = config.default_layer()
    print(f"Evo 2, width {WIDTH}, {config.num_layers} blocks, fp32, {THREADS} threads")
    context = multiprocessing.get_context("spawn")
    rows, rates = [], []
    for length in LENGTHS:
        with torch.inference_mode():
            rates.append(throughput(config))
        results = context.Queue()
        process = context.Process(target=one_length, args=(length, results))
        process.start()
        seconds, memory = results.get(timeout=540)
        process.join()
        rows.append((length, seconds, memory))
        print(f"{length:>8,} bases: {seconds:.2f} s, {memory / 1e6:.0f} MB", flush=True)
    with torch.inference_mode():
        rates.append(throughput(config))
    product, attention = map(max, zip(*rates, strict=True))
    print(
        f"fastest matrix products {product / 1e9:.0f}, attention {attention / 1e9:.0f} GFLOP/s\n{'bases':>8} "
        f"{'seconds':>9} {'µs/base':>8} {'of floor':>9} {'without attention':>18} {'MB':>8} {'bytes/base':>11}"
    )
    shares = []
    for (length, seconds, memory), *around in zip(rows, rates, rates[1:], strict=False):
        product, attention = map(max, zip(*around, strict=True))
        square = 2 * length * (length + 1) * WIDTH  # one block of attention
        floor = (config.operations(length, layer=layer) - square) / product + square / attention
        rest = max(seconds - square / attention, 1e-9) / length
        shares.append(floor / seconds)
        print(
            f"{length:>8,} {seconds:>9.2f} {seconds / length * 1e6:>8.1f} {floor / seconds:>9.0%} {rest * 1e6:>15.1f} µs "
            f"{memory / 1e6:>8.0f} {memory / length:>11,.0f}"
        )
    near, middle, far = rows[-4], rows[-2], rows[-1]
    slope = (far[2] - near[2]) / (far[0] - near[0])
    line = middle[2] + max(middle[2] - near[2], 0) / (middle[0] - near[0]) * (far[0] - middle[0])
    growth = far[2] / line
    share = min(shares[JUDGED:])
    print(
        f"slope from {near[0]:,} to {far[0]:,} bases: {slope:,.0f} bytes per base = {slope / WIDTH / 4:.1f} fp32 numbers "
        f"per base and channel"
    )
    on_gpu()
    fine = growth <= LINEAR and share >= SHARE
    print(
        f"evo2: {'PASS' if fine else 'FAIL'}: memory at {far[0]:,} bases is {growth:.2f}x what a line through {near[0]:,} "
        f"and {middle[0]:,} says (at most {LINEAR} wanted); from {rows[JUDGED][0]:,} bases on at least {share:.0%} of the "
        f"floor's speed ({SHARE:.0%} wanted)"
    )
    return 0 if fine else 1


def on_gpu() -> None:
    """The real 7B shape with random weights in bf16."""
    if not torch.cuda.is_available():
        print("7B in bf16: not measured, no CUDA device is visible")
        return
    config = released_config("7b")
    model, layer = random_model(config, "cuda", torch.bfloat16), config.default_layer()
    weights = torch.cuda.memory_allocated()
    x = torch.randn(16_384, 4_096, device="cuda", dtype=torch.bfloat16)
    w = torch.randn(11_264, 4_096, device="cuda", dtype=torch.bfloat16)
    product = 2 * x.numel() * len(w) / fastest(lambda: F.linear(x, w), 10, cuda=True)
    print(
        f"7B in bf16 on {torch.cuda.get_device_name()}: weights {weights / 1e9:.1f} GB, products {product / 1e12:.0f} TFLOP/s"
    )
    with torch.inference_mode():
        model.output(bases(1_024, "cuda"), layer=layer)
        for length in GPU_LENGTHS:
            torch.cuda.reset_peak_memory_stats()
            ids = bases(length, "cuda")
            try:
                seconds = fastest(lambda ids=ids: model.output(ids, layer=layer), 2, cuda=True)
            except torch.cuda.OutOfMemoryError:
                print(f"{length:>8,} bases: more memory than this card has")
                break
            memory = torch.cuda.max_memory_allocated() - weights
            share = config.operations(length, layer=layer) / product / seconds
            print(
                f"{length:>8,} bases: {seconds:.2f} s, {share:.0%} of the floor, {memory / 1e9:.1f} GB beside the weights"
            )


if __name__ == "__main__":
    sys.exit(main())
