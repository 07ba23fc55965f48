"""The fast scan against the readable one: values, gradients, direction, precision, stability, memory."""

import itertools
import subprocess
import sys

import pytest
import torch

from encoders.runs.errors import InputError
from encoders.ssm import chunked
from encoders.ssm.scan import pick_backend, scan_directions, selective_scan


def inputs(batch, width, length, state, *, dtype=torch.float64, largest_step=0.1, seed=0):
    """u, delta, A, B, C with unequal axes; delta is positive already."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    delta = torch.rand(batch, width, length, generator=generator, dtype=dtype) * largest_step
    rates = -torch.arange(1, state + 1, dtype=dtype).expand(width, state) * torch.rand(
        width, 1, generator=generator, dtype=dtype
    )
    made = [
        normal(batch, width, length),
        delta,
        rates,
        normal(batch, state, length),
        normal(batch, state, length),
    ]
    return [x.contiguous().requires_grad_() for x in made]


def outcome(args, backend, **options):
    y = selective_scan(*args, backend=backend, delta_softplus=False, **options)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y.dtype)
    return [y, *torch.autograd.grad(y, args, weights)]


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "recomputed"])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 31, 32, 33, 61])
@pytest.mark.parametrize("reverse", [False, True])
def test_chunked_equals_reference_with_gradients(monkeypatch, reverse, length, keep):
    monkeypatch.setattr(chunked, "CHUNK_NUMBERS", 1)  # the smallest chunk, 16 steps: borders are crossed
    if not keep:
        monkeypatch.setattr(chunked, "KEEP_NUMBERS", 0)
    args = inputs(2, 5, length, 3, largest_step=1.1)
    for ours, wanted in zip(
        outcome(args, "chunked", reverse=reverse), outcome(args, "reference", reverse=reverse), strict=True
    ):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("layout", ["time innermost", "channels innermost", "every other step"])
@pytest.mark.parametrize("reverse", [(False,), (True,), (False, True), (True, True, False)])
def test_any_layout_and_any_directions_give_the_same(monkeypatch, layout, reverse):
    monkeypatch.setattr(chunked, "CHUNK_NUMBERS", 1)
    monkeypatch.setattr(chunked, "KEEP_NUMBERS", 0)
    groups = [inputs(2, 5, 34, 3, seed=seed) for seed in range(len(reverse))]
    plain = [torch.stack(same).detach() for same in zip(*groups, strict=True)]

    def laid_out(x):
        if x.shape[-1] != 34 or layout == "time innermost":
            return x
        return x.mT.contiguous().mT if layout == "channels innermost" else x.repeat_interleave(2, 3)[..., ::2]

    def outcome(make, backend):
        args = [make(x).requires_grad_() for x in plain]
        y = scan_directions(*args, reverse=reverse, delta_softplus=False, backend=backend)
        return [y, *torch.autograd.grad(y.sin().sum(), args)]

    ours = outcome(laid_out, "chunked")
    for a, b in zip(ours, outcome(lambda x: x.clone(), "reference"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    if layout != "every other step":
        assert ours[0].stride() == laid_out(plain[0]).stride()


# step sizes from nothing to far beyond what training makes, and the range where log-space scans give NaN
@pytest.mark.parametrize("steps", [(0.0, 0.1), (0.3, 1.1), (0.0, 30.0), (30.0, 30.0)])
@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_single_precision_error_against_double(backend, steps):
    low, high = steps
    single = inputs(1, 16, 700, 4, largest_step=high - low, dtype=torch.float32)
    with torch.no_grad():
        single[1].add_(low)
    exact = outcome([x.detach().double().requires_grad_() for x in single], "reference")
    for k, (ours, wanted) in enumerate(zip(outcome(single, backend), exact, strict=True)):
        assert torch.isfinite(ours).all()
        error = (ours.double() - wanted).abs().max() / wanted.abs().max()
        assert error < (5e-6 if k == 0 else 1e-5)


def test_a_second_backward_gives_the_same_gradients():
    args = inputs(2, 5, 40, 3)
    y = selective_scan(*args, backend="chunked")
    first = torch.autograd.grad(y.sum(), args, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), args), first)


def test_inputs_are_left_as_they_were():
    for layout in (lambda x: x.clone(), lambda x: x.mT.clone().mT):
        args = [layout(x.detach()) for x in inputs(1, 5, 40, 3)]
        before = [x.clone() for x in args]
        selective_scan(*args, delta_softplus=False, backend="chunked")
        for now, then in zip(args, before, strict=True):
            assert torch.equal(now, then)


def test_reverse_is_flip_scan_flip():
    u, delta, A, B, C = inputs(2, 3, 40, 2)
    flipped = selective_scan(*(x.flip(2) for x in (u, delta)), A, B.flip(2), C.flip(2)).flip(2)
    torch.testing.assert_close(selective_scan(u, delta, A, B, C, reverse=True), flipped)


def test_directions_side_by_side_equal_one_after_the_other():
    ahead, back = inputs(2, 3, 40, 2, seed=1), inputs(2, 3, 40, 2, seed=2)
    both = [torch.stack(pair) for pair in zip(ahead, back, strict=True)]
    y = scan_directions(*both)
    torch.testing.assert_close(y[0], selective_scan(*ahead))
    torch.testing.assert_close(y[1], selective_scan(*back, reverse=True))
    torch.testing.assert_close(y, scan_directions(*both, backend="reference"))


def test_skip_gate_and_bias_mean_what_mamba_ssm_means():
    u, delta, A, B, C = inputs(2, 3, 11, 2)
    skip, bias = torch.randn(3, dtype=u.dtype), torch.randn(3, dtype=u.dtype)
    gate = torch.randn_like(u)
    whole = selective_scan(u, delta, A, B, C, D=skip, z=gate, delta_bias=bias)
    step = torch.nn.functional.softplus(delta + bias[:, None])
    inner = selective_scan(u, step, A, B, C, delta_softplus=False, backend="reference")
    torch.testing.assert_close(
        whole, (inner + skip[:, None] * u) * gate * torch.sigmoid(gate), rtol=1e-10, atol=1e-11
    )


# rounding of the result only: nothing is lost over 900 steps, whatever the inputs are stored in
TOLERANCES = {
    torch.float64: (1e-10, 1e-11),
    torch.float32: (1e-5, 1e-5),
    torch.bfloat16: (2 * torch.finfo(torch.bfloat16).eps, 1e-3),
    torch.float16: (2 * torch.finfo(torch.float16).eps, 1e-3),
}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_every_dtype_keeps_at_least_a_single_precision_state(backend, reverse, dtype):
    args = [x.detach().to(dtype).requires_grad_() for x in inputs(1, 4, 900, 2, largest_step=0.01)]
    ours = outcome(args, backend, reverse=reverse)
    wide = [x.detach().double().requires_grad_() for x in args]
    y = selective_scan(*wide, backend="reference", delta_softplus=False, reverse=reverse)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(dtype).double()
    exact = [y, *torch.autograd.grad(y, wide, weights)]
    rtol, atol = TOLERANCES[dtype]
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(
            a.double(), b.to(dtype).double(), rtol=rtol, atol=atol * max(1, b.abs().max().item())
        )


def test_backward_keeps_only_border_states_of_long_sequences():
    args = inputs(1, 64, 4160, 16, dtype=torch.float32)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        y = selective_scan(*args, delta_softplus=False, backend="chunked")
    node = y.grad_fn
    while "_Scan" not in node.name():
        node = node.next_functions[0][0]
    assert node.kept == []
    borders = sum(start.numel() for start in node.starts if start is not None)
    assert borders < 0.05 * 64 * 16 * 4160
    assert sum(saved) < 0.2 * 64 * 16 * 4160


def test_an_unknown_backend_is_named():
    with pytest.raises(InputError, match="triton"):
        selective_scan(*inputs(1, 2, 3, 1), backend="triton")


def test_a_kernel_that_cannot_run_is_refused_with_the_reason_when_asked_for_by_name():
    with pytest.raises(InputError, match="device cpu"):
        selective_scan(*inputs(1, 2, 3, 1), backend="cuda")


def test_the_choice_of_backend_gives_its_reason():
    backend, reason = pick_backend(torch.device("cpu"))
    assert backend == "chunked" and "cpu" in reason
    for refused, named in (({"dtype": torch.float64}, "float64"), ({"d_state": 257}, "257")):
        backend, reason = pick_backend(torch.device("cuda"), **refused)
        assert backend == "chunked" and named in reason


COMPILED = """
import torch
from torch._dynamo.testing import CompileCounter
from encoders.ssm import BiMamba, MambaMixer

for kind in (MambaMixer, BiMamba):
    torch._dynamo.reset()
    torch.manual_seed(0)
    mixer, counter = kind(6, d_state=3, dt_rank=2), CompileCounter()
    compiled = torch.compile(mixer, backend=counter)
    for _ in range(3):
        x = torch.randn(2, 9, 6)
        outcomes = []
        for run in (mixer, compiled):
            y = run(x)
            outcomes.append([y, *torch.autograd.grad(y.square().sum(), list(mixer.parameters()))])
        torch.testing.assert_close(*outcomes)
    assert counter.frame_count == 2, counter.frame_count
"""


def test_a_compiled_mixer_has_one_graph_before_the_scan_and_one_behind():
    # in a process of its own: here, every function is wrapped in checks of its types, which break graphs too
    subprocess.run([sys.executable, "-c", COMPILED], check=True)


def test_eager_scans_do_not_load_the_compiler():
    program = "import sys, torch; from encoders.ssm import MambaMixer; MambaMixer(4)(torch.randn(1, 3, 4)).sum().backward()"
    check = "assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"{program}; {check}"], check=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_backend_agrees_on_a_gpu(dtype):
    backends = {"chunked", pick_backend(torch.device("cuda"))[0]}
    tolerance = 1e-4 if dtype == torch.float32 else 8 * torch.finfo(dtype).eps
    for reverse, backend in itertools.product([False, True], sorted(backends)):
        args = [x.detach().to(dtype).requires_grad_() for x in inputs(2, 8, 130, 4, dtype=torch.float32)]
        exact = outcome([x.detach().double().requires_grad_() for x in args], "reference", reverse=reverse)
        ours = outcome([x.detach().cuda().requires_grad_() for x in args], backend, reverse=reverse)
        for a, b in zip(ours, exact, strict=True):
            scale = b.abs().max().item()
            torch.testing.assert_close(a.cpu().double(), b, rtol=tolerance, atol=tolerance * scale)
