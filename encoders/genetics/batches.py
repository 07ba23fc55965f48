"""Which sequences share a batch, and batches side by side on the cores of a CPU.

Glossary: D numbers of a vector.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np

from encoders.genetics.sequence_encoder import SequenceEncoder


def batches(sequences: Sequence[str], batch_bases: int) -> Iterator[list[int]]:
    """Rows of sequences of equal length, at most ``batch_bases`` bases together; short sequences first."""
    by_length: dict[int, list[int]] = {}
    for row, sequence in enumerate(sequences):
        by_length.setdefault(len(sequence), []).append(row)
    for length, rows in sorted(by_length.items()):
        size = max(1, batch_bases // max(length, 1))
        for first in range(0, len(rows), size):
            yield rows[first : first + size]


def encode_batches(
    encoder: SequenceEncoder, todo: list[list[str]], *, workers: int
) -> Iterator[tuple[list[str], np.ndarray]]:
    """(batch, its vectors) in the order of ``todo``, so that nothing depends on which thread was faster.

    The operations of a small model are too short to be shared out over cores: with threads inside them most
    of the time goes into waiting, all of it on a busy machine (80 s instead of 10 s for the demo on two
    cores). So each worker computes whole batches of its own with one core.

    Args:
        encoder: What to run; its ``encode`` must be safe to call from several threads.
        todo: Batches of sequences.
        workers: Batches at a time; 1 runs them here, with threads inside the operations.
    """
    if workers == 1:
        yield from ((batch, encoder.encode(batch, pool="mean")) for batch in todo)
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # also what threads that start from here on begin with
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        vectors = pool.map(lambda batch: encoder.encode(batch, pool="mean"), todo)
        with closing(vectors):
            yield from zip(todo, vectors, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
