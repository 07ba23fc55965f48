"""The fast scan against the readable one: values, gradients, direction, precision, stability, memory."""

import itertools

import pytest
import torch

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
@pytest.mark.parametrize("length", [1, 16, 17, 61])
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


@pytest.mark.parametrize("largest_step", [0.1, 1.1, 30.0])
def test_single_precision_error_against_double(largest_step):
    single = inputs(1, 16, 700, 4, largest_step=largest_step, dtype=torch.float32)
    exact = outcome([x.detach().double().requires_grad_() for x in single], "reference")
    for k, (ours, wanted) in enumerate(zip(outcome(single, "chunked"), exact, strict=True)):
        assert torch.isfinite(ours).all()
        error = (ours.double() - wanted).abs().max() / wanted.abs().max()
        assert error < (5e-6 if k == 0 else 1e-5)


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_keep_a_single_precision_state(dtype):
    args = inputs(1, 4, 900, 2, largest_step=0.01)
    u, delta, A, B, C = (x.detach().to(dtype) for x in args)
    y = selective_scan(u, delta, A, B, C, delta_softplus=False)
    assert y.dtype == dtype
    exact = selective_scan(*(x.double() for x in (u, delta, A, B, C)), delta_softplus=False)
    # only the output is rounded: nothing is lost over 900 steps
    torch.testing.assert_close(
        y.double(), exact.to(dtype).double(), rtol=2 * torch.finfo(dtype).eps, atol=1e-3
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
    with pytest.raises(ValueError, match="triton"):
        selective_scan(*inputs(1, 2, 3, 1), backend="triton")


def test_the_choice_of_backend_gives_its_reason():
    backend, reason = pick_backend(torch.device("cpu"))
    assert backend == "chunked" and "cpu" in reason
    backend, reason = pick_backend(torch.device("cuda"))
    assert (backend == "cuda") == ("was found" in reason)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_backend_agrees_on_a_gpu():
    backends = {"chunked", pick_backend(torch.device("cuda"))[0]}
    for reverse, backend in itertools.product([False, True], sorted(backends)):
        args = inputs(2, 8, 130, 4, dtype=torch.float32)
        exact = outcome(args, "reference", reverse=reverse)
        ours = outcome([x.detach().cuda().requires_grad_() for x in args], backend, reverse=reverse)
        for a, b in zip(ours, exact, strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4)
