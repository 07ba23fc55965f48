"""Gene windows: which stretches of the reference become sequences, from a BED file.

Glossary: a window is [start, end), 0-based and half-open, on the forward strand of the reference.
"""

import gzip
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from encoders.genetics.reference import Reference, share_of_n, some
from encoders.runs.artifact import content_digest
from encoders.runs.errors import InputError

PLINK_MAGIC = b"\x6c\x1b"  # PLINK's genotype files share the suffix .bed


@dataclass(frozen=True, kw_only=True)
class Window:
    """One stretch of the reference.

    Args:
        name: Unique name; `gene` or `gene|transcript|exon`.
        contig: Contig as the reference spells it.
        start: First base, 0-based.
        end: One past the last base.
        strand: "+" or "-"; sequences of "-" are reverse-complemented.
        clipped: How many bases were cut off because they lie beyond the contig.
        focus: [start, end) within the window whose bases are pooled, such as an exon or a variant and its
            surroundings, on the forward strand of the reference; None: all of the window.
        clipped_start: How many bases of the flank were cut off because they lie before the contig.
        rule: How the transcript of an exon was chosen ("MANE Select", ...); empty for other windows.
    """

    name: str
    contig: str
    start: int
    end: int
    strand: str = "+"
    clipped: int = 0
    focus: tuple[int, int] | None = None
    clipped_start: int = 0
    rule: str = ""

    @property
    def gene(self) -> str:
        """The gene, which is the part of the name before the first `|`."""
        return self.name.partition("|")[0]

    @property
    def place(self) -> str:
        """Human-readable position, 1-based and closed as genome browsers show it."""
        return f"{self.contig}:{self.start + 1}-{self.end}"

    def widened(self, flank: int) -> "Window":
        """The window with ``flank`` more bases on both sides, cut at the start of the contig; same focus."""
        start = max(self.start - flank, 0)
        return replace(self, start=start, end=self.end + flank, clipped_start=flank - (self.start - start))


def read_windows(path: Path) -> list[Window]:
    """Windows of a BED file in file order (contigs as the file spells them).

    Columns: contig, start, end, name, score, strand; name and strand may be missing ("contig:start-end", "+").

    Raises:
        InputError: not a BED file, no windows, a bad line, or a repeated name.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; gene windows in BED format were wanted")
    raw = path.read_bytes()
    if raw.startswith(PLINK_MAGIC):
        raise InputError(f"{path} holds PLINK genotypes; gene windows (a text file, BED6) were wanted")
    try:
        raw = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as cause:
        raise InputError(f"{path} is damaged ({cause}); copy or download it again") from cause
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text; gene windows (BED6) were wanted") from None
    windows = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith(("#", "track", "browser")):
            windows.append(_parse(line, f"{path}, line {number}"))
    if not windows:
        raise InputError(
            f"{path} holds no windows; one line `contig start end name 0 strand` each was wanted"
        )
    names = [window.name for window in windows]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"{path}: {len(repeated)} window names appear twice, first {repeated[0]!r}; "
            f"name several windows of a gene gene|transcript|exon1, gene|transcript|exon2, ..."
        )
    return windows


def is_plink(path: Path) -> bool:
    """Whether a file holds PLINK genotypes, whose suffix is .bed as well."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(PLINK_MAGIC)) == PLINK_MAGIC


def place_windows(windows: list[Window], reference: Reference, *, max_n_share: float | int) -> list[Window]:
    """The windows as they lie on a reference: its contig names, cut where they reach beyond the contig.

    Raises:
        InputError: E_CONTIG for an unknown contig, E_WINDOW for a window wholly beyond its contig, E_NRICH
            for windows with more than ``max_n_share`` of N.
    """
    placed, rich = [], []
    for window in windows:
        contig = reference.find(window.contig)
        length = reference.lengths[contig]
        if window.start >= length:
            raise InputError(
                f"window {window.name!r} ({window.place}, 1-based) lies beyond the end of its contig, which has {length} "
                f"bases in {reference.path}; pass the FASTA file that the windows were made for",
                code="E_WINDOW",
            )
        end = min(window.end, length)
        placed.append(
            replace(
                window, contig=contig, end=end, clipped=window.end - end, focus=_placed_focus(window, end)
            )
        )
        share = share_of_n(reference.fetch(contig, window.start, end))
        if share > max_n_share:
            rich.append(f"{window.name} ({share:.0%})")
    if rich:
        raise InputError(
            f"{len(rich)} of {len(windows)} windows hold more than {max_n_share:.0%} unknown bases (N) in "
            f"{reference.path}: {some(rich)}; drop them from the list of windows or raise --max_n_share",
            code="E_NRICH",
        )
    return placed


def digest_windows(windows: list[Window]) -> str:
    """sha256 over names, places, strands and focus; equal for equal windows however the file was written."""
    rows = [[w.name, w.contig, w.start, w.end, w.strand] + ([*w.focus] if w.focus else []) for w in windows]
    return content_digest(rows)


def _placed_focus(window: Window, end: int) -> tuple[int, int] | None:
    """The focus as far as it lies in the window, which now ends at ``end``."""
    if window.focus is None:
        return None
    start, stop = max(window.focus[0], window.start), min(window.focus[1], end)
    if start >= stop:
        raise InputError(
            f"what is pooled of window {window.name!r} ({window.contig}:{window.focus[0] + 1}-{window.focus[1]}) lies "
            f"beyond the end of its contig; pass the FASTA file that the windows were made for",
            code="E_WINDOW",
        )
    return start, stop


def _parse(line: str, where: str) -> Window:
    cells = line.rstrip().split("\t") if "\t" in line else line.split()
    if len(cells) < 3:
        raise InputError(f"{where}: {len(cells)} columns; at least contig, start and end were wanted")
    contig, start, end = cells[0], cells[1], cells[2]
    if not (start.isdecimal() and end.isdecimal() and int(start) < int(end)):
        raise InputError(
            f"{where}: start {start!r} and end {end!r} are no window; whole numbers with 0 <= start < end (0-based, as BED has it) were wanted"
        )
    name = cells[3].strip() if len(cells) > 3 else f"{contig}:{int(start) + 1}-{end}"
    strand = cells[5] if len(cells) > 5 else "+"
    if not name or strand not in ("+", "-", "."):
        raise InputError(f"{where}: name {name!r}, strand {strand!r}; a name and '+', '-' or '.' were wanted")
    return Window(
        name=name, contig=contig, start=int(start), end=int(end), strand="-" if strand == "-" else "+"
    )
