"""Confounds: fitted on train, applied elsewhere, unseen levels and missing values handled as stated."""

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import CubicSpline

from encoders.cohort import ConfoundDesign, Residualizer
from encoders.cohort.confounds import columns_of
from encoders.runs.errors import InputError


def _people(num, seed, sites=("a", "b")):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.normal(50, 9, num),
            "sex": rng.choice(["F", "M"], num),
            "site": rng.choice(list(sites), num),
        }
    )


def _data(frame, rng):
    male, b = (frame["sex"] == "M").to_numpy(float), (frame["site"] == "b").to_numpy(float)
    age = (frame["age"].to_numpy() - 50) / 9
    columns = np.stack([age**2 + male, age * male - 2 * b, rng.normal(size=len(frame))], axis=1)
    return (columns + 0.01 * rng.normal(size=columns.shape)).astype(np.float32)


def test_residuals_of_unseen_people_hold_no_trace_of_the_confounds():
    rng = np.random.default_rng(0)
    train, test = _people(400, 1), _people(300, 2)
    cleaner = Residualizer().fit(_data(train, rng), train)
    left = cleaner.transform(_data(test, rng), test)
    assert left[:, :2].std() < 0.02
    assert left[:, 2].std() > 0.9  # what is no confound stays
    assert cleaner.design.used_ == ["age", "age^2", "sex", "age:sex", "site"]
    assert "head_size" in cleaner.design.absent_


def test_an_unseen_site_gets_the_mean_site_effect_and_is_recorded():
    train, test = _people(400, 1), _people(50, 2, sites=("c",))
    design = ConfoundDesign(terms=("site",)).fit(train)
    assert np.abs(design.transform(test)).max() == 0
    assert design.unseen_ == {"site": ["c"]}
    assert abs(design.transform(train).mean()) < 1e-9


def test_missing_values_get_the_mean():
    train = _people(100, 1)
    design = ConfoundDesign(terms=("age",)).fit(train)
    gap = train.head(2).assign(age=[np.nan, train["age"].mean()])
    np.testing.assert_allclose(design.transform(gap), 0, atol=1e-12)


def test_too_few_people_is_one_sentence():
    few = _people(8, 1)
    with pytest.raises(InputError, match="8 training people are too few for 6 confound columns"):
        Residualizer().fit(_data(few, np.random.default_rng(0)), few)


def test_a_spline_takes_out_any_natural_cubic_curve_also_of_people_older_than_all_in_training():
    train, test = _people(400, 1), _people(300, 2)
    test.loc[:20, "age"] = 95.0  # far outside
    knots = np.quantile(train["age"], [0.05, 0.275, 0.5, 0.725, 0.95], method="lower")
    curve = CubicSpline(knots, [0.0, 3.0, -1.0, 2.0, 0.5], bc_type="natural")

    def effect(frame):
        age = frame["age"].to_numpy()
        ends = np.clip(age, knots[0], knots[-1])  # straight outside the knots
        inside = curve(ends) + (age - ends) * curve(ends, 1)
        return (inside * (1 + (frame["sex"] == "M").to_numpy()))[:, None]

    left = {}
    for terms in (("age", "age^2", "sex"), ("spline(age)", "sex"), ("spline(age)", "sex", "spline(age):sex")):
        cleaner = Residualizer(design=ConfoundDesign(terms=terms)).fit(effect(train), train)
        left[terms] = np.abs(cleaner.transform(effect(test), test)).max()
    parabola, same_curve, curve_by_sex = left.values()
    assert curve_by_sex < 1e-9 < 0.1 < same_curve
    assert parabola > 1


def test_knots_of_a_column_with_few_values_are_as_many_as_its_values_carry():
    train = _people(100, 1).assign(age=np.repeat([20.0, 30.0], 50))
    assert ConfoundDesign(terms=("spline(age)",)).fit(train).transform(train).shape == (100, 1)


def test_terms_join_squares_splines_and_more_than_two_columns():
    train = _people(200, 1).assign(mean_fd=np.random.default_rng(3).gamma(2, 0.1, 200))
    design = ConfoundDesign(terms=("age^2:sex", "age:sex:site", "spline(mean_fd):sex")).fit(train)
    age = (train["age"] - train["age"].mean()) / train["age"].std(ddof=0)
    sex = (train["sex"] == "F") - (train["sex"] == "F").mean()
    site = (train["site"] == "a") - (train["site"] == "a").mean()
    expected = np.stack([age**2 * sex, age * sex * site], axis=1)
    columns = design.transform(train)
    assert columns.shape == (200, 2 + 4)
    np.testing.assert_allclose(columns[:, :2], expected / expected.std(axis=0), atol=1e-12)


def test_columns_of_a_term_and_terms_that_are_not_understood():
    assert columns_of("spline(age):sex^2:site") == ["age", "sex", "site"]
    for bad in ("age^3", "age:", "spline(age)^2"):
        with pytest.raises(InputError, match=r"confound term.*is not understood; NAME, NAME\^2, spline"):
            ConfoundDesign(terms=(bad,)).fit(_people(20, 1))
    with pytest.raises(InputError, match="sex holds no numbers, so it has no spline"):
        ConfoundDesign(terms=("spline(sex)",)).fit(_people(20, 1))
