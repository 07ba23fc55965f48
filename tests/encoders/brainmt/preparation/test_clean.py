"""Nuisance regression and filters: nilearn's numbers, means kept, gaps bridged, constants constant."""

import numpy as np
import pytest
from nilearn import signal

from encoders.brainmt.preparation import clean as cleaning
from encoders.brainmt.preparation.clean import clean
from encoders.brainmt.preparation.config import Clean
from encoders.brainmt.preparation.quarantine import ScanRefused
from encoders.runs.errors import InputError

TR, T = 2.0, 120
ALL = np.ones(T, bool)


@pytest.fixture
def scan():
    """(T, V) signal = slow + fast + confound, and the confound."""
    rng = np.random.default_rng(0)
    times = np.arange(T) * TR
    confound = rng.standard_normal((T, 2))
    slow, fast = np.sin(2 * np.pi * 0.004 * times), np.sin(2 * np.pi * 0.2 * times)
    middle = np.sin(2 * np.pi * 0.05 * times)
    values = 1000 + 100 * rng.random(7) + 5 * middle[:, None] + rng.standard_normal((T, 7))
    values += 8 * slow[:, None] + 6 * fast[:, None] + confound @ rng.standard_normal((2, 7)) * 10
    return values.astype("f4"), confound, middle


def test_it_is_what_nilearn_does_with_the_means_kept(scan, monkeypatch):
    values, confound, _ = scan
    before = values.copy()
    monkeypatch.setattr(cleaning, "BLOCK", 3)
    options = Clean(confounds=["x"], high_pass=0.01, low_pass=0.1, detrend=True)
    made = clean(values, ALL, confound, TR, options)
    theirs = signal.clean(
        before.astype("f8"),
        detrend=True,
        standardize=None,
        confounds=confound,
        high_pass=0.01,
        low_pass=0.1,
        t_r=TR,
    )
    np.testing.assert_allclose(made - before.mean(axis=0), theirs - theirs.mean(axis=0), atol=2e-3)
    np.testing.assert_allclose(made.mean(axis=0), before.mean(axis=0), rtol=1e-6)


def test_confounds_are_gone_and_the_band_is_left(scan):
    values, confound, middle = scan
    made = clean(values.copy(), ALL, confound, TR, Clean(confounds=["x"], high_pass=0.01, low_pass=0.1))
    left = made - made.mean(axis=0)
    assert np.abs(np.corrcoef(np.column_stack([confound, left]).T)[:2, 2:]).max() < 0.15
    assert np.corrcoef(np.column_stack([middle, left]).T)[0, 1:].min() > 0.9
    only_regressed = clean(values, ALL, confound, TR, Clean(confounds=["x"]))
    assert np.abs((confound - confound.mean(0)).T @ (only_regressed - only_regressed.mean(0))).max() < 0.1


def test_dropped_frames_do_not_touch_the_result(scan):
    values, confound, _ = scan
    kept = ALL.copy()
    kept[[0, 50, 51, T - 1]] = False
    options = Clean(confounds=["x"], high_pass=0.01, low_pass=0.1, detrend=True)
    made = clean(values.copy(), kept, confound, TR, options)
    spoiled, wild = values.copy(), confound.copy()
    spoiled[~kept], wild[~kept] = 1e5, -1e3
    np.testing.assert_array_equal(clean(spoiled, kept, wild, TR, options), made)
    assert made.shape == (T - 4, 7)
    whole = clean(values, ALL, confound, TR, options)[kept]
    assert np.corrcoef(made.ravel() - 1000, whole.ravel() - 1000)[0, 1] > 0.98


def test_a_voxel_of_which_nothing_is_left_is_constant(scan):
    values, confound, _ = scan
    values[:, 2] = 500
    values[:, 4] = (700 + 30 * confound[:, 1]).astype("f4")
    confound = np.column_stack([confound, values[:, 4]])
    made = clean(values, ALL, confound, TR, Clean(confounds=["x"]))
    assert (made[:, 2] == 500).all() and (made[:, 4] == made[0, 4]).all()


@pytest.mark.parametrize(
    ("options", "columns", "frames", "words"),
    [
        (
            Clean(low_pass=0.3),
            0,
            T,
            "E_TR: clean.low_pass is 0.3 Hz, but .* of 2 s holds frequencies below 0.25",
        ),
        (Clean(high_pass=0.01), 0, 33, "E_FRAMES: 33 frames are left, the filter needs 34"),
        (Clean(confounds=["x"]), 50, 50, "E_CONFOUNDS: 50 columns are to be regressed out of 50 frames"),
    ],
)
def test_what_cannot_be_done_is_refused(options, columns, frames, words):
    values = np.random.default_rng(0).standard_normal((frames, 3)).astype("f4")
    regressors = np.random.default_rng(1).standard_normal((frames, columns)) if columns else None
    with pytest.raises(ScanRefused, match=words):
        clean(values, np.ones(frames, bool), regressors, TR, options)


def test_as_many_frames_as_the_filter_needs_pass():
    values = np.random.default_rng(0).standard_normal((34, 3)).astype("f4")
    assert clean(values, np.ones(34, bool), None, TR, Clean(high_pass=0.01, low_pass=0.1)).shape == (34, 3)


def test_bands_that_leave_nothing_are_wrong_input():
    with pytest.raises(InputError, match="low_pass .0.01 Hz. is not above"):
        Clean(high_pass=0.1, low_pass=0.01)
    with pytest.raises(InputError, match="high_pass is -1"):
        Clean(high_pass=-1.0)
