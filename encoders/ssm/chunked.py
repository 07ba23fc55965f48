"""The selective scan in pure PyTorch, fast on a CPU and without compiling anything.

Time is cut into chunks. Within a chunk all decays come from one vectorised exponential, the recursion is one
in-place multiply-add per step over all channels, batches and directions at once, and reading out is one
batched matrix product. Only the state at chunk borders is kept; backward recomputes each chunk (for short
sequences its intermediates are kept instead). Every factor is a decay <= 1, so nothing can overflow,
whatever the step size; cumulative log-decays, the usual shortcut, give NaN from delta = 0.7 on.

Glossary: G directions · B batch · D channels · L time steps · N numbers of state · T steps of a chunk ·
K either D or N.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_NUMBERS = 2**20  # state numbers of a chunk: 4 MB per buffer, which stays in the cache
KEEP_NUMBERS = 2**22  # up to so many state numbers in all, backward reads them instead of recomputing
LOG2_E = 1 / math.log(2)


def scan_chunked(
    u: Float[Tensor, "G B D L"],
    delta: Float[Tensor, "G B D L"],
    A: Float[Tensor, "G D N"],
    B: Float[Tensor, "G B N L"],
    C: Float[Tensor, "G B N L"],
    *,
    reverse: tuple[bool, ...],
) -> Float[Tensor, "G B D L"]:
    """Scan G independent directions side by side; ``reverse[g]`` says which of them walk backwards.

    As :func:`encoders.ssm.reference.scan_reference` for each direction; y and the gradients lie in memory as u
    does. The backward directions are read and written in walking order chunk by chunk: no flipped copies of
    whole sequences, except of B and C, which are small.
    """
    return _Scan.apply(u, delta, A, B, C, reverse)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: tuple[bool, ...]
    ) -> Tensor:
        batch, length = u.shape[1], u.shape[3]
        rates = _rates(A, batch)
        chunks = _chunks(length, rates.numel())
        backwards = reverse == (
            True,
        )  # alone, it walks its chunks and their rows from behind: nothing is flipped
        if backwards:
            chunks, reverse = chunks[::-1], (False,)
        training = any(ctx.needs_input_grad)
        keep = training and length * rates.numel() <= KEEP_NUMBERS
        y = torch.empty_like(u)
        B_walked, C_walked = _walk(B, (0, length), reverse), _walk(C, (0, length), reverse)
        exponents = rates * LOG2_E
        state, starts, kept, buffers = None, [], [], None
        for chunk in chunks:
            if training:
                starts.append(state)
            if keep or buffers is None or len(buffers.decay) != chunk[1] - chunk[0]:
                buffers = _Buffers(chunk, rates, backwards)
            u_t, delta_t = _walk(u, chunk, reverse), _walk(delta, chunk, reverse)
            _run(u_t, delta_t, B_walked[slice(*chunk)], exponents, state, buffers)
            readout = C_walked[slice(*chunk), :, None] @ buffers.states
            _unwalk(y, readout[:, :, 0], chunk, reverse)
            state = buffers.state_rows[-1]
            if keep:
                kept.append(buffers)
            else:
                state = state.clone()  # the next chunk overwrites the buffer
        ctx.save_for_backward(u, delta, A, B, C)
        ctx.reverse, ctx.backwards, ctx.chunks, ctx.starts, ctx.kept = (
            reverse,
            backwards,
            chunks,
            starts,
            kept,
        )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C = ctx.saved_tensors
        groups, batch, _, length = u.shape
        rates, reverse = _rates(A, batch), ctx.reverse
        exponents = rates * LOG2_E
        grad_u, grad_delta = torch.empty_like(u), torch.empty_like(delta)
        B_walked, C_walked = _walk(B, (0, length), reverse), _walk(C, (0, length), reverse)
        grad_B, grad_C = torch.empty_like(B_walked), torch.empty_like(C_walked)
        grad_rates = torch.zeros_like(rates)
        later, earlier = slice(1, None), slice(None, -1)  # steps of a chunk, in walking order
        if ctx.backwards:
            later, earlier = earlier, later
        carried = None  # gradient that reaches the last state of a chunk from the chunks after it
        buffers = work = None
        kept, ctx.kept = ctx.kept, []  # overwritten here; a second backward recomputes
        for index in reversed(range(len(ctx.chunks))):
            chunk, start = ctx.chunks[index], ctx.starts[index]
            steps = chunk[1] - chunk[0]
            u_t, delta_t, grad_t = (_walk(x, chunk, reverse) for x in (u, delta, grad_y))
            B_t, C_t = B_walked[slice(*chunk)], C_walked[slice(*chunk)]
            if kept:
                buffers = kept[index]
            else:
                if buffers is None or len(buffers.decay) != steps:
                    buffers = _Buffers(chunk, rates, ctx.backwards)
                _run(u_t, delta_t, B_t, exponents, start, buffers)
            decay, states, decay_rows = buffers.decay, buffers.states, buffers.decay_rows
            if work is None or len(work) != steps:
                work = torch.empty_like(decay)
                rows = _rows(work, ctx.backwards)

            # adjoint[t] = dLoss/dh[t], walked against the scan
            adjoint = torch.mul(C_t[..., None], grad_t[:, :, None], out=work)
            if carried is not None:
                rows[-1].add_(carried)
            _recur(rows[::-1], decay_rows[:0:-1])
            carried = decay_rows[0] * rows[0]

            # row times matrix, never matrix times column: 9 times faster in batched products
            torch.matmul(grad_t[:, :, None], states.mT, out=grad_C[slice(*chunk), :, None])
            torch.matmul((delta_t * u_t)[:, :, None], adjoint.mT, out=grad_B[slice(*chunk), :, None])
            inflow = (B_t[:, :, None] @ adjoint)[:, :, 0]  # dLoss/d(delta u)

            # dLoss/d(log decay) = adjoint[t] * h[t-1] * decay[t]
            adjoint[later].mul_(states[earlier])
            if start is None:
                rows[0].zero_()
            else:
                rows[0].mul_(start)
            adjoint.mul_(decay)
            through = torch.mul(adjoint, rates, out=decay).sum(2)
            grad_rates += adjoint.mul_(delta_t[:, :, None]).sum(0)
            _unwalk(grad_u, inflow * delta_t, chunk, reverse)
            _unwalk(grad_delta, inflow.mul_(u_t).add_(through), chunk, reverse)
        grad_A = grad_rates.unflatten(0, (groups, batch)).sum(1).mT
        each = []
        for walked, like in ((grad_B, B), (grad_C, C)):
            each.append(torch.empty_like(like))
            _unwalk(each[-1], walked, (0, length), reverse)
        return grad_u, grad_delta, grad_A, *each, None


def _chunks(length: int, numbers: int) -> list[tuple[int, int]]:
    steps = min(max(CHUNK_NUMBERS // numbers, 16), 256)
    return [(first, min(first + steps, length)) for first in range(0, length, steps)]


def _rates(A: Tensor, batch: int) -> Tensor:
    """[G, D, N] -> [G B, N, D]: state numbers outside, channels inside, as all buffers here."""
    return A.mT.contiguous()[:, None].expand(-1, batch, -1, -1).flatten(0, 1)


class _Buffers:
    """Decays and states [T, G B, N, D] of one chunk, and each as flat rows, one per step in walking order."""

    def __init__(self, chunk: tuple[int, int], rates: Tensor, backwards: bool) -> None:
        shape = (chunk[1] - chunk[0], *rates.shape)
        self.decay, self.states = rates.new_empty(shape), rates.new_empty(shape)
        self.decay_rows, self.state_rows = (_rows(x, backwards) for x in (self.decay, self.states))


def _rows(x: Tensor, backwards: bool) -> tuple[Tensor, ...]:
    rows = x.flatten(1).unbind(0)
    return rows[::-1] if backwards else rows


def _run(
    u_t: Tensor, delta_t: Tensor, B_t: Tensor, exponents: Tensor, state: Tensor | None, buffers: _Buffers
) -> None:
    """Fill the buffers with one chunk, from the flat state before it (None: zero)."""
    # base 2: torch gives exp to MKL, which takes twice as long as exp2 where the processor is not Intel's
    torch.mul(delta_t[:, :, None], exponents, out=buffers.decay).exp2_()
    torch.mul(B_t[..., None], (u_t * delta_t)[:, :, None], out=buffers.states)
    if state is not None:
        buffers.state_rows[0].addcmul_(buffers.decay_rows[0], state)
    _recur(buffers.state_rows, buffers.decay_rows[1:])


def _recur(rows: tuple[Tensor, ...], decays: tuple[Tensor, ...]) -> None:
    """rows[t + 1] += decays[t] * rows[t] for t = 0, 1, ...: one after the other."""
    if rows[0].device.type == "cpu" and decays:
        # one call for all steps; on a CPU, and only there, it works through its lists in order
        torch._foreach_addcmul_(rows[1:], decays, rows[:-1])
    else:
        for row, decay, before in zip(rows[1:], decays, rows[:-1], strict=True):
            row.addcmul_(decay, before)


def _walk(x: Tensor, chunk: tuple[int, int], reverse: tuple[bool, ...]) -> Tensor:
    """One chunk of x [G, B, K, L] as [T, G B, K], each direction in its walking order; read only."""
    first, last = chunk
    length = x.shape[3]
    parts = []
    for g, back in enumerate(reverse):
        part = x[g, :, :, length - last : length - first].flip(2) if back else x[g, :, :, first:last]
        if part.stride(2) == 1:  # time innermost: a contiguous matrix is transposed in blocks, a slice is not
            part = part.contiguous().flatten(0, 1).t().contiguous().unflatten(1, part.shape[:2])
        else:
            part = part.permute(2, 0, 1)
        parts.append(part)
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, dim=1)


def _unwalk(out: Tensor, values: Tensor, chunk: tuple[int, int], reverse: tuple[bool, ...]) -> None:
    """Write values [T, G B, K] of one chunk to their places in out [G, B, K, L]; undoes :func:`_walk`."""
    first, last = chunk
    length, batch = out.shape[3], out.shape[1]
    for g, back in enumerate(reverse):
        part = out[g, :, :, length - last : length - first] if back else out[g, :, :, first:last]
        value = values[:, g * batch : (g + 1) * batch]
        if back:
            value = value.flip(0)
        if part.stride(2) == 1:  # as in `_walk`
            part.copy_(value.flatten(1).contiguous().t().contiguous().unflatten(0, part.shape[:2]))
        else:
            part.copy_(value.permute(1, 2, 0))
