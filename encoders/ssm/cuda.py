"""The selective scan on mamba-ssm's CUDA kernel, where that is compiled. The one file that imports it."""

import functools
import importlib.util

from jaxtyping import Float
from torch import Tensor


@functools.cache
def cuda_kernel_available() -> bool:
    """Whether the compiled extension is there. `import mamba_ssm` alone proves nothing: it installs
    without a compiler and then fails at the first call."""
    return (
        importlib.util.find_spec("selective_scan_cuda") is not None
        and importlib.util.find_spec("mamba_ssm") is not None
    )


def scan_cuda(
    u: Float[Tensor, "B D L"],
    delta: Float[Tensor, "B D L"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B N L"],
    C: Float[Tensor, "B N L"],
    *,
    reverse: bool = False,
) -> Float[Tensor, "B D L"]:
    """As :func:`encoders.ssm.reference.scan_reference`, in one fused kernel; the state is fp32."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    if reverse:  # the kernel walks forwards only; on a GPU the flips cost about a tenth of the Mamba stage
        u, delta, B, C = (x.flip(2) for x in (u, delta, B, C))
    y = selective_scan_fn(u.contiguous(), delta.contiguous(), A, B.contiguous(), C.contiguous())
    return y.flip(2) if reverse else y
