"""Names of people from a .sample file (Oxford, UK Biobank, qctool), which goes with a BGEN file."""

from pathlib import Path

from encoders.runs.errors import InputError


def read_sample_file(path: Path) -> list[str]:
    """Names in the order of the genotypes: the column ID_2, or the only one; text, letter by letter.

    Two header lines are expected (`ID_1 ID_2 missing ...` and `0 0 0 ...`).

    Raises:
        InputError: E_SAMPLE, no such file or no such table.
    """
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; the .sample file of a BGEN file was wanted", code="E_SAMPLE"
        )
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text; a .sample file was wanted", code="E_SAMPLE") from None
    if len(rows) < 2 or rows[0][0].upper() not in ("ID", "ID_1") or rows[1][0] != "0":
        raise InputError(
            f"{path} does not begin with the two header lines of a .sample file (`ID_1 ID_2 missing`, `0 0 0`)",
            code="E_SAMPLE",
        )
    column = 1 if len(rows[0]) > 1 and rows[0][1].upper() == "ID_2" else 0
    if short := next((k for k, row in enumerate(rows[2:], 3) if len(row) <= column), None):
        raise InputError(f"{path}, line {short}: no {rows[0][column]}", code="E_SAMPLE")
    return [row[column] for row in rows[2:]]
