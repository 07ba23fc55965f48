"""The compiled CUDA kernels: mamba-ssm's selective scan and causal-conv1d. The one file that imports them.

Installed is not usable: both packages install without a compiler and then fail at the first call, and an
extension built for another torch does not load. So each kernel is loaded and tried once per device, against the
readable text of what it computes, before anything relies on it.

Glossary: B batch · D channels · L time steps · N numbers of state per channel · K taps.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from encoders.ssm.reference import scan_reference

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_STATE = 256  # N, selective_scan.cpp
TAPS = (2, 3, 4)  # K, causal_conv1d.cpp
CHANNEL_LAST_MULTIPLE = 8  # of D and the strides, causal_conv1d.cpp
SCAN_ADVICE = (
    "build it with nvcc for the torch that is installed: MAMBA_KEEP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE "
    "pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps mamba-ssm"
)
CONV_ADVICE = (
    "build it with nvcc for the torch that is installed: CAUSAL_CONV1D_FORCE_BUILD=TRUE "
    "pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps causal-conv1d"
)


def scan_refusal(
    device: torch.device, *, dtype: torch.dtype = torch.float32, d_state: int = 16
) -> str | None:
    """Why mamba-ssm's kernel cannot scan this; None if it can.

    Args:
        device: Where the tensors are.
        dtype: Of u, delta, B and C.
        d_state: N.
    """
    if dtype not in DTYPES:
        return f"mamba-ssm's kernel does not compute in {_name(dtype)}"
    if d_state > MAX_STATE:
        return f"mamba-ssm's kernel holds at most {MAX_STATE} numbers of state per channel, not {d_state}"
    return _scan_fault(device)


def conv_refusal(device: torch.device, *, dtype: torch.dtype = torch.float32, taps: int = 4) -> str | None:
    """Why causal-conv1d cannot convolve this; None if it can.

    Args:
        device: Where the tensors are.
        dtype: Of the input.
        taps: K.
    """
    if dtype not in DTYPES:
        return f"causal-conv1d does not compute in {_name(dtype)}"
    if taps not in TAPS:
        return f"causal-conv1d has 2 to 4 taps, not {taps}"
    return _conv_fault(device)


def scan_cuda(
    u: Float[Tensor, "B D L"],
    delta: Float[Tensor, "B D L"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B N L"],
    C: Float[Tensor, "B N L"],
    *,
    delta_softplus: bool = False,
    reverse: bool = False,
) -> Float[Tensor, "B D L"]:
    """As :func:`encoders.ssm.reference.scan_reference`, in one fused kernel.

    u, delta, B and C have one dtype of DTYPES; softplus and the state are fp32 inside.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    if reverse:  # the kernel walks forwards only; on a GPU the flips cost about a tenth of the Mamba stage
        u, delta, B, C = (x.flip(2) for x in (u, delta, B, C))
    u, delta, B, C = (x.contiguous() for x in (u, delta, B, C))
    y = selective_scan_fn(u, delta, A.float().contiguous(), B, C, delta_softplus=delta_softplus)
    return y.flip(2) if reverse else y


def conv_cuda(
    x: Float[Tensor, "B D L"],
    weight: Float[Tensor, "D K"],
    bias: Float[Tensor, " D"],
    *,
    reverse: bool = False,
) -> Float[Tensor, "B D L"]:
    """Depthwise causal convolution; with ``reverse`` of the present and the following steps."""
    from causal_conv1d import causal_conv1d_fn

    if reverse:
        x = x.flip(2)
    if x.stride(2) != 1:
        aligned = all(size % CHANNEL_LAST_MULTIPLE == 0 for size in (x.shape[1], x.stride(0), x.stride(2)))
        if x.stride(1) != 1 or not aligned:
            x = x.contiguous()
    y = causal_conv1d_fn(x, weight.to(x.dtype).contiguous(), bias.to(x.dtype), activation=None)
    return y.flip(2) if reverse else y


@functools.cache
def _scan_fault(device: torch.device) -> str | None:
    modules = ("selective_scan_cuda", "mamba_ssm.ops.selective_scan_interface")
    return _import_fault("mamba-ssm", modules, SCAN_ADVICE) or _trial_fault(
        "mamba-ssm", device, scan_cuda, scan_reference, [(1, 8, 5), (1, 8, 5), (8, 3), (1, 3, 5), (1, 3, 5)]
    )


@functools.cache
def _conv_fault(device: torch.device) -> str | None:
    def library(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv1d(x, weight[:, None], bias, padding=3, groups=len(weight))[..., : x.shape[2]]

    modules = ("causal_conv1d_cuda", "causal_conv1d")
    return _import_fault("causal-conv1d", modules, CONV_ADVICE) or _trial_fault(
        "causal-conv1d", device, conv_cuda, library, [(1, 8, 5), (8, 4), (8,)]
    )


def _import_fault(package: str, modules: tuple[str, str], advice: str) -> str | None:
    """Why the extension or the package around it cannot be imported."""
    extension = modules[0]
    if importlib.util.find_spec(extension) is None:
        return f"{package}'s extension {extension} is not installed; {advice}"
    for module in modules:
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as cause:  # undefined symbols of another torch, a missing CUDA library
            return (
                f"{package}'s {module} is installed but does not load ({_one_line(cause)}; "
                f"torch is {torch.__version__}); {advice}"
            )
    return None


def _trial_fault(
    package: str,
    device: torch.device,
    kernel: Callable[..., Tensor],
    text: Callable[..., Tensor],
    shapes: list[tuple[int, ...]],
) -> str | None:
    """Run a kernel once on small numbers: what it says or how far it is from its readable text."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    generator = torch.Generator().manual_seed(0)
    arguments = [torch.rand(shape, generator=generator) for shape in shapes]
    wanted = text(*arguments)
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        try:
            found = kernel(*(x.to(device) for x in arguments)).cpu()
        except RuntimeError as cause:  # no kernel image for this GPU, an extension left out of the build
            return f"{package}'s kernel fails on {device} ({_one_line(cause)})"
    if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-4):
        return (
            f"{package}'s kernel gives wrong values on {device} (off by {(found - wanted).abs().max():.2g})"
        )
    return None


def _one_line(cause: Exception) -> str:
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
