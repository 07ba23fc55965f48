"""Who is related to whom: kinship tables and the groups that no split may cut."""

import csv
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from encoders.cohort.table import MISSING, Cohort
from encoders.runs.errors import InputError

THIRD_DEGREE = 0.0442  # KING kinship above which two people count as relatives (third degree or closer)
PAIR_COLUMNS = (("id1", "id2", "kinship"), ("iid1", "iid2", "kinship"), ("#iid1", "iid2", "kinship"))

Pair = tuple[str, str]


def read_kinship(path: Path, *, threshold: float = THIRD_DEGREE) -> list[Pair]:
    """Pairs of relatives from a KING, PLINK 2 or UK Biobank kinship table (tabs, commas or spaces).

    Args:
        path: Table with the columns ID1, ID2, Kinship (any case).
        threshold: Smallest KING kinship coefficient that counts.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; a kinship table with columns ID1, ID2, Kinship was wanted")
    lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    separator = next((s for s in "\t," if lines and s in lines[0]), None)
    rows = (
        [line.split() for line in lines]
        if separator is None
        else list(csv.reader(lines, delimiter=separator))
    )
    header = [name.strip().lower() for name in rows[0]] if rows else []
    names = next((names for names in PAIR_COLUMNS if set(names) <= set(header)), None)
    if names is None:
        raise InputError(
            f"{path} has the columns {', '.join(header) or '(none)'}; ID1, ID2 and Kinship were wanted"
        )
    first, second, value = (header.index(name) for name in names)
    try:
        return [(row[first], row[second]) for row in rows[1:] if row and float(row[value]) > threshold]
    except (ValueError, IndexError) as cause:
        raise InputError(
            f"{path}: a kinship value is not a number ({cause}); mend or drop that line"
        ) from cause


def groups_of(cohort: Cohort, related: Iterable[Pair] = ()) -> dict[str, str]:
    """Id -> group: connected by a shared `family_id` or by kinship. A group is named after its first member."""
    ids = cohort.ids
    row = {name: i for i, name in enumerate(ids)}
    edges = [(row[a], row[b]) for a, b in related if a in row and b in row]
    if "family_id" in cohort.frame:
        first_of: dict[str, int] = {}
        for i, family in enumerate(cohort.frame["family_id"]):
            if family is not None and family == family and str(family) not in MISSING:
                edges.append((first_of.setdefault(str(family), i), i))
    left, right = (
        (np.array(side, dtype=int) for side in zip(*edges, strict=True)) if edges else (np.empty(0, int),) * 2
    )
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(len(ids), len(ids)))
    _, label = connected_components(graph, directed=False)
    name_of: dict[int, str] = {}
    for i, component in enumerate(label):
        name_of.setdefault(int(component), ids[i])
    return {name: name_of[int(component)] for name, component in zip(ids, label, strict=True)}


def family_pairs(cohort: Cohort) -> list[Pair]:
    """Every pair of people with one `family_id`; none where the table has no such column."""
    if "family_id" not in cohort.frame:
        return []
    families: dict[str, list[str]] = {}
    for name, family in cohort.frame["family_id"].dropna().items():
        families.setdefault(str(family), []).append(str(name))
    return [pair for names in families.values() for pair in combinations(names, 2)]
