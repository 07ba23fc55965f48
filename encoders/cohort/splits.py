"""The one split that every later step reads: who may be seen by whom.

Groups (families, kinship components) are never cut. Disjointness is checked when a split is made and
again when it is loaded. Beside train, validation and test people the file may divide everyone into k folds for
cross-validation: :meth:`Split.held_out` is the split that holds one of them out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from encoders.cohort.kinship import Pair
from encoders.cohort.table import Cohort
from encoders.runs.artifact import content_digest, load_json, save_json
from encoders.runs.errors import InputError

KIND, FORMAT = "neurohelix.split", 2
FEWEST_FOLDS = 3  # one to hold out, one to choose by, one to train on
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
        folds: Everyone again, divided into k folds; empty if the file was made without.
    """

    train: list[str]
    val: list[str]
    test: list[str]
    groups: dict[str, str]
    seed: int
    grouped_by: str = ""
    folds: list[list[str]] = field(default_factory=list)

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
        self._check_groups({fold: getattr(self, fold) for fold in FOLDS})
        if self.folds:
            if sorted(people) != sorted(name for fold in self.folds for name in fold):
                raise InputError("the folds of the split do not hold each of its people once; make it anew")
            self._check_groups({f"fold {k}": fold for k, fold in enumerate(self.folds)})

    def _check_groups(self, parts: Mapping[str, list[str]]) -> None:
        where: dict[str, set[str]] = {}
        for part, names in parts.items():
            for name in names:
                where.setdefault(self.groups[name], set()).add(part)
        if cut := [group for group, found in where.items() if len(found) > 1]:
            raise InputError(
                f"{len(cut)} families are cut by the split (the family of {cut[0]!r} lies in "
                f"{' and '.join(sorted(where[cut[0]]))}); make it anew with scripts/make_splits.py"
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

    def held_out(self, number: int) -> "Split":
        """The split of cross-validation that tests on fold ``number`` and validates on the one after it.

        Raises:
            InputError: the file has no such fold.
        """
        if not 0 <= number < len(self.folds):
            there = f"folds 0 to {len(self.folds) - 1}" if self.folds else "no folds"
            raise InputError(
                f"fold {number} was asked for, but the split file has {there}; make it anew with "
                f"scripts/make_splits.py --num_folds=K --redo=true"
            )
        after = (number + 1) % len(self.folds)
        rest = {name for k, fold in enumerate(self.folds) if k not in (number, after) for name in fold}
        return Split(
            train=[name for name in [*self.train, *self.val, *self.test] if name in rest],
            val=self.folds[after],
            test=self.folds[number],
            groups=self.groups,
            seed=self.seed,
            grouped_by=self.grouped_by,
        )

    def save(self, path: Path) -> None:
        """Write the split as a JSON artefact, readable by its owner only."""
        content = {fold: getattr(self, fold) for fold in FOLDS}
        content |= {name: getattr(self, name) for name in ("groups", "seed", "grouped_by", "folds")}
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
    num_folds: int = 0,
    units: Mapping[str, str] | None = None,
    test: Iterable[str] = (),
    seed: int = 42,
    grouped_by: str = "",
) -> Split:
    """Deal groups to train, validation and test, and once more to folds, as scikit-learn's StratifiedGroupKFold does.

    (That one knows folds of equal size only, and no hold-out of 15 %.)

    Args:
        cohort: The people.
        groups: Id -> group; a group is never cut.
        val_fraction: Share of people for validation.
        test_fraction: Share of people held out.
        stratify: Columns whose joint levels are balanced over the folds; absent columns are left out.
        num_folds: Folds of the cross-validation; 0 for none.
        units: Id -> what is dealt whole where that is larger than a group, such as a site; no group may lie in two.
        test: These people are held out, and the others dealt to train and validation; ``val_fraction`` is then a share
            of the others.
        seed: Seed of the order in which groups of one size are dealt.
        grouped_by: Where the groups come from, in words.

    Raises:
        InputError: fractions or folds that leave nobody somewhere.
    """
    wanted = {"train": 1 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
    test = set(test)
    if test:
        wanted = {"train": 1 - val_fraction, "val": val_fraction}
    if min(wanted.values()) <= 0:
        raise InputError(
            f"fractions leave {wanted['train']:.2f} of the people for training; every fold needs some"
        )
    if num_folds and num_folds < FEWEST_FOLDS:
        raise InputError(f"num_folds is {num_folds}; give 0 for none, or at least {FEWEST_FOLDS}")
    columns = [name for name in stratify if name in cohort.frame]
    strata = dict(zip(cohort.ids, map(tuple, cohort.frame[columns].astype(str).to_numpy()), strict=True))
    units = groups if units is None else units
    rest = [name for name in cohort.ids if name not in test]
    dealt = _deal(cohort, rest, units, wanted, strata, seed)
    if test:
        dealt["test"] = [name for name in cohort.ids if name in test]
    shares = {str(k): 1 / num_folds for k in range(num_folds)}
    folds = list(_deal(cohort, cohort.ids, units, shares, strata, seed).values()) if shares else []
    return Split(**dealt, groups=dict(groups), seed=seed, grouped_by=grouped_by, folds=folds)


def _deal(
    cohort: Cohort,
    people: list[str],
    groups: Mapping[str, str],
    wanted: Mapping[str, float],
    strata: Mapping[str, tuple[str, ...]],
    seed: int,
) -> dict[str, list[str]]:
    """Largest groups first, each to the fold that lacks most of its strata; ``wanted`` are the folds' shares."""
    members: dict[str, list[str]] = {}
    for name in people:
        members.setdefault(groups[name], []).append(name)
    order = list(members)
    np.random.default_rng(seed).shuffle(order)
    order.sort(key=lambda group: -len(members[group]))  # stable: the shuffle decides among equals

    total: dict[tuple[str, ...], int] = {}
    for name in people:
        total[strata[name]] = total.get(strata[name], 0) + 1
    dealt = {fold: dict.fromkeys(total, 0) for fold in wanted}
    size = dict.fromkeys(wanted, 0)

    def lack(fold: str, group: str) -> tuple[float, float]:
        by_stratum = sum(
            (wanted[fold] * total[s] - dealt[fold][s]) / (wanted[fold] * total[s])
            for s in (strata[name] for name in members[group])
        )
        return by_stratum / len(members[group]), wanted[fold] * len(people) - size[fold]

    folds: dict[str, list[str]] = {fold: [] for fold in wanted}
    for group in order:
        chosen = max(wanted, key=lambda fold: lack(fold, group))
        for name in members[group]:
            folds[chosen].append(name)
            dealt[chosen][strata[name]] += 1
        size[chosen] += len(members[group])
    if empty := [fold for fold in wanted if not folds[fold]]:
        raise InputError(
            f"{cohort.path}: {len(people)} people in {len(members)} units that are not cut leave the fold(s) {', '.join(empty)} "
            f"empty; add people or change the fractions"
        )
    position = {name: i for i, name in enumerate(people)}
    return {fold: sorted(names, key=position.__getitem__) for fold, names in folds.items()}


def crossing_pairs(split: Split, related: Iterable[Pair]) -> list[Pair]:
    """Pairs of relatives that lie in different folds: each is a leak."""
    fold = split.fold_of
    return [(a, b) for a, b in related if a in fold and b in fold and fold[a] != fold[b]]
