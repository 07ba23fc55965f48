"""Say what will run on this machine, and why: device, scan, convolution, attention, packages.

python scripts/doctor.py
python scripts/doctor.py --strict=true     # exit code 1 if the machine cannot use something that it should
"""

import importlib
import importlib.metadata
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.runs import command

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
HEAD_DIM = 256  # of BrainMT's attention, the widest that fused kernels take

# distributions (the first one installed counts), the module that must load if any (importing all of them takes too
# long, and the compiled kernels are tried above), whether nothing works without it, what its absence costs
PACKAGES = [
    (["accelerate"], "accelerate", True, "no stage that trains can run"),
    (["safetensors"], "safetensors.torch", True, "no vectors, stores or weights can be read or written"),
    (["nibabel"], "nibabel", True, "no NIfTI file can be read"),
    (["nilearn"], None, False, "no nuisance regression, no resampling, no atlases"),
    (["faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs"], "faiss", True, "no index can be built or searched"),
    (["pysam"], "pysam", False, "no genomes or variants can be read: pip install 'neurohelix[genetics]'"),
    (["wandb"], None, False, "no --wandb: pip install 'neurohelix[wandb]'"),
    (["transformers"], None, False, "nothing; the benchmark of the scan compares with it"),
    (["mamba-ssm"], None, False, "nothing without CUDA; there, the scan runs in pure PyTorch"),
    (["causal-conv1d"], None, False, "nothing without CUDA; there, the convolution is the library's"),
]


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """What `doctor` is asked.

    Args:
        strict: Exit with code 1 if the machine has something that cannot be used, or lacks a needed package.
    """

    strict: bool = False


@command
def main(config: Doctor) -> int:
    import torch

    from encoders.ssm.convolution import pick_convolution
    from encoders.ssm.scan import pick_backend

    faults = []
    say("python", f"{sys.version.split()[0]} ({sys.executable})")
    say(
        "torch",
        f"{torch.__version__}, built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPU'}",
    )
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    for line in devices():
        say("device", line)
    if device.type == "cpu" and NVIDIA_DRIVER.exists():
        faults.append(
            "this machine has an NVIDIA driver, but torch sees no CUDA device: install torch for CUDA"
        )

    for part, (path, reason), fast in (
        ("selective scan", pick_backend(device), "cuda"),
        ("convolution", pick_convolution(device), "causal_conv1d"),
    ):
        say(part, f"{path}: {reason}")
        if device.type == "cuda" and path != fast:
            faults.append(f"the {part} runs on its slow path: {reason}")

    kernels = attention_kernels(device)
    say("attention", f"{', '.join(kernels)} (forward and backward, width {HEAD_DIM} per head)")
    if kernels == ["math"]:
        faults.append("attention has no fused kernel here: memory grows with the square of the tokens")

    for distributions, module, needed, cost in PACKAGES:
        found = version(distributions)
        cause = load_fault(module) if found and module else None
        name = distributions[0]
        say(
            name,
            f"absent: {cost}"
            if found is None
            else f"{found}, but it does not load: {cost}"
            if cause
            else found,
        )
        if cause:
            faults.append(f"{name} {found} does not load ({cause}): reinstall it")
        elif needed and found is None:
            faults.append(f"{name} is absent: {cost}; run make setup")
    for fault in faults:
        say("fault", fault)
    say("in short", f"{len(faults)} fault{'s' * (len(faults) != 1)}" if faults else "nothing is amiss")
    return 1 if faults and config.strict else 0


def say(part: str, text: str) -> None:
    """One line."""
    print(f"{part:16}{text}")


def devices() -> list[str]:
    """Every CUDA device with memory and number formats; or the CPU with its threads."""
    import torch

    if not torch.cuda.is_available():
        capability = torch.backends.cpu.get_cpu_capability()
        return [f"CPU, {torch.get_num_threads()} of {os.cpu_count()} threads, {capability}; no CUDA device"]
    lines = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        with torch.cuda.device(index):
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        lines.append(
            f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
            f"{'bf16' if bf16 else 'no bf16: train with fp16'}"
        )
    return lines


def attention_kernels(device) -> list[str]:
    """Which implementations of scaled-dot-product attention run on a device, each one tried."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    dtype = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    x = torch.ones(1, 2, 8, HEAD_DIM, device=device, dtype=dtype, requires_grad=True)
    kernels = []
    for name in ("flash", "efficient", "cudnn", "math"):
        backend = getattr(SDPBackend, "MATH" if name == "math" else f"{name.upper()}_ATTENTION")
        try:
            with warnings.catch_warnings(), sdpa_kernel(backend):
                warnings.simplefilter(
                    "ignore"
                )  # torch says why a kernel is out; that it is out is enough here
                torch.nn.functional.scaled_dot_product_attention(x, x, x).sum().backward()
        except RuntimeError:  # no viable backend
            continue
        kernels.append(name)
    return kernels


def version(distributions: list[str]) -> str | None:
    """Name and version of the first of these that is installed."""
    for name in distributions:
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return found if name == distributions[0] else f"{name} {found}"
    return None


def load_fault(module: str) -> str | None:
    """Why an installed module cannot be imported; None if it can."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as cause:
        return " ".join(f"{type(cause).__name__}: {cause}".split())
    return None


if __name__ == "__main__":
    sys.exit(main())
