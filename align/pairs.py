"""People with both modalities: join by id, count who is missing what, refuse leakage."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32

from encoders.cohort import Cohort, Split
from encoders.cohort.kinship import Pair, family_pairs
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
    accept_unknown: bool = False,
) -> Pairs:
    """Join the modalities of all people of the split; ``accept_unknown`` as in :func:`check_leakage`.

    Raises:
        InputError: an encoder saw test people or their relatives or does not say whom it saw, relatives lie in different folds, vectors
            belong to people outside the split, or a fold has nobody with both modalities.
    """
    check_leakage(brain, split, "brain", accept_unknown=accept_unknown)
    check_leakage(genetics, split, "genetics", accept_unknown=accept_unknown)
    if crossing := crossing_pairs(split, [*related, *family_pairs(cohort)]):
        raise InputError(
            f"{len(crossing)} pairs of relatives (kinship table or family_id) lie in different folds of the split, e.g. "
            f"{crossing[0]}; make the split with that table: python scripts/make_splits.py --redo=true"
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


def check_leakage(
    vectors: SubjectVectors, split: Split, modality: str, *, accept_unknown: bool = False
) -> None:
    """Refuse vectors whose encoder was trained on test people or their relatives, or on nobody knows whom.

    An encoder that names nobody (a shared copy) is known to be clean if it was trained on this very split.

    Args:
        vectors: With their provenance.
        split: Who is held out.
        modality: For messages.
        accept_unknown: Take an encoder that does not say whom it has seen.

    Raises:
        InputError: names how many test families the encoder has seen, or that it does not say.
    """
    trained_on = vectors.provenance.get("trained_on")
    if not trained_on:
        return
    test_groups = {split.groups[i] for i in split.test}
    seen = {split.groups[i] for i in trained_on["ids"] or () if i in split.groups} & test_groups
    if seen:
        raise InputError(
            f"the encoder of the {modality} vectors was trained on {len(seen)} of the {len(test_groups)} held-out "
            f"families; train it on the present split ({split.digest[:12]}), it used {trained_on['split_digest'][:12]}"
        )
    complete = trained_on.get("complete", True)
    known = complete and (trained_on["ids"] is not None or trained_on["split_digest"] == split.digest)
    if not (known or accept_unknown):
        raise InputError(
            f"the encoder of the {modality} vectors does not name all the people it was trained on, so nobody can "
            f"tell whether held-out people are among them; train it on the present split, or if you know that they "
            f"are not, pass --unknown_training=accept"
        )


def not_negative(groups: list[str], genetics: Float32[np.ndarray, "S J"]) -> Bool[np.ndarray, "S S"]:
    """Pairs of people who must not be pushed apart: relatives, and people with the same genome vector."""
    family = np.unique(np.asarray(groups), return_inverse=True)[1]
    genotype = np.unique(genetics.round(5), axis=0, return_inverse=True)[1].reshape(-1)
    return (family[:, None] == family[None, :]) | (genotype[:, None] == genotype[None, :])
