"""What BrainMT is trained to predict: columns of the participants table, z-scored with the training people.

Glossary: B batch · S people · K targets.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from encoders.cohort import Cohort
from encoders.runs.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Targets:
    """K columns on the scale of the training people.

    Args:
        names: Column names.
        mean: (K,) means of the training people.
        sd: (K,) standard deviations of the training people.
        values: Subject id -> (K,) z-scores, NaN where the table has none.
    """

    names: list[str]
    mean: Float64[np.ndarray, " K"]
    sd: Float64[np.ndarray, " K"]
    values: dict[str, Float32[np.ndarray, " K"]]

    @classmethod
    def fit(cls, cohort: Cohort, patterns: list[str], train: list[str]) -> "Targets":
        """Select the columns and take their scale from the training people alone.

        Raises:
            InputError: a pattern matches no column, a column is not numeric, or it does not vary.
        """
        names = _matching(cohort, patterns)
        frame = cohort.frame[names].apply(lambda column: _numeric(column, cohort))
        known = frame.loc[[name for name in train if name in frame.index]]
        mean, sd = known.mean().to_numpy(np.float64), known.std(ddof=0).to_numpy(np.float64)
        if flat := [name for name, deviation in zip(names, sd, strict=True) if not deviation > 0]:
            raise InputError(
                f"{cohort.path}: target {flat[0]!r} does not vary among the {len(known)} training people; "
                f"leave it out of --targets"
            )
        scores = ((frame.to_numpy(np.float64) - mean) / sd).astype(np.float32)
        values = {str(name): row for name, row in zip(frame.index, scores, strict=True)}
        return cls(names=names, mean=mean, sd=sd, values=values)

    def of(self, subjects: list[str]) -> Float32[np.ndarray, "S K"]:
        """Targets of the given people; NaN for those the table lacks."""
        unknown = np.full(len(self.names), np.nan, np.float32)
        return np.stack([self.values.get(name, unknown) for name in subjects])

    def labelled(self, subjects: list[str]) -> list[str]:
        """Those of the people who have at least one target."""
        return [name for name in subjects if np.isfinite(self.values.get(name, [np.nan])).any()]


def masked_mse(
    predicted: Float[Tensor, "B K"], wanted: Float[Tensor, "B K"], *, labels: float | None = None
) -> Float[Tensor, ""]:
    """Mean squared error over the labels that are there; missing ones (NaN) have no gradient.

    Args:
        predicted: Predictions.
        wanted: Targets, NaN where missing.
        labels: Divide by this number of labels instead of those of the batch; the share of one batch in the labels
            of a whole step makes steps independent of how they are cut into batches and processes.
    """
    known = torch.isfinite(wanted)
    error = torch.where(known, predicted.float() - torch.where(known, wanted, 0.0), 0.0)
    return error.square().sum() / (known.sum().clamp(min=1) if labels is None else labels)


def regression_metrics(
    predicted: Float[np.ndarray, "S K"], wanted: Float[np.ndarray, "S K"]
) -> dict[str, Float64[np.ndarray, " K"]]:
    """Per target `r` (Pearson), `mse`, `mae`, `r2` and `n` over the people who have the label.

    Targets with fewer than three labels, and `r` of constant predictions, are NaN.
    """
    scores: dict[str, list[float]] = {name: [] for name in ("r", "mse", "mae", "r2", "n")}
    for p, w in zip(predicted.T.astype(np.float64), wanted.T.astype(np.float64), strict=True):
        known = np.isfinite(w)
        p, w = p[known], w[known]
        enough = len(w) >= 3
        varies = enough and p.std() > 1e-12 and w.std() > 1e-12
        scores["r"].append(float(np.corrcoef(p, w)[0, 1]) if varies else np.nan)
        scores["mse"].append(float(np.square(p - w).mean()) if enough else np.nan)
        scores["mae"].append(float(np.abs(p - w).mean()) if enough else np.nan)
        spread = float(np.square(w - w.mean()).sum()) if enough else 0.0
        scores["r2"].append(1 - float(np.square(p - w).sum()) / spread if spread > 0 else np.nan)
        scores["n"].append(float(len(w)))
    return {name: np.array(column) for name, column in scores.items()}


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
            f"a column of numbers is wanted"
        )
    return numbers.astype(float)
