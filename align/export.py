"""Aligned vectors as phenotype tables of REGENIE and PLINK: one line per person, one column per number.

Glossary: S people · O width of the shared space.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from align.export_config import Export
from encoders.runs.artifact import PRIVATE, write_text
from encoders.runs.errors import InputError
from encoders.stats.components import principal_axes

HEADER = {"regenie": ("FID", "IID"), "plink2": ("#FID", "IID")}


def phenotype_table(
    values: Float32[np.ndarray, "S O"],
    ids: list[str],
    folds: list[str],
    *,
    config: Export,
    families: dict[str, str] | None = None,
    sample: set[str] | None = None,
) -> tuple[str, dict[str, Any]]:
    """The text of the table, and what is to be told about it.

    Args:
        values: Aligned vectors, NaN rows for people without the modality.
        ids: Their ids.
        folds: Fold of each.
        config: Options.
        families: Family id of each person, where ``config.fid`` asks for it.
        sample: Ids that the genotypes hold; None takes everybody.

    Raises:
        InputError: nobody is left, ids that such files cannot hold, or more components than there are.
    """
    present = np.isfinite(values).all(axis=1)
    columns, explained = _columns(values, present & (np.array(folds) == "train"), config)
    asked = [k for k in range(len(ids)) if folds[k] in config.folds]
    kept = [k for k in asked if present[k] and (sample is None or ids[k] in sample)]
    if not kept:
        raise InputError(
            f"nobody is left: {len(asked)} people in the folds {', '.join(config.folds)}, "
            f"{sum(present[k] for k in asked)} of them with {config.modality} vectors"
            + ("" if sample is None else f", none of these among the {len(sample)} people of {config.sample}")
        )
    lines = ["\t".join([*HEADER[config.format], *(_names(config, columns.shape[1]))])]
    for k in kept:
        family = {"iid": ids[k], "0": "0"}.get(config.fid) or (families or {}).get(ids[k]) or ids[k]
        _refuse_blank(family, ids[k])
        lines.append("\t".join([family, ids[k], *(f"{number:.7g}" for number in columns[k])]))
    told: dict[str, Any] = {"people": len(kept), "phenotypes": columns.shape[1]}
    if absent := len(asked) - sum(present[k] for k in asked):
        told[f"without_{config.modality}_vector"] = absent
    if sample is not None:
        told["not_among_the_genotypes"] = sum(present[k] and ids[k] not in sample for k in asked)
    if explained is not None:
        told["variance_of_training_people_explained"] = f"{explained:.1%}"
    if others := [fold for fold in config.folds if fold != "test"]:
        told["warning"] = (
            f"people of {' and '.join(others)} were used to fit or choose the alignment; an association with their "
            f"genotypes is circular"
        )
    return "\n".join(lines) + "\n", told


def read_sample(path: Path) -> set[str]:
    """Individual ids of a .fam, .psam or .sample file, or of a plain list (FID IID, or IID)."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; a .fam, .psam, .sample file or a list of ids was wanted")
    rows = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not rows:
        raise InputError(f"{path} is empty; ids were wanted")
    header = [cell.lstrip("#").upper() for cell in rows[0]]
    if "IID" in header or "ID_2" in header:
        column = header.index("IID" if "IID" in header else "ID_2")
        rows = rows[1:]
        if rows and set(rows[0]) <= {"0", "B", "C", "D", "P"}:  # second header line of a .sample file
            rows = rows[1:]
    else:
        column = 1 if len(rows[0]) > 1 else 0
    if short := [row for row in rows if len(row) <= column]:
        raise InputError(f"{path}: a line of {len(short[0])} columns where {column + 1} were wanted")
    return {row[column] for row in rows}


def write_table(path: Path, text: str) -> None:
    """Write the table, readable by its owner only."""
    write_text(path, text, mode=PRIVATE)


def _columns(
    values: Float32[np.ndarray, "S O"], train: np.ndarray, config: Export
) -> tuple[np.ndarray, float | None]:
    if not config.components:
        return values, None
    data = values[train].astype(np.float64)
    axes, variance = principal_axes(data - data.mean(axis=0))
    if config.components > len(variance):
        raise InputError(
            f"--components={config.components}, but the vectors of {len(data)} training people have only "
            f"{len(variance)}; ask for fewer"
        )
    kept = axes[:, : config.components]
    kept = kept * np.sign(
        kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])]
    )  # the same sign every time
    return (values - data.mean(axis=0)) @ kept, float(variance[: config.components].sum() / variance.sum())


def _names(config: Export, width: int) -> list[str]:
    stem = f"{config.modality}_{config.vectors}"
    return [f"{stem}_{'PC' if config.components else ''}{k + 1}" for k in range(width)]


def _refuse_blank(*names: str) -> None:
    for name in names:
        if any(letter.isspace() for letter in name):
            raise InputError(
                f"the id {name!r} holds a blank, which phenotype files cannot; rename it in all files"
            )
