from collections import Counter

import numpy as np
import pytest

from encoders.genetics.haplotypes import WindowHaplotypes
from encoders.genetics.pooling import person_vectors, window_vectors
from encoders.genetics.strategies import STRATEGIES, Strategy, find_strategy
from encoders.genetics.windows import Window
from encoders.runs.errors import InputError

VECTORS = np.array([[1, 0, 2], [2, 0, 2], [1, 3, 2]], np.float32)  # the reference first


def haplotypes(name, index, **more):
    window = Window(name=name, contig="1", start=0, end=4)
    sequences = ["ACGT", "ACGA", "ACG"]
    return WindowHaplotypes(
        window=window, sequences=sequences, index=np.array(index, np.int32), counts=Counter(), **more
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


def test_people_without_a_copy_get_zeros_and_one_copy_counts_once():
    people = haplotypes("Y", [[1, 1], [0, 1], [2, 2]], absent=np.array([False, True, False]))
    pooled = window_vectors(people, VECTORS, pooling="mean", combine="mean_absdiff")
    np.testing.assert_allclose(pooled, [[2, 0, 2, 0, 0, 0], [0] * 6, [1, 3, 2, 0, 0, 0]])


def test_dosages_add_up_what_each_allele_does_to_the_reference():
    dosages = np.array([[0, 2, 0], [0, 0.5, 1]], np.float32)
    people = haplotypes("g", [[0, 0], [0, 0]], dosages=dosages)
    pooled = window_vectors(people, VECTORS, pooling="difference", combine="mean")
    np.testing.assert_allclose(pooled, [[1, 0, 0], [0.25, 1.5, 0]])
    plain = window_vectors(people, VECTORS, pooling="mean", combine="mean")
    np.testing.assert_allclose(plain, pooled + VECTORS[0])
    with pytest.raises(InputError, match="E_UNPHASED: window 'g' has dosages"):
        window_vectors(people, VECTORS, pooling="difference", combine="mean_absdiff")


@pytest.mark.parametrize(
    ("genes_as", "expected"),
    [("averaged", [[0.25, 0.75, 0], [0.5, 1.5, 0]]), ("max", [[0.5, 1.5, 0], [1, 3, 0]])],
)
def test_genes_may_be_averaged_or_their_maximum_taken(genes_as, expected):
    a, b = haplotypes("A", [[0, 1], [1, 1]]), haplotypes("B", [[0, 2], [2, 2]])
    values, blocks = person_vectors(
        [a, b], [VECTORS] * 2, pooling="difference", combine="mean", genes_as=genes_as
    )
    assert blocks == {}
    np.testing.assert_allclose(values, expected)


def test_sequences_whose_vectors_differ_by_rounding_alone_stop_the_run():
    vectors = np.float32([[1, 5, 2], [1, 5, 2], [1, 5, 2]])
    vectors[1, 0] += 1e-7
    with pytest.raises(
        InputError, match=r"E_DEGENERATE: people differ in window 'g\|t\|e1', but .* rounding"
    ):
        person_vectors(
            [haplotypes("g", [[0, 1], [0, 2]]), haplotypes("g|t|e1", [[0, 1], [1, 1]])],
            [VECTORS, vectors],
            pooling="difference",
            combine="mean",
        )


def test_every_combination_of_steps_has_a_name_of_its_own():
    names = {
        Strategy(tokens=t, pooling=p, combine=c, genes_as=g, pca=k).description
        for t in ("focus", "window", "last")
        for p in ("difference", "mean")
        for c in ("mean", "mean_absdiff")
        for g in ("concatenated", "averaged", "max")
        for k in (0, 32)
    }
    assert len(names) == 72
    assert all(name.endswith("_v1") for name in names)


def test_named_strategies_are_never_redefined():
    # a change here breaks vectors that others have made under the name: make a new one
    assert {name: tuple(vars(steps).values()) for name, steps in STRATEGIES.items()} == {
        "genetics_gene_fm_pca512_v1": ("focus", "mean", "mean", "concatenated", 512),
        "neurohelix_difference_v1": ("focus", "difference", "mean", "concatenated", 0),
        "neurohelix_two_haplotypes_v1": ("focus", "difference", "mean_absdiff", "concatenated", 0),
        "neurohelix_last_token_v1": ("last", "difference", "mean", "concatenated", 0),
        "neurohelix_gene_max_v1": ("focus", "mean", "mean", "max", 0),
    }
    with pytest.raises(
        InputError, match="'mine' is not known; the known ones are genetics_gene_fm_pca512_v1"
    ):
        find_strategy("mine")
