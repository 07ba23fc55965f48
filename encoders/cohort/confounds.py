"""Confounds: a design matrix and a residualiser, both fitted on training people only.

Glossary: S people · C confound columns · D columns of the data to clean.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from encoders.cohort.config import DEFAULT_TERMS
from encoders.runs.errors import InputError


@dataclass(kw_only=True)
class ConfoundDesign:
    """Columns of confounds from the table of people.

    Numbers are z-scored and missing ones set to the mean; categories become one centred column per level, so
    that an unseen level (a new site) gets the mean effect. Everything is learned in :meth:`fit`.

    Args:
        terms: Columns, `name^2` for squares, `a:b` for interactions of two columns.
    """

    terms: tuple[str, ...] = DEFAULT_TERMS
    used_: list[str] = field(default_factory=list)
    absent_: list[str] = field(default_factory=list)
    unseen_: dict[str, list[str]] = field(default_factory=dict)
    _numeric: dict[str, tuple[float, float]] = field(default_factory=dict)
    _levels: dict[str, dict[str, float]] = field(default_factory=dict)
    _known: dict[str, set[str]] = field(default_factory=dict)
    _spread: Float[np.ndarray, "2 C"] | None = None

    def fit(self, frame: pd.DataFrame) -> "ConfoundDesign":
        """Learn means, scales and levels from training people."""
        self.used_, self.absent_, self.unseen_ = [], [], {}
        self._numeric, self._levels, self._known = {}, {}, {}
        for term in self.terms:
            parts = term.replace("^2", "").split(":")
            usable = all(part in frame and frame[part].notna().any() for part in parts)
            (self.used_ if usable else self.absent_).append(term)
            for part in parts if usable else ():
                column = frame[part]
                if column.dtype.kind == "f":
                    self._numeric[part] = (float(column.mean()), float(column.std(ddof=0)) or 1.0)
                else:
                    share = column.dropna().astype(str).value_counts(normalize=True)
                    # one level fewer than there are: the intercept of the regression holds the last one
                    self._levels[part] = {level: float(share[level]) for level in sorted(share.index)[:-1]}
                    self._known[part] = set(share.index)
        columns = self._columns(frame)
        spread = columns.std(axis=0) if columns.shape[1] else np.empty(0)
        keep = spread > 1e-12
        self._spread = np.stack([keep.astype(float), np.where(keep, spread, 1.0)])
        return self

    def transform(self, frame: pd.DataFrame) -> Float[np.ndarray, "S C"]:
        """The design matrix of any people, on the scale learned from training people."""
        if self._spread is None:
            raise RuntimeError("ConfoundDesign.transform before fit")
        for name in self._levels:
            unseen = sorted(set(frame[name].dropna().astype(str)) - self._known[name])
            if unseen:
                self.unseen_[name] = unseen
        keep, spread = self._spread
        return self._columns(frame)[:, keep > 0] / spread[keep > 0]

    def _part(self, frame: pd.DataFrame, name: str) -> Float[np.ndarray, "S L"]:
        if name in self._numeric:
            mean, sd = self._numeric[name]
            return ((frame[name].astype(float).fillna(mean).to_numpy() - mean) / sd)[:, None]
        text = frame[name].astype(str).to_numpy()
        known = np.isin(text, sorted(self._known[name]))
        columns = [
            np.where(known, (text == level) - share, 0.0) for level, share in self._levels[name].items()
        ]
        return np.stack(columns, axis=1) if columns else np.empty((len(frame), 0))

    def _columns(self, frame: pd.DataFrame) -> Float[np.ndarray, "S C"]:
        blocks = []
        for term in self.used_:
            if term.endswith("^2"):
                blocks.append(self._part(frame, term[:-2]) ** 2)
            elif ":" in term:
                left, right = (self._part(frame, part) for part in term.split(":"))
                blocks.append((left[:, :, None] * right[:, None, :]).reshape(len(frame), -1))
            else:
                blocks.append(self._part(frame, term))
        return np.concatenate(blocks, axis=1) if blocks else np.empty((len(frame), 0))


@dataclass(kw_only=True)
class Residualizer:
    """Take out of each column what confounds explain linearly; coefficients come from training people."""

    design: ConfoundDesign = field(default_factory=ConfoundDesign)
    coefficients_: Float[np.ndarray, "C1 D"] | None = None

    def fit(self, values: Float[np.ndarray, "S D"], frame: pd.DataFrame) -> "Residualizer":
        """Regress every column on the confounds of training people (least squares with intercept).

        Raises:
            InputError: fewer than two people per confound column.
        """
        confounds = _with_intercept(self.design.fit(frame).transform(frame))
        if len(values) < 2 * confounds.shape[1]:
            raise InputError(
                f"{len(values)} training people are too few for {confounds.shape[1]} confound columns; name fewer "
                f"with --confounds"
            )
        self.coefficients_ = np.linalg.lstsq(confounds, values.astype(float), rcond=None)[0]
        return self

    def transform(self, values: Float[np.ndarray, "S D"], frame: pd.DataFrame) -> Float[np.ndarray, "S D"]:
        """Residuals of any people, with the training people's coefficients; keeps the training mean at 0."""
        if self.coefficients_ is None:
            raise RuntimeError("Residualizer.transform before fit")
        fitted = _with_intercept(self.design.transform(frame)) @ self.coefficients_
        return (values - fitted).astype(values.dtype)


def _with_intercept(columns: Float[np.ndarray, "S C"]) -> Float[np.ndarray, "S C1"]:
    return np.concatenate([np.ones((len(columns), 1)), columns], axis=1)
