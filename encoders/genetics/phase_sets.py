"""Phase sets of a VCF (FORMAT PS): genotypes of one set are phased with each other, not with those of another.

Glossary: S people.
"""

import zlib

import numpy as np
from jaxtyping import Int32

NO_SET = -1


def sets_of_record(layout: str, cells: list[str]) -> Int32[np.ndarray, " S"] | None:
    """The set of each person in one record, -1 where there is none; None if the record has no PS.

    Args:
        layout: The FORMAT column.
        cells: The columns of the people.
    """
    fields = layout.split(":")
    if "PS" not in fields:
        return None
    at = fields.index("PS")
    names: dict[str, int] = {".": NO_SET, "": NO_SET}
    sets = np.empty(len(cells), np.int32)
    for row, cell in enumerate(cells):
        values = cell.split(":", at + 1)
        text = values[at] if len(values) > at else "."  # fields at the end may be left out
        if text not in names:  # a position by definition, but some programs write names
            is_position = text.isdecimal() and int(text) < 2**31
            names[text] = int(text) if is_position else -2 - zlib.crc32(text.encode()) % 2**30
        sets[row] = names[text]
    return sets
