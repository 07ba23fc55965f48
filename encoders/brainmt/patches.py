"""Which patches of BrainMT's grid touch the brain.

Four convolutions of stride 2 put the centre of patch p at voxel 16 p along each axis; a voxel belongs to the patch
whose centre is nearest. With the MNI brain mask at 2 mm, 130 of the 252 patches hold any brain, which leaves 0.4 of
a training step's FLOPs.

Glossary: V in-mask voxels · P patches.
"""

import numpy as np
from jaxtyping import Int

STRIDE = 16  # voxels between the centres of neighbouring patches


def brain_patches(mask_index: Int[np.ndarray, " V"], grid: tuple[int, int, int]) -> set[int]:
    """Patches that hold at least one voxel of a mask, numbered as the model's tokens are (Y, X, Z, C order).

    Args:
        mask_index: Place of each in-mask voxel in the C-order flattened X, Y, Z grid, as the fMRI store keeps it.
        grid: Voxels along X, Y, Z.
    """
    counts = [(n + STRIDE - 1) // STRIDE for n in grid]
    cells = [
        np.minimum((axis + STRIDE // 2) // STRIDE, count - 1)
        for axis, count in zip(np.unravel_index(mask_index.astype(np.int64), grid), counts, strict=True)
    ]
    x, y, z = cells
    numbers = np.ravel_multi_index((y, x, z), (counts[1], counts[0], counts[2]))
    return set(np.unique(numbers).tolist())
