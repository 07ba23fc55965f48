"""Targets: scale and classes from the training people, losses of what is there, predictions back in own units."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from encoders.brainmt.targets import Target, Targets
from encoders.brainmt.training.losses import task_loss
from encoders.cohort import Cohort
from encoders.runs.errors import InputError

PEOPLE = [f"s{k}" for k in range(8)]
TRAIN = PEOPLE[:6]
TABLE = {
    "score": ["1", "2", "4", "n/a", "3", "5", "9", "7"],
    "smoker": ["0", "1", "0", "0", "1", "n/a", "1", "0"],
    "diagnosis": ["none", "mdd", "none", "adhd", "mdd", "adhd", "mdd", "n/a"],
    "flat": ["2"] * 8,
}


@pytest.fixture
def table(tmp_path):
    """Writes the table, with changed columns if asked, and reads it."""

    def make(**changes):
        columns = {**TABLE, **changes}
        rows = zip(PEOPLE, *columns.values(), strict=True)
        lines = ["\t".join(["participant_id", *columns]), *("\t".join(row) for row in rows)]
        path = tmp_path / "participants.tsv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return Cohort.load(path)

    return make


def test_numbers_are_scaled_by_the_training_people_alone(table):
    targets = Targets.fit(table(), ["score"], TRAIN)
    known = np.array([1, 2, 4, 3, 5], float)
    assert targets.columns[0].mean == known.mean() and targets.columns[0].sd == known.std()
    z = targets.of(PEOPLE)
    assert np.isnan(z[3, 0]) and z[6, 0] == pytest.approx((9 - 3) / known.std())
    np.testing.assert_allclose(targets.wanted(PEOPLE)[0], [1, 2, 4, np.nan, 3, 5, 9, 7], rtol=1e-6)
    assert targets.labelled([*PEOPLE, "unknown"]) == [name for name in PEOPLE if name != "s3"]


def test_classes_are_names_in_order_and_codes_stay_whole_numbers(table):
    targets = Targets.fit(table(), ["smoker", "diagnosis"], TRAIN, task="classification")
    assert [column.classes for column in targets.columns] == [("0", "1"), ("adhd", "mdd", "none")]
    assert [column.num_outputs for column in targets.columns] == [1, 3] and targets.num_outputs == 4
    np.testing.assert_array_equal(targets.wanted(["s1", "s5", "s2"])[0], [1, np.nan, 0])
    np.testing.assert_array_equal(targets.wanted(["s0", "s3", "s7"])[1], [2, 0, np.nan])
    assert targets.task == "classification"


def test_balanced_weights_have_mean_one_over_the_training_people(table):
    targets = Targets.fit(table(), ["smoker"], TRAIN, task="classification", class_weights="balanced")
    weights = targets.columns[0].weights
    assert weights == (5 / (2 * 3), 5 / (2 * 2))
    assert 3 * weights[0] + 2 * weights[1] == pytest.approx(5)


def test_a_card_brings_the_same_targets_back(table):
    for task, names in (("regression", ["score"]), ("classification", ["smoker", "diagnosis"])):
        fitted = Targets.fit(table(), names, TRAIN, task=task)
        again = Targets.of_card(fitted.to_card(), table())
        assert again.columns == fitted.columns
        np.testing.assert_array_equal(again.of(PEOPLE), fitted.of(PEOPLE))


def test_what_cannot_be_learned_is_refused(table):
    with pytest.raises(InputError, match="no column that matches target 'iq'"):
        Targets.fit(table(), ["iq"], TRAIN)
    with pytest.raises(InputError, match="'flat' does not vary"):
        Targets.fit(table(), ["flat"], TRAIN)
    with pytest.raises(InputError, match="'diagnosis' holds 'none' for s0.*--task=classification"):
        Targets.fit(table(), ["diagnosis"], TRAIN)
    with pytest.raises(InputError, match="'flat' has 1 different values"):
        Targets.fit(table(), ["flat"], TRAIN, task="classification")
    rare = ["none", "mdd", "none", "adhd", "mdd", "none", "mdd", "none"]
    with pytest.raises(InputError, match="only 1 training person has the class 'adhd'"):
        Targets.fit(table(diagnosis=rare), ["diagnosis"], TRAIN, task="classification")
    with pytest.raises(
        InputError, match=r"1 people have the class 'ocd' of 'diagnosis'.*known: adhd, mdd, none"
    ):
        diagnosis = [*TABLE["diagnosis"][:7], "ocd"]
        Targets.fit(table(diagnosis=diagnosis), ["diagnosis"], TRAIN, task="classification")


def test_missing_labels_have_no_loss_and_no_gradient():
    wanted = torch.tensor([[1.0, torch.nan, 2.0], [torch.nan, 1.0, torch.nan]])
    columns = [
        Target(name="a"),
        Target(name="b", classes=("n", "y")),
        Target(name="c", classes=("x", "y", "z")),
    ]
    outputs = torch.zeros(2, 5, requires_grad=True)
    loss = task_loss(outputs, wanted, columns)
    loss.backward()
    assert loss.item() == pytest.approx((1 + np.log(2) + np.log(3)) / 3)
    assert outputs.grad.isfinite().all()
    assert (outputs.grad != 0).tolist() == [
        [True, False, True, True, True],
        [False, True, False, False, False],
    ]


def test_losses_are_the_librarys():
    outputs, generator = torch.randn(7, 4), torch.Generator().manual_seed(0)
    binary, three = torch.randint(2, (7,), generator=generator), torch.randint(3, (7,), generator=generator)
    number = torch.randn(7, generator=generator)
    two = Target(name="b", classes=("n", "y"), weights=(0.5, 1.5))
    expected = F.binary_cross_entropy_with_logits(
        outputs[:, 0], binary.float(), weight=torch.tensor(two.weights)[binary]
    )
    torch.testing.assert_close(task_loss(outputs[:, :1], binary[:, None].float(), [two]), expected)
    many = Target(name="c", classes=("x", "y", "z"), weights=(1.0, 2.0, 0.5))
    expected = F.cross_entropy(outputs[:, 1:], three, torch.tensor(many.weights), reduction="sum") / 7
    torch.testing.assert_close(task_loss(outputs[:, 1:], three[:, None].float(), [many]), expected)
    one = [Target(name="a")]
    torch.testing.assert_close(
        task_loss(outputs[:, :1], number[:, None], one), F.mse_loss(outputs[:, 0], number)
    )
    torch.testing.assert_close(
        task_loss(outputs[:, :1], number[:, None], one, regression="huber"),
        2 * F.huber_loss(outputs[:, 0], number),
    )


def test_predictions_are_in_own_units_and_probabilities_sum_to_one():
    columns = [
        Target(name="a", mean=10.0, sd=2.0),
        Target(name="b", classes=("n", "y")),
        Target(name="c", classes=("x", "y", "z")),
    ]
    targets = Targets(columns=columns, values={})
    outputs = np.array([[1.5, np.log(3), 0.0, np.log(2), 0.0], [-1.0, -800.0, 900.0, 0.0, 0.0]], np.float32)
    number, binary, three = targets.predictions(outputs)
    np.testing.assert_allclose(number, [13, 8])
    np.testing.assert_allclose(binary, [[0.25, 0.75], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(three, [[0.25, 0.5, 0.25], [1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(targets.predictions(outputs, own_units=False)[0], [1.5, -1])
