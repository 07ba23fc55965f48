"""Which genes a run is about: names or ids, on the command line or in a file."""

from pathlib import Path

from encoders.genetics.annotation import text_lines
from encoders.runs.errors import InputError


def read_names(given: list[str] | str | None) -> tuple[str, ...]:
    """Names of genes as an option gives them: a list, names with commas, or a file with one name per line."""
    if given is None:
        return ()
    if isinstance(given, str):
        path = Path(given)
        if not path.is_file():
            return tuple(name.strip() for name in given.split(",") if name.strip())
        given = [line.partition("#")[0].strip() for line in text_lines(path)]
    elif len(given) == 1 and Path(given[0]).is_file():
        return read_names(given[0])
    names = tuple(name for name in given if name)
    if not names:
        raise InputError("genes names no gene; names or ids, or a file with one per line, were wanted")
    return names
