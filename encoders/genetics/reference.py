"""The reference genome: bases by contig and position, in capital letters, from an indexed FASTA file."""

import tempfile
from collections import Counter
from pathlib import Path

from encoders.genetics.contigs import find_contig, spellings
from encoders.genetics.htslib import pysam, quiet_htslib
from encoders.runs.errors import InputError

BGZF_MAGIC = b"\x1f\x8b\x08\x04"


class Reference:
    """An open FASTA file. Close it, or use it as a context manager.

    A missing index, or one that does not fit the file, is rebuilt in a temporary folder; nothing is written
    beside the file. Soft-masked (small) letters are read as capitals.

    Args:
        path: FASTA, plain or bgzipped.

    Raises:
        InputError: no such file, not FASTA, or gzipped without blocks.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{self.path} does not exist; a reference genome in FASTA format was wanted")
        self._scratch = tempfile.TemporaryDirectory(prefix="neurohelix-fasta-")
        self._file, self.rebuilt_index = self._open()
        self.lengths: dict[str, int] = dict(zip(self._file.references, self._file.lengths, strict=True))

    def __enter__(self) -> "Reference":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and remove its temporary index."""
        self._file.close()
        self._scratch.cleanup()

    def find(self, contig: str) -> str:
        """The spelling of ``contig`` in this file.

        Raises:
            InputError: E_CONTIG, the contig is not in the file under any of its names.
        """
        found = find_contig(contig, self.lengths)
        if found is None:
            raise InputError(
                f"contig {contig!r} is not in {self.path} (looked for {spellings(contig)}; it has "
                f"{some(list(self.lengths))}); pass the FASTA file that the windows were made for",
                code="E_CONTIG",
            )
        return found

    def fetch(self, contig: str, start: int, end: int) -> str:
        """Bases [start, end) of a contig (0-based), in capitals; cut at the ends of the contig."""
        return self.spelled(contig, start, end).upper()

    def spelled(self, contig: str, start: int, end: int) -> str:
        """The same with the file's own small letters (repeats)."""
        start, end = max(start, 0), min(end, self.lengths[contig])
        return self._file.fetch(contig, start, end) if start < end else ""

    def _open(self) -> tuple[pysam.FastaFile, bool]:
        with open(self.path, "rb") as file:
            head = file.read(18)
        if head[:2] == BGZF_MAGIC[:2] and (head[:4] != BGZF_MAGIC or head[12:14] != b"BC"):
            raise InputError(
                f"{self.path} is gzipped in one piece, but positions are read through blocks; "
                f"run: gunzip it, then bgzip it"
            )
        packed = head[:2] == BGZF_MAGIC[:2]
        if not packed and not head.lstrip().startswith(b">"):
            raise InputError(f"{self.path} does not begin with '>'; a FASTA file was wanted")
        index = Path(f"{self.path}.fai")
        blocks = Path(f"{self.path}.gzi")
        rebuild = not index.is_file() or (packed and not blocks.is_file()) or not self._fits(index, packed)
        if rebuild:
            index, blocks = Path(self._scratch.name) / "fai", Path(self._scratch.name) / "gzi"
            options = ["--fai-idx", str(index)] + (["--gzi-idx", str(blocks)] if packed else [])
            try:
                with quiet_htslib():
                    pysam.faidx(str(self.path), *options)
            except pysam.SamtoolsError as cause:
                reason = " ".join(str(cause).split())
                raise InputError(
                    f"{self.path} cannot be indexed ({reason}); a FASTA file with lines of equal length was wanted"
                ) from cause
        compressed = {"filepath_index_compressed": str(blocks)} if packed else {}
        return pysam.FastaFile(str(self.path), filepath_index=str(index), **compressed), rebuild

    def _fits(self, index: Path, packed: bool) -> bool:
        """Whether every line of a .fai points behind the header line of its contig, and the last one at the end."""
        if packed:  # offsets are of the unpacked text; the time of change has to do
            return index.stat().st_mtime >= self.path.stat().st_mtime
        size = self.path.stat().st_size
        end = 0
        with open(self.path, "rb") as file:
            for line in index.read_text(encoding="utf-8").splitlines():
                cells = line.split("\t")
                if len(cells) < 5 or not all(cell.isdecimal() for cell in cells[1:5]):
                    return False
                length, offset, bases, width = map(int, cells[1:5])
                header = f">{cells[0]}".encode()
                file.seek(max(offset - 4096, 0))
                before = file.read(offset - max(offset - 4096, 0))
                title = before.rpartition(b">")[2].split() if before.endswith(b"\n") else []
                if not title or b">" + title[0] != header:
                    return False
                end = offset + (length // bases * width + length % bases if bases else 0)
            file.seek(min(end, size))
            return 0 < end <= size and not file.read(4096).strip()


def share_of_n(bases: str) -> float:
    """Share of the letter N, 0 to 1; 1 for no bases at all."""
    return Counter(bases)["N"] / len(bases) if bases else 1.0


def some(names: list[str], most: int = 4) -> str:
    """The first few names, for messages."""
    if not names:
        return "none"
    return ", ".join(repr(name) for name in names[:most]) + (", ..." if len(names) > most else "")
