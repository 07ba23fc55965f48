"""What rivals and phenotype models see: vectors whose sites are harmonised exactly as the alignment harmonised them.

Glossary: S people · D columns.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from align.pairs import Joined
from align.rivals import FEWEST
from encoders.cohort import Cohort
from encoders.cohort.confounds import columns_of
from encoders.cohort.harmonise import Combat
from encoders.runs.errors import InputError
from encoders.vectors import SubjectVectors

Told = Mapping[
    str, Mapping[str, Any]
]  # modality -> by, keep, ...: `harmonised` of the confounds of aligned vectors


def harmonised(joined: Joined, told: Told) -> Joined:
    """The joined people with harmonised vectors, fitted on training people.

    Args:
        joined: People with two modalities or more.
        told: How the alignment harmonised.
    """
    values = dict(joined.values)
    train = np.array(joined.folds) == "train"
    for m, how in told.items():
        there = joined.present[m]
        combat = Combat(site=how["by"], keep=tuple(how["keep"]))
        combat.fit(values[m][train & there], joined.frame[train & there])
        values[m] = values[m].copy()
        values[m][there] = combat.transform(values[m][there], joined.frame[there])
    return dataclasses.replace(joined, values=values)


def harmonised_vectors(
    vectors: SubjectVectors, cohort: Cohort, train: Sequence[str], how: Mapping[str, Any]
) -> SubjectVectors:
    """A rival's vectors in place of a harmonised modality, harmonised alike; people without a row are left out.

    With so few training people that the rival will not be fitted, they stay as they are.

    Args:
        vectors: Of the rival.
        cohort: The people.
        train: Training people.
        how: `by` and `keep`.
    """
    known = set(cohort.ids)
    ids = [name for name in vectors.ids if name in known]
    frame, values = cohort.frame.loc[ids], vectors.select(ids)
    fitted = np.isin(ids, list(train))
    if fitted.sum() < FEWEST:
        return vectors
    combat = Combat(site=how["by"], keep=tuple(how["keep"])).fit(values[fitted], frame[fitted])
    return dataclasses.replace(vectors, ids=ids, values=combat.transform(values, frame))


def refuse_kept_targets(told: Told, phenotypes: Sequence[str]) -> None:
    """A covariate that harmonisation kept was written into everybody's vectors, so it cannot be predicted from them.

    Raises:
        InputError: names it.
    """
    for m, how in told.items():
        kept = {name for term in how["keep"] for name in columns_of(term)}
        if both := [name for name in phenotypes if name in kept]:
            raise InputError(
                f"{both[0]!r} is to be predicted, but the alignment kept its effects while it harmonised the {m} vectors "
                f"(--harmonise_keep), which writes it into the vectors of held-out people; align again without it, or do "
                f"not name it in --phenotypes",
                code="E_KEPT_TARGET",
            )
