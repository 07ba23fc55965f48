"""Genotypes as VCF spells them (`0|1`, `1/.:17`, `0`) -> numbers, a whole record at a time.

A record of 20,000 people is 80,000 characters; they are compared as bytes, all people at once. Only what is
spelled otherwise (two-digit alleles, GT behind another field) is parsed one by one.

Glossary: S people.
"""

import re

import numpy as np
from jaxtyping import Bool, Int16, UInt32

from encoders.genetics.records import MISSING

TAB, COLON, _SLASH = ord("\t"), ord(":"), ord("/")
_ALLELE = re.compile(r"\.|\d+")
_NO_ALLELE = -2

_VALUE = np.full(256, _NO_ALLELE, np.int16)  # byte -> allele
_VALUE[ord("0") : ord("9") + 1] = np.arange(10)
_VALUE[ord(".")] = MISSING
_IS_ALLELE = _VALUE != _NO_ALLELE
_SEPARATOR = np.zeros(256, bool)
_SEPARATOR[[ord("|"), ord("/")]] = True
_STOP = np.zeros(256, bool)  # what follows the last allele of a genotype
_STOP[[TAB, COLON]] = True


class GenotypeDecoder:
    """Decodes the people's columns of the records of a stretch.

    Args:
        people: S of the file.
        columns: Which people are wanted, in order.
    """

    def __init__(self, people: int, columns: list[int]) -> None:
        self._people = people
        everyone = columns == list(range(people))
        self._columns = None if everyone else np.asarray(columns, np.intp)
        self._known: dict[str, tuple[int, int, bool, bool]] = {}
        self._plain: list[
            UInt32[np.ndarray, " S"]
        ] = []  # records whose genotypes are all like `0|1`: 4 bytes each
        self._rows: list[
            Int16[np.ndarray, "S 4"] | None
        ] = []  # the others, decoded; None where it is a plain one

    def add(self, layout: str, cells: str) -> int | None:
        """Take in one record.

        Args:
            layout: The FORMAT column.
            cells: The columns behind it, as one text.

        Returns:
            The number of columns, which is wrong if it is not S; None if FORMAT has no GT.

        Raises:
            ValueError: a genotype without alleles or with more than two; the message names it.
        """
        fields = layout.split(":")
        if "GT" not in fields:
            return None
        if fields[0] != "GT":
            return self._one_by_one(cells, fields.index("GT"))
        text = np.frombuffer(cells.encode("utf-8") + b"\t\t\t\t", np.uint8)
        if len(text) == 4 * self._people + 3:
            words = text[:-3].view("<u4")
            if _is_plain(words).all():
                self._plain.append(words if self._columns is None else words[self._columns])
                self._rows.append(None)
                return self._people
        starts = np.concatenate([[0], np.flatnonzero(text[:-4] == TAB) + 1])
        if len(starts) != self._people:
            return len(starts)
        first, between, second, after = (text[starts + k] for k in range(4))
        rows = np.zeros((self._people, 4), np.int16)
        rows[:, 0], rows[:, 1] = _VALUE[first], _VALUE[second]
        rows[:, 2] = (rows[:, 0] != rows[:, 1]) & (between == _SLASH)
        pairs = _SEPARATOR[between] & _STOP[after] & (rows[:, :2] != _NO_ALLELE).all(axis=1)
        single = ~pairs & _STOP[between] & (rows[:, 0] != _NO_ALLELE)
        rows[single, 1], rows[single, 2] = rows[single, 0], 0
        rows[single, 3] = rows[single, 0] != MISSING
        if others := np.flatnonzero(~pairs & ~single).tolist():
            each = cells.split("\t")
            for column in others:
                rows[column] = self._parse(each[column].partition(":")[0])
        self._keep(rows)
        return self._people

    def decoded(
        self,
    ) -> tuple[Int16[np.ndarray, "R S 2"], Bool[np.ndarray, "R S"], Bool[np.ndarray, "R S"]]:
        """Calls (-1 if missing), unphased and haploid of all records."""
        wanted = self._people if self._columns is None else len(self._columns)
        calls = np.empty((len(self._rows), wanted, 2), np.int16)
        unphased, haploid = np.zeros((2, len(self._rows), wanted), bool)
        plain = iter(self._plain)
        for number, row in enumerate(self._rows):
            if row is None:
                text = next(plain).view(np.uint8).reshape(wanted, 4)
                np.take(_VALUE, text[:, 0::2], out=calls[number])
                if (text[:, 1] == _SLASH).any():
                    unphased[number] = (text[:, 0] != text[:, 2]) & (text[:, 1] == _SLASH)
            else:
                calls[number] = row[:, :2]
                unphased[number], haploid[number] = row[:, 2], row[:, 3]
        return calls, unphased, haploid

    def _one_by_one(self, cells: str, at: int) -> int:
        each = [(cell.split(":") + ["."] * (at + 1))[at] for cell in cells.split("\t")]
        if len(each) == self._people:
            self._keep(np.asarray([self._parse(text) for text in each], np.int16))
        return len(each)

    def _keep(self, rows: Int16[np.ndarray, "S 4"]) -> None:
        self._rows.append(rows if self._columns is None else rows[self._columns])

    def _parse(self, text: str) -> tuple[int, int, bool, bool]:
        if text not in self._known:
            found = _ALLELE.findall(text)
            if not 1 <= len(found) <= 2:
                raise ValueError(f"the genotype {text!r}")
            first, second = (MISSING if allele == "." else int(allele) for allele in (found[0], found[-1]))
            unphased = first != second and "|" not in text
            self._known[text] = (first, second, unphased, len(found) == 1 and first != MISSING)
        return self._known[text]


def _is_plain(words: UInt32[np.ndarray, " S"]) -> Bool[np.ndarray, " S"]:
    """Whether four bytes are allele, `|` or `/`, allele, tab; alleles are one digit or a dot."""
    frame = words & 0xFF00FF00
    alleles = _IS_ALLELE[words & 0xFF] & _IS_ALLELE[(words >> 16) & 0xFF]
    return alleles & ((frame == 0x09007C00) | (frame == 0x09002F00))
