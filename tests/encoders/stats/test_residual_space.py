"""The residual space: an orthonormal basis of it, whose rows belong to people, in any layout of confounds."""

import numpy as np
import pytest

from encoders.runs.errors import InputError
from encoders.stats.residual_space import ResidualSpace


def confounds(rng, people=40):
    """Numbers, a three-level site as dummies, a repeated and a constant column."""
    numbers, site = rng.standard_normal((people, 3)), rng.integers(0, 3, people)
    return np.concatenate([numbers, np.eye(3)[site], numbers[:, :1], np.full((people, 1), 7.0)], axis=1)


def basis(space, people):
    return space.project(np.eye(people)).T  # (S, K): Q, because project is Q'


def test_the_projection_is_an_orthonormal_basis_of_the_residual_space():
    z = confounds(np.random.default_rng(0))
    space = ResidualSpace.of(z)
    design = np.concatenate([np.ones((40, 1)), z], axis=1)
    rank = np.linalg.matrix_rank(design)
    q = basis(space, 40)
    assert (space.rank, q.shape) == (rank, (40, 40 - rank)) and len(space.kept) == 40 - rank
    np.testing.assert_allclose(q.T @ q, np.eye(40 - rank), atol=1e-10)
    np.testing.assert_allclose(q @ q.T, np.eye(40) - design @ np.linalg.pinv(design), atol=1e-10)


def test_the_rows_are_theils_residuals_of_the_kept_people():
    z = np.random.default_rng(1).standard_normal((30, 4))
    space = ResidualSpace.of(z)
    design = np.concatenate([np.ones((30, 1)), z], axis=1)
    residual = np.eye(30) - design @ np.linalg.pinv(design)
    inside = residual[np.ix_(space.kept, space.kept)]  # S R S'
    power, axes = np.linalg.eigh(inside)
    direct = residual[:, space.kept] @ (axes / np.sqrt(power)) @ axes.T
    np.testing.assert_allclose(basis(space, 30), direct, atol=1e-9)
    # each row is nearer to its own person's residual than to anybody else's
    likeness = np.abs(basis(space, 30)[space.kept])
    assert (likeness.argmax(axis=0) == np.arange(len(space.kept))).all()


def test_many_people_cost_neither_a_square_matrix_nor_accuracy():
    rng = np.random.default_rng(2)
    z, x = rng.standard_normal((20_000, 25)), rng.standard_normal((20_000, 4))
    space = ResidualSpace.of(z)  # a matrix of 20,000 x 20,000 would be 3.2 GB
    design = np.concatenate([np.ones((20_000, 1)), z], axis=1)
    residual = x - design @ np.linalg.lstsq(design, x, rcond=None)[0]
    projected = space.project(x)
    np.testing.assert_allclose(projected.T @ projected, residual.T @ residual, rtol=1e-9)


def test_too_few_people_for_the_confounds_are_refused():
    with pytest.raises(InputError, match="10 people are too few for 9 independent confound columns"):
        ResidualSpace.of(np.random.default_rng(3).standard_normal((10, 8)))
