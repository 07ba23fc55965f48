"""People with both modalities: join by id, count who is missing what, refuse leakage."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32

from encoders.cohort import Cohort, Split
from encoders.cohort.kinship import Pair
from encoders.cohort.splits import FOLDS, crossing_pairs
from encoders.runs import InputError
from encoders.vectors import SubjectVectors

MODALITIES = ("brain", "genetics")


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """People of the split who have both modalities, in the order train, val, test.

    Args:
        ids: Their ids.
        folds: Fold of each.
        groups: Family of each.
        brain: Brain vectors.
        genetics: Genome vectors.
        frame: Their rows of the table of people.
        missing: Modality -> people of the split without a vector in it, by fold.
    """

    ids: list[str]
    folds: list[str]
    groups: list[str]
    brain: Float32[np.ndarray, "S I"]
    genetics: Float32[np.ndarray, "S J"]
    frame: pd.DataFrame
    missing: dict[str, dict[str, list[str]]]

    def rows(self, fold: str) -> np.ndarray:
        """Row numbers of one fold."""
        return np.flatnonzero(np.array(self.folds) == fold)


def pair(
    brain: SubjectVectors,
    genetics: SubjectVectors,
    *,
    split: Split,
    cohort: Cohort,
    related: Iterable[Pair] = (),
) -> Pairs:
    """Join the modalities of all people of the split.

    Raises:
        InputError: an encoder saw test people or their relatives, relatives lie in different folds, vectors
            belong to people outside the split, or a fold has nobody with both modalities.
    """
    check_leakage(brain, split, "brain")
    check_leakage(genetics, split, "genetics")
    if crossing := crossing_pairs(split, related):
        raise InputError(
            f"{len(crossing)} pairs of relatives in the kinship table lie in different folds of the split, e.g. "
            f"{crossing[0]}; make the split with the kinship table: python scripts/make_splits.py --redo=true"
        )
    have = {"brain": set(brain.ids), "genetics": set(genetics.ids)}
    outside = {m: sorted(have[m] - set(split.fold_of)) for m in MODALITIES}
    if any(outside.values()) and not all(have[m] & set(split.fold_of) for m in MODALITIES):
        m = next(m for m in MODALITIES if not have[m] & set(split.fold_of))
        raise InputError(
            f"none of the {len(have[m])} people with {m} vectors is in the split, e.g. {outside[m][0]!r} against "
            f"{split.train[0]!r}; make the ids of both agree"
        )
    missing = {m: {f: [i for i in getattr(split, f) if i not in have[m]] for f in FOLDS} for m in MODALITIES}
    known = set(cohort.ids)
    ids, folds = [], []
    for fold in FOLDS:
        both = [
            i for i in getattr(split, fold) if i in have["brain"] and i in have["genetics"] and i in known
        ]
        if len(both) < 2:
            raise InputError(
                f"only {len(both)} people of the {fold} fold have brain and genome vectors and a row in "
                f"{cohort.path.name}; at least 2 are needed"
            )
        ids += both
        folds += [fold] * len(both)
    return Pairs(
        ids=ids,
        folds=folds,
        groups=[split.groups[i] for i in ids],
        brain=brain.select(ids),
        genetics=genetics.select(ids),
        frame=cohort.frame.loc[ids],
        missing=missing,
    )


def check_leakage(vectors: SubjectVectors, split: Split, modality: str) -> None:
    """Refuse vectors whose encoder was trained on test people or their relatives.

    Raises:
        InputError: names how many test families the encoder has seen.
    """
    trained_on = vectors.provenance.get("trained_on")
    if not trained_on:
        return
    if trained_on["ids"] is None:  # a shareable copy of a model names nobody
        print(
            f"warning: the encoder of the {modality} vectors does not name the people it was trained on; make sure "
            f"that none of them is held out here",
            file=sys.stderr,
            flush=True,
        )
        return
    test_groups = {split.groups[i] for i in split.test}
    seen = {split.groups[i] for i in trained_on["ids"] if i in split.groups} & test_groups
    if seen:
        raise InputError(
            f"the encoder of the {modality} vectors was trained on {len(seen)} of the {len(test_groups)} held-out "
            f"families; train it on the present split ({split.digest[:12]}), it used {trained_on['split_digest'][:12]}"
        )


def not_negative(groups: list[str], genetics: Float32[np.ndarray, "S J"]) -> Bool[np.ndarray, "S S"]:
    """Pairs of people who must not be pushed apart: relatives, and people with the same genome vector."""
    family = np.unique(np.asarray(groups), return_inverse=True)[1]
    genotype = np.unique(genetics.round(5), axis=0, return_inverse=True)[1].reshape(-1)
    return (family[:, None] == family[None, :]) | (genotype[:, None] == genotype[None, :])
