"""Embed each distinct sequence of a cohort once, then pool to one vector per person.

Glossary: D numbers of a vector; windows differ in how many distinct sequences they have (axis `_`).
"""

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from encoders.genetics.batches import batches, encode_batches
from encoders.genetics.cache import VectorCache
from encoders.genetics.genomes import Genomes
from encoders.genetics.pooling import person_vectors, strategy
from encoders.genetics.sequence_encoder import SequenceEncoder
from encoders.genetics.windows import digest_windows
from encoders.runs.progress import progress
from encoders.vectors import SubjectVectors

SAVE_EVERY = 20.0  # seconds of work that a killed run loses at most


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Vectors of the distinct sequences of every window, and how they were come by.

    Args:
        windows: (U, D) per window, in the order of its ``sequences``.
        computed: Sequences embedded in this run.
        cached: Sequences found in the cache.
        damaged: Cache files that failed their sha256, were removed, and had their sequences embedded again.
    """

    windows: list[Float32[np.ndarray, "_ D"]]
    computed: int
    cached: int
    damaged: int


def embed_sequences(
    genomes: Genomes, encoder: SequenceEncoder, cache: VectorCache, *, batch_bases: int, workers: int = 1
) -> Embedded:
    """Vectors of all distinct sequences, from the cache where they are known.

    Batches are fixed by the whole set of sequences, and whole batches are saved: a killed run that is resumed
    computes the same batches, hence the same numbers, as one that was not.

    Args:
        genomes: The cohort.
        encoder: The model.
        cache: Vectors that are known already; receives the new ones.
        batch_bases: Bases per batch.
        workers: Batches at a time, on as many cores of a CPU; 1 on a GPU.
    """
    sequences = genomes.sequences
    known = {sequence for sequence in sequences if cache.get(sequence) is not None}
    pending: list[tuple[list[str], np.ndarray]] = []
    saved = time.monotonic()
    todo = [
        batch
        for rows in batches(sequences, batch_bases)
        if (batch := [sequences[row] for row in rows if sequences[row] not in known])
    ]
    results = encode_batches(encoder, todo, workers=workers)
    with progress(results, "embed sequences", total=len(todo), unit="batch") as bar, closing(results):
        for result in bar:
            pending.append(result)
            if time.monotonic() - saved > SAVE_EVERY:
                _save(pending, cache)
                saved = time.monotonic()
    _save(pending, cache)
    windows = [np.stack([cache.get(s) for s in window.sequences]) for window in genomes.windows]
    return Embedded(
        windows=windows, computed=len(sequences) - len(known), cached=len(known), damaged=len(cache.damaged)
    )


def genome_vectors(
    genomes: Genomes,
    embedded: Embedded,
    encoder: SequenceEncoder,
    *,
    pooling: str,
    combine: str,
    provenance: dict[str, Any],
) -> SubjectVectors:
    """One vector per person, a block of columns per gene.

    Args:
        genomes: Who carries which sequence.
        embedded: Vectors of the sequences.
        encoder: What made them.
        pooling: "difference" or "mean".
        combine: "mean" or "mean_absdiff".
        provenance: More to record, such as the name and revision of the model.

    Raises:
        InputError: E_DEGENERATE, a gene's vectors are the same for everyone.
    """
    values, blocks = person_vectors(genomes.windows, embedded.windows, pooling=pooling, combine=combine)
    return SubjectVectors(
        ids=genomes.people,
        values=values,
        blocks=blocks,
        provenance={
            **encoder.identity,
            "strategy": strategy(pooling, combine),
            "windows_sha256": digest_windows([haplotypes.window for haplotypes in genomes.windows]),
            "minus_strand": [h.window.name for h in genomes.windows if h.window.strand == "-"],
            "clipped": [h.window.name for h in genomes.windows if h.window.clipped],
            "sequence_length": "natural: windows are fixed by reference coordinates, never padded or trimmed",
            "tie_rate": genomes.ties,
            "trained_on": None,
            **provenance,
        },
    )


def _save(pending: list[tuple[list[str], np.ndarray]], cache: VectorCache) -> None:
    if pending:
        sequences = [sequence for batch, _ in pending for sequence in batch]
        cache.add(sequences, np.concatenate([vectors for _, vectors in pending]))
        pending.clear()
