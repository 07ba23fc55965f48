"""What the vectors of a cohort say besides biology: ancestry, batch, and haplotypes that test and train share.

Only aggregates leave this module; nothing names a person.

Glossary: S people · G numbers of a vector · C columns of a design.
"""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32

from encoders.cohort.config import PCS
from encoders.cohort.confounds import ConfoundDesign
from encoders.cohort.splits import Split
from encoders.genetics.haplotypes import WindowHaplotypes

FEWEST = 10  # people beyond the columns of a design, below which a share of variance says nothing
AT_A_TIME = 1024  # columns of the vectors, which bounds memory


def confounding(values: Float32[np.ndarray, "S G"], frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Shares of the vectors' variance that ancestry and batch explain linearly.

    Adjusted R² over all columns together, so that noise explains nothing on average however many columns a
    design has: 1 - (1 - R²)(S - 1)/(S - C - 1).

    Args:
        values: Vectors.
        frame: Rows of the table of people, in the same order.

    Returns:
        "ancestry" and "batch", each with the ``columns`` of the table that were used, and ``share`` (0 to 1) or,
        where there is none, ``why``.
    """
    clusters = () if any(pc in frame for pc in PCS) else ("ancestry",)
    return {
        "ancestry": _explained(values, frame, (*PCS, *clusters), "genetic PCs or ancestry"),
        "batch": _explained(values, frame, ("batch",), "batch"),
    }


def overlap(windows: list[WindowHaplotypes], people: list[str], split: Split) -> dict[str, Any]:
    """Share of test people's haplotypes that occur letter by letter in a training person.

    A haplotype of a gene is the sequences of all its windows on one side. Every person counts alike, so someone
    haploid, who carries one sequence on both sides, counts as one. Genes with dosages instead of haplotypes have
    no share.

    Args:
        windows: Who carries which sequence.
        people: Ids, in row order.
        split: Who is in train and in test.

    Returns:
        ``genes``: gene -> share, and ``overall``, their mean; ``split_digest``; empty shares without such people.
    """
    fold = split.fold_of
    train = np.array([k for k, name in enumerate(people) if fold.get(name) == "train"], np.int64)
    test = np.array([k for k, name in enumerate(people) if fold.get(name) == "test"], np.int64)
    genes: dict[str, list[WindowHaplotypes]] = {}
    for haplotypes in windows:
        if haplotypes.dosages is None:
            genes.setdefault(haplotypes.window.gene, []).append(haplotypes)
    shares = {}
    for gene, parts in genes.items():
        kinds = _kinds(np.stack([part.index for part in parts], axis=2))
        present = ~np.any([part.absent for part in parts], axis=0)
        seen, asked = (kinds[rows[present[rows]]] for rows in (train, test))
        if len(seen) and len(asked):
            shares[gene] = float(np.isin(asked, seen).mean())
    return {
        "split_digest": split.digest,
        "overall": float(np.mean(list(shares.values()))) if shares else None,
        "genes": shares,
    }


def _kinds(sides: np.ndarray) -> np.ndarray:
    """(S, 2) numbers, equal for haplotypes whose sequences are equal in all windows of (S, 2, windows)."""
    if sides.shape[2] == 1:
        return sides[:, :, 0]
    rows = np.unique(sides.reshape(-1, sides.shape[2]), axis=0, return_inverse=True)[1]
    return rows.reshape(sides.shape[:2])


def _explained(
    values: Float32[np.ndarray, "S G"], frame: pd.DataFrame, terms: tuple[str, ...], what: str
) -> dict[str, Any]:
    design = ConfoundDesign(terms=terms).fit(frame)
    if not design.used_:
        return {"columns": [], "share": None, "why": f"the table of people has no column for {what}"}
    columns = design.transform(frame)
    free = len(columns) - columns.shape[1] - 1
    if not columns.shape[1] or free < FEWEST:
        why = (
            f"everyone has the same {what}"
            if not columns.shape[1]
            else f"{len(columns)} people are too few for {columns.shape[1]} columns"
        )
        return {"columns": design.used_, "share": None, "why": why}
    basis = _basis(columns)
    total = within = 0.0
    for first in range(0, values.shape[1], AT_A_TIME):
        part = values[:, first : first + AT_A_TIME].astype(np.float64)
        part -= part.mean(axis=0)
        total += float((part**2).sum())
        within += float(((basis.T @ part) ** 2).sum())
    free = len(columns) - basis.shape[1] - 1
    adjusted = 1 - (1 - within / total) * (len(columns) - 1) / free if total else 0.0
    return {"columns": design.used_, "share": float(np.clip(adjusted, 0, 1)), "people": len(columns)}


def _basis(columns: Float[np.ndarray, "S C"]) -> Float[np.ndarray, "S _"]:
    """Orthonormal columns that span the centred design."""
    u, s, _ = np.linalg.svd(columns - columns.mean(axis=0), full_matrices=False)
    return u[:, s > 1e-9 * s.max(initial=0)]


def confounding_text(found: dict[str, Any]) -> str:
    """One entry of :func:`confounding` in words."""
    if found["share"] is None:
        return f"unknown: {found['why']}"
    columns = found["columns"]
    named = ", ".join(columns) if len(columns) < 4 else f"{columns[0]} to {columns[-1]}"
    return f"{found['share']:.1%} of the vectors' variance ({named}; adjusted R²)"


def overlap_text(found: dict[str, Any] | None) -> str:
    """The result of :func:`overlap` in words."""
    if found is None:
        return "unknown: the study has no split yet (python scripts/make_splits.py)"
    if found["overall"] is None:
        return "unknown: nobody of train or of test has a genome here"
    most = max(found["genes"], key=found["genes"].__getitem__)
    text = f"{found['overall']:.1%} of test people's haplotypes occur letter by letter in training people"
    return text + (f" (most: {most}, {found['genes'][most]:.1%})" if len(found["genes"]) > 1 else "")
