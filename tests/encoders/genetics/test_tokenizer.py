import pytest
import torch

from encoders.genetics.tokenizer import complement_map, encode_bases


def test_ids_are_those_of_the_original_and_nothing_is_added():
    assert encode_bases(["ACGTN"]).tolist() == [[7, 8, 9, 10, 11]]
    assert encode_bases(["acgtn", "RYU.-"]).tolist() == [[7, 8, 9, 10, 11], [6, 6, 6, 6, 6]]
    assert encode_bases(["Aé"]).tolist() == [[7, 6]]


def test_sep_is_appended_where_it_is_asked_for():
    assert encode_bases(["ACGTN", "TTTTT"], sep=True).tolist() == [
        [7, 8, 9, 10, 11, 1],
        [10, 10, 10, 10, 10, 1],
    ]


def test_batches_hold_one_length_only():
    with pytest.raises(ValueError, match="different lengths"):
        encode_bases(["ACGT", "ACG"])


def test_complement_map_swaps_bases_and_leaves_all_else():
    ids = complement_map()
    assert ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15]
    assert torch.equal(ids[ids], torch.arange(16))
