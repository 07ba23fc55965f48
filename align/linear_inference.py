"""Are the two modalities related at all, linearly and beyond confounds? CCA and PLS of the training people.

p-values: permutations of the residual space within sites, families whole, modes stepwise with closure. Effect sizes:
out-of-fold correlations. Held-out people play no part, so that a gate on these numbers spends none of them.

Glossary: S people.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from align.pairs import Pairs
from encoders.cohort import ConfoundDesign
from encoders.runs import InputError
from encoders.stats.cca_inference import MOST, PEOPLE_PER_COMPONENT, SHARE, mode_inference
from encoders.stats.out_of_fold import out_of_fold_correlations

RULE = f"principal components that hold {SHARE:.0%} of the variance, at most one per {PEOPLE_PER_COMPONENT} people and {MOST}"


def linear_inference(
    pairs: Pairs, confound_terms: list[str], *, permutations: int, seed: int
) -> dict[str, Any]:
    """Permutation p-values and out-of-fold correlations of the modes of CCA and PLS.

    Args:
        pairs: People with both modalities; the training people are used.
        confound_terms: Taken out of both sides.
        permutations: Permutations behind each p-value.
        seed: Their seed.

    Returns:
        `cca` and `pls`, each with p, p_single, out_of_fold, ranges, ...; or `reason` where nothing can be tested.
    """
    train = pairs.rows("train")
    frame = pairs.frame.iloc[train]
    confounds = ConfoundDesign(terms=tuple(confound_terms)).fit(frame).transform(frame)
    families = [pairs.groups[i] for i in train]
    sites = [str(s) for s in frame["site"]] if "site" in frame else ["all"] * len(train)
    sides = pairs.brain[train].astype(np.float64), pairs.genetics[train].astype(np.float64)
    found: dict[str, Any] = {"people": len(train), "components_rule": RULE}
    for method in ("cca", "pls"):
        try:
            tested = mode_inference(
                *sides,
                confounds=confounds,
                strata=sites,
                families=families,
                permutations=permutations,
                seed=seed,
                method=method,
            )
            effect = out_of_fold_correlations(*sides, confounds=confounds, families=families, method=method)
        except InputError as cause:  # too few people, or a side that confounds explain: told, not fatal
            return {"people": len(train), "reason": str(cause)}
        found[method] = asdict(tested) | {
            "out_of_fold": effect.correlations[: len(tested.p)],
            "ranges": [list(ends) for ends in effect.ranges[: len(tested.p)]],
            "folds": effect.folds,
        }
    return found
