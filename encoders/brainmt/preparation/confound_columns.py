"""The columns of an fMRIPrep confounds table: which frames are dummies, what to regress out.

T frames · C columns.
"""

import fnmatch
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from encoders.brainmt.preparation.quarantine import ScanRefused

DUMMIES = "non_steady_state_outlier"
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
# what people call sets of columns, after nilearn.interfaces.fmriprep
STRATEGIES = {
    "motion6": list(MOTION),
    "motion24": [
        name + end for name in MOTION for end in ("", "_derivative1", "_power2", "_derivative1_power2")
    ],
    "wm_csf": ["csf", "white_matter"],
    "global_signal": ["global_signal"],
    "acompcor5": [f"a_comp_cor_0{k}" for k in range(5)],
    "cosine": ["cosine*"],
}
OPTIONAL = "cosine*"  # a short scan has no slow drifts to model


def read_columns(path: Path, num_frames: int) -> dict[str, Float64[np.ndarray, " T"]]:
    """All columns of numbers; NaN where the table has ``n/a`` or words.

    Raises:
        ScanRefused: E_CONFOUNDS; the table cannot be read or has another number of rows.
    """
    fix = "make the confounds table again"
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        names, rows = header.split("\t"), [line.split("\t") for line in lines]
        if any(len(row) != len(names) for row in rows):
            raise ValueError("its rows differ in length")
        cells = [[_number(cell) for cell in row] for row in rows]
    except (OSError, ValueError) as cause:
        raise ScanRefused("E_CONFOUNDS", f"{path.name} cannot be read ({cause})", fix) from cause
    if len(rows) != num_frames:
        raise ScanRefused("E_CONFOUNDS", f"{path.name} has {len(rows)} rows for {num_frames} frames", fix)
    table = np.array(cells, np.float64).reshape(len(rows), len(names))
    return {name: table[:, k] for k, name in enumerate(names)}


def marked_dummies(columns: dict[str, Float64[np.ndarray, " T"]]) -> int:
    """Frames at the start up to the last one that fMRIPrep marks as not in the steady state (count)."""
    marks = [column > 0 for name, column in columns.items() if name.startswith(DUMMIES)]
    marked = np.flatnonzero(np.any(marks, axis=0)) if marks else np.zeros(0, int)
    return int(marked[-1]) + 1 if len(marked) else 0


def chosen_columns(
    columns: dict[str, Float64[np.ndarray, " T"]], wanted: list[str], where: str
) -> tuple[list[str], Float64[np.ndarray, "T C"]]:
    """The columns that names, patterns or named sets ask for; a first value that is missing becomes the second.

    Args:
        columns: As :func:`read_columns` gives them, of the frames that are kept.
        wanted: Names, patterns (``*``, ``?``) and keys of ``STRATEGIES``.
        where: Name of the table, for messages.

    Raises:
        ScanRefused: E_CONFOUNDS; a column is missing, holds no numbers, or lacks a later value.
    """
    patterns = [pattern for name in wanted for pattern in STRATEGIES.get(name, [name])]
    found = {pattern: fnmatch.filter(columns, pattern) for pattern in patterns}
    if absent := [pattern for pattern, names in found.items() if not names and pattern != OPTIONAL]:
        raise ScanRefused(
            "E_CONFOUNDS",
            f"{where} lacks {len(absent)} of the columns to regress out: {', '.join(absent[:8])}",
            f"name columns that it has, or one of {', '.join(STRATEGIES)}, with --clean.confounds",
        )
    names = list(dict.fromkeys(name for pattern in patterns for name in found[pattern]))
    num_frames = len(next(iter(columns.values()), ()))
    chosen = np.array([columns[name] for name in names], np.float64).reshape(len(names), num_frames).T.copy()
    if len(chosen) > 1:  # derivatives have no first value; nilearn takes the second one, too
        chosen[0] = np.where(np.isnan(chosen[0]), chosen[1], chosen[0])
    if broken := [
        name for name, column in zip(names, chosen.T, strict=True) if not np.isfinite(column).all()
    ]:
        raise ScanRefused(
            "E_CONFOUNDS",
            f"{where} has missing or infinite values in {', '.join(broken[:8])}",
            "leave these columns out of --clean.confounds, or make the table again",
        )
    return names, chosen


def regressors_of(
    columns: dict[str, Float64[np.ndarray, " T"]], wanted: list[str], table: Path | None
) -> tuple[list[str], Float64[np.ndarray, "T C"] | None]:
    """As :func:`chosen_columns`, None where nothing is wanted.

    Raises:
        ScanRefused: E_CONFOUNDS; also where a scan has no table.
    """
    if not wanted:
        return [], None
    if table is None:
        raise ScanRefused(
            "E_CONFOUNDS",
            f"no confounds table lies beside it, but {', '.join(wanted)} are to be regressed out",
            "put fMRIPrep's *_desc-confounds_timeseries.tsv beside it, or leave --clean.confounds out",
        )
    names, chosen = chosen_columns(columns, wanted, table.name)
    return names, chosen if names else None


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:  # n/a, or a column of words, which is no regressor
        return np.nan
