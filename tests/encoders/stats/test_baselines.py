"""Baselines: they find what is there, find nothing where nothing is, and learn from training people alone."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from encoders.stats import baselines
from encoders.stats.baselines import (
    class_shares,
    logistic_prediction,
    mean_prediction,
    ridge_prediction,
)
from encoders.stats.metrics import classification_scores, regression_scores


def cohort(seed, *, train=90, others=60, features=40, signal=1.0):
    """Features, a linear trait with as much noise as signal, families of two."""
    rng = np.random.default_rng(seed)
    x = 3 + rng.standard_normal((train + others, features)) * np.linspace(0.1, 10, features)
    direction = rng.standard_normal(features) / np.linspace(0.1, 10, features) / np.sqrt(features)
    trait = signal * (x - 3) @ direction + 0.5 * rng.standard_normal(train + others)
    return (
        x[:train],
        trait[:train],
        x[train:],
        trait[train:],
        np.repeat(np.arange(train // 2).astype(str), 2).tolist(),
    )


def test_the_mean_and_the_shares_are_those_of_the_training_people():
    np.testing.assert_allclose(mean_prediction(np.array([1.0, 2.0, 6.0]), 2), [3.0, 3.0])
    shares = class_shares(np.array([0, 2, 2, 0]), 4, 3)
    np.testing.assert_allclose(shares, np.tile([0.5, 0, 0.5, 0], (3, 1)))


def test_ridge_finds_a_linear_trait_and_nothing_among_permuted_labels():
    x, trait, others, wanted, families = cohort(0)
    assert regression_scores(ridge_prediction(x, trait, others, families=families), wanted)["r2"] > 0.4
    null = []
    for seed in range(20):
        permuted = np.random.default_rng(seed).permutation(trait)
        null.append(regression_scores(ridge_prediction(x, permuted, others, families=families), wanted)["r2"])
    assert np.mean(null) < 0.03 and np.mean(null) > -0.25


def test_logistic_finds_classes_and_nothing_among_permuted_labels():
    x, trait, others, wanted, families = cohort(1)
    for edges in ([0.0], [-0.5, 0.5]):
        classes = len(edges) + 1
        labels, truth = np.digitize(trait, edges), np.digitize(wanted, edges)
        p = logistic_prediction(x, labels, others, classes=classes, families=families)
        np.testing.assert_allclose(p.sum(axis=1), 1)
        assert classification_scores(p, truth)["auroc"] > 0.75
        null = []
        for seed in range(3):
            permuted = np.random.default_rng(seed).permutation(labels)
            p = logistic_prediction(x, permuted, others, classes=classes, families=families)
            null.append(classification_scores(p, truth)["auroc"])
        assert 0.40 < np.mean(null) < 0.60


def test_more_features_than_people_are_the_same_model_after_the_rotation():
    x, trait, others, _, _ = cohort(2, train=20, others=7, features=50)
    scaler = StandardScaler().fit(x)
    direct = Ridge(alpha=30.0).fit(scaler.transform(x), trait).predict(scaler.transform(others))
    rotated, turned = baselines._rotate(x, others)
    assert rotated.shape == (20, 19)
    np.testing.assert_allclose(Ridge(alpha=30.0).fit(rotated, trait).predict(turned), direct, rtol=1e-6)


@pytest.mark.parametrize("features", [6, 90])
def test_ridge_is_that_of_scikit_learn_with_the_penalty_chosen_alike(features):
    x, trait, others, _, families = cohort(8, train=40, others=9, features=features)
    scaler = StandardScaler().fit(x)
    target = (trait - trait.mean()) / trait.std()
    inner = list(GroupKFold(5).split(x, groups=families))
    model = RidgeCV(alphas=baselines.ALPHAS, cv=inner, scoring="neg_mean_squared_error")
    wanted = (
        model.fit(scaler.transform(x), target).predict(scaler.transform(others)) * trait.std() + trait.mean()
    )
    np.testing.assert_allclose(ridge_prediction(x, trait, others, families=families), wanted, rtol=1e-6)


def test_predictions_do_not_depend_on_who_else_is_predicted():
    x, trait, others, _, families = cohort(3)
    labels = (trait > 0).astype(int)
    ridge = ridge_prediction(x, trait, others, families=families)
    logistic = logistic_prediction(x, labels, others, classes=2, families=families)
    moved = others.copy()
    moved[5:] *= -100
    np.testing.assert_allclose(ridge_prediction(x, trait, moved, families=families)[:5], ridge[:5])
    again = logistic_prediction(x, labels, moved, classes=2, families=families)
    np.testing.assert_allclose(again[:5], logistic[:5])


def test_the_inner_folds_keep_families_together(monkeypatch):
    """Twins with one genome and noise for a trait: a penalty chosen across twins would fit the noise."""
    rng = np.random.default_rng(4)
    x = np.repeat(rng.standard_normal((30, 60)), 2, axis=0)
    trait = np.repeat(rng.standard_normal(30), 2)
    others = rng.standard_normal((50, 60))
    kept = ridge_prediction(x, trait, others, families=np.repeat(np.arange(30), 2).astype(str).tolist())
    cut = ridge_prediction(x, trait, others, families=[str(k) for k in range(60)])
    assert kept.std() < 0.5 * cut.std()


def test_nothing_to_learn_from_gives_the_mean_without_a_warning():
    x, trait, others, _, families = cohort(5, train=20, others=6, features=3)
    constant = np.full_like(x, 1e8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(ridge_prediction(constant, trait, others, families=families), trait.mean())
        np.testing.assert_allclose(ridge_prediction(x, trait, others, families=["one"] * 20), trait.mean())
        p = logistic_prediction(x, np.zeros(20, int), others, classes=2, families=families)
        np.testing.assert_allclose(p, np.tile([1.0, 0.0], (6, 1)))
        rare = np.zeros(20, int)
        rare[3] = 2  # a class of one person
        p = logistic_prediction(x, rare, others, classes=4, families=families)
    assert (p[:, [1, 3]] == 0).all() and p.sum(axis=1) == pytest.approx(1)
