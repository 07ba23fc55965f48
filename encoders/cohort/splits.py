"""The one split that every later step reads: who may be seen by whom.

Groups (families, kinship components) are never cut. Disjointness is checked when a split is made and
again when it is loaded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from encoders.cohort.kinship import Pair
from encoders.cohort.table import Cohort
from encoders.runs.artifact import content_digest, load_json, save_json
from encoders.runs.errors import InputError

KIND, FORMAT = "neurohelix.split", 1
FOLDS = ("train", "val", "test")

Fold = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Train, validation and test people, and the groups that keep relatives together.

    Args:
        train: Ids that anything may be fitted on.
        val: Ids for choosing among models.
        test: Ids held out until the evaluation.
        groups: Id -> family or kinship component.
        seed: Seed it was made with.
        grouped_by: Where the groups come from, in words.
    """

    train: list[str]
    val: list[str]
    test: list[str]
    groups: dict[str, str]
    seed: int
    grouped_by: str = ""

    def __post_init__(self) -> None:
        people = [*self.train, *self.val, *self.test]
        if len(set(people)) < len(people):
            twice = sorted({name for name in people if people.count(name) > 1})
            raise InputError(
                f"{len(twice)} people are in two folds of the split, e.g. {twice[0]!r}; make it anew"
            )
        if missing := [name for name in people if name not in self.groups]:
            raise InputError(
                f"{len(missing)} people of the split have no group, e.g. {missing[0]!r}; make it anew"
            )
        folds: dict[str, set[str]] = {}
        for fold in FOLDS:
            for name in getattr(self, fold):
                folds.setdefault(self.groups[name], set()).add(fold)
        if cut := [group for group, where in folds.items() if len(where) > 1]:
            raise InputError(
                f"{len(cut)} families are cut by the split (the family of {cut[0]!r} lies in "
                f"{' and '.join(sorted(folds[cut[0]]))}); make it anew with scripts/make_splits.py"
            )

    @cached_property
    def digest(self) -> str:
        """sha256 of who is in which fold; trained encoders carry it."""
        return content_digest({fold: sorted(getattr(self, fold)) for fold in FOLDS})

    @cached_property
    def fold_of(self) -> dict[str, Fold]:
        """Id -> fold."""
        return {name: fold for fold in FOLDS for name in getattr(self, fold)}

    def fold(self, name: str) -> Fold:
        """The fold of one person."""
        return self.fold_of[name]

    def save(self, path: Path) -> None:
        """Write the split as a JSON artefact, readable by its owner only."""
        content = {fold: getattr(self, fold) for fold in FOLDS}
        content |= {"groups": self.groups, "seed": self.seed, "grouped_by": self.grouped_by}
        save_json(path, KIND, FORMAT, content, mode=0o600)

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Read and check a split."""
        return cls(**load_json(path, KIND, FORMAT))


def make_split(
    cohort: Cohort,
    groups: Mapping[str, str],
    *,
    val_fraction: float,
    test_fraction: float,
    stratify: Iterable[str] = (),
    seed: int = 42,
    grouped_by: str = "",
) -> Split:
    """Deal groups to folds: largest first, each to the fold that lacks most of its strata.

    Args:
        cohort: The people.
        groups: Id -> group; a group is never cut.
        val_fraction: Share of people for validation.
        test_fraction: Share of people held out.
        stratify: Columns whose joint levels are balanced over the folds; absent columns are left out.
        seed: Seed of the order in which groups of one size are dealt.
        grouped_by: Where the groups come from, in words.
    """
    wanted = {"train": 1 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
    if min(wanted.values()) <= 0:
        raise InputError(
            f"fractions leave {wanted['train']:.2f} of the people for training; every fold needs some"
        )
    columns = [name for name in stratify if name in cohort.frame]
    strata = dict(zip(cohort.ids, map(tuple, cohort.frame[columns].astype(str).to_numpy()), strict=True))
    members: dict[str, list[str]] = {}
    for name in cohort.ids:
        members.setdefault(groups[name], []).append(name)
    order = list(members)
    np.random.default_rng(seed).shuffle(order)
    order.sort(key=lambda group: -len(members[group]))  # stable: the shuffle decides among equals

    total: dict[tuple[str, ...], int] = {}
    for stratum in strata.values():
        total[stratum] = total.get(stratum, 0) + 1
    dealt = {fold: dict.fromkeys(total, 0) for fold in FOLDS}
    size = dict.fromkeys(FOLDS, 0)

    def lack(fold: str, group: str) -> tuple[float, float]:
        by_stratum = sum(
            (wanted[fold] * total[s] - dealt[fold][s]) / (wanted[fold] * total[s])
            for s in (strata[name] for name in members[group])
        )
        return by_stratum / len(members[group]), wanted[fold] * len(strata) - size[fold]

    folds: dict[str, list[str]] = {fold: [] for fold in FOLDS}
    for group in order:
        chosen = max(FOLDS, key=lambda fold: lack(fold, group))
        for name in members[group]:
            folds[chosen].append(name)
            dealt[chosen][strata[name]] += 1
        size[chosen] += len(members[group])
    if empty := [fold for fold in FOLDS if not folds[fold]]:
        raise InputError(
            f"{cohort.path}: {len(cohort.ids)} people in {len(members)} families leave the fold(s) {', '.join(empty)} "
            f"empty; add people or change the fractions"
        )
    position = {name: i for i, name in enumerate(cohort.ids)}
    ordered = {fold: sorted(names, key=position.__getitem__) for fold, names in folds.items()}
    return Split(**ordered, groups=dict(groups), seed=seed, grouped_by=grouped_by)


def crossing_pairs(split: Split, related: Iterable[Pair]) -> list[Pair]:
    """Pairs of relatives that lie in different folds: each is a leak."""
    fold = split.fold_of
    return [(a, b) for a, b in related if a in fold and b in fold and fold[a] != fold[b]]
