"""People with two or more modalities: an outer join by id, missing ones counted, leakage refused.

Glossary: S people · I, J widths of two modalities · G ways in which people belong together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int64

from encoders.cohort import Cohort, Split
from encoders.cohort.kinship import Pair, family_pairs
from encoders.cohort.splits import FOLDS, crossing_pairs
from encoders.runs import InputError
from encoders.vectors import SubjectVectors

FEWEST = 2  # people with both modalities of a pair, in a fold

WORDS = {"genetics": "genome"}  # modality -> word in messages


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """People who have both modalities of a pair, in the order train, val, test.

    Args:
        ids: Their ids.
        folds: Fold of each.
        groups: Family of each.
        brain: Vectors of the pair's first modality: the brain, unless other modalities are compared.
        genetics: Vectors of its second one.
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


@dataclass(frozen=True, kw_only=True)
class Joined:
    """People of the split who have at least two modalities, in the order train, val, test.

    Args:
        ids: Their ids.
        folds: Fold of each.
        groups: Family of each.
        values: Modality -> (S, D) vectors; rows of people without it are 0.
        present: Modality -> who has it.
        frame: Their rows of the table of people.
        missing: Modality -> people of the split without a vector in it, by fold.
    """

    ids: list[str]
    folds: list[str]
    groups: list[str]
    values: dict[str, Float32[np.ndarray, "S _"]]
    present: dict[str, Bool[np.ndarray, " S"]]
    frame: pd.DataFrame
    missing: dict[str, dict[str, list[str]]]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(self.values)

    def rows(self, fold: str) -> np.ndarray:
        """Row numbers of one fold."""
        return np.flatnonzero(np.array(self.folds) == fold)

    def both(self, left: str, right: str) -> Bool[np.ndarray, " S"]:
        """Who has both modalities."""
        return self.present[left] & self.present[right]

    def pair(self, left: str, right: str) -> Pairs:
        """The people who have both of two modalities."""
        rows = np.flatnonzero(self.both(left, right))
        return Pairs(
            ids=[self.ids[k] for k in rows],
            folds=[self.folds[k] for k in rows],
            groups=[self.groups[k] for k in rows],
            brain=self.values[left][rows],
            genetics=self.values[right][rows],
            frame=self.frame.iloc[rows],
            missing={m: self.missing[m] for m in (left, right)},
        )


def join(
    vectors: Mapping[str, SubjectVectors],
    *,
    split: Split,
    cohort: Cohort,
    related: Iterable[Pair] = (),
    accept_unknown: bool = False,
) -> Joined:
    """Join the modalities of all people of the split; ``accept_unknown`` as in :func:`check_leakage`.

    Raises:
        InputError: an encoder saw test people or their relatives or does not say whom it saw, relatives lie in
            different folds, vectors belong to people outside the split, or too few people have both modalities of
            a pair.
    """
    for m in vectors:
        check_leakage(vectors[m], split, m, accept_unknown=accept_unknown)
    if crossing := crossing_pairs(split, [*related, *family_pairs(cohort)]):
        raise InputError(
            f"{len(crossing)} pairs of relatives (kinship table or family_id) lie in different folds of the split, e.g. "
            f"{crossing[0]}; make the split with that table: python scripts/make_splits.py --redo=true"
        )
    have = {m: set(vectors[m].ids) for m in vectors}
    for m in vectors:
        if not have[m] & set(split.fold_of):
            raise InputError(
                f"none of the {len(have[m])} people with {m} vectors is in the split, e.g. {vectors[m].ids[0]!r} against "
                f"{split.train[0]!r}; make the ids of both agree"
            )
    known = set(cohort.ids)
    missing = {m: {f: [i for i in getattr(split, f) if i not in have[m]] for f in FOLDS} for m in vectors}
    ids, folds = [], []
    for fold in FOLDS:
        some = [i for i in getattr(split, fold) if i in known and sum(i in have[m] for m in vectors) >= 2]
        ids += some
        folds += [fold] * len(some)
    leading = next(combinations(vectors, 2))
    for left, right in combinations(vectors, 2):
        both = [fold for i, fold in zip(ids, folds, strict=True) if i in have[left] and i in have[right]]
        for fold in FOLDS if (left, right) == leading else ("train",):
            if both.count(fold) < FEWEST:
                raise InputError(
                    f"only {both.count(fold)} people of the {fold} fold have {WORDS.get(left, left)} and "
                    f"{WORDS.get(right, right)} vectors and a row in {cohort.path.name}; at least {FEWEST} are needed"
                )
    row = {m: {name: k for k, name in enumerate(vectors[m].ids)} for m in vectors}
    present = {m: np.array([i in have[m] for i in ids]) for m in vectors}
    values = {m: np.zeros((len(ids), vectors[m].values.shape[1]), np.float32) for m in vectors}
    for m in vectors:
        values[m][present[m]] = vectors[m].values[[row[m][i] for i in ids if i in have[m]]]
    return Joined(
        ids=ids,
        folds=folds,
        groups=[split.groups[i] for i in ids],
        values=values,
        present=present,
        frame=cohort.frame.loc[ids],
        missing=missing,
    )


def pair(brain: SubjectVectors, genetics: SubjectVectors, **options) -> Pairs:
    """People with both of two modalities; options and errors as of :func:`join`."""
    return join({"brain": brain, "genetics": genetics}, **options).pair("brain", "genetics")


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


def belonging(groups: list[str], *values: Float32[np.ndarray, "S _"]) -> Int64[np.ndarray, "S G"]:
    """Ids that people share who must not be pushed apart: their family, and an equal vector in a modality.

    Args:
        groups: Family of each person.
        values: Vectors in each modality; people of one genotype have equal genome vectors. Equal means: to five digits
            of the vectors' spread, whatever their unit.
    """
    columns = [np.unique(np.asarray(groups), return_inverse=True)[1]]
    columns += [
        np.unique((one / (one.std() or 1)).round(5), axis=0, return_inverse=True)[1].reshape(-1)
        for one in values
    ]
    return np.stack(columns, axis=1).astype(np.int64)
