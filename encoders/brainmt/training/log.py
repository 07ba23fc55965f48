"""What a training run reports while it runs: loss, gradient, rate, speed, memory; and a halt where the loss breaks.

Values wait on the device and are fetched together every so many steps: fetching one waits for the GPU.
"""

import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.tensor import DTensor

from encoders.brainmt.flops import matmul_rate, step_flops, total_flops
from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.training.config import PretrainBrainMT
from encoders.brainmt.training.resume import Progress
from encoders.runs.artifact import PRIVATE, write_text
from encoders.runs.errors import InputError
from encoders.runs.tracking import Tracker

BROKEN = "not_finite.tsv"  # runs of the step whose loss was not finite
GIB = 2**30


class TrainingLog:
    """Lines of `metrics.jsonl` (and W&B), from all processes; written by the main one.

    A line every `log_every` steps has `loss, lr, grad_norm, step_s, windows_per_s, peak_memory_gib, mfu`; one at the
    end of each epoch `epoch, train_loss, grad_norm, lr` and what the evaluation found. `mfu` is the share of the
    operations per second of a large matrix product on this device and in this precision, measured at the start.

    Args:
        folder: Run folder.
        config: Options of the training.
        state: Progress; its lists of losses and norms are filled here.
        shape: Shape of the network.
        frames: Frames of a window.
        accelerator: Devices and processes.
    """

    def __init__(
        self,
        folder: Path,
        config: PretrainBrainMT,
        state: Progress,
        shape: BrainMTConfig,
        *,
        frames: int,
        accelerator: Accelerator,
    ) -> None:
        self.folder, self.config, self.state, self.accelerator = folder, config, state, accelerator
        self._waiting: list[tuple[Tensor, Tensor, list[str]]] = []
        self._lr, self._steps, self._since = 0.0, 0, time.perf_counter()
        flops = total_flops(step_flops(shape, frames=frames, unfrozen_blocks=config.unfrozen_blocks))
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(
            accelerator.mixed_precision, torch.float32
        )
        windows = config.batch_size * config.accumulate  # of this process
        self._windows, self._ideal_s = (
            windows,
            windows * flops / matmul_rate(accelerator.device, dtype),
        )
        self._tracker = None
        if accelerator.is_main_process:
            self._tracker = Tracker(
                folder,
                project=config.wandb,
                config=asdict(config),
                run_id=state.wandb_id,
                resume_step=state.step or None,
            )
            state.wandb_id = self._tracker.run_id

    def step(self, loss: Tensor, norm: Tensor, runs: list[str], *, lr: float) -> None:
        """Take note of one optimizer step.

        Args:
            loss: Loss of this process, on the device.
            norm: Norm of the gradient before clipping, on the device.
            runs: Runs of the step, on all processes.
            lr: Learning rate of the head.

        Raises:
            InputError: as :meth:`check`, every `log_every` steps.
        """
        self._waiting.append((loss, norm.full_tensor() if isinstance(norm, DTensor) else norm, runs))
        self._lr = lr
        self._steps += 1
        if self.state.step % self.config.log_every == 0:
            seconds = (time.perf_counter() - self._since) / self._steps
            scalars = self._recent() | {
                "lr": lr,
                "step_s": seconds,
                "windows_per_s": self._windows * self.accelerator.num_processes / seconds,
                "peak_memory_gib": peak_memory(self.accelerator.device),
                "mfu": self._ideal_s / seconds,
            }
            self.write(scalars)

    def check(self) -> None:
        """Fetch what waits on the device, over all processes.

        Raises:
            InputError: a loss or the norm of a gradient is not finite; the message names its step, a file its runs.
        """
        if not self._waiting:
            return
        losses, norms, runs = zip(*self._waiting, strict=True)
        self._waiting = []
        values = self.accelerator.reduce(torch.stack(losses), reduction="mean").tolist()
        lengths = torch.stack([norm.float() for norm in norms]).tolist()
        first = self.state.step - len(values) + 1
        for k, (value, length) in enumerate(zip(values, lengths, strict=True)):
            if not np.isfinite(value):
                self._halt(f"the loss is {value}", first + k, runs[k])
            if not np.isfinite(length):
                if self.accelerator.scaler is None:
                    self._halt(f"the loss is finite, but its gradient is {length}", first + k, runs[k])
                lengths[k] = 0.0  # the scaler of fp16 skips steps whose gradient overflowed
        self.state.losses += values
        self.state.norms += lengths

    def epoch(self) -> dict[str, float | int]:
        """Means over the epoch that ends; forgets its steps."""
        self.check()
        scalars = {
            "epoch": self.state.epoch + 1,
            "train_loss": float(np.mean(self.state.losses)),
            "grad_norm": float(np.mean(self.state.norms)),
            "lr": self._lr,
        }
        self.state.losses, self.state.norms = [], []
        return scalars

    def write(self, scalars: dict[str, float | int]) -> None:
        """Write one line; the clock of the next one starts now."""
        if self._tracker is not None:
            self._tracker.log(self.state.step, scalars)
        self._steps, self._since = 0, time.perf_counter()

    def close(self) -> None:
        """End the W&B run, if there is one."""
        if self._tracker is not None:
            self._tracker.close()

    def _recent(self) -> dict[str, float]:
        self.check()
        recent = slice(-min(self.config.log_every, len(self.state.losses)), None)
        return {
            "loss": float(np.mean(self.state.losses[recent])),
            "grad_norm": float(np.mean(self.state.norms[recent])),
        }

    def _halt(self, fault: str, step: int, runs: list[str]) -> None:
        if self.accelerator.is_main_process:
            write_text(self.folder / BROKEN, "".join(f"{name}\n" for name in runs), mode=PRIVATE)
        raise InputError(
            f"{fault} at optimizer step {step}; lower lr or clip, or check the scans of that step, which "
            f"are listed in {self.folder / BROKEN}; what was saved before it is kept"
        )


def peak_memory(device: torch.device) -> float:
    """Largest use so far in GiB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
