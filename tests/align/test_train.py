"""Training with each loss: options that change only the way of computing give the same model, and bad ones are refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from align.config import Align, ProjectorConfig
from align.model import AlignmentModel
from align.pairs import join
from align.run import align_study
from align.train import scaled, train_alignment
from encoders.cohort import Cohort, Split, groups_of, make_split
from encoders.cohort.synthetic import SyntheticCohort, vector_cohort
from encoders.runs.devices import accelerator
from encoders.runs.errors import InputError
from encoders.vectors import SubjectVectors

CONFIG = Align(
    projector=ProjectorConfig(output_dim=16, hidden_dim=64),
    epochs=16,
    batch_size=40,
    eval_every=8,
    confounds=["age", "sex"],
    kinds=["raw"],
    lr=3e-3,
)


@pytest.fixture(scope="module")
def study():
    """Vectors of 400 synthetic people with a planted alignment, and who they are."""
    made = vector_cohort(SyntheticCohort(arm="signal", people=400, seed=0))
    cohort = Cohort(frame=made.frame, path=Path("participants.tsv"))
    groups = groups_of(cohort, made.related)
    split = make_split(cohort, groups, val_fraction=0.25, test_fraction=0.1, stratify=["sex"], seed=0)
    vectors = {
        "brain": SubjectVectors(ids=made.ids, values=made.brain),
        "genetics": SubjectVectors(ids=made.ids, values=made.gene.astype(np.float32)),
    }
    return vectors, cohort, split


def _trained(study, folder, **changes):
    vectors, cohort, split = study
    config = dataclasses.replace(CONFIG, **changes)
    joined = join(vectors, split=split, cohort=cohort)
    inputs = scaled(joined, config)
    return train_alignment(
        inputs, joined, config, name="raw", folder=folder, accelerator=accelerator(seed=config.seed)
    )


@pytest.mark.parametrize("options", [{}, {"loss": "siglip"}, {"soft_weight": 0.3}])
def test_each_loss_finds_the_planted_alignment_and_tiles_change_nothing(study, tmp_path, options):
    whole, reached = _trained(study, tmp_path / "whole", **options)
    tiled, same = _trained(study, tmp_path / "tiled", loss_chunk=32, **options)
    assert reached > 0.7
    assert same == pytest.approx(reached, abs=0.01)
    for ours, theirs in zip(tiled.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_soft_targets_change_what_is_learned(study, tmp_path):
    hard, _ = _trained(study, tmp_path / "hard", epochs=2)
    soft, _ = _trained(study, tmp_path / "soft", epochs=2, soft_weight=0.5, soft_temperature=1.0)
    pairs = list(zip(hard.parameters(), soft.parameters(), strict=True))
    assert max((a - b).abs().max().item() for a, b in pairs) > 1e-3


def test_the_temperature_is_capped_at_100_and_still_learns_there():
    model = AlignmentModel({"a": 3, "b": 4}, CONFIG.projector, temperature=1e-4)
    model.cap_scales()
    (scale,) = model.scales.values()
    assert scale.item() == pytest.approx(100, rel=1e-6)
    scale.backward()
    assert next(iter(model.log_scales.values())).grad.item() == pytest.approx(100, rel=1e-5)


@pytest.mark.filterwarnings(
    "ignore::RuntimeWarning", "ignore:Initializing zero-element"
)  # vectors without variance
@pytest.mark.parametrize("kind", ["raw", "adjusted"])
def test_people_who_all_have_one_genome_vector_are_refused_also_once_confounds_are_out(study, tmp_path, kind):
    vectors, cohort, split = study
    same = np.ones_like(vectors["genetics"].values)
    vectors = vectors | {"genetics": SubjectVectors(ids=vectors["genetics"].ids, values=same)}
    with pytest.raises(InputError, match="E_NO_NEGATIVES.*same genetics vector"):
        align_study(
            vectors,
            join(vectors, split=split, cohort=cohort),
            cohort=cohort,
            split=split,
            config=dataclasses.replace(CONFIG, kinds=[kind]),
            folder=tmp_path,
            accelerator=accelerator(seed=0),
        )


def test_a_single_family_is_refused(study, tmp_path):
    vectors, cohort, split = study
    groups = split.groups | dict.fromkeys(split.train, "f")
    one = Split(train=split.train, val=split.val, test=split.test, groups=groups, seed=0)
    with pytest.raises(InputError, match="same family.*kinship table"):
        _trained((vectors, cohort, one), tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"loss_chunk": -1}, "--loss_chunk=-1"),
        ({"epochs": 0}, "--epochs=0; 1 or more"),
        ({"batch_size": 1}, "--batch_size=1; 2 or more"),
        ({"eval_every": 0}, "--eval_every=0; 1 or more"),
        ({"lr": 0.0}, "--lr=0.0 .*above 0"),
        ({"soft_weight": 1.5}, "--soft_weight=1.5"),
        ({"soft_weight": 0.1, "soft_temperature": 0.0}, "temperature above 0"),
        ({"soft_weight": 0.1, "soft_modality": "diet"}, "--soft_modality=diet"),
    ],
)
def test_options_of_the_loss_that_cannot_be_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        dataclasses.replace(CONFIG, **options)
