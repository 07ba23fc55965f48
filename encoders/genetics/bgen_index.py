"""The index of a BGEN file (.bgi, SQLite): does it belong to the file, and if not, a fresh one in a scratch folder.

bgenix notes in the index the size and the first 1,000 bytes of the file it was made for. An index is used only if
both fit, all its records lie inside the file, and it lists as many as the file's header says.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from encoders.runs.errors import InputError

MAX_REBUILD = 2**32  # bytes; only the heads of the records are read, but of larger files that takes minutes
FIRST_BYTES = 1000

_TABLE = """CREATE TABLE Variant (chromosome TEXT NOT NULL, position INT NOT NULL, rsid TEXT NOT NULL,
    number_of_alleles INT NOT NULL, allele1 TEXT NOT NULL, allele2 TEXT, file_start_position INT NOT NULL,
    size_in_bytes INT NOT NULL)"""


class BgenIndex:
    """The index of a BGEN file.

    Args:
        path: The BGEN file.
        scratch: Folder for a rebuilt index.
        num_records: As the header of the file says.

    Raises:
        InputError: E_INDEX, the index is missing or stale and the file is too large to index it here; E_BGEN, the
            file is truncated or damaged.
    """

    def __init__(self, path: Path, scratch: Path, num_records: int) -> None:
        found = Path(f"{path}.bgi")
        if found.is_file() and _belongs(found, path, num_records):
            self.state = "as found"
        else:
            self.state = "rebuilt: stale" if found.is_file() else "rebuilt: missing"
            if path.stat().st_size > MAX_REBUILD:
                what = f"{found} does not belong to its file" if found.is_file() else f"{path} has no index"
                raise InputError(f"{what}; run: bgenix -g {path} -index -clobber", code="E_INDEX")
            found = scratch / f"{path.name}.bgi"
            _rebuild(path, found, num_records)
        self.path = found
        self._base = sqlite3.connect(f"{found.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        self.chromosomes = [name for (name,) in self._base.execute("SELECT DISTINCT chromosome FROM Variant")]
        self._longest: dict[str, int] = {}

    def close(self) -> None:
        """Close the index."""
        self._base.close()

    def extent(self, chromosome: str) -> tuple[int, int]:
        """The stretch of a chromosome, as the file spells it, outside of which no record lies."""
        places = self._base.execute(
            "SELECT MIN(position), MAX(position) FROM Variant WHERE chromosome = ?", (chromosome,)
        )
        first, last = places.fetchone()
        return first - 1, last - 1 + self.longest(chromosome)

    def longest(self, chromosome: str) -> int:
        """Bases of the longest allele on a chromosome, as the file spells it: how far a record may reach."""
        if chromosome not in self._longest:
            sizes = self._base.execute(
                "SELECT MAX(MAX(LENGTH(allele1), LENGTH(COALESCE(allele2, '')))) FROM Variant WHERE chromosome = ?",
                (chromosome,),
            )
            self._longest[chromosome] = sizes.fetchone()[0] or 1
        return self._longest[chromosome]


def _belongs(index: Path, path: Path, num_records: int) -> bool:
    with open(path, "rb") as file:
        head = file.read(FIRST_BYTES)
    size = path.stat().st_size
    try:
        with closing(sqlite3.connect(f"{index.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as base:
            count, last = base.execute(
                "SELECT COUNT(*), MAX(file_start_position + size_in_bytes) FROM Variant"
            ).fetchone()
            noted = (size, head)  # what early versions of bgenix did not note
            if base.execute("SELECT 1 FROM sqlite_master WHERE name = 'Metadata'").fetchone():
                noted = base.execute("SELECT file_size, first_1000_bytes FROM Metadata").fetchone()
    except sqlite3.Error:
        return False
    return noted == (size, head) and count == num_records and last == size


def _rebuild(path: Path, index: Path, num_records: int) -> None:
    from bgen import BgenReader

    rows = []
    try:
        with BgenReader(str(path), delay_parsing=True) as file:
            for record in file:
                alleles = record.alleles
                size = record.next_variant_offset - record.fileoffset
                other = max(alleles[1:], key=len, default=None)
                where = (record.fileoffset, size)
                rows.append((record.chrom, record.pos, record.rsid, len(alleles), alleles[0], other, *where))
                if record.next_variant_offset > path.stat().st_size:
                    raise ValueError("its last record is cut off")
    except (ValueError, OSError, IndexError, UnicodeDecodeError) as cause:
        raise InputError(
            f"{path} is truncated or damaged after {len(rows)} of {num_records} records ({cause}); copy or "
            f"download it again",
            code="E_BGEN",
        ) from cause
    with closing(sqlite3.connect(index)) as base, base:
        base.execute(_TABLE)
        base.executemany("INSERT INTO Variant VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        base.execute("CREATE INDEX places ON Variant (chromosome, position)")
