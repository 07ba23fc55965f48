"""The index of a variant file: does it belong to the file, and if not, a fresh one in a scratch folder.

A stale index does not fail: it returns no records, or some, and everyone would get the reference sequence.
So an index is used only if it is not older than the file, its first offset is the first record, and its last
offset is the end of the last one. Layouts: hts-specs, tabix.pdf and CSIv1.pdf.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from encoders.genetics.htslib import pysam
from encoders.runs.errors import InputError

EMPTY_BLOCK = 28  # bytes of the block that ends a bgzipped file
MAX_REBUILD = 2**30  # bytes; larger files take minutes, so the user is told how instead


def usable_index(path: Path, scratch: Path) -> tuple[Path, str]:
    """An index that belongs to ``path`` (bgzipped VCF, or BCF), and what had to be done to have it.

    Args:
        path: The variant file.
        scratch: Folder for a rebuilt index.

    Returns:
        The index file, and "as found", "rebuilt: missing" or "rebuilt: stale".

    Raises:
        InputError: E_INDEX, the index is missing or stale and cannot be rebuilt here.
    """
    found = [Path(f"{path}{suffix}") for suffix in (".tbi", ".csi") if Path(f"{path}{suffix}").is_file()]
    for index in found:
        if index.stat().st_mtime >= path.stat().st_mtime and _belongs(index, path):
            return index, "as found"
    state = "stale" if found else "missing"
    if path.stat().st_size > MAX_REBUILD:
        what = f"{found[0]} is older than its file or does not match it" if found else f"{path} has no index"
        raise InputError(f"{what}; run: tabix -f -p vcf {path}", code="E_INDEX")
    fresh = scratch / f"{path.name}.csi"
    try:
        pysam.bcftools.index("--force", "--output", str(fresh), str(path), catch_stdout=False)
    except pysam.SamtoolsError as cause:
        raise InputError(
            f"{path} cannot be indexed: its records are damaged or not sorted by contig and position; sort them "
            f"(bcftools sort -Oz -o sorted.vcf.gz {path}), then run: tabix -p vcf sorted.vcf.gz",
            code="E_INDEX",
        ) from cause
    return fresh, f"rebuilt: {state}"


def _belongs(index: Path, path: Path) -> bool:
    try:
        offsets = _offset_range(index)
    except (OSError, ValueError, struct.error):
        return False
    try:
        with pysam.BGZFile(str(path), "rb") as file:
            if file.read(3) != b"BCF":
                file.seek(0)
                line = file.readline()
                while line.startswith(b"#"):
                    line = file.readline()
                if offsets is None:
                    return not line  # an index of no records
                file.seek(offsets[0])
                if file.readline() != line:
                    return False
            return offsets is None or _ends_at(file, offsets[1], path.stat().st_size)
    except OSError:
        return False


def _ends_at(file: pysam.BGZFile, offset: int, size: int) -> bool:
    """Whether a virtual offset is the very end of a file of ``size`` bytes, neither before nor behind it.

    Behind it, seeking succeeds and nothing is read, so the byte before it is read as well.
    """
    block, within = divmod(offset, 1 << 16)
    if not within:  # the records fill a block; the empty last one follows
        return block in (size - EMPTY_BLOCK, size)
    file.seek(offset - 1)
    return len(file.read(2)) == 1


def extents(index: Path) -> list[tuple[int, int]]:
    """Per contig of a .tbi or .csi index, in its order, the stretch [start, end) outside of which no record lies.

    It is as coarse as the bins of the index: 16,384 bases at best.
    """
    found = []
    for contig in _read_bins(index):
        places = [contig.place(number) for number, _, _ in contig.bins]
        found.append((min(p[0] for p in places), max(p[1] for p in places)) if places else (0, 0))
    return found


def _offset_range(index: Path) -> tuple[int, int] | None:
    """Smallest and largest virtual offset of a .tbi or .csi index; None if it lists no records."""
    chunks = [(start, end) for contig in _read_bins(index) for _, start, end in contig.bins]
    return (min(start for start, _ in chunks), max(end for _, end in chunks)) if chunks else None


@dataclass(frozen=True)
class _Contig:
    """The bins of a contig: (number, first and last virtual offset); the smallest hold 2^shift bases."""

    shift: int
    depth: int
    bins: list[tuple[int, int, int]]

    def place(self, number: int) -> tuple[int, int]:
        """The stretch of the contig that a bin covers: bins are numbered level by level, eight to one above."""
        level, first = 0, 0
        while number >= first + (1 << 3 * level):
            first += 1 << 3 * level
            level += 1
        size = 1 << (self.shift + 3 * (self.depth - level))
        return (number - first) * size, (number - first + 1) * size


def _read_bins(index: Path) -> list[_Contig]:
    with pysam.BGZFile(str(index), "rb") as file:
        data = file.read()
    numbers = _Numbers(data)
    magic = numbers.take(4)
    if magic == b"TBI\1":
        contigs, *_, names = numbers.many("8i")
        numbers.take(names)
        shift, depth, has_loffset = 14, 5, False
    elif magic == b"CSI\1":
        shift, depth, extra = numbers.many("3i")
        numbers.take(extra)
        (contigs,) = numbers.many("i")
        has_loffset = True
    else:
        raise ValueError("neither a .tbi nor a .csi index")
    pseudo_bin = ((1 << (3 * depth + 3)) - 1) // 7 + 1  # holds counts, not offsets
    found = []
    for _ in range(contigs):
        bins = []
        (count,) = numbers.many("i")
        for _ in range(count):
            (number,) = numbers.many("I")
            if has_loffset:
                numbers.take(8)
            (chunks,) = numbers.many("i")
            borders = numbers.many(f"{2 * chunks}Q")
            if number != pseudo_bin and chunks:
                bins.append((number, min(borders[0::2]), max(borders[1::2])))
        if not has_loffset:
            (intervals,) = numbers.many("i")
            numbers.take(8 * intervals)
        found.append(_Contig(shift, depth, bins))
    return found


class _Numbers:
    """A cursor over little-endian binary data."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise ValueError("the index ends early")
        self.at += size
        return self.data[self.at - size : self.at]

    def many(self, layout: str) -> tuple[int, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))
