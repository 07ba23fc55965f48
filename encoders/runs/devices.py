"""Where training runs: one Accelerator, made the same way by every script."""

import atexit

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from encoders.runs.errors import InputError


def accelerator(*, seed: int, mixed_precision: str = "no") -> Accelerator:
    """An Accelerator for the devices at hand, with every random generator seeded.

    Without CUDA the CPU is named explicitly: under torchrun, Accelerate would otherwise start N unrelated
    single-process runs (accelerate 1.15, state.py).

    Args:
        seed: Seed of Python, NumPy and torch; the same on every process.
        mixed_precision: "no", "fp16" or "bf16".

    Raises:
        InputError: fp16 without CUDA.
    """
    cpu = not torch.cuda.is_available()
    if cpu and mixed_precision == "fp16":
        raise InputError("mixed_precision is fp16, which needs a CUDA device; on a CPU give no or bf16")
    made = Accelerator(cpu=cpu, mixed_precision=mixed_precision)
    atexit.register(_leave_group)
    if cpu:
        made.print("no CUDA device: running on the CPU, which suits small settings only")
    set_seed(seed)
    return made


def _leave_group() -> None:
    """Gloo's threads abort a process that ends with its group still open, in about one of six runs."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
