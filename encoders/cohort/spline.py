"""Natural cubic splines: smooth curves that bend between knots and go on straight outside them.

The truncated-power basis of Harrell, Regression Modeling Strategies (2nd ed. 2015), section 2.4.5, with his knots. Straight
tails matter here: people of other folds may be older than anybody in training.

Glossary: S people · K knots · L = K - 1 columns.
"""

import numpy as np
from jaxtyping import Float

QUANTILES = (0.05, 0.275, 0.5, 0.725, 0.95)  # Harrell's places of five knots


def knots_of(values: Float[np.ndarray, " S"]) -> Float[np.ndarray, " K"]:
    """Knots at values of the training people; 5, or fewer where few values differ."""
    return np.unique(np.quantile(values, QUANTILES, method="lower"))


def natural_spline(
    values: Float[np.ndarray, " S"], knots: Float[np.ndarray, " K"]
) -> Float[np.ndarray, "S L"]:
    """The value itself, and K - 2 columns that bend; with fewer than three knots the value alone."""
    if len(knots) < 3:
        return values[:, None]
    last, before = knots[-1], knots[-2]
    columns = [values]
    for knot in knots[:-2]:
        bend = _cube(values - knot)
        bend -= _cube(values - before) * (last - knot) / (last - before)
        bend += _cube(values - last) * (before - knot) / (last - before)
        columns.append(bend / (last - knots[0]) ** 2)
    return np.stack(columns, axis=1)


def _cube(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0) ** 3
