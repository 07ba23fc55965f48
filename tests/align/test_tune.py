"""Tuning a tower: it learns what the projectors cannot, in chunks as in one piece, and not from confounds."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from align.config import ProjectorConfig
from align.galleries import matched
from align.matched_batches import matched_strata, not_negative, stratum_batches
from align.pairs import join
from align.tower import Tower
from align.tune import tune
from align.tune_config import TuneBrainMT
from align.tuning_inputs import full_whitener
from encoders.cohort import Cohort, Split
from encoders.runs.checkpoint import checkpoints
from encoders.runs.devices import accelerator as make_accelerator
from encoders.runs.errors import InputError
from encoders.runs.tracking import read_metrics
from encoders.vectors import SubjectVectors

PEOPLE = 400
CONFIG = TuneBrainMT(
    projector=ProjectorConfig(output_dim=8, hidden_dim=32, input_noise=0.1, dropout=0.0),
    projector_epochs=8,
    epochs=12,
    batch_size=64,
    chunk_size=25,
    tower_lr=0.01,
    lr=0.003,
    patience=0,
)


class Columns:
    """A tower for tests: numbers of each person -> weighted columns -> vectors. It starts deaf to the column `hidden`."""

    def __init__(self, inputs, *, hidden):
        self.inputs, self.saved = inputs, []
        self.module = torch.nn.Linear(inputs[next(iter(inputs))].shape[0], 6)
        with torch.no_grad():
            self.module.weight.copy_(
                torch.randn(self.module.weight.shape, generator=torch.Generator().manual_seed(2))
            )
            self.module.weight[:, hidden] *= 0.02
            self.module.bias.zero_()

    def feed(self, chunks, *, epoch):
        for chunk in chunks:
            rows = [self.inputs[name] for name in chunk]
            yield torch.stack(rows) if rows else torch.zeros(0, self.module.in_features)

    def forward(self, inputs):
        return self.module(inputs)

    def training_mode(self):
        self.module.train()

    def parameter_groups(self):
        return [{"params": list(self.module.parameters()), "peak_lr": CONFIG.tower_lr, "weight_decay": 0.0}]

    @torch.no_grad()
    def vectors(self, people, accelerator):
        return self.module(torch.stack([self.inputs[name] for name in people])).numpy()

    def save(self, *, epoch, validation):
        self.saved.append((epoch, validation["val_auc2afc_matched"], self.module.weight.detach().clone()))


def world(tmp_path, *, shared_sex):
    """Inputs whose first column is in the genes too (or sex is, and nothing else); the rest is noise."""
    rng = np.random.default_rng(0)
    ids = [f"s{k:03d}" for k in range(PEOPLE)]
    sex = rng.integers(0, 2, PEOPLE)
    shared = 2.0 * sex - 1 if shared_sex else rng.standard_normal(PEOPLE)
    brain = rng.standard_normal((PEOPLE, 5)).astype(np.float32)
    brain[:, 0] = shared + 0.2 * rng.standard_normal(PEOPLE)
    genes = 0.3 * rng.standard_normal((PEOPLE, 4)).astype(np.float32)
    genes[:, 0] += shared
    frame = pd.DataFrame({"sex": np.where(sex == 1, "M", "F")}, index=pd.Index(ids, name="participant_id"))
    split = Split(train=ids[:256], val=ids[256:340], test=ids[340:], groups={i: i for i in ids}, seed=0)
    tower = Columns({i: torch.from_numpy(row) for i, row in zip(ids, brain, strict=True)}, hidden=0)
    vectors = {
        "brain": SubjectVectors(ids=ids, values=tower.vectors(ids, None)),
        "genetics": SubjectVectors(ids=ids, values=genes),
    }
    joined = join(vectors, split=split, cohort=Cohort(frame=frame, path=tmp_path / "participants.tsv"))
    return tower, joined


def run(tmp_path, name="run", *, shared_sex=False, **changes):
    torch.manual_seed(0)
    tower, joined = world(tmp_path, shared_sex=shared_sex)
    assert isinstance(tower, Tower)
    config = dataclasses.replace(CONFIG, **changes)
    told = tune(tower, joined, config, folder=tmp_path / name, accelerator=make_accelerator(seed=0))
    return tower, told, tmp_path / name


def share_of_first_column(tower):
    """How loudly the tower passes on its first column, relative to the others."""
    columns = tower.module.weight.detach().norm(dim=0)
    return (columns[0] / columns[1:].mean()).item()


def test_the_tower_learns_what_it_was_deaf_to_and_its_best_form_is_kept(tmp_path):
    tower, told, folder = run(tmp_path)
    assert told["matched_validation_2afc_at_the_start"] < 0.6 < 0.7 < told["matched_validation_2afc"]
    assert share_of_first_column(tower) > 0.2  # 0.02 before
    looks = [line["val_auc2afc_matched"] for line in read_metrics(folder) if "val_auc2afc_matched" in line]
    assert len(looks) == 13  # the tower as it was, and each epoch
    assert [score for _, score, _ in tower.saved] == sorted({max(looks[: k + 1]) for k in range(13)})
    assert tower.saved[0][0] == 0 and tower.saved[-1][1] == max(looks)


def test_chunks_and_one_piece_learn_the_same(tmp_path):
    towers = [
        run(tmp_path, f"run-{size}", epochs=3, chunk_size=size, loss_chunk=tiles)
        for size, tiles in ((7, 0), (64, 0), (25, 16))
    ]
    first = towers[0][0].module.weight
    for tower, *_ in towers[1:]:
        torch.testing.assert_close(tower.module.weight, first, atol=2e-4, rtol=0)


def test_sex_alone_teaches_the_tower_nothing_where_people_are_matched(tmp_path):
    matched_tower, told, _ = run(tmp_path, "matched", shared_sex=True)
    raw_tower, *_ = run(tmp_path, "everyone", shared_sex=True, negatives="everyone")
    assert told["told_apart_within"] == "sex"
    assert share_of_first_column(matched_tower) < 0.15 < 0.25 < share_of_first_column(raw_tower)


def test_patience_ends_a_run_and_the_tower_as_it_was_can_be_the_best(tmp_path):
    options = {
        "shared_sex": True,
        "negatives": "everyone",
        "patience": 2,
    }  # sex helps the loss, never the criterion
    tower, told, folder = run(tmp_path, **options)
    assert told["best_epoch"] == "0 of 12 (the tower as it was)"
    assert [epoch for epoch, *_ in tower.saved] == [0]
    epochs = [line["epoch"] for line in read_metrics(folder) if "epoch" in line]
    assert max(epochs) == CONFIG.projector_epochs + 2


def test_a_run_goes_on_from_its_checkpoint_with_the_same_numbers(tmp_path):
    whole, _, one = run(tmp_path, "whole", epochs=4)
    config = dataclasses.replace(CONFIG, epochs=4)
    tower, joined = world(tmp_path, shared_sex=False)
    real, calls = tower.vectors, []

    def failing(people, accelerator):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(people, accelerator)

    tower.vectors = failing
    with pytest.raises(KeyboardInterrupt):
        tune(tower, joined, config, folder=tmp_path / "parts", accelerator=make_accelerator(seed=0))
    assert len(checkpoints(tmp_path / "parts" / "checkpoints")) == 2
    again, joined = world(tmp_path, shared_sex=False)
    torch.manual_seed(99)
    tune(again, joined, config, folder=tmp_path / "parts", accelerator=make_accelerator(seed=7))
    assert torch.equal(again.module.weight, whole.module.weight)
    drop = ("step_s",)
    lines = [
        [{k: v for k, v in line.items() if k not in drop} for line in read_metrics(folder)]
        for folder in (one, tmp_path / "parts")
    ]
    assert lines[0] == lines[1]


def test_people_of_one_family_are_refused(tmp_path):
    tower, joined = world(tmp_path, shared_sex=False)
    one = dataclasses.replace(joined, groups=["f"] * len(joined.groups))
    with pytest.raises(InputError, match="E_NO_NEGATIVES.*same family"):
        tune(tower, one, CONFIG, folder=tmp_path, accelerator=make_accelerator(seed=0))


def test_vectors_without_variance_are_refused():
    with pytest.raises(InputError, match="E_NO_SIGNAL.*same vector"):
        full_whitener(np.ones((9, 3), np.float32), 1.0)


def test_whitening_keeps_directions_that_are_empty_now():
    values = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    values = np.hstack([values, np.zeros((50, 1), np.float32)])
    whitener = full_whitener(values, 0.0)
    assert whitener.matrix_.shape == (4, 4)
    new = np.zeros((1, 4), np.float32)
    new[0, 3] = 1
    assert np.linalg.norm(whitener.transform(values.mean(0) + new)) > 1


def cohort(num, rng):
    return pd.DataFrame(
        {
            "sex": rng.choice(["F", "M"], num),
            "site": rng.choice(["a", "b", "c"], num),
            "age": rng.integers(20, 80, num).astype(float),
            "mean_fd": rng.random(num),
        }
    )


@pytest.mark.parametrize("num", [60, 150, 600])
def test_strata_are_those_of_the_matched_gallery(num):
    frame, families = cohort(num, np.random.default_rng(num)), [str(k // 2) for k in range(num)]
    strata, variables = matched_strata(frame, families)
    gallery = matched(frame, frame, families)
    assert variables == gallery.variables
    same = strata[:, None] == strata[None, :]
    names = np.array(gallery.strata)
    assert (same == (names[:, None] == names[None, :])).all()


def test_a_table_without_confounds_has_one_stratum():
    strata, variables = matched_strata(pd.DataFrame(index=range(5)), list("abcde"))
    assert variables == () and (strata == 0).all()


def test_batches_are_full_of_people_alike_and_differ_by_epoch():
    rng = np.random.default_rng(0)
    rows, strata = np.arange(100, 400), rng.integers(0, 6, 300)
    epochs = [list(stratum_batches(rows, strata, 50, seed=0, epoch=epoch)) for epoch in (0, 1, 0)]
    assert all(len(batch) == 50 for batch in epochs[0]) and len(epochs[0]) == 6
    assert sorted(np.concatenate(epochs[0])) == rows.tolist()
    kinds = [len(set(strata[batch - 100])) for batch in epochs[0]]
    assert max(kinds) <= 4  # of 6, where a random batch has all
    assert all((a == b).all() for a, b in zip(epochs[0], epochs[2], strict=True))
    assert any(set(a) != set(b) for a, b in zip(epochs[0], epochs[1], strict=True))
    left = [
        set(rows) - set(np.concatenate(list(stratum_batches(rows, strata, 80, seed=0, epoch=e))))
        for e in range(4)
    ]
    assert len(set.union(*left)) > len(left[0])  # not always the same people


def test_only_matched_strangers_are_negatives():
    belonging = torch.tensor(
        [[0, 0], [0, 1], [1, 2], [2, 2]]
    )  # 0 and 1 are a family, 2 and 3 of one genotype
    strata = torch.tensor([5, 5, 5, 6])
    exempt = not_negative(belonging, strata)
    assert exempt.fill_diagonal_(False).int().tolist() == [
        [0, 1, 0, 1],
        [1, 0, 0, 1],
        [0, 0, 0, 1],
        [1, 1, 1, 0],
    ]
    assert not_negative(belonging, None) is belonging


def test_options_name_runs_apart():
    named = dataclasses.replace(CONFIG, name="b", fold=2)
    assert (CONFIG.suffix, named.suffix) == ("", "_b_fold-2")
    assert Path(f"tune_brainmt{named.suffix}").name == "tune_brainmt_b_fold-2"
