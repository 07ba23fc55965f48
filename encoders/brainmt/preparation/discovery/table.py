"""A plain table of paths, for scans that lie in no known layout.

TSV or CSV with a header line; `path` and `subject` must be there, the others may: `session`, `run`, `task`, `mask`,
`confounds` (an fMRIPrep table, or a motion file of HCP or MCFLIRT by its name), `tr` in s, `space`. Paths that are not
absolute start at the table's folder. Where no `space` is stated, `space-<label>` in the scan's name counts. A person may have several rows, if session, task or run tells them apart.
"""

import csv
import math
import re
from pathlib import Path

from encoders.brainmt.preparation.discovery.scan import Listing, MotionFile, Scan, entity_name, sources
from encoders.brainmt.preparation.discovery.select import select
from encoders.runs.errors import InputError

SUBJECT = ("subject", "participant_id", "subject_id", "eid")
OPTIONAL = ("session", "run", "task", "mask", "confounds", "tr", "space")
EMPTY = ("", "n/a", "na", "nan", "none")
LABEL = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9.+-]*"
)  # becomes part of a file name, and parts of it are joined by _
SPACE = re.compile(r"(?:^|_)space-([A-Za-z0-9]+)")
MOTION = (
    (re.compile(r".*\.par"), "mcflirt_par"),
    (re.compile(r".*Movement_RelativeRMS\.txt"), "hcp_rms"),
    (re.compile(r".*Movement_Regressors\.txt"), "hcp_regressors"),
    (re.compile(r".*\.tsv"), "fmriprep"),
)


def discover_table(path: Path, *, task: str = "", space: str = "") -> Listing:
    """List the scans of a table, only of one ``task`` or ``space`` if given.

    Raises:
        InputError: no such table, a missing or unknown column, a row that cannot be used (with its line), or no scan.
    """
    header, rows = _read(path)
    found, seen = [], {}
    for line, cells in rows:
        scan = _scan(dict(zip(header, cells, strict=True)), path, line)
        if scan.name in seen:
            raise InputError(
                f"{path}: lines {seen[scan.name]} and {line} are the same recording, {scan.name!r}; tell them apart by "
                f"session, task or run"
            )
        seen[scan.name] = line
        found.append(scan)
    return select(
        found,
        path.parent,
        layout="table",
        task=task,
        space=space,
        wanted=f"rows in {path.name}",
    )


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    if not path.is_file():
        raise InputError(f"{path} is not a file; a table of paths (TSV or CSV) was wanted")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(f"{path} cannot be read as text ({cause}); a TSV or CSV table was wanted") from cause
    separator = "\t" if "\t" in text.partition("\n")[0] else ","
    lines = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=separator)]
    header = [name.lower() for name in lines[0]] if lines else []
    header = ["subject" if name in SUBJECT else name for name in header]
    if missing := [name for name in ("path", "subject") if name not in header]:
        raise InputError(
            f"{path} has no column {' and no column '.join(missing)}; a header line with path, subject and any of "
            f"{', '.join(OPTIONAL)} was wanted, found: {', '.join(header) or 'nothing'}"
        )
    strange = [name for name in header if name not in ("path", "subject", *OPTIONAL)]
    if strange or len(set(header)) < len(header):
        raise InputError(
            f"{path} has columns that are unknown or there twice: {', '.join(strange or header)}; known are path, "
            f"subject, {', '.join(OPTIONAL)}"
        )
    rows = [(line, row) for line, row in enumerate(lines[1:], 2) if any(row)]
    if wrong := next((line for line, row in rows if len(row) != len(header)), 0):
        raise InputError(f"{path}: line {wrong} has not {len(header)} cells as the header has; mend it")
    if not rows:
        raise InputError(f"{path} has no rows; one line per scan was wanted")
    return header, rows


def _scan(row: dict[str, str], table: Path, line: int) -> Scan:
    row = {name: "" if cell.lower() in EMPTY else cell for name, cell in row.items()}
    for name in ("subject", "session", "task", "run", "space"):
        if row.get(name) and not LABEL.fullmatch(row[name]):
            raise InputError(
                f"{table}: line {line}: the {name} {row[name]!r} cannot be part of a name; use letters, digits and . + -"
            )
    if not row["path"] or not row["subject"]:
        raise InputError(f"{table}: line {line} names no {'path' if row['subject'] else 'subject'}; fill it")
    files = {name: _file(row.get(name, ""), table) for name in ("path", "mask", "confounds")}
    motion = _motion(files["confounds"], table, line)
    label = row["subject"].removeprefix("sub-")
    entities = {name: row.get(name, "") for name in ("session", "task", "run")}
    tr = _tr(row.get("tr", ""), table, line)
    named = SPACE.search(Path(row["path"]).name)
    root = table.parent
    found = sources([files["path"], files["mask"], files["confounds"]], root)
    said = ", ".join(f"{name} {row[name]}" for name in ("tr", "space") if row.get(name))
    return Scan(
        name=entity_name(sub=label, ses=entities["session"], task=entities["task"], run=entities["run"]),
        subject=row["subject"],
        **entities,
        space=row.get("space", "") or (named[1] if named else ""),
        path=files["path"],
        sidecar=None,
        mask=files["mask"],
        confounds=files["confounds"] if motion and motion.form == "fmriprep" else None,
        # what the table itself states is judged with the scan: changed, the scan is prepared anew
        sources=(*found, (f"{table.name}: {said}", 0, 0)) if said else found,
        layout="table",
        motion=motion,
        tr=tr,
    )


def _file(cell: str, table: Path) -> Path | None:
    """One that is not there is refused with its scan when it is read, not here: one row must not stop the others."""
    return table.parent / Path(cell).expanduser() if cell else None


def _motion(path: Path | None, table: Path, line: int) -> MotionFile | None:
    if path is None:
        return None
    for name, form in MOTION:
        if name.fullmatch(path.name):
            return MotionFile(path=path, form=form)
    raise InputError(
        f"{table}: line {line}: nothing says what the confounds file {path.name} holds; wanted were an fMRIPrep .tsv, "
        f"Movement_RelativeRMS.txt, Movement_Regressors.txt or an MCFLIRT .par"
    )


def _tr(cell: str, table: Path, line: int) -> float | None:
    if not cell:
        return None
    try:
        tr = float(cell)
    except ValueError:
        tr = math.nan
    if not 0 < tr < math.inf:
        raise InputError(f"{table}: line {line}: the tr {cell!r} is no number of seconds; correct it")
    return tr
