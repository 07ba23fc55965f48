import stat

import numpy as np
import pytest

from encoders.genetics.pca import GeneticsPCA
from encoders.runs.errors import InputError

BASIS = {"model": "m", "windows": "w", "strategy": {"pooling": "mean"}}
SEEN = {"split_digest": "0" * 64, "ids": ["a", "b"], "complete": True}


def people(count, rank, width=40, seed=0):
    rng = np.random.default_rng(seed)
    scales = 1.2 ** -np.arange(rank)
    return ((rng.standard_normal((count, rank)) * scales) @ rng.standard_normal((rank, width)) + 3).astype(
        np.float32
    )


def fit(values, asked):
    return GeneticsPCA.fit(values, asked, basis=BASIS, trained_on=SEEN)


@pytest.mark.parametrize(
    ("count", "rank", "asked", "kept"), [(30, 5, 512, 5), (8, 40, 512, 7), (30, 10, 4, 4), (100, 40, 512, 40)]
)
def test_components_are_capped_by_people_and_by_rank_and_it_is_said(count, rank, asked, kept):
    pca = fit(people(count, rank), asked)
    assert len(pca.components) == kept
    assert (str(pca).startswith(f"{asked} asked for, {kept} components")) == (asked != kept)
    assert pca.explained.sum() < 1.000001 and (pca.explained.sum() > 0.9999) == (asked != 4)


def test_scores_are_those_of_an_exact_decomposition_also_for_new_people():
    train, new = people(50, 6), people(7, 6, seed=1)
    pca = fit(train, 3)
    center = train.astype(float).mean(0)
    axes = np.linalg.svd(train - center)[2][:3]
    np.testing.assert_allclose(np.abs(pca.transform(new)), np.abs((new - center) @ axes.T), atol=2e-5)
    assert pca.transform(new).dtype == np.float32


def test_saved_and_loaded_it_is_the_same_and_other_vectors_are_refused(tmp_path):
    pca = fit(people(20, 4), 3)
    path = tmp_path / "pca.safetensors"
    pca.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = GeneticsPCA.load(path)
    assert (again.digest, again.asked, again.trained_on) == (pca.digest, 3, SEEN)
    np.testing.assert_array_equal(again.transform(people(5, 4)), pca.transform(people(5, 4)))
    again.check(BASIS | {"more": 1}, path)
    with pytest.raises(
        InputError, match="fitted on vectors with another model and strategy; .* without --pca_from"
    ):
        again.check(BASIS | {"model": "other", "strategy": {}}, path)


def test_too_few_training_people():
    with pytest.raises(InputError, match="2 training people of the split have a genome vector"):
        fit(people(2, 4), 3)
