"""The table of people: one row per person, ids as strings, column names of several conventions accepted."""

import csv
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from encoders.runs.errors import InputError

# canonical name -> names that BIDS, UK Biobank, HCP, ABCD and the users' knowledge base give the same thing
ALIASES = {
    "participant_id": ("participant_id", "subject_id", "subject", "sub", "eid", "src_subject_id", "id"),
    "family_id": ("family_id", "pedigree_id", "rel_family_id"),
    "site": ("site", "imaging_site", "site_scanner", "site_id"),
    "age": ("age", "age_in_yrs"),
    "sex": ("sex", "gender"),
    "ancestry": ("ancestry", "ancestry_cluster", "genetic_ancestry"),
    "mean_fd": ("mean_fd", "motion_fd", "motion_mean_fd", "fd_mean"),
    "head_size": ("head_size", "etiv", "head_scaling", "icv"),
    "batch": ("batch", "genotyping_batch", "sequencing_batch", "array_batch"),
    **{f"pcs_{k}": (f"pcs_{k}", f"pc{k}", f"pc_{k}", f"genetic_pc_{k}") for k in range(1, 41)},
}
NUMERIC = ("age", "mean_fd", "head_size", *(f"pcs_{k}" for k in range(1, 41)))
CATEGORIES = ("family_id", "site", "sex", "ancestry", "batch")  # codes such as 11025 are names, not numbers
MISSING = ("", "n/a", "N/A", "NA", "NaN", "nan", "None")


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """People and what is known about them.

    Args:
        frame: One row per person, indexed by id (strings); known columns carry their canonical names.
        path: The file it came from, for messages.
    """

    frame: pd.DataFrame
    path: Path

    @property
    def ids(self) -> list[str]:
        """Subject ids in table order."""
        return list(self.frame.index)

    @classmethod
    def load(cls, path: Path) -> "Cohort":
        """Read a TSV or CSV table; every cell is text first, so that `007` stays `007`.

        Raises:
            InputError: no id column, a repeated or empty id, or a number column with text in it.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path} does not exist; a table of people (TSV or CSV) was wanted")
        text = path.read_text(encoding="utf-8-sig")
        separator = "\t" if "\t" in text.partition("\n")[0] else ","
        rows = list(csv.reader(text.splitlines(), delimiter=separator))
        if len(rows) < 2:
            raise InputError(f"{path} has no rows; a header line and one line per person were wanted")
        header = [name.strip() for name in rows[0]]
        wrong = [k for k, row in enumerate(rows[1:], 2) if row and len(row) != len(header)]
        if wrong:
            raise InputError(
                f"{path}: line {wrong[0]} has {len(rows[wrong[0] - 1])} cells, the header {len(header)}"
            )
        frame = pd.DataFrame([row for row in rows[1:] if row], columns=header, dtype=object)
        frame = frame.rename(columns=_canonical_names(header, path))
        if "participant_id" not in frame:
            raise InputError(f"{path} has no id column; name one of: {', '.join(ALIASES['participant_id'])}")
        frame["participant_id"] = frame["participant_id"].str.strip()
        _check_ids(frame["participant_id"], path)
        frame = frame.set_index("participant_id").map(
            lambda cell: None if cell.strip() in MISSING else cell.strip()
        )
        for name in frame.columns.difference(CATEGORIES, sort=False):
            frame[name] = _numbers(frame[name], required=name in NUMERIC, name=name, path=path)
        return cls(frame=frame, path=path)

    def column(self, name: str) -> pd.Series:
        """One column by its canonical name.

        Raises:
            InputError: the table has no such column.
        """
        if name not in self.frame:
            raise InputError(f"{self.path} has no column {name!r}; it has: {', '.join(self.frame.columns)}")
        return self.frame[name]


def _canonical_names(header: list[str], path: Path) -> dict[str, str]:
    lowered = {name.lower(): name for name in reversed(header)}
    renamed: dict[str, str] = {}
    for canonical, aliases in ALIASES.items():
        found = [lowered[alias] for alias in aliases if alias in lowered]
        if found:
            renamed[found[0]] = canonical
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise InputError(f"{path}: column {twice!r} appears twice; rename or drop one")
    return renamed


def _check_ids(ids: pd.Series, path: Path) -> None:
    lines: dict[str, list[int]] = {}
    for line, name in enumerate(ids, 2):
        lines.setdefault(name, []).append(line)
    if "" in lines:
        raise InputError(f"{path}: line {lines[''][0]} has an empty subject id; fill it or drop the line")
    if repeated := {name: at for name, at in lines.items() if len(at) > 1}:
        name, at = next(iter(repeated.items()))
        raise InputError(
            f"{path}: {len(repeated)} subject ids appear more than once, first {name!r} on lines "
            f"{', '.join(map(str, at))}; keep one line per person"
        )


def _numbers(column: pd.Series, *, required: bool, name: str, path: Path) -> pd.Series:
    """The column as float64 if every filled cell is a number, else unchanged."""
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    bad = column.notna() & numbers.isna()
    if not bad.any():
        return column if column.isna().all() and not required else numbers
    if required:
        raise InputError(
            f"{path}: column {name!r} holds {column[bad].iloc[0]!r}, a number was wanted (n/a if missing)"
        )
    return column
