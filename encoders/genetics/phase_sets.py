"""Phase sets of a VCF (FORMAT PS): genotypes of one set are phased with each other, not with those of another.

Glossary: R records · S people.
"""

import numpy as np
from jaxtyping import Bool, Int, Int16, Int64

NO_SET = -1


def sets_of_record(layout: str, cells: list[str]) -> Int64[np.ndarray, " S"] | None:
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
    sets = np.empty(len(cells), np.int64)
    for row, cell in enumerate(cells):
        values = cell.split(":", at + 1)
        text = values[at] if len(values) > at else "."  # fields at the end may be left out
        if text not in names:  # a number by definition; some programs write names
            names[text] = int(text) if text.isdecimal() else -2 - abs(hash(text)) % 2**40
        sets[row] = names[text]
    return sets


def across_sets(
    calls: Int16[np.ndarray, "R S 2"], unphased: Bool[np.ndarray, "R S"], sets: Int[np.ndarray, "R S"]
) -> Bool[np.ndarray, "R S"]:
    """Phased heterozygous genotypes of people in whom they belong to more than one set.

    Which haplotype of one set goes with which of the other is unknown, so all of them are without phase. A phased
    genotype without a set counts as one of its own: it is phased with the rest of the file.

    Args:
        calls: Alleles.
        unphased: Heterozygous without phase.
        sets: Phase set per genotype, -1 if none.
    """
    phased = (calls[:, :, 0] != calls[:, :, 1]) & ~unphased
    numbers = sets.astype(np.int64)
    largest = np.where(phased, numbers, np.iinfo(np.int64).min).max(axis=0)
    smallest = np.where(phased, numbers, np.iinfo(np.int64).max).min(axis=0)
    return phased & (smallest < largest)
