"""Which stretches of the contigs the linear tower reads."""

from dataclasses import dataclass, field, replace

from encoders.genetics.contigs import canonical
from encoders.genetics.reference import some
from encoders.genetics.variant_source import VariantSource
from encoders.genetics.windows import Window
from encoders.runs.errors import InputError

# PLINK's numbers for X, Y, the pseudo-autosomal part and MT stand beside the names
NOT_AUTOSOMES = {"X", "Y", "MT", "XY", "PAR1", "PAR2", "23", "24", "25", "26"}


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Stretches to read, disjoint and in order on each contig.

    Args:
        stretches: (contig as the variants spell it, start, end), 0-based and half-open.
        windows: Windows behind them, with the contig as the variants spell it; empty if whole contigs are read.
        left_out: Names of the windows (or contigs) on X, Y or MT that are not read.
    """

    stretches: list[tuple[str, int, int]]
    windows: list[Window] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def regions_of_windows(windows: list[Window], source: VariantSource, *, sex_chromosomes: bool) -> Regions:
    """The union of the windows.

    Raises:
        InputError: E_CONTIG for a contig that the variants lack, or no window on an autosome.
    """
    left_out = [w.name for w in windows if not sex_chromosomes and canonical(w.contig) in NOT_AUTOSOMES]
    skipped = set(left_out)
    placed = [replace(w, contig=source.find(w.contig, w.name)) for w in windows if w.name not in skipped]
    if not placed:
        raise InputError(
            f"all {len(windows)} windows lie on X, Y or MT ({some(left_out)}); pass --sex_chromosomes=true, or windows "
            f"on autosomes"
        )
    order = {contig: k for k, contig in enumerate(dict.fromkeys(w.contig for w in placed))}
    stretches: list[tuple[str, int, int]] = []
    for window in sorted(placed, key=lambda w: (order[w.contig], w.start)):
        if stretches and stretches[-1][0] == window.contig and window.start <= stretches[-1][2]:
            contig, start, end = stretches.pop()
            stretches.append((contig, start, max(end, window.end)))
        else:
            stretches.append((window.contig, window.start, window.end))
    return Regions(stretches=stretches, windows=placed, left_out=left_out)


def whole_contigs(source: VariantSource, *, sex_chromosomes: bool) -> Regions:
    """Every contig that holds a record, from the first record to the last.

    Raises:
        InputError: there is no record on an autosome.
    """
    extents = {name: source.extent(name) for name in source.contigs}
    filled = [name for name, (start, end) in extents.items() if start < end]
    left_out = [name for name in filled if not sex_chromosomes and canonical(name) in NOT_AUTOSOMES]
    kept = [name for name in filled if name not in left_out]
    if not kept:
        raise InputError(
            f"{source.path} holds no variant"
            + (f" but on {some(left_out)}; pass --sex_chromosomes=true, or" if left_out else "; pass")
            + " variants of autosomes",
            code="E_CONTIG",
        )
    return Regions(stretches=[(name, *extents[name]) for name in kept], left_out=left_out)
