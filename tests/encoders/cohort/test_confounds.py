"""Confounds: fitted on train, applied elsewhere, unseen levels and missing values handled as stated."""

import numpy as np
import pandas as pd
import pytest

from encoders.cohort import ConfoundDesign, Residualizer
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
