"""Phenotypes from brain, genes and both: planted truths are found, and nothing held out is learned from."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from align.pairs import Pairs
from align.phenotype_columns import read_phenotypes
from align.phenotype_models import Learners, boosted, linear, stacked
from align.phenotypes import predict_phenotypes
from encoders.runs import InputError

FOLDS = ("train",) * 200 + ("val",) * 60 + ("test",) * 140


def make_pairs(frame, brain, genetics):
    people = len(frame)
    return Pairs(
        ids=[f"p{i}" for i in range(people)],
        folds=list(FOLDS[:people]),
        groups=[f"f{i // 2}" for i in range(people)],
        brain=brain.astype(np.float32),
        genetics=genetics.astype(np.float32),
        frame=frame,
        missing={},
    )


@pytest.fixture(scope="module")
def made():
    """Each side knows half of a liability; a number depends on a product that no linear model sees; sex is known."""
    rng = np.random.default_rng(0)
    people = len(FOLDS)
    ours, theirs = rng.standard_normal((people, 2)), rng.standard_normal((people, 2))
    sex = rng.integers(0, 2, people)
    liability = ours[:, 0] + theirs[:, 0] + 0.3 * rng.standard_normal(people)
    frame = pd.DataFrame(
        {
            "sex": np.where(sex == 1, "M", "F"),
            "age": rng.uniform(20, 60, people),
            "diagnosis": np.where(liability > 0.5, "patient", "control"),
            "product": ours[:, 0] * ours[:, 1] + 0.1 * rng.standard_normal(people),
            "height": 10.0 * sex + rng.standard_normal(people),
            "three": np.array(["a", "b", "c"])[np.digitize(ours[:, 1], [-0.5, 0.5])],
        }
    )
    noise = [rng.standard_normal((people, 10)) for _ in "bg"]
    sides = (np.concatenate([known, 0.5 * n], axis=1) for known, n in zip((ours, theirs), noise, strict=True))
    return make_pairs(frame, *sides)


def predicted(pairs, *names, kinds=("linear",), **options):
    options = {"confound_terms": ["sex", "age"], "bootstraps": 200, "seed": 0} | options
    return predict_phenotypes(pairs, read_phenotypes(pairs.frame, names), kinds=kinds, **options)


@pytest.fixture(scope="module")
def diagnosis(made):
    return predicted(made, "diagnosis", kinds=("linear", "boosting"))["diagnosis"]


def value(told, model, metric):
    return told["models"][model][metric]["value"]


def test_what_each_side_knows_half_of_is_predicted_better_by_both(diagnosis):
    told = diagnosis
    assert told["classes"] == ["control", "patient"] and told["people"] == {
        "train": 200,
        "val": 60,
        "test": 140,
    }
    for kind in ("linear", "boosting"):
        single = max(value(told, f"{side}_{kind}", "auroc") for side in ("brain", "genetics"))
        assert 0.65 < single < 0.9 and value(told, f"average_{kind}", "auroc") > single + 0.05
    assert (
        value(told, "stacked_linear", "auroc") > 0.93 and value(told, "concatenated_linear", "auroc") > 0.93
    )
    assert abs(value(told, "confounds_linear", "auroc") - 0.5) < 0.12 and value(told, "mean", "auroc") == 0.5
    assert told["fusion_gain_auroc"] > 0.05
    name = f"{told['compared']['fusion']} - {told['compared']['single']}"
    assert told["paired"][name]["ci_low"] > 0 and told["paired"][name]["p"] < 0.02
    assert told["delong"][name]["p"] < 0.001
    assert told["delong"][name]["value"] == pytest.approx(told["fusion_gain_auroc"])


def test_boosting_finds_what_no_linear_model_sees(made):
    told = predicted(made, "product", kinds=("linear", "boosting"))["product"]
    assert value(told, "brain_linear", "r2") < 0.1 and value(told, "brain_boosting", "r2") > 0.3
    assert told["compared"]["single"] == "brain_boosting" and value(told, "mean", "r2") <= 0
    low, high = (told["models"]["brain_boosting"]["r2"][end] for end in ("ci_low", "ci_high"))
    assert low < value(told, "brain_boosting", "r2") < high


def test_confounds_alone_are_shown_and_never_hold_the_phenotype_itself(made):
    told = predicted(made, "height", "sex")
    assert (
        value(told["height"], "confounds_linear", "r2") > 0.9
        and value(told["height"], "brain_linear", "r2") < 0.1
    )
    assert abs(value(told["sex"], "confounds_linear", "auroc") - 0.5) < 0.15


def test_three_classes_are_scored_one_against_the_rest(made):
    told = predicted(made, "three")["three"]
    assert told["classes"] == ["a", "b", "c"] and "delong" not in told and "fusion_gain_auroc" not in told
    assert value(told, "brain_linear", "auroc") > 0.75


def test_scores_are_those_of_scikit_learn(made, diagnosis):
    told = diagnosis
    rows = {fold: made.rows(fold) for fold in ("train", "val", "test")}
    wanted = (made.frame["diagnosis"] == "patient").to_numpy()
    learners = Learners(
        wanted=wanted[rows["train"]].astype(int),
        families=[made.groups[i] for i in rows["train"]],
        classes=2,
        validation=wanted[rows["val"]].astype(int),
        seed=0,
    )
    p = linear(learners, made.brain[rows["train"]], made.brain[rows["test"]])[:, 1]
    truth = wanted[rows["test"]]
    assert value(told, "brain_linear", "auroc") == pytest.approx(roc_auc_score(truth, p))
    assert value(told, "brain_linear", "auprc") == pytest.approx(average_precision_score(truth, p))
    assert value(told, "brain_linear", "brier") == pytest.approx(brier_score_loss(truth, p))


def test_labels_of_test_people_decide_no_prediction(made, diagnosis):
    frame = made.frame.copy()
    test = made.rows("test")
    frame.loc[test, "diagnosis"] = frame.loc[test, "diagnosis"].map(
        {"patient": "control", "control": "patient"}
    )
    after = predicted(make_pairs(frame, made.brain, made.genetics), "diagnosis")["diagnosis"]
    for model in after["models"]:
        assert value(after, model, "auroc") == pytest.approx(1 - value(diagnosis, model, "auroc")), model


def test_missing_labels_are_counted_and_too_few_are_told(made):
    frame = made.frame.copy()
    frame.loc[made.rows("train")[:50], "age"] = np.nan
    frame["rare"] = None
    frame.loc[np.r_[0:30, 200:230, 260:290], "rare"] = "no"
    frame.loc[[0, 200, 201, 260, 261], "rare"] = "yes"
    told = predicted(make_pairs(frame, made.brain, made.genetics), "age", "rare")
    assert told["age"]["without_label"] == {"train": 50, "val": 0, "test": 0} and told["age"]["models"]
    assert told["rare"]["reason"] == "1 train people are 'yes', at least 5 are needed"
    assert "models" not in told["rare"]


@pytest.mark.parametrize("classes", [0, 2])
def test_stacking_weighs_the_side_that_knows_and_ignores_the_one_that_remembers(classes):
    """A side of pure noise as wide as the training set fits them perfectly; out of fold it is worth nothing."""
    rng = np.random.default_rng(1)
    truth = rng.standard_normal(300)
    good = np.stack([truth + 0.5 * rng.standard_normal(300)], axis=1)
    noise = rng.standard_normal((300, 40))
    wanted = (truth > 0).astype(int) if classes else truth
    learners = Learners(
        wanted=wanted[:150],
        families=[str(i) for i in range(150)],
        classes=classes,
        validation=wanted[150:200],
        seed=0,
    )
    sides = [good, noise]
    alone = [linear(learners, side[:150], side[150:]) for side in sides]
    both = stacked(learners, [side[:150] for side in sides], alone)
    column = (lambda p: p[:, 1]) if classes else (lambda p: p)
    assert np.corrcoef(column(both), column(alone[0]))[0, 1] > 0.9


def test_boosting_is_tuned_on_validation_people_and_wide_vectors_are_reduced():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((200, 120))
    wanted = x[:, 0]
    families = [str(i) for i in range(100)]

    def fitted(validation):
        learners = Learners(wanted=wanted[:100], families=families, classes=0, validation=validation, seed=0)
        return boosted(learners, x[:100], x[100:])

    honest, contrary = fitted(wanted[100:150]), fitted(-wanted[100:150])
    assert (
        honest.shape == (100,) and honest.std() > 5 * contrary.std()
    )  # one tree does least harm to the contrary


def test_columns_that_cannot_be_predicted_are_refused_with_the_reason(made):
    frame = made.frame.assign(constant=1.0, text=[f"t{i}" for i in range(len(FOLDS))], coded=[0.0, 1.0] * 200)
    with pytest.raises(InputError, match="no column 'diagnosi' to predict; did you mean diagnosis"):
        read_phenotypes(frame, ["diagnosi"])
    with pytest.raises(InputError, match="'constant' has 1 different values"):
        read_phenotypes(frame, ["constant"])
    with pytest.raises(InputError, match="'text' has 400 different texts, at most 10 classes"):
        read_phenotypes(frame, ["text"])
    coded, age = read_phenotypes(frame, ["coded", "age"])
    assert coded.classes == ("0", "1") and age.classes == ()
