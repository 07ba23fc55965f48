"""Causal convolutions along a sequence: explicit filters, and implicit ones that are sums of decaying powers.

Each has a path by definition, a path by FFT over the whole length, and a path by blocks: a Toeplitz matrix
within a block, so that a GPU's or CPU's matrix product does the work, plus what earlier blocks leave behind
(earlier inputs of an explicit filter, one number per pole of an implicit one). Blocks need memory that grows
with the length only, touch nothing that lies later in the sequence, and can start from what an earlier call
left behind. FFT is chosen for shorter sequences, where building the matrices would cost more.

All compute in the number format of their input, fp32 or fp64.

Glossary: B sequences · C channels · G filters, each for C/G neighbouring channels · K taps · L positions ·
N poles · T positions of a block.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Method = Literal["auto", "direct", "fft", "blocks"]

# Measured on one core, 64 channels, one sequence, nanoseconds per number: FFT 10 at 512 positions, 32 to 40 at
# 2,048 to 32,768; blocks 29 at 512, 18 at 2,048, 9 from 8,192 on; six shifted products 1 to 4.
FEW_TAPS = 16  # up to here a filter is a sum of shifted products
FFT_UP_TO = 1_024  # positions


def causal_fir(
    x: Float[Tensor, "B C L"],
    taps: Float[Tensor, "G K"],
    *,
    history: Float[Tensor, "B C K_1"] | None = None,
    method: Method = "auto",
) -> Float[Tensor, "B C L"]:
    """y[t] = sum over k of taps[k] x[t - k]; taps[0] meets the present.

    Args:
        x: Inputs.
        taps: Filters; filter g serves channels g C/G to (g + 1) C/G - 1.
        history: The K - 1 inputs before the first; None: zeros.
        method: "direct" by definition, "fft", "blocks", or "auto": by numbers of taps and positions.
    """
    length, past = x.shape[-1], taps.shape[-1] - 1
    if method == "auto":
        few = taps.shape[-1] <= FEW_TAPS
        method = "direct" if few else ("fft" if length <= FFT_UP_TO else "blocks")
    if history is None and method != "direct":
        past = min(past, length - 1)  # taps beyond the beginning meet zeros
        taps = taps[:, : past + 1]
    before = x.new_zeros(*x.shape[:-1], past) if history is None else history
    inputs = torch.cat([before, x], dim=-1)
    if method == "direct":
        return _fir_direct(inputs, taps, length)
    if method == "fft":
        size = _fast(inputs.shape[-1])  # what wraps around falls on the history, which is cut off
        spectrum = torch.fft.rfft(inputs, n=size) * torch.fft.rfft(_per_channel(taps, x), n=size)
        return torch.fft.irfft(spectrum, n=size)[..., past : past + length]
    return _fir_blocks(inputs, taps, length)


def causal_powers(
    x: Float[Tensor, "B C L"],
    log_poles: Float[Tensor, "C N"],
    residues: Float[Tensor, "C N"],
    *,
    state: Float[Tensor, "B C N"] | None = None,
    method: Method = "auto",
) -> Float[Tensor, "B C L"]:
    """y[t] = sum over k of h[k] x[t - k] with h[k] = sum over n of residues[n] exp(k log_poles[n]).

    Args:
        x: Inputs.
        log_poles: Logarithms of the poles, negative.
        residues: Their weights.
        state: From :func:`powers_state` of all earlier inputs; None: there are none.
        method: "direct" by definition (O(L²)), "fft", "blocks", or "auto": by the number of positions.
    """
    if method == "auto":
        method = "fft" if x.shape[-1] <= FFT_UP_TO else "blocks"
    if method == "blocks":
        return _powers_blocks(x, log_poles, residues, state)
    length = x.shape[-1]
    taps = powers_filter(log_poles, residues, length)
    if method == "fft":
        size = _fast(2 * length)
        spectrum = torch.fft.rfft(x, n=size) * torch.fft.rfft(taps, n=size)
        y = torch.fft.irfft(spectrum, n=size)[..., :length]
    else:
        y = causal_fir(x, taps, method="direct")
    if state is not None:
        y = y + torch.einsum("bcn,cnt->bct", state, _carry(log_poles, residues, length))
    return y


def powers_filter(
    log_poles: Float[Tensor, "C N"], residues: Float[Tensor, "C N"], length: int
) -> Float[Tensor, "C L"]:
    """The first taps of an implicit filter."""
    times = torch.arange(length, device=log_poles.device, dtype=log_poles.dtype)
    return torch.einsum("cn,cnt->ct", residues, torch.exp(log_poles[..., None] * times))


def powers_state(
    x: Float[Tensor, "B C L"],
    log_poles: Float[Tensor, "C N"],
    *,
    state: Float[Tensor, "B C N"] | None = None,
) -> Float[Tensor, "B C N"]:
    """What all inputs leave behind: sum over t of exp((L - 1 - t) log_poles) x[t], and the decayed state before."""
    length, block = x.shape[-1], _block(x.shape[-1])
    left = -length % block
    padded = F.pad(x, (left, 0)).unflatten(-1, (-1, block))  # zeros in front leave nothing behind
    inflow = torch.einsum("bcmt,cnt->bcmn", padded, _inflow(log_poles, block))
    states = _scan(inflow, log_poles * block)[:, :, -1]
    return states if state is None else states + torch.exp(log_poles * length) * state


def _fir_direct(inputs: Tensor, taps: Tensor, length: int) -> Tensor:
    """A sum of shifted products for few taps, a depthwise convolution for many."""
    weights, last = _per_channel(taps, inputs), taps.shape[-1] - 1
    if last >= FEW_TAPS:
        return F.conv1d(inputs, weights.flip(-1)[:, None], groups=inputs.shape[1])
    y = inputs[..., last:] * weights[:, 0, None]
    for lag in range(1, last + 1):
        y.addcmul_(inputs[..., last - lag : last - lag + length], weights[:, lag, None])
    return y


def _fir_blocks(inputs: Tensor, taps: Tensor, length: int) -> Tensor:
    """Each block is a matrix product of its own inputs and those before it that its filter still reaches."""
    B, C, _ = inputs.shape
    G, K = taps.shape
    block = _block(length)
    back = -(-(K - 1) // block) * block  # positions before a block, whole blocks
    blocks = -(-length // block)
    inputs = F.pad(inputs, (back - (K - 1), blocks * block - length))
    windows = inputs.unfold(-1, back + block, block)  # B C blocks (back + block)
    grouped = windows.unflatten(1, (G, C // G)).transpose(0, 1).reshape(G, -1, back + block)
    y = torch.bmm(grouped, _toeplitz(taps, back, block))
    y = y.view(G, B, C // G, blocks * block).transpose(0, 1).reshape(B, C, blocks * block)
    return y[..., :length]


def _powers_blocks(x: Tensor, log_poles: Tensor, residues: Tensor, state: Tensor | None) -> Tensor:
    B, C, length = x.shape
    block = _block(length)
    blocks = -(-length // block)
    inputs = F.pad(x, (0, blocks * block - length)).unflatten(-1, (blocks, block))
    rows = inputs.transpose(0, 1).reshape(C, B * blocks, block)
    y = torch.bmm(rows, _toeplitz(powers_filter(log_poles, residues, block), 0, block))
    if blocks > 1 or state is not None:
        inflow = (
            torch.bmm(rows, _inflow(log_poles, block).transpose(1, 2)).view(C, B, blocks, -1).transpose(0, 1)
        )
        first = x.new_zeros(B, C, 1, log_poles.shape[-1]) if state is None else state[:, :, None]
        starts = _scan(torch.cat([first, inflow[:, :, :-1]], dim=2), log_poles * block)
        starts = starts.transpose(0, 1).reshape(C, B * blocks, -1)
        y = torch.baddbmm(y, starts, _carry(log_poles, residues, block))
    return y.view(C, B, blocks * block).transpose(0, 1)[..., :length]


def _scan(inflow: Float[Tensor, "B C M N"], log_decay: Float[Tensor, "C N"]) -> Float[Tensor, "B C M N"]:
    """s[m] = exp(log_decay) s[m - 1] + inflow[m], in steps of 1, 2, 4, ... blocks."""
    states, step = inflow.clone(), 1
    while step < states.shape[2]:
        decay = torch.exp(log_decay * step)[:, None]
        states[:, :, step:] = states[:, :, step:] + decay * states[:, :, :-step]
        step *= 2
    return states


def _inflow(log_poles: Tensor, block: int) -> Float[Tensor, "C N T"]:
    """What an input at each position of a block leaves behind at its last one."""
    times = torch.arange(block - 1, -1, -1, device=log_poles.device, dtype=log_poles.dtype)
    return torch.exp(log_poles[..., None] * times)


def _carry(log_poles: Tensor, residues: Tensor, block: int) -> Float[Tensor, "C N T"]:
    """What each pole's state at the end of a block adds to the positions of the next."""
    times = torch.arange(1, block + 1, device=log_poles.device, dtype=log_poles.dtype)
    return residues[..., None] * torch.exp(log_poles[..., None] * times)


def _toeplitz(taps: Float[Tensor, "G K"], back: int, block: int) -> Float[Tensor, "G I T"]:
    """Matrix from a block's inputs (and ``back`` before it) to its outputs: entry (i, j) is tap j + back - i."""
    rows = back + block
    lags = F.pad(taps, (block - 1, max(0, rows - taps.shape[-1])))[..., : rows + block - 1]
    return lags.unfold(-1, block, 1).flip(-2)


def _per_channel(taps: Tensor, x: Tensor) -> Float[Tensor, "C K"]:
    return taps.repeat_interleave(x.shape[1] // taps.shape[0], dim=0)


def _fast(size: int) -> int:
    """The power of two from ``size`` on: other sizes of an FFT can be many times slower."""
    return 1 << (size - 1).bit_length()


def _block(length: int) -> int:
    """Positions of a block: longer ones cost more products, shorter ones more states."""
    return 32 if length <= 512 else 64 if length <= 2_048 else 128
