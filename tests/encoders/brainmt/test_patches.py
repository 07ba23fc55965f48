"""Which patches hold brain: geometry by hand, and against a search through all voxels."""

import numpy as np
import pytest

from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.patches import brain_patches


def slow(mask: np.ndarray) -> set[int]:
    """Every voxel's nearest patch centre along each axis; centres lie at voxels 0, 16, 32, ..."""
    found = set()
    counts = [(n + 15) // 16 for n in mask.shape]
    for voxel in np.argwhere(mask):
        x, y, z = (
            min(range(count), key=lambda p, v=v: (abs(16 * p - v), -p))
            for v, count in zip(voxel, counts, strict=True)
        )
        found.add((y * counts[0] + x) * counts[2] + z)
    return found


@pytest.mark.parametrize("grid", [(16, 17, 33), (24, 25, 40), (91, 30, 8)])
@pytest.mark.parametrize("count", [1, 40])
def test_each_voxel_belongs_to_the_patch_whose_centre_is_nearest(grid, count):
    mask = np.zeros(grid, bool)
    mask.reshape(-1)[np.random.default_rng(count).choice(mask.size, count, replace=False)] = True
    assert brain_patches(np.flatnonzero(mask).astype(np.int32), grid) == slow(mask)


def test_a_full_grid_has_all_patches_of_the_model():
    grid = (91, 109, 91)  # X, Y, Z of MNI at 2 mm
    config = BrainMTConfig(tokens="brain", brain_patches=tuple(range(252)))
    assert brain_patches(np.arange(np.prod(grid), dtype=np.int32), grid) == set(config.brain_patches)
    assert config.num_patches == 252


def test_an_ellipsoid_like_a_brain_leaves_about_half_of_the_patches():
    x, y, z = np.ogrid[:91, :109, :91]
    brain = ((x - 45) / 34) ** 2 + ((y - 54) / 43) ** 2 + ((z - 40) / 36) ** 2 < 1
    assert 100 < len(brain_patches(np.flatnonzero(brain).astype(np.int32), (91, 109, 91))) < 150
