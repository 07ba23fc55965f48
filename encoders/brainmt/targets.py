"""What BrainMT is trained to predict: columns of the participants table, scaled with the training people.

A number is z-scored; a class becomes its index. Scale and classes come from the training people alone and travel
with the trained model.

Glossary: N windows or people · K targets · O outputs of the head · C classes of a target.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32

from encoders.cohort import Cohort
from encoders.runs.errors import InputError

Task = Literal["regression", "classification"]
MOST_CLASSES = 20
FEWEST_PER_CLASS = 2  # training people without whom a class cannot be learned, let alone validated


@dataclass(frozen=True, kw_only=True)
class Target:
    """One column to predict.

    Args:
        name: Column name.
        classes: Its classes in order; empty for a number. Of two classes the second is the positive one.
        mean: Mean of the training people in the column's own units; numbers only.
        sd: Standard deviation of the training people.
        weights: Weight of each class in the training loss; empty: all 1.
    """

    name: str
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    sd: float = 1.0
    weights: tuple[float, ...] = ()

    @property
    def num_outputs(self) -> int:
        """Outputs of the head: one for a number or two classes, else one per class."""
        return len(self.classes) if len(self.classes) > 2 else 1


@dataclass(frozen=True, kw_only=True)
class Targets:
    """K columns on the scale of the training people.

    Args:
        columns: What they are.
        values: Subject id -> (K,) z-scores or class indices, NaN where the table has none.
    """

    columns: list[Target]
    values: dict[str, Float32[np.ndarray, " K"]]

    @classmethod
    def fit(
        cls,
        cohort: Cohort,
        patterns: list[str],
        train: list[str],
        *,
        task: Task = "regression",
        class_weights: Literal["none", "balanced"] = "none",
    ) -> "Targets":
        """Select the columns; take scale and classes from the training people alone.

        Args:
            cohort: Table of people.
            patterns: Column names; `*` and `?` are wildcards.
            train: Training people.
            task: Whether the columns are numbers or classes.
            class_weights: `balanced` weighs each class by the inverse of its share.

        Raises:
            InputError: a pattern matches no column, a column does not fit the task, does not vary, or has a class
                that too few training people have.
        """
        known = set(cohort.frame.index)
        train = [name for name in train if name in known]
        make = _number if task == "regression" else _classes
        columns = [make(cohort, name, train) for name in _matching(cohort, patterns)]
        if class_weights == "balanced":
            columns = [_balanced(column, cohort, train) for column in columns]
        return cls(columns=columns, values=_values(cohort, columns))

    @classmethod
    def of_card(cls, card: Iterable[Mapping[str, Any]], cohort: Cohort) -> "Targets":
        """The targets of a trained model (`targets` of its card), with the values of this table.

        Raises:
            InputError: the table lacks a column, or holds a class that the model does not know.
        """
        columns = []
        for entry in card:
            lists = {key: tuple(entry[key]) for key in ("classes", "weights")}
            columns.append(Target(name=entry["name"], mean=entry["mean"], sd=entry["sd"], **lists))
        return cls(columns=columns, values=_values(cohort, columns))

    def to_card(self) -> list[dict[str, Any]]:
        """Names, scale and classes as JSON values; holds nobody's labels."""
        return [
            {**asdict(column), "classes": list(column.classes), "weights": list(column.weights)}
            for column in self.columns
        ]

    @property
    def names(self) -> list[str]:
        """Column names."""
        return [column.name for column in self.columns]

    @property
    def task(self) -> Task:
        """All columns are of one kind."""
        return "classification" if self.columns[0].classes else "regression"

    @property
    def num_outputs(self) -> int:
        """O, the outputs of the head."""
        return sum(column.num_outputs for column in self.columns)

    def of(self, subjects: list[str]) -> Float32[np.ndarray, "N K"]:
        """z-scores or class indices of the given people; NaN for those the table lacks."""
        unknown = np.full(len(self.columns), np.nan, np.float32)
        return np.stack([self.values.get(name, unknown) for name in subjects])

    def wanted(self, subjects: list[str]) -> list[Float[np.ndarray, " N"]]:
        """Per target the truth in its own units, or the class index; NaN where missing."""
        scaled = self.of(subjects).astype(np.float64)
        return [
            column if target.classes else target.mean + target.sd * column
            for target, column in zip(self.columns, scaled.T, strict=True)
        ]

    def labelled(self, subjects: list[str]) -> list[str]:
        """Those of the people who have at least one target."""
        return [name for name in subjects if np.isfinite(self.values.get(name, [np.nan])).any()]

    def predictions(
        self, outputs: Float[np.ndarray, "N O"], *, own_units: bool = True
    ) -> list[Float[np.ndarray, "N *C"]]:
        """Outputs of the head as predictions: per target (N,) numbers, or (N, C) probabilities that sum to 1.

        Args:
            outputs: z-scores and logits.
            own_units: Numbers in the units of the table instead of z-scores.
        """
        found, first = [], 0
        for target in self.columns:
            part = outputs[:, first : first + target.num_outputs].astype(np.float64)
            first += target.num_outputs
            if not target.classes:
                found.append(target.mean + target.sd * part[:, 0] if own_units else part[:, 0])
                continue
            logits = np.concatenate([np.zeros_like(part), part], axis=1) if part.shape[1] == 1 else part
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            found.append(shares / shares.sum(axis=1, keepdims=True))
        return found


def _values(cohort: Cohort, columns: list[Target]) -> dict[str, Float32[np.ndarray, " K"]]:
    rows = np.stack([_scaled(cohort, target) for target in columns], axis=1).astype(np.float32)
    return {str(name): row for name, row in zip(cohort.frame.index, rows, strict=True)}


def _scaled(cohort: Cohort, target: Target) -> Float[np.ndarray, " N"]:
    column = cohort.column(target.name)
    if not target.classes:
        return ((_numeric(column, cohort) - target.mean) / target.sd).to_numpy(np.float64)
    labels = _labels(column)
    index = {label: float(k) for k, label in enumerate(target.classes)}
    if unknown := sorted(set(labels.dropna()) - set(index)):
        people = int(labels.isin(unknown).sum())
        raise InputError(
            f"{cohort.path}: {people} people have the class {unknown[0]!r} of {target.name!r}, which no training "
            f"person has (known: {', '.join(target.classes)}); merge it with another, or clear those cells"
        )
    return labels.map(index).to_numpy(np.float64)


def _number(cohort: Cohort, name: str, train: list[str]) -> Target:
    known = _numeric(cohort.column(name), cohort).loc[train]
    mean, sd = float(known.mean()), float(known.std(ddof=0))
    if not sd > 0:
        raise InputError(
            f"{cohort.path}: target {name!r} does not vary among the {len(known)} training people; "
            f"leave it out of --targets"
        )
    return Target(name=name, mean=mean, sd=sd)


def _classes(cohort: Cohort, name: str, train: list[str]) -> Target:
    counts = _labels(cohort.column(name)).loc[train].value_counts()
    if not 2 <= len(counts) <= MOST_CLASSES:
        raise InputError(
            f"{cohort.path}: target {name!r} has {len(counts)} different values among the {len(train)} training "
            f"people; 2 to {MOST_CLASSES} classes are wanted (numbers: --task=regression)"
        )
    if counts.min() < FEWEST_PER_CLASS:
        raise InputError(
            f"{cohort.path}: only {counts.min()} training person has the class {counts.idxmin()!r} of {name!r}; "
            f"{FEWEST_PER_CLASS} are needed: merge it with another class, or clear those cells"
        )
    return Target(name=name, classes=tuple(sorted(map(str, counts.index))))


def _balanced(target: Target, cohort: Cohort, train: list[str]) -> Target:
    counts = _labels(cohort.column(target.name)).loc[train].value_counts()
    total, num = float(counts.sum()), len(target.classes)
    weights = tuple(total / (num * float(counts[label])) for label in target.classes)
    return Target(name=target.name, classes=target.classes, weights=weights)


def _labels(column: pd.Series) -> pd.Series:
    """Class names as text; a code such as 1.0 is `1`."""
    if column.dtype.kind != "f":
        return column.astype(object).where(column.notna(), None).map(lambda cell: cell and str(cell))
    return column.map(lambda number: f"{number:g}", na_action="ignore").astype(object)


def _matching(cohort: Cohort, patterns: list[str]) -> list[str]:
    names: list[str] = []
    for pattern in patterns:
        found = [name for name in cohort.frame.columns if fnmatchcase(name, pattern)]
        if not found:
            raise InputError(
                f"{cohort.path} has no column that matches target {pattern!r}; it has: "
                f"{', '.join(cohort.frame.columns)}"
            )
        names += [name for name in found if name not in names]
    return names


def _numeric(column: pd.Series, cohort: Cohort) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = column[numbers.isna() & column.notna()]
    if len(wrong):
        raise InputError(
            f"{cohort.path}: target {column.name!r} holds {wrong.iloc[0]!r} for {wrong.index[0]}; "
            f"a column of numbers is wanted (classes: --task=classification)"
        )
    return numbers.astype(float)
