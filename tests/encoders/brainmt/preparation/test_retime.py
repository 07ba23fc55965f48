"""Resampling in time: band-limited signals come back, what is too fast is filtered out, gaps stay gaps."""

import numpy as np
import pytest
from scipy.signal import resample_poly

from encoders.brainmt.preparation.retime import retime

INNER = slice(15, -15)


def tones(times, *frequencies):
    """(T, V): one sine per frequency in Hz, with an offset."""
    return np.stack([np.sin(2 * np.pi * f * times + f) + 100 for f in frequencies], axis=1).astype("f4")


@pytest.mark.parametrize(("tr", "wanted"), [(0.735, 1.0), (0.72, 0.8), (2.0, 0.8), (0.8, 0.72), (1.0, 2.0)])
def test_what_both_rates_can_hold_is_kept(tr, wanted):
    slowest = 0.5 / max(tr, wanted)
    frequencies = [0.1 * slowest, 0.5 * slowest, 0.8 * slowest]
    values = tones(np.arange(300) * tr, *frequencies)
    made, pieces = retime(values, [[0, 300]], tr, wanted)
    assert pieces == [[0, len(made)]] and len(made) == int(299 * tr / wanted + 1e-6) + 1
    inner = slice(edge := int(12 * max(tr, wanted) / wanted), -edge)
    expected = tones(np.arange(len(made)) * wanted, *frequencies)
    np.testing.assert_allclose(made[inner], expected[inner], atol=5e-3)


def test_what_the_new_rate_cannot_hold_is_filtered_out_and_not_folded_back():
    values = tones(np.arange(300) * 0.735, 0.62)  # 0.38 Hz after naive picking of every second
    made, _ = retime(values, [[0, 300]], 0.735, 1.0)
    assert np.ptp(made[INNER]) < 0.01


def test_it_agrees_with_scipys_resampling_where_the_ratio_is_rational():
    values = np.random.default_rng(0).standard_normal((400, 5)).astype("f4")
    made, _ = retime(values, [[0, 400]], 0.735, 1.0)
    theirs = resample_poly(values.astype("f8"), 147, 200, axis=0)[: len(made)]
    np.testing.assert_allclose(made[20:-20], theirs[20:-20], atol=5e-3)


def test_constants_and_straight_lines_stay_what_they_are_to_the_ends():
    times = np.arange(60) * 0.8
    values = np.stack([np.full(60, 7.0), 3 * times], axis=1).astype("f4")
    made, _ = retime(values, [[0, 60]], 0.8, 1.1)
    np.testing.assert_allclose(made[:, 0], 7, rtol=1e-6)
    np.testing.assert_allclose(made[:, 1], 3 * np.arange(len(made)) * 1.1, atol=0.2)


def test_segments_do_not_see_each_other():
    values = np.random.default_rng(0).standard_normal((90, 4)).astype("f4")
    made, pieces = retime(values, [[0, 50], [50, 51], [51, 90]], 0.8, 1.0)
    assert pieces == [[0, 40], [40, 41], [41, 72]]
    for (first, last), (start, end) in zip([[0, 50], [50, 51], [51, 90]], pieces, strict=True):
        alone, _ = retime(values[first:last], [[0, last - first]], 0.8, 1.0)
        np.testing.assert_array_equal(made[start:end], alone)
    np.testing.assert_array_equal(made[40], values[50])
