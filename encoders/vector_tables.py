"""Vectors of other programs: a Parquet, CSV or TSV table -> SubjectVectors.

The columns of the users' knowledge base are known by name: `eid`, `vector` (or `embedding`), `gene_id`,
`source_model`, `layer`, `session_id`.

Glossary: R rows of the table · D numbers of a vector.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32

from encoders.cohort.table import ALIASES, MISSING
from encoders.import_config import ImportVectors
from encoders.runs.artifact import file_sha256
from encoders.runs.errors import InputError
from encoders.vectors import SubjectVectors

VECTOR = ("vector", "embedding")
GENE = ("gene_id", "gene")
KEYS = ("source_model", "model_name", "model", "layer", "session_id", "run", "reference_version")
NUMBERED = re.compile(r"(.*\D)?(\d+)")


def read_vector_table(config: ImportVectors) -> tuple[SubjectVectors, dict[str, Any]]:
    """One vector per person of the table, and what is to be told about it.

    Raises:
        InputError: unreadable table, no ids or vectors, vectors of several models or lengths, people without all
            genes, repeated rows, or numbers missing.
    """
    frame = _read(config.table)
    where = config.table
    ids = _column(frame, config.id_column, ALIASES["participant_id"], where, what="subject ids")
    frame = _selected(frame, config.select, where)
    vector = _column(frame, config.vector_column, VECTOR, where, what="vectors", needed=False)
    gene = _column(frame, config.gene_column, GENE, where, what="genes", needed=False)
    wide = [] if vector else _wide(frame, config.columns, taken=(ids, gene), where=where)
    for key in KEYS:
        if key in frame and key not in config.select and frame[key].nunique(dropna=False) > 1:
            found = sorted(map(str, frame[key].unique()))
            raise InputError(
                f"{where} holds rows of {len(found)} {key}s ({', '.join(found[:4])}{', ...' if len(found) > 4 else ''}); "
                f"choose one with --select.{key}=..."
            )
    values = _vectors(frame[vector], where) if vector else _numbers(frame[wide], where)
    people = _ids(frame[ids], where)
    genes = [str(g) for g in frame[gene]] if gene else [""] * len(people)
    vectors, names, repeated = _arranged(people, genes, values, config, where)
    blocks, width = {}, values.shape[1]
    if gene:
        blocks = {name: (k * width, (k + 1) * width) for k, name in enumerate(dict.fromkeys(genes))}
    provenance = {
        "encoder": "imported",
        "table": where.name,
        "table_sha256": file_sha256(where),
        "selected": dict(config.select) | {k: str(frame[k].iloc[0]) for k in KEYS if k in frame},
        "repeats": config.repeats,
        "trained_on": _trained_on(config.trained_on),
    }
    told = {
        "people": len(names),
        "numbers_per_person": vectors.shape[1],
        **({"genes": len(blocks)} if gene else {}),
        **({"rows_averaged": repeated} if repeated else {}),
    }
    return SubjectVectors(ids=names, values=vectors, blocks=blocks, provenance=provenance), told


def _read(path: Path) -> pd.DataFrame:
    """The table with text in every cell of a CSV, so that ids keep their zeros."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; a table of vectors (Parquet, CSV or TSV) was wanted")
    with open(path, "rb") as file:
        parquet = file.read(4) == b"PAR1"
    try:
        if parquet:
            frame = pd.read_parquet(path)
        else:
            separator = "\t" if "\t" in path.open(encoding="utf-8-sig").readline() else ","
            frame = pd.read_csv(
                path,
                sep=separator,
                dtype=str,
                keep_default_na=False,
                skipinitialspace=True,
                encoding="utf-8-sig",
            )
    except ImportError as cause:
        raise InputError(
            "Parquet tables need pyarrow, which is not installed; run: pip install 'neurohelix[parquet]'"
        ) from cause
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as cause:
        raise InputError(
            f"{path} is not a readable table ({cause}); Parquet, CSV or TSV was wanted"
        ) from cause
    if not len(frame):
        raise InputError(f"{path} has no rows; one row per person was wanted")
    frame.columns = [str(name).strip() for name in frame.columns]
    return frame


def _column(
    frame: pd.DataFrame, given: str, known: tuple[str, ...], where: Path, *, what: str, needed: bool = True
) -> str | None:
    if given:
        if given not in frame:
            raise InputError(f"{where} has no column {given!r}; it has: {_some(frame.columns)}")
        return given
    lowered = {name.lower(): name for name in reversed(frame.columns)}
    found = [lowered[name] for name in known if name in lowered]
    if needed and not found:
        raise InputError(
            f"{where} has no column of {what}; name one of {', '.join(known)}, or pass --id_column (it has: "
            f"{_some(frame.columns)})"
        )
    return found[0] if found else None


def _selected(frame: pd.DataFrame, select: dict[str, str], where: Path) -> pd.DataFrame:
    for name, value in select.items():
        if name not in frame:
            raise InputError(
                f"--select.{name}: {where} has no column {name!r}; it has: {_some(frame.columns)}"
            )
        rows = frame[name].map(str) == str(value)
        if not rows.any():
            found = _some(sorted(frame[name].map(str).unique()))
            raise InputError(f"--select.{name}={value}: no row of {where} has it; there are: {found}")
        frame = frame[rows]
    return frame


def _wide(frame: pd.DataFrame, given: list[str], *, taken: tuple, where: Path) -> list[str]:
    """Columns of one number each: the given ones, or the longest family of numbered names."""
    if given:
        if absent := [name for name in given if name not in frame]:
            raise InputError(f"{where} has no column {absent[0]!r}; it has: {_some(frame.columns)}")
        return given
    families: dict[str, list[tuple[int, str]]] = {}
    for name in frame.columns:
        if name not in taken and (match := NUMBERED.fullmatch(name)):
            families.setdefault(match[1] or "", []).append((int(match[2]), name))
    if not families:
        raise InputError(
            f"{where} has no column of vectors (vector, embedding) and no numbered ones (emb_0, emb_1, ...); pass "
            f"--vector_column or --columns (it has: {_some(frame.columns)})"
        )
    largest = max(families.values(), key=len)
    rivals = [stem for stem, names in families.items() if len(names) == len(largest)]
    if len(rivals) > 1:
        raise InputError(
            f"{where} has several families of numbered columns ({_some(rivals)}); pass --columns"
        )
    return [name for _, name in sorted(largest)]


def _vectors(column: pd.Series, where: Path) -> Float32[np.ndarray, "R D"]:
    rows = []
    for line, cell in enumerate(column, 1):
        try:
            rows.append(np.asarray(_parsed(cell), dtype=np.float32))
        except (ValueError, TypeError):
            raise InputError(
                f"{where}: row {line} holds {str(cell)[:40]!r} as a vector; a list of numbers was wanted"
            ) from None
    lengths = sorted({row.shape for row in rows})
    if len(lengths) > 1 or len(lengths[0]) != 1 or not lengths[0][0]:
        raise InputError(f"{where} holds vectors of shapes {lengths[:3]}; one length for all was wanted")
    return _finite(np.stack(rows), where)


def _parsed(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    return (
        json.loads(text)
        if text.startswith("[") and "," in text
        else text.strip("[]").replace(",", " ").split()
    )


def _numbers(frame: pd.DataFrame, where: Path) -> Float32[np.ndarray, "R D"]:
    columns = []
    for name in frame.columns:
        numbers = pd.to_numeric(frame[name], errors="coerce")
        if (bad := numbers.isna()).any():
            raise InputError(
                f"{where}: column {name!r} holds {str(frame[name][bad].iloc[0])!r} in {int(bad.sum())} rows; numbers "
                f"were wanted everywhere (drop people without a vector)"
            )
        columns.append(numbers.to_numpy(dtype=np.float32))
    return _finite(np.stack(columns, axis=1), where)


def _finite(values: np.ndarray, where: Path) -> Float32[np.ndarray, "R D"]:
    if bad := int((~np.isfinite(values)).any(axis=1).sum()):
        raise InputError(
            f"{where}: {bad} of {len(values)} rows hold NaN or infinite numbers; drop or repair them"
        )
    return values.astype(np.float32)


def _ids(column: pd.Series, where: Path) -> list[str]:
    if column.dtype.kind == "f":
        if (column % 1 != 0).any():
            raise InputError(f"{where}: subject ids are numbers with fractions or missing; text was wanted")
        column = column.astype("int64")  # 1234567.0 in a Parquet file is the person 1234567
    names = [str(name).strip() for name in column]
    if empty := sum(name in MISSING for name in names):
        raise InputError(f"{where}: {empty} rows have no subject id; fill them or drop the rows")
    return names


def _arranged(
    people: list[str], genes: list[str], values: np.ndarray, config: ImportVectors, where: Path
) -> tuple[np.ndarray, list[str], int]:
    """(S, genes x D) values, the S people in order of first appearance, and how many rows were averaged away."""
    names, order = list(dict.fromkeys(people)), list(dict.fromkeys(genes))
    person, gene = {n: k for k, n in enumerate(names)}, {g: k for k, g in enumerate(order)}
    cell = np.array([person[p] * len(order) + gene[g] for p, g in zip(people, genes, strict=True)])
    count = np.bincount(cell, minlength=len(names) * len(order))
    repeated = int((count - 1).clip(min=0).sum())
    if repeated and config.repeats == "refuse":
        raise InputError(
            f"{where} holds {repeated} further rows of a person it already has (first at row "
            f"{int(np.flatnonzero(count[cell] > 1)[0]) + 1}); choose with --select, or pass --repeats=mean"
        )
    if not count.all():
        lacking = int((count.reshape(len(names), -1) == 0).any(axis=1).sum())
        raise InputError(
            f"{where}: {lacking} of {len(names)} people lack some of the {len(order)} genes; drop those people or genes"
        )
    total = np.zeros((len(count), values.shape[1]))
    np.add.at(total, cell, values)
    return (total / count[:, None]).astype(np.float32).reshape(len(names), -1), names, repeated


def _trained_on(told: str) -> dict[str, Any] | None:
    if told == "nobody":
        return None
    if told == "unknown":
        return {"split_digest": "unknown", "ids": None, "complete": False}
    path = Path(told)
    if not path.is_file():
        raise InputError(
            f"--trained_on={told}: 'nobody', 'unknown' or a file with one subject id per line was wanted"
        )
    ids = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not ids:
        raise InputError(
            f"--trained_on={told} names nobody; pass --trained_on=nobody if that is what is meant"
        )
    return {"split_digest": "unknown", "ids": ids, "complete": True}


def _some(names: Any, most: int = 8) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
