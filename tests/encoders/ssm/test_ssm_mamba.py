"""The Mamba mixers: directions, tying, initial values, names, precision."""

import pytest
import torch

from encoders.ssm import BiMamba, MambaMixer, RMSNorm
from encoders.ssm.convolution import directional_conv

SECOND = {"conv1d_b": "conv1d", "x_proj_b": "x_proj", "dt_proj_b": "dt_proj", "A_b_log": "A_log", "D_b": "D"}


def halves(both: BiMamba) -> tuple[MambaMixer, MambaMixer]:
    """The two causal mixers that a bidirectional one stands for, with its projections in each."""
    ahead = MambaMixer(6, d_state=3, dt_rank=2).double()
    back = MambaMixer(6, d_state=3, dt_rank=2).double()
    state = both.state_dict()
    first = {k: v for k, v in state.items() if k.partition(".")[0] not in SECOND}
    second = dict(first)
    for key, value in state.items():
        head, dot, tail = key.partition(".")
        if head in SECOND:
            second[SECOND[head] + dot + tail] = value
    ahead.load_state_dict(first)
    back.load_state_dict(second)
    return ahead, back


@pytest.fixture
def both():
    torch.manual_seed(0)
    mixer = BiMamba(6, d_state=3, dt_rank=2).double()
    with torch.no_grad():
        mixer.D_b.mul_(0.5)  # so that the directions differ in everything
    return mixer


def test_bidirectional_equals_two_flipped_causal_mixers_with_tied_projections(both):
    ahead, back = halves(both)
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    torch.testing.assert_close(both(x), ahead(x) + back(x.flip(1)).flip(1))
    torch.testing.assert_close(back(x, reverse=True), back(x.flip(1)).flip(1))


def test_bidirectional_gradients(both):
    x = torch.randn(1, 5, 6, dtype=torch.float64, requires_grad=True)
    small = [p for p in both.parameters() if p.numel() <= 48]
    assert torch.autograd.gradcheck(lambda x, *p: both(x), (x, *small), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("length", [1, 2, 3, 8])
def test_a_causal_mixer_ignores_the_future_and_a_reversed_one_the_past(length):
    mixer = MambaMixer(6, d_state=3).double()
    x = torch.randn(2, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(mixer(x)[:, :length], mixer(x[:, :length]))
    torch.testing.assert_close(mixer(x, reverse=True)[:, -length:], mixer(x[:, -length:], reverse=True))


def test_both_ways_of_convolving_agree():
    torch.manual_seed(0)
    x = torch.randn(2, 7, 5, dtype=torch.float64)
    weight, bias = torch.randn(2, 5, 1, 4, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    args = [v.requires_grad_() for v in (x, weight, bias)]
    ours = directional_conv(*args, reverse=(False, True))
    library = torch.nn.functional.conv1d(x.mT, weight[0], bias[0], padding=3, groups=5)[..., :7].mT
    torch.testing.assert_close(ours[0], library)
    flipped = torch.nn.functional.conv1d(x.flip(1).mT, weight[1], bias[1], padding=3, groups=5)[..., :7].mT
    torch.testing.assert_close(ours[1], flipped.flip(1))
    assert torch.autograd.gradcheck(lambda *a: directional_conv(*a, reverse=(False, True)), args)


def test_initial_values_are_those_of_mamba_ssm():
    torch.manual_seed(0)
    mixer = BiMamba(64, d_state=8)
    for bias in (mixer.dt_proj.bias, mixer.dt_proj_b.bias):
        step = torch.nn.functional.softplus(bias)
        assert step.min() >= 0.001 and step.max() <= 0.1001 and step.max() / step.min() > 20
    torch.testing.assert_close(mixer.A_log.exp()[3], torch.arange(1.0, 9.0))
    assert mixer.dt_rank == 4 and mixer.dt_proj.weight.abs().max() <= 0.5


def test_state_dict_has_the_names_and_shapes_of_mamba_ssm():
    shapes = {name: tuple(p.shape) for name, p in MambaMixer(32, d_state=16).named_parameters()}
    assert shapes == {
        "A_log": (64, 16),
        "D": (64,),
        "in_proj.weight": (128, 32),
        "conv1d.weight": (64, 1, 4),
        "conv1d.bias": (64,),
        "x_proj.weight": (34, 64),
        "dt_proj.weight": (64, 2),
        "dt_proj.bias": (64,),
        "out_proj.weight": (32, 64),
    }


def test_mixed_precision_stays_close(both):
    mixer, x = both.float(), torch.randn(2, 9, 6)
    exact = mixer(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mixer(x)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), exact, rtol=0.1, atol=0.02)


def test_rms_norm_is_computed_wide():
    norm, x = RMSNorm(5), 300 * torch.randn(3, 5)
    wanted = x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), wanted)
    # the squares would overflow in fp16
    torch.testing.assert_close(norm.half()((10 * x).half()), wanted.half(), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("model", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("stream", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rms_norm_gives_the_dtype_of_its_weight_and_loses_nothing_before(model, stream):
    norm, x = RMSNorm(5).to(model), torch.randn(3, 5).to(stream)
    exact = x.double() / (x.double().square().mean(1, keepdim=True) + norm.eps).sqrt()
    assert norm(x).dtype == model
    rounding = torch.finfo(model).eps
    if torch.float64 not in (model, stream):
        rounding = max(rounding, 4 * torch.finfo(torch.float32).eps)
    torch.testing.assert_close(norm(x).double(), exact, rtol=rounding, atol=1e-12)


def test_under_autocast_rms_norm_keeps_the_dtype_of_its_input():
    with torch.autocast("cpu", torch.bfloat16):
        assert RMSNorm(5)(torch.randn(3, 5)).dtype == torch.float32
        assert RMSNorm(5)(torch.randn(3, 5).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_mixer_cast_to_half_precision_runs_and_trains_close_to_the_exact_one(both, dtype):
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    exact = both(x)
    exact.square().sum().backward()
    wanted = {name: p.grad.clone() for name, p in both.named_parameters()}
    both.zero_grad(set_to_none=True)
    half = both.to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    half.square().sum().backward()
    tolerance = 16 * torch.finfo(dtype).eps
    scale = exact.abs().max().item()
    torch.testing.assert_close(half.double(), exact, rtol=0, atol=tolerance * scale)
    for name, p in both.named_parameters():
        assert p.grad.dtype == dtype
        scale = wanted[name].abs().max().item()
        torch.testing.assert_close(
            p.grad.double(),
            wanted[name],
            rtol=0,
            atol=tolerance * scale,
            msg=lambda m, name=name: f"{name}: {m}",
        )
