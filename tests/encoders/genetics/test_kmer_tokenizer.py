import itertools

import pytest

from encoders.genetics.kmer_tokenizer import VOCAB, K, encode_kmers, kmers_of, token_ids


def test_ids_are_those_of_the_original():
    assert len(VOCAB) == 4128
    assert token_ids("AAAAAA") == [32] and token_ids("TTTTTT") == [1397] and token_ids("GGGGGG") == [4127]
    assert [VOCAB.index(t) for t in ("<oov>", "<s>", "</s>", "<pad>", "<mask>", "<+>", "<mam>", "<sp2>")] == [
        *(0, 1, 2, 3, 4, 9, 17, 31)
    ]
    # the last letter turns fastest, in the order A T C G
    assert token_ids("AAAAAAAAAAATAAAAACAAAAAG") == [32, 33, 34, 35]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("ACG", [0]),  # a tail is one <oov>
        ("AAAAAAACGTA", [32, 0]),
        ("AAANAAAAAAAA", [0, 32]),  # an N spoils its own 6-mer only
        ("AAARAA", [0]),
        ("acg", [0, 0, 0]),  # each lower-case letter is one
        ("AAAAAAaAAAAAA", [32, 0, 32]),
        ("<s>AAAAAA</s>", [1, 32, 2]),
        ("AAA<mam>AAAAAA", [0, 17, 32]),  # a special token begins a new phase
        ("<s>AAAAA<s>", [1, 0, 1]),
        ("<x>", [0, 0, 0]),
        ("AA-AAAAAA", [0, 0, 32]),
    ],
)
def test_what_is_no_whole_6mer(text, ids):
    assert token_ids(text) == ids


def test_a_haplotype_begins_with_s_and_keeps_its_tail():
    assert encode_kmers("AAAAAATTTTTT").tolist() == [1, 32, 1397]
    assert encode_kmers("aaaaaatttttt").tolist() == [1, 32, 1397]
    assert encode_kmers("TTTTTTT").tolist() == [1, *token_ids("TTTTTTTAAAAA")]
    assert encode_kmers("TTTTTTNTTTTTé").tolist() == [1, 1397, 0, 0]
    every = ["".join(letters) for letters in itertools.product("ACGTN", repeat=K)][::7]
    assert encode_kmers("".join(every)).tolist() == [1, *token_ids("".join(every))]


def test_a_stretch_takes_every_6mer_it_touches():
    tokens = ["<s>", *range(5)]  # 30 bases
    for start, end in itertools.combinations(range(31), 2):
        assert tokens[kmers_of(start, end)] == sorted({base // 6 for base in range(start, end)})
