from collections import Counter

import numpy as np
import pytest

from encoders.genetics.haplotypes import WindowHaplotypes
from encoders.genetics.pooling import person_vectors, strategy, window_vectors
from encoders.genetics.windows import Window
from encoders.runs.errors import InputError

VECTORS = np.array([[1, 0, 2], [2, 0, 2], [1, 3, 2]], np.float32)  # the reference first


def haplotypes(name, index):
    window = Window(name=name, contig="1", start=0, end=4)
    sequences = ["ACGT", "ACGA", "ACG"]
    return WindowHaplotypes(
        window=window, sequences=sequences, index=np.array(index, np.int32), counts=Counter()
    )


def test_difference_from_the_reference():
    people = haplotypes("g", [[0, 0], [0, 1], [1, 2]])
    pooled = window_vectors(people, VECTORS, pooling="difference", combine="mean")
    np.testing.assert_allclose(pooled, [[0, 0, 0], [0.5, 0, 0], [0.5, 1.5, 0]])
    plain = window_vectors(people, VECTORS, pooling="mean", combine="mean")
    np.testing.assert_allclose(plain, pooled + VECTORS[0])
    assert pooled.dtype == np.float32


def test_absolute_difference_tells_heterozygotes_apart():
    people = haplotypes("g", [[1, 1], [0, 2]])
    pooled = window_vectors(people, VECTORS, pooling="difference", combine="mean_absdiff")
    np.testing.assert_allclose(pooled, [[1, 0, 0, 0, 0, 0], [0, 1.5, 0, 0, 3, 0]])


@pytest.mark.parametrize("pooling", ["difference", "mean"])
@pytest.mark.parametrize("combine", ["mean", "mean_absdiff"])
def test_swapping_the_haplotypes_of_a_person_changes_nothing(pooling, combine):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3, 5)).astype(np.float32)
    index = rng.integers(0, 3, (20, 2))
    one = window_vectors(haplotypes("g", index), vectors, pooling=pooling, combine=combine)
    other = window_vectors(haplotypes("g", index[:, ::-1]), vectors, pooling=pooling, combine=combine)
    np.testing.assert_array_equal(one, other)


def test_genes_keep_their_order_and_windows_of_a_gene_are_averaged():
    b1 = haplotypes("B|t|exon1", [[0, 1], [0, 0]])
    a = haplotypes("A", [[0, 0], [1, 2]])
    b2 = haplotypes("B|t|exon2", [[2, 2], [0, 0]])
    values, blocks = person_vectors([b1, a, b2], [VECTORS] * 3, pooling="difference", combine="mean")
    assert blocks == {"B": (0, 3), "A": (3, 6)}
    np.testing.assert_allclose(values, [[0.25, 1.5, 0, 0, 0, 0], [0, 0, 0, 0.5, 1.5, 0]])
    assert values.dtype == np.float32


def test_a_gene_that_is_the_same_for_everyone_stops_the_run():
    fine, same = haplotypes("fine", [[0, 1], [0, 0]]), haplotypes("same", [[0, 1], [1, 0]])
    with pytest.raises(InputError, match="E_DEGENERATE: the vectors of 'same' do not differ"):
        person_vectors([fine, same], [VECTORS] * 2, pooling="difference", combine="mean")


def test_strategies_have_names_of_their_own():
    names = {strategy(p, c) for p in ("difference", "mean") for c in ("mean", "mean_absdiff")}
    assert len(names) == 4
    assert all(name.endswith("_v1") for name in names)
