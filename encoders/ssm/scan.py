"""One door to the selective scan: the caller says what, this file says which implementation.

Glossary: G directions · B batch · D channels · L time steps · N numbers of state per channel.
"""

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from encoders.runs.errors import InputError
from encoders.ssm.announcement import announce
from encoders.ssm.chunked import scan_chunked
from encoders.ssm.cuda import scan_cuda, scan_refusal
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
    y = scan_directions(*one, reverse=(reverse,), delta_softplus=delta_softplus, backend=backend)
    y = y.squeeze(0)  # unlike [0], whose gradient is a copy as large as y
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

    Raises:
        InputError: the backend is unknown, or "cuda" was asked for and cannot scan this.
    """
    options = {"reverse": reverse, "delta_softplus": delta_softplus, "backend": backend}
    if torch.compiler.is_compiling():  # a loop over time and lists of buffers are nothing for a graph
        apart = torch.compiler.disable(_scan_directions, reason="the selective scan compiles badly")
        return apart(u, delta, A, B, C, **options)
    return _scan_directions(u, delta, A, B, C, **options)


def pick_backend(
    device: torch.device, *, dtype: torch.dtype = torch.float32, d_state: int = 16
) -> tuple[str, str]:
    """(implementation, reason) that "auto" takes.

    Args:
        device: Where the tensors are.
        dtype: Of u, delta, B and C.
        d_state: N.
    """
    if device.type != "cuda":
        return "chunked", f"no compiled kernel for device {device.type}"
    refusal = scan_refusal(device, dtype=dtype, d_state=d_state)
    if refusal is None:
        return "cuda", f"mamba-ssm's compiled kernel works on {device}"
    return "chunked", refusal


def _scan_directions(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    reverse: tuple[bool, ...],
    delta_softplus: bool,
    backend: str,
) -> Tensor:
    if backend not in BACKENDS:
        raise InputError(f"scan backend {backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    dtype = u.dtype
    common = functools.reduce(torch.promote_types, (x.dtype for x in (delta, B, C)), dtype)
    if backend in ("auto", "cuda"):
        picked, reason = pick_backend(u.device, dtype=common, d_state=A.shape[2])
        if backend == "cuda" and picked != "cuda":
            raise InputError(f'scan backend "cuda" cannot run: {reason}; or choose "auto"')
        backend = picked
        announce("selective scan", backend, reason)
    with torch.autocast(u.device.type, enabled=False):
        if backend == "cuda":  # takes half precision as it is; the state is fp32 inside
            u, delta, B, C = (x.to(common) for x in (u, delta, B, C))
            one = functools.partial(scan_cuda, delta_softplus=delta_softplus)
        else:  # half-precision steps and states lose the long memory: never below fp32
            wide = torch.promote_types(common, torch.float32)
            u, delta, A, B, C = (x.to(wide) for x in (u, delta, A, B, C))
            if delta_softplus:
                delta = F.softplus(delta)
            if backend == "chunked":
                return scan_chunked(u, delta, A, B, C, reverse=reverse).to(dtype)
            one = scan_reference
        each = zip(u, delta, A, B, C, reverse, strict=True)
        return torch.stack([one(*direction, reverse=back) for *direction, back in each]).to(dtype)
