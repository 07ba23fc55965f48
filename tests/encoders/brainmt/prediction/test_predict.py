"""Predictions: everyone once, unseen people only, rivals from training people, what is missing is said."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from encoders.brainmt.checkpoint import save_pretrained
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.prediction.config import PredictBrainMT
from encoders.brainmt.prediction.predict import Trained, predict
from encoders.brainmt.prediction.rivals import rival_predictions, terms_for
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.targets import Targets
from encoders.brainmt.windows import FMRIWindows
from encoders.cohort import Cohort, Split
from encoders.runs.devices import accelerator
from encoders.runs.errors import InputError
from encoders.stats.metrics import regression_scores

spec = importlib.util.spec_from_file_location(
    "labelled_study", Path(__file__).parents[1] / "labelled_study.py"
)
labelled = importlib.util.module_from_spec(spec)
spec.loader.exec_module(labelled)

SHAPE = BrainMTConfig(
    grid=(7, 5, 6), num_frames=8, widths=(2, 2, 4, 8), mamba_layers=1, attention_layers=1, d_state=2
)


class Made:
    """A study with an untrained model that says it was trained on the split."""

    def __init__(self, folder, task="regression", targets=("trait_*",), **people):
        self.study = labelled.make_study(folder, task=task, **people)
        self.store = FMRIStore(self.study.path("store"))
        self.cohort = Cohort.load(self.study.path("participants"))
        self.split = Split.load(self.study.path("splits"))
        self.targets = Targets.fit(self.cohort, list(targets), self.split.train, task=task)
        self.folder = folder / "model"
        self.save()

    def save(self, **card):
        torch.manual_seed(0)
        self.model = BrainMT(SHAPE, num_outputs=self.targets.num_outputs).eval()
        own = {
            "targets": self.targets.to_card(),
            "preprocessing": {"options": self.store.options},
            "trained_on": {
                "split_digest": self.split.digest,
                "ids": sorted(self.split.train + self.split.val),
            },
        }
        save_pretrained(self.model, self.folder, own | card)

    def predict(self, trained=None, **options):
        options = {"baselines": [], "windows": 3, "batch_size": 5} | options
        return predict(
            PredictBrainMT(**options),
            trained or [Trained(source=self.folder, split=self.split)],
            store=self.store,
            cohort=self.cohort,
            accelerator=accelerator(seed=0),
        )


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path / "study")


def test_windows_then_runs_then_people_are_averaged(made):
    found = made.predict(people="all")
    assert found.ids == made.store.subjects and len(found.ids) == 37
    windows = FMRIWindows(made.store, frames=8, subjects=["sub-0000"], windows_per_run=3)
    with torch.no_grad():
        outputs = torch.stack([made.model(windows[k][0][None])[0] for k in range(6)])  # two runs
    wanted = outputs.reshape(2, 3, 2).mean(1).mean(0).numpy()
    for k, target in enumerate(made.targets.columns):
        own_units = target.mean + target.sd * wanted[k]
        assert found.predicted["brainmt"][k][0] == pytest.approx(own_units, abs=1e-5)
        missing = np.flatnonzero(np.isnan(found.wanted[k]))
        assert missing.tolist() == [[1], [2]][k]
    truth = made.cohort.frame.loc[found.ids, "trait_1"].to_numpy()
    np.testing.assert_allclose(found.wanted[0], truth, atol=1e-5)


def test_classes_get_probabilities(tmp_path):
    for targets, classes in (("patient", ("no", "yes")), ("stage", ("early", "late", "middle"))):
        made = Made(tmp_path / targets, task="classification", targets=(targets,))
        found = made.predict(baselines=["mean", "connectome_tangent"], parcels=5)
        assert found.targets[0].classes == classes
        for predicted in found.predicted.values():
            assert predicted[0].shape == (7, len(classes))
            np.testing.assert_allclose(predicted[0].sum(axis=1), 1, atol=1e-6)


def test_each_person_is_marked_with_the_part_and_whether_the_model_has_seen_the_family(made):
    found = made.predict(people="all")
    by_id = dict(zip(found.ids, zip(found.parts, found.unseen, found.families, strict=True), strict=True))
    for part in ("train", "val", "test"):
        for name in getattr(made.split, part):
            assert by_id[name] == (part, part == "test", made.split.groups[name])
    assert found.told["people_asked"] == 37 and found.told["people_without_scan"] == 0
    kept = made.split.train + made.split.val + made.split.test[:-2]
    groups = {name: made.split.groups[name] for name in kept}
    # two people of the store are in no part, and nobody knows whose relatives they are
    without = replace(made.split, test=made.split.test[:-2], folds=[], groups=groups)
    outside = made.predict([Trained(source=made.folder, split=without)], people="all")
    assert outside.parts.count("none") == 2 and int(outside.unseen.sum()) == 5


def test_a_model_that_has_seen_held_out_people_or_their_relatives_is_refused(made):
    relative = made.split.test[0]  # its sibling is in the test part, too
    made.save(trained_on={"split_digest": "of another split", "ids": [relative]})
    with pytest.raises(InputError, match="trained on 1 of the 4 families that must be unseen"):
        made.predict()
    found = made.predict(people="all")
    assert [found.ids[k] for k in np.flatnonzero(~found.unseen)] == made.split.test[:2]


def test_a_model_that_names_nobody_is_used_and_the_gap_is_said(made):
    made.save(trained_on={"split_digest": "d", "ids": None, "people": 30})
    found = made.predict()
    assert found.unseen is None and "does not name all the people" in found.told["unchecked"][0]
    ids = made.split.train + made.split.val
    made.save(
        trained_on={"split_digest": "d", "ids": ids, "complete": False}
    )  # its starting weights saw more
    assert made.predict(people="all").unseen is None
    made.save(trained_on=None, preprocessing=None)
    assert len(made.predict(people="all").told["unchecked"]) == 2
    made.save(targets=None)
    with pytest.raises(InputError, match="does not say what its outputs are"):
        made.predict()


def test_people_without_a_scan_are_counted(made):
    made.store.runs = [run for run in made.store.runs if run.subject != made.split.test[3]]
    found = made.predict()
    assert found.ids == sorted(set(made.split.test) - {made.split.test[3]})
    assert (found.told["people_asked"], found.told["people_without_scan"]) == (7, 1)


def test_every_fold_is_predicted_by_the_model_that_held_it_out(made):
    trained = []
    for fold in range(3):
        split = made.split.held_out(fold)
        made.folder = made.study.folder / f"model-{fold}"
        made.save(trained_on={"split_digest": split.digest, "ids": split.train + split.val})
        trained.append(Trained(source=made.folder, split=split, fold=fold))
    found = made.predict(trained, fold="all", baselines=["mean"])
    assert sorted(found.ids) == made.store.subjects and found.unseen.all()
    for fold, part in enumerate(made.split.folds):
        rows = [found.ids.index(name) for name in part]
        assert set(found.folds[rows]) == {fold}
        labels = Targets.fit(made.cohort, ["trait_1"], trained[fold].split.train).columns[0]
        np.testing.assert_allclose(found.predicted["mean"][0][rows], labels.mean, atol=1e-6)
    wrong = [
        replace(one, fold=(one.fold + 1) % 3, split=trained[(k + 1) % 3].split)
        for k, one in enumerate(trained)
    ]
    with pytest.raises(InputError, match="must be unseen"):
        made.predict(wrong, fold="all")


def test_rivals_learn_from_training_people_alone(made):
    config = PredictBrainMT(parcels=5)

    def rivals(cohort):
        common = {"targets": made.targets, "store": made.store, "split": made.split}
        return rival_predictions(config, made.split.test, cohort=cohort, **common)

    first = rivals(made.cohort)
    assert list(first.predicted) == config.baselines
    frame = made.cohort.frame.copy()
    frame.loc[made.split.val + made.split.test, ["trait_1", "trait_2"]] = 1e6
    made.targets = replace(
        made.targets,
        values={
            name: row if name in made.split.train else 1e6 + row for name, row in made.targets.values.items()
        },
    )
    again = rivals(Cohort(frame=frame, path=made.cohort.path))
    for name in config.baselines:
        for k in range(2):
            np.testing.assert_allclose(first.predicted[name][k], again.predicted[name][k], err_msg=name)
    train = [name for name in made.split.train if np.isfinite(made.cohort.frame.loc[name, "trait_1"])]
    assert len(train) == 20  # one label is missing
    np.testing.assert_allclose(
        first.predicted["mean"][0], made.cohort.frame.loc[train, "trait_1"].mean(), atol=1e-6
    )
    assert first.told["confounds"]["used"]["trait_1"] == ["age", "age^2", "sex", "age:sex", "site"]
    assert "mean_fd" in first.told["confounds"]["absent"] and first.told["connectome"]["parcels"] == 5


def test_the_tangent_connectome_reads_amplitudes_from_the_scans_and_nothing_from_permuted_labels(tmp_path):
    made = Made(tmp_path / "study", train=80, val=4, test=40)
    config = PredictBrainMT(baselines=["connectome_tangent"], parcels=12)
    common = {"store": made.store, "split": made.split, "cohort": made.cohort}
    truth = made.targets.wanted(made.split.test)[0]
    found = rival_predictions(config, made.split.test, targets=made.targets, **common)
    assert np.corrcoef(found.predicted["connectome_tangent"][0], truth)[0, 1] > 0.7
    null = []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(made.split.train)
        rows = {name: made.targets.values[other] for name, other in zip(made.split.train, order, strict=True)}
        shuffled = replace(made.targets, values=made.targets.values | rows)
        said = rival_predictions(config, made.split.test, targets=shuffled, **common)
        null.append(regression_scores(said.predicted["connectome_tangent"][0], truth)["r2"])
    assert np.mean(null) < 0.05


def test_a_target_is_never_predicted_from_itself():
    terms = ("age", "age^2", "sex", "age:sex", "pcs_1")
    assert terms_for("age", terms) == ("sex", "pcs_1")
    assert terms_for("sex", terms) == ("age", "age^2", "pcs_1")
    assert terms_for("trait", terms) == terms


def test_a_table_without_confounds_is_refused_before_the_work(made):
    frame = made.cohort.frame[["trait_1", "trait_2"]]
    made.cohort = Cohort(frame=pd.DataFrame(frame), path=made.cohort.path)
    with pytest.raises(InputError, match="none of the confounds age, age.*--baselines"):
        made.predict(baselines=["confounds"])


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(InputError, match="leave out people"):
        PredictBrainMT(fold="all", people="val")
    with pytest.raises(InputError, match="leave out model"):
        PredictBrainMT(fold="all", model="somewhere")
    with pytest.raises(InputError, match="names one twice"):
        PredictBrainMT(baselines=["mean", "mean"])
    with pytest.raises(InputError, match="windows is 0"):
        PredictBrainMT(windows=0)
