"""Principal axes from whichever Gram matrix is smaller, so that wide data cost what few people cost.

Glossary: S people · D columns · C axes.
"""

import numpy as np
from jaxtyping import Float


def principal_axes(
    centred: Float[np.ndarray, "S D"],
) -> tuple[Float[np.ndarray, "D C"], Float[np.ndarray, " C"]]:
    """Principal axes of centred data and the variances along them, largest first; empty directions left out."""
    num, width = centred.shape
    if width <= num:
        values, axes = np.linalg.eigh(centred.T @ centred)
    else:
        values, left = np.linalg.eigh(centred @ centred.T)
        axes = centred.T @ left / np.sqrt(np.maximum(values, 1e-300))
    order = np.argsort(values)[::-1]
    order = order[values[order] > 1e-10 * values[order[0]]]
    return axes[:, order], values[order] / max(1, num - 1)
