"""Confounds: a design matrix and a residualiser, both fitted on training people only.

Glossary: S people · C confound columns · D columns of the data to clean.
"""

import re
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import pandas as pd
from jaxtyping import Float

from encoders.cohort.config import DEFAULT_TERMS
from encoders.cohort.spline import knots_of, natural_spline
from encoders.runs.errors import InputError

PART = re.compile(r"spline\((?P<curved>[^():^]+)\)|(?P<name>(?!spline\()[^:^]+)(?P<square>\^2)?")


def columns_of(term: str) -> list[str]:
    """The columns of the table of people that a term reads: `spline(age):sex` reads age and sex.

    Raises:
        InputError: the term is none of the forms that :class:`ConfoundDesign` lists.
    """
    return [name for name, _ in _parts(term)]


def _parts(term: str) -> list[tuple[str, str]]:
    """(Column, form) of each factor of a term; the form is "", "square" or "spline"."""
    parts = []
    for part in term.split(":"):
        found = PART.fullmatch(part.strip())
        if found is None:
            raise InputError(
                f"confound term {term!r}: {part!r} is not understood; NAME, NAME^2, spline(NAME) or these joined by : "
                f"were wanted"
            )
        if found["curved"]:
            parts.append((found["curved"], "spline"))
        else:
            parts.append((found["name"], "square" if found["square"] else ""))
    return parts


@dataclass(kw_only=True)
class ConfoundDesign:
    """Columns of confounds from the table of people.

    Numbers are z-scored and missing ones set to the mean; categories become one centred column per level, so
    that an unseen level (a new site) gets the mean effect. Everything is learned in :meth:`fit`.

    Args:
        terms: Columns; `name^2` for squares; `spline(name)` for a natural cubic spline, where an effect bends more
            often than a parabola; `a:b` for interactions of two or more of these.
    """

    terms: tuple[str, ...] = DEFAULT_TERMS
    used_: list[str] = field(default_factory=list)
    absent_: list[str] = field(default_factory=list)
    unseen_: dict[str, list[str]] = field(default_factory=dict)
    _numeric: dict[str, tuple[float, float]] = field(default_factory=dict)
    _levels: dict[str, dict[str, float]] = field(default_factory=dict)
    _known: dict[str, set[str]] = field(default_factory=dict)
    _knots: dict[str, Float[np.ndarray, " K"]] = field(default_factory=dict)
    _spread: Float[np.ndarray, "2 C"] | None = None

    def fit(self, frame: pd.DataFrame) -> "ConfoundDesign":
        """Learn means, scales, levels and knots from training people.

        Raises:
            InputError: a term is malformed, or asks for the spline of a column that holds no numbers.
        """
        self.used_, self.absent_, self.unseen_ = [], [], {}
        self._numeric, self._levels, self._known, self._knots = {}, {}, {}, {}
        for term in self.terms:
            parts = columns_of(term)
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
            for part in [name for name, form in _parts(term) if usable and form == "spline"]:
                if part not in self._numeric:
                    raise InputError(
                        f"confound term {term!r}: {part} holds no numbers, so it has no spline; name it {part}"
                    )
                self._knots[part] = knots_of(self._part(frame[frame[part].notna()], part)[:, 0])
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

    def _factor(self, frame: pd.DataFrame, name: str, form: str) -> Float[np.ndarray, "S L"]:
        part = self._part(frame, name)
        if form == "spline":
            return natural_spline(part[:, 0], self._knots[name])
        return part**2 if form == "square" else part

    def _columns(self, frame: pd.DataFrame) -> Float[np.ndarray, "S C"]:
        blocks = [
            reduce(_products, [self._factor(frame, name, form) for name, form in _parts(term)])
            for term in self.used_
        ]
        return np.concatenate(blocks, axis=1) if blocks else np.empty((len(frame), 0))


@dataclass(kw_only=True)
class Residualizer:
    """Take out of each column what the design's columns explain (least squares); coefficients come from training people."""

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


def _products(left: Float[np.ndarray, "S L"], right: Float[np.ndarray, "S R"]) -> Float[np.ndarray, "S P"]:
    """Every column of one times every column of the other."""
    return (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)


def _with_intercept(columns: Float[np.ndarray, "S C"]) -> Float[np.ndarray, "S C1"]:
    return np.concatenate([np.ones((len(columns), 1)), columns], axis=1)
