"""Windows longer than the context of a model: overlapping tiles, averaged by their numbers of bases.

Tiles lie symmetrically, so that a sequence and its reverse complement are cut at the same places.

Glossary: N sequences · D numbers of a vector.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from encoders.genetics.sequence_encoder import Pool, SequenceEncoder, stretches
from encoders.runs.errors import InputError


def tiles(length: int, context: int, overlap: int) -> list[tuple[int, int]]:
    """[start, end) of evenly spread tiles of at most ``context`` bases that cover ``length`` bases.

    Neighbours have at least ``overlap`` bases in common; a sequence that fits is one tile.
    """
    if length <= context:
        return [(0, length)]
    reach = overlap + 2  # two bases more, which rounding to whole bases may take away
    count = -(-(length - reach) // (context - reach))
    spread = length - context
    left = [k * spread // (count - 1) for k in range(count // 2)]
    found = [(start, start + context) for start in left]
    if count % 2:
        start = (spread + 1) // 2  # one base shorter where the middle falls between two bases
        found.append((start, length - start))
    return found + [(length - end, length - start) for start, end in reversed(found[: count // 2])]


class TiledEncoder:
    """An encoder that takes sequences of any length; those within its context get the vectors they always get.

    Args:
        encoder: With a limited context.
        overlap: Bases that neighbouring tiles have in common at least; None: an eighth of the context.

    Raises:
        InputError: tiles would have no bases of their own.
    """

    def __init__(self, encoder: SequenceEncoder, *, overlap: int | None) -> None:
        assert encoder.context is not None
        self.inner, self._context = encoder, encoder.context
        self.overlap = encoder.context // 8 if overlap is None else overlap
        if 2 * self.overlap > self._context:
            raise InputError(
                f"tile_overlap is {self.overlap}; at most half of the context of {encoder.name} ({self._context:,} "
                f"bases) was wanted"
            )
        self.name, self.dim, self.random_weights = encoder.name, encoder.dim, encoder.random_weights
        self.context, self.pads, self.max_workers = None, encoder.pads, encoder.max_workers
        self.identity: dict[str, Any] = encoder.identity | {
            "long_windows": {
                "rule": "evenly spread tiles, mean over tiles weighted by pooled bases; a base counts once per tile",
                "tile_bases": self._context,
                "overlap_bases": self.overlap,
            }
        }

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.inner.device

    def operations(self, length: int) -> float:
        """Floating-point operations of all tiles."""
        return sum(
            self.inner.operations(end - start) for start, end in tiles(length, self._context, self.overlap)
        )

    def encode(self, sequences: Sequence[str], *, pool: Pool = "mean") -> Float32[np.ndarray, "N D"]:
        """One vector per sequence, in the order given.

        Raises:
            InputError: E_CONTEXT, the last token of a sequence in several tiles has not seen all of it.
        """
        if all(len(sequence) <= self._context for sequence in sequences):
            return self.inner.encode(sequences, pool=pool)
        if pool == "last":
            raise InputError(
                f"the last token of a window longer than the context of {self.name} ({self._context:,} bases) has "
                f"not seen all of it, so tiles have no last token; take --tokens=focus or --tokens=window",
                code="E_CONTEXT",
            )
        pieces, spans, owner = [], [], []
        for row, (sequence, span) in enumerate(zip(sequences, stretches(sequences, pool), strict=True)):
            for start, end in tiles(len(sequence), self._context, self.overlap):
                first, last = max(span[0], start), min(span[1], end)
                if first < last:
                    pieces.append(sequence[start:end])
                    spans.append((first - start, last - start))
                    owner.append(row)
        vectors = self.inner.encode(pieces, pool=spans)
        weights = np.array([end - start for start, end in spans], np.float64)
        total = np.zeros((len(sequences), self.dim))
        np.add.at(total, owner, vectors * weights[:, None])
        return (total / np.bincount(owner, weights)[:, None]).astype(np.float32)
