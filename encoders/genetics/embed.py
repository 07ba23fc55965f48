"""Embed each distinct sequence of a cohort once, through the cache; many processes may share the work.

Glossary: D numbers of a vector; windows differ in how many distinct sequences they have (axis `_`).
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import overload

import numpy as np
from jaxtyping import Float32

from encoders.genetics.batches import batches, encode_batches
from encoders.genetics.cache import VectorCache
from encoders.genetics.genomes import Genomes
from encoders.genetics.sequence_encoder import Pool, SequenceEncoder
from encoders.genetics.strategies import Tokens
from encoders.genetics.units import Units, collect_units
from encoders.runs.progress import progress
from encoders.runs.signals import Stop, StopRequest

SAVE_EVERY = 20.0  # seconds of work that a killed run loses at most
SAVE_BYTES = 64 * 2**20  # of vectors that wait in memory


class WindowVectors(Sequence):
    """(U, D) vectors of the distinct sequences of each window, read from the cache when they are asked for.

    Args:
        units: What was embedded.
        cache: Holds the vectors.
    """

    def __init__(self, units: Units, cache: VectorCache) -> None:
        self._units, self._cache = units, cache
        self._keys = cache.keys(units.sequences, units.spans)

    def __len__(self) -> int:
        return len(self._units.of_window)

    @overload
    def __getitem__(self, window: int) -> Float32[np.ndarray, "_ D"]: ...

    @overload
    def __getitem__(self, window: slice) -> list[Float32[np.ndarray, "_ D"]]: ...

    def __getitem__(self, window):
        if isinstance(window, slice):
            return [self[k] for k in range(*window.indices(len(self)))]
        return self._cache.vectors(self._keys[self._units.of_window[window]])


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Vectors of the distinct sequences of every window, and how they were come by.

    Args:
        windows: (U, D) per window, in the order of its ``sequences``; read from the cache on demand.
        computed: Units embedded in this run, by this process.
        cached: Units found in the cache.
        elsewhere: Units of other processes, or of other parts.
        damaged: Cache files that failed their sha256, were removed, and had their sequences embedded again.
    """

    windows: Sequence[Float32[np.ndarray, "_ D"]]
    computed: int
    cached: int
    elsewhere: int
    damaged: int


def embed_sequences(
    genomes: Genomes,
    encoder: SequenceEncoder,
    cache: VectorCache,
    *,
    batch_bases: int,
    workers: int = 1,
    tokens: Tokens = "focus",
) -> Embedded:
    """Vectors of all distinct sequences of a cohort, from the cache where they are known.

    Args:
        genomes: The cohort.
        encoder: The model.
        cache: Vectors that are known already; receives the new ones.
        batch_bases: Bases per batch.
        workers: Batches at a time, on as many cores of a CPU; 1 on a GPU.
        tokens: Which tokens make the vector of a sequence.
    """
    units = collect_units(genomes.windows, tokens)
    return embed_units(units, encoder, cache, tokens=tokens, batch_bases=batch_bases, workers=workers)


def embed_units(
    units: Units,
    encoder: SequenceEncoder,
    cache: VectorCache,
    *,
    tokens: Tokens,
    batch_bases: int,
    workers: int = 1,
    part: tuple[int, int] = (0, 1),
    stop: StopRequest | None = None,
) -> Embedded:
    """Vectors of all units, or of one part of them, into the cache.

    Batches are fixed by the whole set of units, and whole batches are saved: a killed run that is resumed, and
    several processes together, compute the same batches, hence the same numbers, as one run of one process.

    Args:
        units: What to embed.
        encoder: The model.
        cache: Vectors that are known already; receives the new ones.
        tokens: Which tokens make the vector of a unit.
        batch_bases: Bases per batch.
        workers: Batches at a time, on as many cores of a CPU; 1 on a GPU.
        part: (i, n): every n-th batch from the i-th, counted from 0.
        stop: Looked at after every batch: once a signal has arrived, what is done is saved.

    Raises:
        Stop: a signal arrived.
    """
    keys = cache.keys(units.sequences, units.spans)
    known = cache.known(keys)
    todo, elsewhere = [], 0
    for number, rows in enumerate(batches(units.sequences, batch_bases, pads=encoder.pads)):
        unknown = [row for row in rows if not known[row]]
        if number % part[1] != part[0]:
            elsewhere += len(unknown)
        elif unknown:
            todo.append(unknown)
    sequences = [[units.sequences[row] for row in rows] for rows in todo]
    pools = [pool_of(units, rows, tokens) for rows in todo]
    results = encode_batches(encoder, sequences, workers=workers, pools=pools)
    pending = _Pending(units, cache)
    total = sum(len(units.sequences[row]) for rows in todo for row in rows)
    bar = progress(range(total), "embed sequences", unit="base")
    with closing(results), closing(bar):
        for rows, (batch, vectors) in zip(todo, results, strict=True):
            pending.add(rows, vectors)
            bar.update(sum(map(len, batch)))
            if stop is not None and stop.number:
                pending.save()
                raise Stop(
                    "stopped as asked; the sequences embedded so far are saved: run the same command again to "
                    "continue",
                    code=stop.code,
                )
    pending.save()
    return Embedded(
        windows=WindowVectors(units, cache),
        computed=sum(map(len, todo)),
        cached=int(known.sum()),
        elsewhere=elsewhere,
        damaged=len(cache.damaged),
    )


def pool_of(units: Units, rows: Sequence[int], tokens: Tokens) -> Pool:
    """What the encoder is asked to pool for a batch."""
    if tokens == "last":
        return "last"
    if all(units.spans[row] is None for row in rows):
        return "mean"
    return [units.spans[row] or (0, len(units.sequences[row])) for row in rows]


class _Pending:
    """Vectors of whole batches that wait to be written together."""

    def __init__(self, units: Units, cache: VectorCache) -> None:
        self._units, self._cache = units, cache
        self._saved = time.monotonic()
        self._batches: list[tuple[list[int], np.ndarray]] = []

    def add(self, rows: list[int], vectors: Float32[np.ndarray, "N D"]) -> None:
        self._batches.append((rows, vectors))
        waiting = sum(vectors.nbytes for _, vectors in self._batches)
        if time.monotonic() - self._saved > SAVE_EVERY or waiting > SAVE_BYTES:
            self.save()

    def save(self) -> None:
        if self._batches:
            rows = [row for batch, _ in self._batches for row in batch]
            self._cache.add(
                [self._units.sequences[row] for row in rows],
                np.concatenate([vectors for _, vectors in self._batches]),
                [self._units.spans[row] for row in rows],
            )
            self._batches.clear()
        self._saved = time.monotonic()
