"""Who is in the study: the table of people, their kinship, the split, the confounds.

Names are loaded on first use: pandas and SciPy take a second that `--help` and finished stages need not wait for.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Cohort": "table",
    "ConfoundDesign": "confounds",
    "Residualizer": "confounds",
    "Split": "splits",
    "groups_of": "kinship",
    "make_split": "splits",
    "read_kinship": "kinship",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
