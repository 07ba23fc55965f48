"""Bootstrap over families: how far a number would move with other people.

Glossary: N people · B resamples.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def cluster_weights(families: Sequence[str], num: int, rng: np.random.Generator) -> Float[np.ndarray, "B N"]:
    """How often each person is drawn when whole families are drawn with replacement.

    Args:
        families: Family of each person.
        num: B.
        rng: Random generator.
    """
    _, family = np.unique(np.asarray(families), return_inverse=True)
    count = int(family.max()) + 1
    draws = rng.multinomial(count, np.full(count, 1 / count), size=num)
    return draws[:, family].astype(np.float64)


def percentile_interval(values: Float[np.ndarray, " B"], *, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap values; NaN values (empty resamples) are left out."""
    if not len(values):
        return float("nan"), float("nan")
    tail = (1 - level) / 2 * 100
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)
