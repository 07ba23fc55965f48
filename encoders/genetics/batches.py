"""Which sequences share a batch, and batches side by side on the cores of a CPU.

Glossary: D numbers of a vector.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np

from encoders.genetics.sequence_encoder import Pool, SequenceEncoder

LEAST_FILLED = 0.9  # of a padded batch: the shortest sequence has at least this share of the longest's bases


def batches(sequences: Sequence[str], batch_bases: int, *, pads: bool = False) -> Iterator[list[int]]:
    """Rows of sequences of equal length, at most ``batch_bases`` bases together; short sequences first.

    Args:
        sequences: Bases.
        batch_bases: Bases per batch, pads included; at least one sequence is taken.
        pads: Whether the encoder can pad: then lengths within a tenth of each other share a batch.
    """
    rows = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    batch: list[int] = []
    for row in rows:
        length = len(sequences[row])
        if batch:
            shortest = len(sequences[batch[0]])
            alike = shortest >= LEAST_FILLED * length if pads else shortest == length
            if not alike or (len(batch) + 1) * max(length, 1) > batch_bases:
                yield batch
                batch = []
        batch.append(row)
    if batch:
        yield batch


def encode_batches(
    encoder: SequenceEncoder,
    todo: list[list[str]],
    *,
    workers: int,
    pools: Sequence[Pool] | None = None,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """(batch, its vectors) in the order of ``todo``, so that nothing depends on which thread was faster.

    The operations of a small model are too short to be shared out over cores: with threads inside them most
    of the time goes into waiting, all of it on a busy machine (80 s instead of 10 s for the demo on two
    cores). So each worker computes whole batches of its own with one core.

    Args:
        encoder: What to run; its ``encode`` must be safe to call from several threads.
        todo: Batches of sequences.
        workers: Batches at a time; 1 runs them here, with threads inside the operations.
        pools: What is pooled, per batch; default: all bases.
    """
    pools = ["mean"] * len(todo) if pools is None else pools
    if workers == 1:
        for batch, pool in zip(todo, pools, strict=True):
            yield batch, encoder.encode(batch, pool=pool)
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # also what threads that start from here on begin with
    threads = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        vectors = threads.map(lambda batch, pool: encoder.encode(batch, pool=pool), todo, pools)
        with closing(vectors):
            yield from zip(todo, vectors, strict=True)
    finally:
        threads.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def workers_of(encoder: SequenceEncoder) -> int:
    """How many batches at a time: on a CPU as many as the encoder finds worth it, one on a GPU."""
    return encoder.max_workers if encoder.device.type == "cpu" else 1
