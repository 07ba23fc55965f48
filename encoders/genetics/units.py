"""What is embedded once: a sequence, and the stretch of it that is pooled.

Glossary: N units · U distinct sequences of a window.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from encoders.genetics.haplotypes import WindowHaplotypes
from encoders.genetics.strategies import Tokens

ABSENT = "N"  # stands for a haplotype of which a deletion leaves nothing: one unknown base


@dataclass(frozen=True, kw_only=True)
class Units:
    """The N different units of a cohort, in order of first appearance.

    Args:
        sequences: Bases.
        spans: [start, end) that is pooled; None for all of it, or where the last token is taken.
        of_window: Per window the (U,) units of its sequences.
        absent: Sequences of which nothing was left, over all windows.
        narrow: Stretches of which nothing was left, where the bases beside the gap are pooled instead.
    """

    sequences: list[str]
    spans: list[tuple[int, int] | None]
    of_window: list[Int64[np.ndarray, " _"]]
    absent: int
    narrow: int

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def bases(self) -> int:
        """Bases of all units together."""
        return sum(map(len, self.sequences))


def collect_units(windows: list[WindowHaplotypes], tokens: Tokens) -> Units:
    """Every different (sequence, stretch) of the windows once.

    Args:
        windows: Haplotypes of a cohort.
        tokens: "focus": the stretch that a window names is pooled; "window", "last": the stretch plays no part.
    """
    rows: dict[tuple[str, tuple[int, int] | None], int] = {}
    of_window, absent, narrow = [], 0, 0
    for haplotypes in windows:
        mine = np.empty(len(haplotypes.sequences), np.int64)
        for k, (sequence, focus) in enumerate(zip(haplotypes.sequences, haplotypes.focus, strict=True)):
            if not sequence:
                sequence, focus = ABSENT, (0, 1)
                absent += 1
            span = None if tokens != "focus" or focus == (0, len(sequence)) else focus
            if span is not None and span[0] >= span[1]:  # an exon that a deletion takes away
                span = (max(span[0] - 1, 0), min(span[0] + 1, len(sequence)))
                narrow += 1
            mine[k] = rows.setdefault((sequence, span), len(rows))
        of_window.append(mine)
    return Units(
        sequences=[sequence for sequence, _ in rows],
        spans=[span for _, span in rows],
        of_window=of_window,
        absent=absent,
        narrow=narrow,
    )
