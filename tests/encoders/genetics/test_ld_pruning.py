"""Pruning by linkage: who stays is explained by who was kept before, however the variants are cut into pieces."""

import numpy as np
import pytest

from encoders.genetics.ld_pruning import LDPruner

R2, REACH = 0.4, 50


@pytest.fixture
def variants():
    """Positions and centred dosages of 60 variants in blocks of linked ones, 80 people."""
    rng = np.random.default_rng(0)
    founders = rng.binomial(1, 0.4, (12, 160))
    copies = founders[np.repeat(np.arange(12), 5)] ^ (rng.random((60, 160)) < 0.08)
    dosages = (copies[:, :80] + copies[:, 80:]).astype(np.float32)
    positions = np.sort(rng.choice(600, 60, replace=False)).astype(np.int64)
    return positions, dosages - dosages.mean(axis=1, keepdims=True)


def pruned(positions, dosages, *pieces):
    pruner, kept = LDPruner(r2=R2, reach=REACH), []
    for rows in np.split(np.arange(len(positions)), pieces):
        kept.append(pruner.keep("chr1", positions[rows], dosages[rows]))
    return np.concatenate(kept)


def test_no_two_that_stay_are_linked_and_each_that_goes_has_an_earlier_one_that_stays(variants):
    positions, dosages = variants
    kept = pruned(*variants)
    linked = np.corrcoef(dosages) ** 2 >= R2
    linked &= np.abs(positions[:, None] - positions) <= REACH
    assert 15 < kept.sum() < 45
    assert (linked[np.ix_(kept, kept)] == np.eye(kept.sum(), dtype=bool)).all()
    for k in np.flatnonzero(~kept):
        assert linked[k, :k][kept[:k]].any()


def test_pieces_change_nothing(variants):
    whole = pruned(*variants)
    np.testing.assert_array_equal(pruned(*variants, 1, 2, 17, 18, 40), whole)
    np.testing.assert_array_equal(pruned(*variants, *range(1, 60)), whole)


def test_contigs_are_pruned_apart_and_r2_of_one_keeps_all(variants):
    positions, dosages = variants
    pruner = LDPruner(r2=R2, reach=REACH)
    first = pruner.keep("chr1", positions, dosages)
    np.testing.assert_array_equal(pruner.keep("chr2", positions, dosages), first)
    assert LDPruner(r2=1, reach=REACH).keep("chr1", positions, dosages).all()
