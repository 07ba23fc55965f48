"""Gradients of a large contrastive batch in the memory of a small one: GradCache.

Gao, Zhang, Han, Callan 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv
2101.06983. A contrastive loss needs the vectors of the whole batch at once, but the tower that makes them sees one
person at a time. So the tower first runs without gradient, chunk by chunk; the loss of all vectors is differentiated
with respect to the vectors alone; then each chunk runs again, with gradient, and is handed its rows of that
derivative. By the chain rule the sums are those of the whole batch at once, for one more forward pass.

Both passes must compute the same: every random generator is put back before a chunk's second run, so that dropout and
drop path fall as they did, and the vectors are compared.

Glossary: b people of this process · c people of a chunk · D width of the tower's vectors.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

SAME = 0.05  # of a chunk's norm: far above what bf16 rounds, far below another dropout mask


def cached_backward(
    encode: Callable[[Any], Float[Tensor, "c D"]],
    chunks: Iterable[Any],
    loss_of: Callable[[Float[Tensor, "b D"]], Float[Tensor, ""]],
) -> Float[Tensor, ""]:
    """Add the gradients of ``loss_of(all vectors)`` to the parameters of both functions; returns the loss.

    As after `loss_of(torch.cat([encode(chunk) for chunk in chunks])).backward()`, also where random generators stand;
    of the activations of ``encode`` only one chunk's are kept.

    Args:
        encode: Inputs of a chunk -> vectors, one row per person.
        chunks: Inputs; walked twice, and must give the same both times (a list, or an object that reads them anew).
        loss_of: The vectors of all chunks -> the loss; gathering over processes is its business.

    Raises:
        RuntimeError: the second pass gave other vectors than the first.
    """
    states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_generators())
            parts.append(encode(chunk))
    vectors = torch.cat(parts).requires_grad_()
    loss = loss_of(vectors)
    loss.backward()
    if vectors.grad is None:
        return loss.detach()
    after = _generators()
    gradients = vectors.grad.split([len(part) for part in parts])
    for place, (chunk, state, part, gradient) in enumerate(
        zip(chunks, states, parts, gradients, strict=True)
    ):
        _put_back(state)
        found = encode(chunk)
        if (found.detach() - part).norm() > SAME * part.norm():
            raise RuntimeError(
                f"chunk {place} has other vectors in the second pass than in the first: its inputs or a random choice "
                f"outside the generators of Python, NumPy and torch differ"
            )
        if found.requires_grad:  # nobody in the chunk, or nothing to learn below it
            found.backward(gradient.to(found.dtype))
    _put_back(after)
    return loss.detach()


def average_gradients(parameters: Sequence[Tensor], accelerator: Accelerator) -> None:
    """Mean over processes of the gradient of each parameter, as DDP would leave it; one exchange for all of them.

    DDP itself does not fit: its exchange starts with a process's last backward pass, and a process may have nobody in
    a batch. With :func:`align.gather.gather_with_gradient` in the loss the result is the whole batch's gradient.
    """
    if accelerator.num_processes == 1:
        return
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in parameters])
        dist.all_reduce(flat)
        flat /= accelerator.num_processes
        for parameter, own in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad.copy_(own.view_as(parameter))


def _generators() -> tuple[Any, ...]:
    """State of the generators of Python, NumPy and torch; of GPUs, that of this process's own."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _put_back(state: tuple[Any, ...]) -> None:
    ours, numpy, torch_cpu, cuda = state
    random.setstate(ours)
    np.random.set_state(numpy)
    torch.set_rng_state(torch_cpu)
    if cuda is not None:
        torch.cuda.set_rng_state(cuda)
