"""The tables beside PLINK's genotypes: who (.psam, .fam) and where (.pvar, .pvar.zst, .bim).

Glossary: R records of a file.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from encoders.genetics.contigs import as_spelled, header_contigs, plink_contig
from encoders.genetics.reference import some
from encoders.runs.errors import InputError

PLAIN_ZST = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, kw_only=True)
class ContigRows:
    """The records of one contig.

    Args:
        rows: Their numbers in the file, by position.
        starts: 0-based position of the first base of REF.
        stops: One past its last base.
    """

    rows: Int64[np.ndarray, " R"]
    starts: Int64[np.ndarray, " R"]
    stops: Int64[np.ndarray, " R"]

    def overlapping(self, start: int, end: int) -> Int64[np.ndarray, " N"]:
        """Numbers of the records that overlap [start, end), by position."""
        return self.rows[(self.starts < end) & (self.stops > start)]


class PlinkSites:
    """Positions and alleles of all records.

    Args:
        path: .pvar, .pvar.zst or .bim.
        code: Code of errors.

    Raises:
        InputError: it is no such table, or holds no records.
    """

    def __init__(self, path: Path, code: str) -> None:
        from pgenlib import PvarReader

        self.path = path
        lines = _header(path, code)
        try:
            self.reader = PvarReader(str(path).encode())
        except (RuntimeError, OSError) as cause:
            raise InputError(
                f"{path} cannot be read ({told(cause)}); the table of variants that was written with its "
                f"genotypes was wanted",
                code=code,
            ) from cause
        self.contigs: dict[str, ContigRows] = {}
        spelled: dict[str, str] = {}
        rows: dict[str, list[int]] = {}
        starts = np.empty(len(self), np.int64)
        stops = np.empty(len(self), np.int64)
        for row in range(len(self)):
            raw = self.reader.get_variant_chrom(row).decode()
            if raw not in spelled:
                spelled[raw] = plink_contig(raw)
                rows.setdefault(spelled[raw], [])
            rows[spelled[raw]].append(row)
            starts[row] = self.reader.get_variant_pos(row) - 1
            stops[row] = starts[row] + max(len(self.reader.get_allele_code(row, 0)), self._other(path, row))
        for name, numbers in rows.items():
            order = np.asarray(numbers, np.int64)
            order = order[np.argsort(starts[order], kind="stable")]
            self.contigs[name] = ContigRows(rows=order, starts=starts[order], stops=stops[order])

        header = {plink_contig(name): length for name, length in header_contigs(lines).items()}
        listed = as_spelled(header, self.contigs)
        self.lengths = {name: length for name, length in listed.items() if length}

    def __len__(self) -> int:
        return self.reader.get_variant_ct()

    def position(self, row: int) -> int:
        """0-based position of the first base of REF."""
        return self.reader.get_variant_pos(row) - 1

    def alleles(self, row: int) -> tuple[str, ...]:
        """REF, then ALT (of a .bim: A2, then A1), without an ALT that the file does not know (`.`, `0`)."""
        names = [self.reader.get_allele_code(row, k).decode() for k in range(self.reader.get_allele_ct(row))]
        return (names[0], *(name for name in names[1:] if name not in (".", "0")))

    def close(self) -> None:
        """Forget the table."""
        self.reader.close()

    def _other(self, path: Path, row: int) -> int:
        """Length of the other allele, which may be REF too in a .bim."""
        return len(self.reader.get_allele_code(row, 1)) if path.suffix == ".bim" else 0


def read_people(path: Path, code: str) -> list[str]:
    """Individual ids (IID) of a .psam or .fam file, in the order of the genotypes.

    Raises:
        InputError: it is no such table, holds nobody, or an id twice.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text; PLINK's table of people was wanted", code=code) from None
    titles = [line for line in lines if line.startswith(("#IID", "#FID"))]
    if titles:
        column = titles[-1].lstrip("#").split().index("IID")
        fewest = column + 1
    else:
        column, fewest = 1, 2  # .fam, and .psam without a header: FID IID ...
    rows = [line.split() for line in lines if not line.startswith("#")]
    if short := next((k for k, row in enumerate(rows, 1) if len(row) < fewest), None):
        raise InputError(
            f"{path}: person {short} has fewer than {fewest} columns; PLINK's table of people was wanted",
            code=code,
        )
    people = [row[column] for row in rows]
    if not people:
        raise InputError(f"{path} lists no people; genotypes of people were wanted", code=code)
    if len(set(people)) < len(people):
        twice = len(people) - len(set(people))
        raise InputError(
            f"{path} lists {twice} individual ids (IID) more than once, so they do not say who is who; make them "
            f"unique",
            code=code,
        )
    return people


def companion(path: Path, suffixes: tuple[str, ...], what: str, code: str) -> Path:
    """The file beside ``path`` with one of ``suffixes`` in place of its own.

    Raises:
        InputError: there is none.
    """
    stem = str(path).removesuffix(path.suffix)
    for suffix in suffixes:
        if Path(stem + suffix).is_file():
            return Path(stem + suffix)
    raise InputError(
        f"{path} has no {what} beside it (looked for {some([Path(stem).name + s for s in suffixes])}); put it there",
        code=code,
    )


def _header(path: Path, code: str) -> list[str]:
    """The `##` lines of a .pvar."""
    if path.suffix == ".bim":
        return []
    with open(path, "rb") as file:
        if file.read(4) == PLAIN_ZST:
            if sys.version_info >= (3, 14):
                from compression.zstd import ZstdFile
            else:
                from backports.zstd import ZstdFile
            file = ZstdFile(path)
        file.seek(0)
        lines = []
        try:
            for line in file:
                if not line.startswith(b"##"):
                    break
                lines.append(line.decode("utf-8", errors="replace"))
        except (OSError, EOFError, ValueError) as cause:
            raise InputError(f"{path} is damaged ({told(cause)}); restore it", code=code) from cause
    return lines


def told(cause: Exception) -> str:
    """What pgenlib says, in one line without its b'...'."""
    text = str(cause).removeprefix("b'").removeprefix('b"').removesuffix("'").removesuffix('"')
    return " ".join(text.replace("\\n", " ").split()).rstrip(".")
