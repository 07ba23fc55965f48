"""The compiled kernels: used when they work, refused in words when they do not. Most of it needs no GPU."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from encoders.ssm import cuda
from encoders.ssm.convolution import directional_conv, pick_convolution
from encoders.ssm.scan import pick_backend

ROOT = Path(__file__).resolve().parents[3]
KINDS = {
    "scan": (pick_backend, "chunked", "selective_scan_cuda", "mamba_ssm"),
    "conv": (pick_convolution, "library", "causal_conv1d_cuda", "causal_conv1d"),
}
without_gpu = pytest.mark.skipif(
    torch.cuda.is_available(), reason="describes a machine without a CUDA device"
)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder whose packages this process finds first; what was imported from it is forgotten again."""
    monkeypatch.syspath_prepend(tmp_path)
    faults = (cuda._scan_fault, cuda._conv_fault)
    before = set(sys.modules)
    for fault in faults:
        fault.cache_clear()
    yield tmp_path
    for fault in faults:
        fault.cache_clear()
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {
            name for *_, extension, package in KINDS.values() for name in (extension, package)
        }:
            del sys.modules[name]


def picked(kind: str) -> tuple[str, str]:
    """(implementation, reason) for a CUDA device."""
    return KINDS[kind][0](torch.device("cuda", 0))


def write_package(folder: Path, name: str, content: str) -> None:
    """A package or, for `a.b.c`, the nested ones; the innermost runs `content` when it is imported."""
    for part in name.split("."):
        folder = folder / part
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
    (folder / "__init__.py").write_text(content)


@without_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_an_absent_extension_is_named_with_the_way_to_build_it(kind, packages):
    _, fallback, extension, package = KINDS[kind]
    write_package(packages, package, "raise RuntimeError('must not be imported: the package proves nothing')")
    path, reason = picked(kind)
    assert path == fallback and f"{extension} is not installed" in reason
    assert "--no-build-isolation" in reason
    assert ("MAMBA_KEEP_CUDA_BUILD=TRUE" in reason) == (kind == "scan")


@without_gpu
@pytest.mark.parametrize("error", ["ImportError", "OSError"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_extension_of_another_torch_is_refused_with_the_cause(kind, error, packages):
    _, fallback, extension, package = KINDS[kind]
    write_package(packages, extension, f"raise {error}('undefined symbol: _ZN3c105ErrorC2E')")
    write_package(packages, package, "")
    path, reason = picked(kind)
    assert path == fallback
    assert (
        extension in reason and "undefined symbol: _ZN3c105ErrorC2E" in reason and torch.__version__ in reason
    )


@without_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_library_is_refused(kind, packages):
    _, fallback, extension, package = KINDS[kind]
    (packages / f"{extension}.so").write_bytes(b"not a library")
    write_package(packages, package, "")
    path, reason = picked(kind)
    assert path == fallback and "does not load" in reason


@without_gpu
def test_a_package_that_fails_around_a_good_extension_is_refused(packages):
    write_package(packages, "selective_scan_cuda", "")
    write_package(packages, "mamba_ssm", "import a_package_that_nobody_has")
    path, reason = picked("scan")
    assert path == "chunked" and "a_package_that_nobody_has" in reason


@without_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_good_packages_without_a_device_are_refused(kind, packages):
    _, fallback, extension, package = KINDS[kind]
    write_package(packages, extension, "")
    inner = "mamba_ssm.ops.selective_scan_interface" if kind == "scan" else package
    write_package(packages, inner, "")
    assert picked(kind) == (fallback, "torch sees no CUDA device")


@without_gpu
def test_a_broken_extension_keeps_no_model_from_running(tmp_path):
    write_package(tmp_path, "selective_scan_cuda", "raise ImportError('undefined symbol')")
    write_package(tmp_path, "mamba_ssm", "raise ImportError('undefined symbol')")
    program = "import torch; from encoders.ssm import BiMamba; print(BiMamba(4)(torch.ones(1, 3, 4)).isfinite().all().item())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        done.stdout == "True\n"
        and done.stderr == "selective scan: chunked (no compiled kernel for device cpu)\n"
    )


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (lambda x: x + 1, None),
        (lambda x: x + 1.01, "wrong values on cpu (off by 0.01)"),
        (lambda x: torch.full_like(x, torch.nan), "wrong values"),
        (lambda x: x + torch.ones(7), "fails on cpu (RuntimeError: The size of tensor"),
    ],
)
def test_a_kernel_is_tried_before_it_is_trusted(kernel, said):
    fault = cuda._trial_fault("package", torch.device("cpu"), kernel, lambda x: x + 1, [(2, 3)])
    assert fault is None if said is None else said in fault


def test_inputs_that_the_kernels_do_not_take_go_elsewhere():
    device = torch.device("cuda")
    assert "float64" in cuda.scan_refusal(device, dtype=torch.float64)
    assert "257" in cuda.scan_refusal(device, d_state=257)
    assert "float64" in cuda.conv_refusal(device, dtype=torch.float64)
    for taps in (1, 5):
        path, reason = pick_convolution(device, taps=taps)
        assert path == "library" and f"not {taps}" in reason


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_convolution_on_a_gpu_equals_the_one_on_a_cpu(dtype):
    tolerance = 1e-5 if dtype == torch.float32 else 16 * torch.finfo(dtype).eps
    generator = torch.Generator().manual_seed(0)
    for taps, width in itertools.product(
        (2, 3, 4, 5), (5, 16)
    ):  # 16: fit for the channel-last kernel, 5: not
        x = torch.randn(2, 9, 2 * width, generator=generator)[..., :width]  # a slice, as in_proj gives it
        weight = torch.randn(2, width, 1, taps, generator=generator)
        bias = torch.randn(2, width, generator=generator)
        outcomes = []
        for device in ("cpu", "cuda"):
            args = [v.detach().to(device, dtype).requires_grad_() for v in (x, weight, bias)]
            y = directional_conv(*args, reverse=(False, True))
            gradients = torch.autograd.grad(y.float().square().sum(), args)
            outcomes.append([v.cpu().float() for v in (y, *gradients)])
        for ours, wanted in zip(*outcomes, strict=True):
            torch.testing.assert_close(
                ours, wanted, rtol=tolerance, atol=tolerance * wanted.abs().max().item()
            )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_usable_extension_is_used_on_a_gpu():
    device = torch.device("cuda", torch.cuda.current_device())
    for fault, (path, reason), fast in (
        (cuda.scan_refusal(device), pick_backend(device), "cuda"),
        (cuda.conv_refusal(device), pick_convolution(device), "causal_conv1d"),
    ):
        assert (path == fast) == (fault is None) and (fault is None or reason == fault)
