"""The batch of all processes, through which gradients flow back to each.

Every process computes the same loss over the whole batch. Summed over the processes its gradient is num_processes
times too large, and DDP's averaging divides by just that: the step equals one process's step on the whole batch,
however unequal the parts are, without weights. (Averaging the processes' own losses would be right for equal parts
only; open_clip's default, a gather without gradient, gives a gradient that is num_processes times too small.)

Glossary: b people of this process · B people of all processes · O width.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


def shard(batch: Int[np.ndarray, " B"], accelerator: Accelerator) -> Int[np.ndarray, " b"]:
    """This process's part of a batch; the first processes have one person more where it does not divide."""
    return np.array_split(batch, accelerator.num_processes)[accelerator.process_index]


def gather_with_gradient(part: Float[Tensor, "b O"], accelerator: Accelerator) -> Float[Tensor, "B O"]:
    """Rows of all processes in their order; parts may differ in length, also be empty."""
    return part if accelerator.num_processes == 1 else _Gather.apply(part)


class _Gather(torch.autograd.Function):
    """On public collectives only: PyTorch's own differentiable gathers are deprecated or private."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        ours = torch.tensor([len(part)], device=part.device)
        counts = [torch.empty_like(ours) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, ours)
        lengths = torch.cat(counts).tolist()
        padded = part.new_zeros(max(lengths), *part.shape[1:])  # gloo gathers equal lengths only
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        first = sum(lengths[: dist.get_rank()])
        ctx.own = slice(first, first + len(part))
        return torch.cat([rows[:length] for rows, length in zip(parts, lengths, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)  # each process holds the gradient of its own copy of the loss
        return summed[ctx.own]
