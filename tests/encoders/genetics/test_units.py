from collections import Counter

import numpy as np

from encoders.genetics.batches import batches
from encoders.genetics.embed import pool_of
from encoders.genetics.haplotypes import WindowHaplotypes
from encoders.genetics.units import collect_units
from encoders.genetics.windows import Window


def window(name, sequences, focus):
    return WindowHaplotypes(
        window=Window(name=name, contig="1", start=0, end=4),
        sequences=sequences,
        index=np.zeros((1, 2), np.int32),
        counts=Counter(),
        focus=focus,
    )


WINDOWS = [
    window("a", ["ACGT", "ACGA"], [(1, 3), (1, 3)]),
    window("b", ["ACGA", "ACGT"], [(1, 3), (0, 4)]),
]


def test_a_sequence_is_embedded_once_per_stretch():
    units = collect_units(WINDOWS, "focus")
    assert units.sequences == ["ACGT", "ACGA", "ACGT"]
    assert units.spans == [(1, 3), (1, 3), None]  # all of it is no stretch
    assert [rows.tolist() for rows in units.of_window] == [[0, 1], [1, 2]]
    assert pool_of(units, [0, 2], "focus") == [(1, 3), (0, 4)]
    assert pool_of(units, [2], "focus") == "mean"
    for tokens, pool in (("window", "mean"), ("last", "last")):
        units = collect_units(WINDOWS, tokens)
        assert units.sequences == ["ACGT", "ACGA"]
        assert [rows.tolist() for rows in units.of_window] == [[0, 1], [1, 0]]
        assert pool_of(units, [0, 1], tokens) == pool


def test_what_a_deletion_leaves_nothing_of_is_embedded_all_the_same_and_counted():
    units = collect_units([window("a", ["ACGT", "", "AC", "GT"], [(1, 3), (0, 0), (2, 2), (0, 0)])], "focus")
    assert units.sequences == ["ACGT", "N", "AC", "GT"]
    assert units.spans == [(1, 3), None, (1, 2), (0, 1)]
    assert (units.absent, units.narrow) == (1, 2)


def test_lengths_within_a_tenth_share_a_batch_where_the_encoder_pads():
    sequences = ["A" * n for n in (100, 95, 91, 89, 10, 100, 100)]
    assert list(batches(sequences, 10_000)) == [[4], [3], [2], [1], [0, 5, 6]]
    assert list(batches(sequences, 10_000, pads=True)) == [[4], [3, 2, 1], [0, 5, 6]]
    assert list(batches(sequences, 200, pads=True)) == [[4], [3, 2], [1, 0], [5, 6]]
    assert list(batches(sequences, 1)) == [[4], [3], [2], [1], [0], [5], [6]]
