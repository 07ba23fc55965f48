"""Scores, tests, words, table and page made from predictions: right numbers, honest words, nobody in what is shared."""

import csv
import stat
from dataclasses import replace

import numpy as np
import pytest

from align.plots import as_png, as_svg
from encoders.brainmt.prediction.config import PredictBrainMT
from encoders.brainmt.prediction.page import private_figures, render, shared_figures
from encoders.brainmt.prediction.plots import bins_of, confusion_counts
from encoders.brainmt.prediction.predict import Predictions
from encoders.brainmt.prediction.scores import conclusion, interval_words, report, scored, summary, suppressed
from encoders.brainmt.prediction.table import write_figures, write_table
from encoders.brainmt.targets import Target
from encoders.stats.metrics import classification_scores, regression_scores

MODELS = ("brainmt", "connectome_tangent", "confounds", "mean")


def predictions(seed=0, size=60, *, classes=(), skill=(1.0, 0.5, 0.0, None), missing=3):
    """People in families of two, one target, models of given skill; the last ``missing`` have no label."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(size)
    noisy = {
        name: np.zeros(size) if k is None else k * truth + 0.6 * rng.standard_normal(size)
        for name, k in zip(MODELS, skill, strict=True)
    }
    if classes:
        target = Target(name="patient", classes=classes)
        edges = np.quantile(truth, np.arange(1, len(classes)) / len(classes))
        wanted = np.digitize(truth, edges).astype(float)
        middles = np.linspace(-1.5, 1.5, len(classes))
        logits = {name: -np.square(p[:, None] - middles) for name, p in noisy.items()}
        predicted = {name: np.exp(v) / np.exp(v).sum(1, keepdims=True) for name, v in logits.items()}
    else:
        target, wanted, predicted = Target(name="trait", mean=50.0, sd=10.0), 50 + 10 * truth, {}
        predicted = {name: 50 + 10 * p for name, p in noisy.items()}
    wanted[size - missing :] = np.nan
    told = {
        "people_asked": size + 2,
        "people_without_scan": 2,
        "unchecked": [],
        "models": [
            {"fold": None, "weights_sha256": "w" * 64, "split_digest": "s" * 64, "frames_per_window": 8}
        ],
        "baselines": [
            {
                "connectome": {"parcels": 9, "parcels_from": "Ward", "parcels_without_voxels_in_some_run": 0},
                "confounds": {"used": {target.name: ["age"]}, "absent": ["site"]},
            }
        ],
    }
    return Predictions(
        ids=[f"sub-{k:04d}" for k in range(size)],
        parts=["test"] * size,
        folds=None,
        unseen=np.ones(size, bool),
        families=[str(k // 2) for k in range(size)],
        targets=[target],
        wanted=[wanted],
        predicted={name: [p] for name, p in predicted.items()},
        told=told,
    )


def content_of(found, people="test", **options):
    return report(found, PredictBrainMT(people=people, bootstraps=200, **options))


def test_scores_are_those_of_the_people_with_a_label_and_lie_in_their_intervals():
    found = predictions()
    target = scored(found, people="test", bootstraps=200, seed=0)["trait"]
    assert target["people_with_label"] == 57 and target["people_without_label"] == "< 5"
    known = np.isfinite(found.wanted[0])
    for model in MODELS:
        own = regression_scores(found.predicted[model][0][known], found.wanted[0][known])
        for metric in ("mse", "mae", "r2"):
            score = target["models"][model][f"test_{metric}"]
            assert score["value"] == pytest.approx(own[metric]) and score["n"] == 57
            assert score["ci_low"] <= score["value"] <= score["ci_high"]
    assert target["models"]["mean"]["test_r"] == {"value": None, "ci_low": None, "ci_high": None, "n": 57}


def test_the_paired_difference_is_of_the_main_metric_and_delong_agrees():
    found = predictions(1, classes=("no", "yes"))
    target = scored(found, people="test", bootstraps=300, seed=0)["patient"]
    known = np.isfinite(found.wanted[0])
    own = {
        m: classification_scores(found.predicted[m][0][known], found.wanted[0][known].astype(int))["auroc"]
        for m in MODELS
    }
    for model in MODELS[1:]:
        test = target["brainmt_minus"][model]
        assert test["metric"] == "test_auroc" and test["n"] == 57
        assert test["value"] == pytest.approx(own["brainmt"] - own[model])
        assert test["delong"]["value"] == pytest.approx(test["value"])
        assert test["delong"]["ci_low"] == pytest.approx(test["ci_low"], abs=0.08)
    area = target["models"]["brainmt"]["test_auroc"]
    assert area["delong"]["value"] == pytest.approx(area["value"])
    three = scored(predictions(1, classes=("a", "b", "c")), people="test", bootstraps=50, seed=0)["patient"]
    assert "delong" not in three["models"]["brainmt"]["test_auroc"]


def test_unseen_people_are_scored_apart_and_tests_are_made_among_them():
    found = replace(predictions(), unseen=np.arange(60) >= 30)
    target = scored(found, people="all", bootstraps=50, seed=0)["trait"]
    scores = target["models"]["brainmt"]
    assert scores["unseen_r2"]["n"] == 27 and scores["all_r2"]["n"] == 57
    assert {test["metric"] for test in target["brainmt_minus"].values()} == {"unseen_r2"}
    few = replace(found, unseen=np.arange(60) >= 53)
    scores = scored(few, people="all", bootstraps=50, seed=0)["trait"]["models"]["brainmt"]
    assert "unseen_r2" not in scores  # four people with a label: too few to tell anything of
    content = content_of(few, people="all")
    assert "fewer than 5" in summary(content)["trait"] and render(content, {}, style="")
    unknown = replace(found, unseen=None)
    assert set(scored(unknown, people="all", bootstraps=50, seed=0)["trait"]["models"]["mean"]) == {
        "all_mse",
        "all_mae",
        "all_r",
        "all_r2",
    }


def test_words_say_what_the_intervals_say():
    clear = content_of(predictions(2))["conclusion"]
    assert "BrainMT predicts trait" in clear and "It beats every connectome baseline" in clear
    assert "It beats confounds alone" in clear
    worse = content_of(predictions(2, skill=(0.3, 1.0, 0.0, None)))["conclusion"]
    assert "It does worse than a connectome baseline" in worse
    nothing = content_of(predictions(2, skill=(0.0, 0.0, -1.0, None)))["conclusion"]
    assert "does not demonstrably predict trait" in nothing
    assert (
        "It does not demonstrably beat confounds alone" in nothing
    )  # better than worse than nothing is nothing
    found = predictions(2)
    alone = replace(found, predicted={"brainmt": found.predicted["brainmt"]})
    assert "compared with neither connectomes nor confounds" in content_of(alone)["conclusion"]


def test_numbers_are_written_without_a_negative_zero():
    score = {"value": -0.0001, "ci_low": -0.2, "ci_high": -0.0004}
    assert interval_words(score) == "0.000 [-0.200, 0.000]"
    assert interval_words({**score, "value": 0.1234}, signed=True) == "+0.123 [-0.200, 0.000]"
    assert interval_words({**score, "ci_low": None}) == "0.000"
    assert interval_words({**score, "value": None}) == "undefined"


def test_several_targets_are_counted():
    found = predictions(2)
    two = replace(
        found,
        targets=[*found.targets, Target(name="other")],
        wanted=found.wanted * 2,
        predicted={name: p * 2 for name, p in found.predicted.items()},
    )
    words = conclusion(scored(two, people="test", bootstraps=100, seed=0), "test")
    assert "predicts 2 of 2 targets" in words and "every connectome baseline on 2 of 2 targets" in words


def test_folds_are_scored_within():
    found = predictions(3, missing=0)
    folds = np.arange(60) // 20
    shifted = [found.predicted["brainmt"][0] + 100 * folds]
    apart = replace(found, folds=folds, predicted=found.predicted | {"brainmt": shifted})
    r = scored(apart, people="test", bootstraps=50, seed=0)["trait"]["models"]["brainmt"]["test_r"]["value"]
    parts = [regression_scores(shifted[0][folds == k], apart.wanted[0][folds == k])["r"] for k in range(3)]
    assert r == pytest.approx(np.mean(parts)) and r > 0.7


def test_the_table_holds_one_row_per_person_and_target_and_is_private(tmp_path):
    found = predictions(4, classes=("no", "yes"), size=12)
    write_table(tmp_path / "table.tsv", found)
    assert stat.S_IMODE((tmp_path / "table.tsv").stat().st_mode) == 0o600
    with open(tmp_path / "table.tsv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["participant_id"] for row in rows] == found.ids
    assert [row["observed"] for row in rows[-3:]] == ["n/a"] * 3
    assert {row["observed"] for row in rows[:-3]} == {"no", "yes"}
    assert float(rows[5]["p_yes"]) == pytest.approx(found.predicted["brainmt"][0][5, 1], rel=1e-5)
    assert float(rows[5]["confounds_p_no"]) == pytest.approx(found.predicted["confounds"][0][5, 0], rel=1e-5)


def test_the_page_stands_alone_and_names_nobody_and_no_small_count(tmp_path):
    for found in (
        predictions(5),
        predictions(5, classes=("no", "yes")),
        predictions(5, classes=("a", "b", "c")),
    ):
        content = content_of(found)
        figures = shared_figures(found, content, as_svg)
        page = render(content, figures, style="<style>p { color: black }</style>")
        assert "<style>p { color: black }</style>" in page and page.count("<figure") == len(figures) > 1
        assert "http" not in page.replace("http-equiv", "") and "<script" not in page
        assert not any(name in page for name in found.ids)
        assert "without it, and left out here: &lt; 5" in page
        again = render(content_of(found), shared_figures(found, content, as_svg), style="")
        assert again == render(content, figures, style="")  # same numbers, same bytes


def test_person_level_figures_are_private(tmp_path):
    found = predictions(6)
    figures = private_figures(found, as_png)
    assert list(figures) == ["scatter_0"]
    assert not set(figures) & set(shared_figures(found, content_of(found), as_svg))
    write_figures(tmp_path / "private", figures, private=True)
    path = tmp_path / "private" / "scatter_0.png"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_bytes().startswith(b"\x89PNG")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_groups_and_counts_are_never_of_fewer_than_five():
    for size in (0, 4, 5, 11, 43, 500):
        groups = bins_of(np.random.default_rng(size).standard_normal(size))
        assert sum(map(len, groups)) == (size if size >= 5 else 0)
        assert all(len(rows) >= 5 for rows in groups) and len(groups) <= 10
    assert [suppressed(n) for n in (0, 1, 4, 5)] == [0, "< 5", "< 5", 5]
    counts = confusion_counts(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1]))
    assert counts.tolist() == [[1, 0], [1, 1]]
    rare = predictions(7, size=40, classes=("no", "yes"), missing=0)
    rare.wanted[0][:] = 0
    rare.wanted[0][:3] = 1  # three people
    svg = shared_figures(rare, content_of(rare), as_svg)
    assert "confusion_0" in svg and "roc_0_1" not in svg  # each step of the curve would be a person
