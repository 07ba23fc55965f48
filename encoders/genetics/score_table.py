"""Tables of polygenic scores as the programs that compute them write them.

| program | columns that give it away | scores |
|---|---|---|
| plink2 --score | IID, ALLELE_CT or *_AVG, *_SUM | *_AVG, else *_SUM (NAMED_ALLELE_DOSAGE_SUM is none) |
| PLINK 1.9 --score | IID, CNT | SCORE, else SCORESUM |
| PRSice-2 .best | IID, In_Regression | every other column (PRS, or the gene sets) |
| PRSice-2 .all_score | IID, Pt_... | Pt_... |
| PGS Catalog calculator | IID, PGS, SUM or AVG | one per value of PGS: rows are people x scores |

Glossary: R people · C scores.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from encoders.cohort.table import ALIASES, MISSING
from encoders.genetics.reference import some
from encoders.runs.errors import InputError

IDS = ("iid", *ALIASES["participant_id"], "sample")
NO_SCORE = {name.lower() for name in (*MISSING, ".")}


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The scores of one file.

    Args:
        program: What wrote it, for messages.
        people: Ids, unique, in file order.
        names: Names of the scores.
        values: (R, C); NaN where missing.
    """

    program: str
    people: list[str]
    names: list[str]
    values: Float64[np.ndarray, "R C"]


def read_score_table(path: Path, *, columns: list[str], id_column: str = "", value: str = "") -> ScoreTable:
    """Read one table.

    Args:
        path: Text (tabs, commas or spaces), gzipped or not, or Parquet.
        columns: Scores to take; empty for all that the program is known to write.
        id_column: Column of ids; empty to find it by name.
        value: Column of numbers in a table of people x scores; empty for AVG, else SUM.

    Raises:
        InputError: unreadable table, unknown columns, people named twice, or a score that is no number.
    """
    path = Path(path)
    header, rows = _rows(path)
    lowered = {name.lower(): k for k, name in reversed(list(enumerate(header)))}
    if id_column and id_column not in header:
        raise InputError(f"{path} has no column {id_column!r}; it has: {some(header, 8)}")
    found = [lowered[name] for name in IDS if name in lowered]
    if not (id_column or found):
        raise InputError(
            f"{path} has no column of subject ids (looked for {', '.join(IDS)}; it has {some(header, 8)}); pass "
            f"--id_column"
        )
    ids = header.index(id_column) if id_column else found[0]
    if "pgs" in lowered and ({"sum", "avg"} & set(lowered) or value):
        return _long(path, header, rows, ids, lowered, columns, value)
    program, names = _scores(header, ids, lowered)
    names = columns or names
    if not names:
        others = [name for k, name in enumerate(header) if k != ids]
        raise InputError(
            f"{path} is not of a known program, so its scores have to be named: pass --columns=[...] (it has "
            f"{some(others, 12)})"
        )
    if absent := [name for name in names if name not in header]:
        raise InputError(
            f"{path} has no column {absent[0]!r}; it has: {some([n for n in header if n != header[ids]], 12)}"
        )
    at = [header.index(name) for name in names]
    people: dict[str, int] = {}
    values = []
    for line, cells in rows:
        _add_person(people, cells[ids], line, path)
        values.append([_number(cells[k], header[k], line, path) for k in at])
    return ScoreTable(
        program=program,
        people=list(people),
        names=list(names),
        values=np.asarray(values, np.float64).reshape(len(people), len(names)),
    )


def _scores(header: list[str], ids: int, lowered: dict[str, int]) -> tuple[str, list[str]]:
    """The program that wrote a table, and its scores; none of an unknown one."""
    if "in_regression" in lowered:
        known = {ids, lowered["in_regression"], lowered.get("fid", ids)}
        return "PRSice-2", [name for k, name in enumerate(header) if k not in known]
    if scores := [name for name in header if name.startswith("Pt_")]:
        return "PRSice-2", scores
    if "cnt" in lowered and {"score", "scoresum"} & set(lowered):
        return "PLINK 1.9", [header[lowered.get("score", lowered.get("scoresum", ids))]]
    for ending in ("_AVG", "_SUM"):
        scores = [n for n in header if n.endswith(ending) and n != "NAMED_ALLELE_DOSAGE_SUM"]
        if scores and "iid" in lowered:
            return "plink2", scores
    return "another program", []


def _long(
    path: Path,
    header: list[str],
    rows: Iterator[tuple[int, list[Any]]],
    ids: int,
    lowered: dict[str, int],
    columns: list[str],
    value: str,
) -> ScoreTable:
    """One row per person and score."""
    if value and value not in header:
        raise InputError(f"--value={value}: {path} has no such column; it has: {some(header, 12)}")
    score = lowered["pgs"]
    number = header.index(value) if value else lowered.get("avg", lowered.get("sum", ids))
    people: dict[str, int] = {}
    names: dict[str, int] = {}
    found: dict[tuple[int, int], float] = {}
    for line, cells in rows:
        name, person = str(cells[score]).strip(), _id(cells[ids], line, path)
        key = (people.setdefault(person, len(people)), names.setdefault(name, len(names)))
        if key in found:
            raise InputError(
                f"{path}, line {line}: a second {name} of {person!r}; keep one row per person and score (are there "
                f"several sampleset?)"
            )
        found[key] = _number(cells[number], header[number], line, path)
    values = np.full((len(people), len(names)), np.nan)
    values[tuple(np.array(list(found)).reshape(-1, 2).T)] = list(found.values())
    if absent := [name for name in columns if name not in names]:
        raise InputError(f"{path} has no score {absent[0]!r}; it has: {some(list(names), 12)}")
    taken = columns or list(names)
    return ScoreTable(
        program="the PGS Catalog calculator",
        people=list(people),
        names=taken,
        values=values[:, [names[name] for name in taken]],
    )


def _rows(path: Path) -> tuple[list[str], Iterator[tuple[int, list[Any]]]]:
    """The header, and (line number, cells) of every row; each has as many cells as the header."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; a table of polygenic scores was wanted")
    with open(path, "rb") as file:
        magic = file.read(4)
    return _parquet_rows(path) if magic == b"PAR1" else _text_rows(path, packed=magic[:2] == b"\x1f\x8b")


def _text_rows(path: Path, *, packed: bool) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if packed else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as cause:
        raise InputError(
            f"{path} is not a readable table ({cause}); text, gzipped text or Parquet was wanted"
        ) from cause
    lines = [(k, line) for k, line in enumerate(text.splitlines(), 1) if line.strip() and line[:2] != "##"]
    if len(lines) < 2:
        raise InputError(f"{path} has no rows; a header line and one line per person were wanted")
    separator = next((s for s in "\t," if s in lines[0][1]), None)

    def cut(line: str) -> list[str]:
        return line.split() if separator is None else next(csv.reader([line], delimiter=separator))

    header = [name.strip().lstrip("#") for name in cut(lines[0][1])]
    if twice := [name for name in header if header.count(name) > 1]:
        raise InputError(f"{path}: column {twice[0]!r} appears twice; rename or drop one")

    def rows() -> Iterator[tuple[int, list[str]]]:
        for number, line in lines[1:]:
            cells = cut(line)
            if len(cells) != len(header):
                raise InputError(f"{path}: line {number} has {len(cells)} cells, the header {len(header)}")
            yield number, cells

    return header, rows()


def _parquet_rows(path: Path) -> tuple[list[str], Iterator[tuple[int, list[Any]]]]:
    try:
        import pyarrow.parquet
    except ImportError as cause:
        raise InputError(
            "Parquet tables need pyarrow, which is not installed; run: pip install 'neurohelix[parquet]'"
        ) from cause
    try:
        frame = pyarrow.parquet.read_table(path).to_pandas()
    except (OSError, ValueError) as cause:  # pyarrow's own errors are ValueErrors
        raise InputError(f"{path} is a damaged Parquet file ({cause}); write it again") from cause
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    if not len(frame):
        raise InputError(f"{path} has no rows; one row per person was wanted")
    header = [str(name).strip().lstrip("#") for name in frame.columns]
    return header, ((k, list(row)) for k, row in enumerate(frame.itertuples(index=False, name=None), 1))


def _id(cell: Any, line: int, path: Path) -> str:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # 1234567.0 in a Parquet file is the person 1234567
    name = str(cell).strip()
    if name in MISSING:
        raise InputError(f"{path}: line {line} has no subject id; fill it or drop the line")
    return name


def _add_person(people: dict[str, int], cell: Any, line: int, path: Path) -> None:
    name = _id(cell, line, path)
    if name in people:
        raise InputError(
            f"{path}: {name!r} stands on lines {people[name]} and {line}; keep one line per person (ids are IID alone, "
            f"without FID; pass --id_column for another)"
        )
    people[name] = line


def _number(cell: Any, column: str, line: int, path: Path) -> float:
    """The cell as a number; NaN if it is missing."""
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in NO_SCORE):
        return float("nan")
    try:
        number = float(cell)
    except (TypeError, ValueError):
        number = float("inf")
    if number in (float("inf"), float("-inf")):
        raise InputError(
            f"{path}, line {line}: column {column!r} holds {str(cell)[:40]!r}; a number was wanted (NA if missing); "
            f"choose the scores with --columns"
        )
    return number
