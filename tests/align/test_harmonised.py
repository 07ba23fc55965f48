"""align --harmonise=combat: fitted on train, before both models, recorded; off by default."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from align.config import Align, ProjectorConfig
from align.harmonised import harmonised, harmonised_vectors, refuse_kept_targets
from align.pairs import join
from align.report_words import confound_sentences
from align.run import align_study
from encoders.cohort import Cohort, groups_of, make_split
from encoders.cohort.harmonise import Combat
from encoders.cohort.synthetic import SyntheticCohort, vector_cohort
from encoders.runs.artifact import load_tensors
from encoders.runs.devices import accelerator
from encoders.runs.errors import InputError
from encoders.vectors import SubjectVectors

CONFIG = Align(
    projector=ProjectorConfig(output_dim=4, hidden_dim=8),
    epochs=2,
    batch_size=64,
    eval_every=1,
    confounds=["age", "sex"],
)


@pytest.fixture(scope="module")
def study():
    """Vectors of 200 people; one site is among the held-out people only."""
    made = vector_cohort(SyntheticCohort(people=200, seed=0))
    cohort = Cohort(frame=made.frame, path=Path("participants.tsv"))
    split = make_split(
        cohort, groups_of(cohort, made.related), val_fraction=0.2, test_fraction=0.2, stratify=["sex"], seed=0
    )
    cohort.frame.loc[split.test[:8], "site"] = "elsewhere"
    vectors = {
        "brain": SubjectVectors(ids=made.ids, values=made.brain),
        "genetics": SubjectVectors(ids=made.ids, values=made.gene.astype(np.float32)),
    }
    return vectors, cohort, split


def _aligned(study, folder, vectors=None, **changes):
    own, cohort, split = study
    vectors = vectors or own
    return align_study(
        vectors,
        join(vectors, split=split, cohort=cohort),
        cohort=cohort,
        split=split,
        config=dataclasses.replace(CONFIG, **changes),
        folder=folder,
        accelerator=accelerator(seed=0),
    )


def test_the_models_see_what_combat_fitted_on_train_makes_of_the_brain_vectors(study, tmp_path):
    vectors, cohort, split = study
    brain = vectors["brain"]
    frame = cohort.frame.loc[brain.ids]
    train = np.isin(brain.ids, split.train)
    combat = Combat(site="site", keep=("age",)).fit(brain.values[train], frame[train])
    clean = dataclasses.replace(brain, values=combat.transform(brain.values, frame))
    by_hand = _aligned(study, tmp_path / "by_hand", vectors=vectors | {"brain": clean})
    ours = _aligned(study, tmp_path / "ours", harmonise="combat", harmonise_keep=["age"])
    plain = _aligned(study, tmp_path / "plain")
    assert set(ours.vectors) == {"brain_raw", "genetics_raw", "brain_adjusted", "genetics_adjusted"}
    for name, values in ours.vectors.items():
        np.testing.assert_allclose(values, by_hand.vectors[name], atol=1e-4)
        assert np.nanmax(np.abs(values - plain.vectors[name])) > 1e-3
    told = {"by": "site", "keep": ["age"], "unseen": ["elsewhere"], "small": []}
    assert ours.confounds["harmonised"] == {"brain": told}
    assert "harmonised" not in plain.confounds
    sentence = (
        "Before both models the brain vectors were harmonised by site (ComBat, fitted on training people), keeping the "
        "effects of age; 1 that training lacks or knows by one person got the mean effect."
    )
    assert sentence in confound_sentences(ours.confounds)
    tensors, _ = load_tensors(tmp_path / "ours/raw/model.safetensors", "neurohelix.alignment", 2)
    np.testing.assert_allclose(tensors["harmoniser.brain.shift"], combat.shift_)


def test_a_modality_that_is_not_aligned_cannot_be_harmonised():
    with pytest.raises(InputError, match="--harmonise_modalities: 'brain' is not among"):
        dataclasses.replace(CONFIG, modalities=["structure", "genetics"], harmonise="combat")


def test_rivals_see_what_our_models_saw_and_a_kept_target_is_refused(study):
    vectors, cohort, split = study
    told = {"brain": {"by": "site", "keep": ["age"], "unseen": [], "small": []}}
    joined = join(vectors, split=split, cohort=cohort)
    ours = harmonised(joined, told)
    train = joined.rows("train")
    combat = Combat(site="site", keep=("age",)).fit(
        joined.values["brain"][train], cohort.frame.loc[split.train]
    )
    wanted = combat.transform(joined.values["brain"], joined.frame)
    np.testing.assert_allclose(ours.values["brain"], wanted, atol=1e-5)
    assert np.abs(wanted - joined.values["brain"]).max() > 0.01
    np.testing.assert_array_equal(ours.values["genetics"], joined.values["genetics"])
    rival = harmonised_vectors(vectors["brain"], cohort, split.train, told["brain"])
    np.testing.assert_allclose(rival.select(joined.ids), wanted, atol=1e-5)
    refuse_kept_targets(told, ["sex"])
    with pytest.raises(InputError, match="E_KEPT_TARGET: 'age' is to be predicted"):
        refuse_kept_targets(told, ["sex", "age"])
