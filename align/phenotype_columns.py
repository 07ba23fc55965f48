"""Phenotypes from the table of people: which are classes, which are numbers.

Glossary: S people.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64

from encoders.runs import InputError

MOST_CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Phenotype:
    """One column.

    Args:
        name: Of the column.
        classes: Names of the classes, sorted; the last of two is the positive one. Empty for a number.
        values: (S,) number or class index of each person, NaN where missing.
    """

    name: str
    classes: tuple[str, ...]
    values: Float64[np.ndarray, " S"]


def read_phenotypes(frame: pd.DataFrame, names: Sequence[str]) -> list[Phenotype]:
    """Columns of text, and numbers with two different values, are classes; other numbers are predicted as numbers.

    Raises:
        InputError: a column that is not there, does not vary, or has too many classes.
    """
    found = []
    for name in names:
        if name not in frame:
            near = difflib.get_close_matches(name, frame.columns, n=3)
            raise InputError(
                f"the table of people has no column {name!r} to predict; "
                + (f"did you mean {', '.join(near)}?" if near else f"it has: {', '.join(frame.columns)}")
            )
        column = frame[name]
        distinct = sorted(column.dropna().unique())
        if len(distinct) < 2:
            raise InputError(
                f"column {name!r} has {len(distinct)} different values, so there is nothing to predict"
            )
        if column.dtype.kind == "f" and len(distinct) > 2:
            found.append(Phenotype(name=name, classes=(), values=column.to_numpy(np.float64)))
            continue
        if len(distinct) > MOST_CLASSES:
            raise InputError(
                f"column {name!r} has {len(distinct)} different texts, at most {MOST_CLASSES} classes were wanted; "
                f"numbers are predicted as numbers if every cell is one"
            )
        index = {value: float(k) for k, value in enumerate(distinct)}
        values = np.array([index.get(value, np.nan) for value in column], np.float64)
        words = tuple(f"{v:g}" if isinstance(v, float) else str(v) for v in distinct)
        found.append(Phenotype(name=name, classes=words, values=values))
    return found
