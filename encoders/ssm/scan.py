"""One door to the selective scan: the caller says what, this file says which implementation.

Glossary: G directions · B batch · D channels · L time steps · N numbers of state per channel.
"""

import functools
import os
import sys

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from encoders.ssm.chunked import scan_chunked
from encoders.ssm.cuda import cuda_kernel_available, scan_cuda
from encoders.ssm.reference import scan_reference

BACKENDS = ("auto", "reference", "chunked", "cuda")


def selective_scan(
    u: Float[Tensor, "B D L"],
    delta: Float[Tensor, "B D L"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B N L"],
    C: Float[Tensor, "B N L"],
    *,
    D: Float[Tensor, " D"] | None = None,
    z: Float[Tensor, "B D L"] | None = None,
    delta_bias: Float[Tensor, " D"] | None = None,
    delta_softplus: bool = True,
    reverse: bool = False,
    backend: str = "auto",
) -> Float[Tensor, "B D L"]:
    """Mamba's scan h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t; y_t = C_t h_t + D u_t; y * silu(z).

    Args:
        u: Input.
        delta: Step size before bias and softplus.
        A: Decay rates, negative.
        B: What of the input enters the state.
        C: What of the state is read out.
        D: Weight of the input added to the output.
        z: Gate.
        delta_bias: Added to delta.
        delta_softplus: Apply softplus to delta, to make it positive.
        reverse: Walk from the last step to the first: equals flip, scan, flip, without the copies.
        backend: "auto", "reference", "chunked" or "cuda".

    Returns:
        y in the dtype of u; the state is at least fp32 on every path.
    """
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    one = (u[None], delta[None], A[None], B[None], C[None])
    y = scan_directions(*one, reverse=(reverse,), delta_softplus=delta_softplus, backend=backend)[0]
    if D is not None:
        y = y + u * D[:, None].to(u.dtype)
    return y if z is None else y * F.silu(z)


def scan_directions(
    u: Float[Tensor, "G B D L"],
    delta: Float[Tensor, "G B D L"],
    A: Float[Tensor, "G D N"],
    B: Float[Tensor, "G B N L"],
    C: Float[Tensor, "G B N L"],
    *,
    reverse: tuple[bool, ...] = (False, True),
    delta_softplus: bool = True,
    backend: str = "auto",
) -> Float[Tensor, "G B D L"]:
    """G scans at once, each with its own inputs and rates; arguments as :func:`selective_scan`.

    Args:
        u: Input.
        delta: Step size before softplus.
        A: Decay rates, negative.
        B: What of the input enters the state.
        C: What of the state is read out.
        reverse: For each of them, whether it walks backwards; by default one of each.
        delta_softplus: Apply softplus to delta, to make it positive.
        backend: "auto", "reference", "chunked" or "cuda".
    """
    if backend not in BACKENDS:
        raise ValueError(f"scan backend {backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if backend == "auto":
        backend, reason = pick_backend(u.device)
        _announce(backend, reason)
    dtype, wide = u.dtype, torch.promote_types(u.dtype, torch.float32)
    with torch.autocast(u.device.type, enabled=False):
        # half-precision steps and states lose the long memory: never below fp32
        u, delta, A, B, C = (x.to(wide) for x in (u, delta, A, B, C))
        if delta_softplus:
            delta = F.softplus(delta)
        if backend == "chunked":
            return scan_chunked(u, delta, A, B, C, reverse=reverse).to(dtype)
        one = scan_reference if backend == "reference" else scan_cuda
        each = zip(u, delta, A, B, C, reverse, strict=True)
        return torch.stack([one(*direction, reverse=back) for *direction, back in each]).to(dtype)


def pick_backend(device: torch.device) -> tuple[str, str]:
    """(implementation, reason) that "auto" takes on a device."""
    if device.type != "cuda":
        return "chunked", f"no compiled kernel for device {device.type}"
    if cuda_kernel_available():
        return "cuda", "mamba-ssm's compiled kernel was found"
    return "chunked", "mamba-ssm's extension selective_scan_cuda is not installed; pip install '.[cuda]'"


@functools.cache
def _announce(backend: str, reason: str) -> None:
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"selective scan: {backend} ({reason})", file=sys.stderr)
