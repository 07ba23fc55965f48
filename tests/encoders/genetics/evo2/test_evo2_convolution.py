"""Every path of the convolutions against sums by definition in fp64."""

import pytest
import torch

from encoders.genetics.evo2 import convolution
from encoders.genetics.evo2.convolution import causal_fir, causal_powers, powers_filter, powers_state

LENGTHS = [1, 2, 31, 32, 33, 127, 128, 129, 260]
CHANNELS, GROUPS, POLES = 6, 3, 4


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(x, taps):
    """y[b, c, t] = sum over s <= t of taps[filter of c, t - s] x[b, c, s]: the whole matrix, O(L²)."""
    t = torch.arange(x.shape[-1])
    lags = t[:, None] - t
    inside = (lags >= 0) & (lags < taps.shape[-1])
    matrix = torch.where(inside, taps[:, lags.clamp(0, taps.shape[-1] - 1)], 0.0)
    filters = torch.arange(x.shape[1]) // (x.shape[1] // taps.shape[0])
    return torch.einsum("cts,bcs->bct", matrix[filters], x)


def poles():
    """From nearly constant to gone after one position."""
    return -torch.exp(torch.linspace(-9, 1.5, CHANNELS * POLES, dtype=torch.float64)).view(CHANNELS, POLES)


@pytest.mark.parametrize("method", ["auto", "direct", "fft", "blocks"])
@pytest.mark.parametrize("taps", [1, 3, 7, 128, 150])
def test_an_explicit_filter_is_the_sum_by_definition(method, taps):
    h = numbers(GROUPS, taps, seed=1)
    for length in LENGTHS:
        x = numbers(2, CHANNELS, length)
        found = causal_fir(x, h, method=method)
        torch.testing.assert_close(found, by_definition(x, h), atol=1e-11, rtol=0)


@pytest.mark.parametrize("method", ["auto", "direct", "fft", "blocks"])
def test_an_implicit_filter_is_the_sum_by_definition(method):
    residues = numbers(CHANNELS, POLES, seed=2)
    for length in LENGTHS:
        x = numbers(2, CHANNELS, length)
        times = torch.arange(length, dtype=torch.float64)
        h = sum(residues[:, n, None] * torch.exp(poles()[:, n, None] * times) for n in range(POLES))
        torch.testing.assert_close(powers_filter(poles(), residues, length), h, atol=1e-12, rtol=0)
        found = causal_powers(x, poles(), residues, method=method)
        torch.testing.assert_close(found, by_definition(x, h), atol=1e-11, rtol=0)


def test_lengths_where_blocks_are_chosen_agree_with_fft_and_with_the_sum(monkeypatch):
    monkeypatch.setattr(convolution, "FFT_UP_TO", 0)
    h, residues = numbers(GROUPS, 128, seed=1), numbers(CHANNELS, POLES, seed=2)
    for length in (600, 2_100):  # blocks of 64 and of 128
        x = numbers(1, CHANNELS, length)
        for method in ("fft", "direct"):
            torch.testing.assert_close(causal_fir(x, h), causal_fir(x, h, method=method), atol=1e-11, rtol=0)
            torch.testing.assert_close(
                causal_powers(x, poles(), residues),
                causal_powers(x, poles(), residues, method=method),
                atol=1e-10,
                rtol=0,
            )


@pytest.mark.parametrize("method", ["direct", "fft", "blocks"])
def test_a_filter_goes_on_from_what_was_kept(method):
    h, residues, x = numbers(GROUPS, 128, seed=1), numbers(CHANNELS, POLES, seed=2), numbers(2, CHANNELS, 300)
    whole, powers = causal_fir(x, h), causal_powers(x, poles(), residues)
    state = powers_state(x, poles())
    for cut in (1, 64, 127, 128, 200, 299):
        first, rest = x[..., :cut], x[..., cut:]
        history = torch.cat([torch.zeros(2, CHANNELS, 127, dtype=x.dtype), first], -1)[..., -127:]
        found = causal_fir(rest, h, history=history, method=method)
        torch.testing.assert_close(found, whole[..., cut:], atol=1e-11, rtol=0)
        kept = powers_state(first, poles())
        found = causal_powers(rest, poles(), residues, state=kept, method=method)
        torch.testing.assert_close(found, powers[..., cut:], atol=1e-11, rtol=0)
        torch.testing.assert_close(powers_state(rest, poles(), state=kept), state, atol=1e-11, rtol=0)


def test_blocks_move_nothing_before_a_change_and_fft_only_its_rounding():
    h, x = numbers(GROUPS, 128, seed=1).float(), numbers(1, CHANNELS, 400).float()
    other = x.clone()
    other[..., 250:] += 1e3
    for method, allowed in (("direct", 0.0), ("blocks", 0.0), ("fft", 1e-2)):
        a, b = (causal_fir(v, h, method=method)[..., :250] for v in (x, other))
        assert (a - b).abs().max() <= allowed
    residues, p = numbers(CHANNELS, POLES, seed=2).float(), poles().float()
    a, b = (causal_powers(v, p, residues, method="blocks")[..., :250] for v in (x, other))
    assert torch.equal(a, b)


def test_fp32_keeps_six_digits_of_a_long_memory():
    """Poles of 0.9999: what is carried over 80 blocks is as good as what one FFT gives."""
    x = numbers(1, 2, 10_000)
    slow = torch.full((2, 2), -1e-4, dtype=torch.float64) * torch.tensor([[1, 2]])
    residues = torch.ones(2, 2, dtype=torch.float64)
    exact = causal_powers(x, slow, residues, method="fft")
    for method in ("blocks", "fft"):
        found = causal_powers(x.float(), slow.float(), residues.float(), method=method).double()
        assert (found - exact).abs().max() < 2e-6 * exact.abs().max() * 10
