"""GENERator's tokens: non-overlapping 6-mers from the left.

The original writes one `<oov>` for every 6-mer that holds another letter than A, C, G, T, for a tail of 1 to 5
letters, and for every lower-case letter (`token_ids` does the same). What we give it for a haplotype
(`encode_kmers`) therefore has capitals only, and a whole number of 6-mers: a tail is filled up with A on the
right, as the authors fill up what they score, so that no base is ever dropped. `POLICY` is part of every cache
key.

Glossary: T tokens.
"""

import itertools
import re

import numpy as np
from jaxtyping import Int64

K = 6
SPECIAL = (
    *("<oov>", "<s>", "</s>", "<pad>", "<mask>"),
    *("<bog>", "<eog>", "<bok>", "<eok>", "<+>", "<->"),  # of genes, strands
    *("<cds>", "<pseudo>", "<tRNA>", "<rRNA>", "<ncRNA>", "<miscRNA>"),
    *("<mam>", "<vrt>", "<inv>", "<pln>", "<fng>", "<prt>", "<arc>", "<bct>"),  # of taxa
    *("<mit>", "<plt>", "<plm>", "<vir>", "<sp0>", "<sp1>", "<sp2>"),
)
OOV, BOS, PAD = (SPECIAL.index(token) for token in ("<oov>", "<s>", "<pad>"))
VOCAB = (*SPECIAL, *("".join(letters) for letters in itertools.product("ATCG", repeat=K)))
VOCAB_SIZE = len(VOCAB)  # 4,128

POLICY = (
    "<s>, then non-overlapping 6-mers from the left of the strand that is read; capitals; a tail is filled up "
    "with A on the right; a 6-mer with any other letter is <oov>; no </s>"
)

_IDS = {token: number for number, token in enumerate(VOCAB)}
_PIECE = re.compile("|".join(map(re.escape, SPECIAL)) + f"|[A-Z]{{1,{K}}}|.", re.DOTALL)

_DIGITS = np.full(256, -1, np.int64)  # base -> its place in "ATCG"
for _digit, _base in enumerate("ATCG"):
    _DIGITS[[ord(_base), ord(_base.lower())]] = _digit
_PLACES = 4 ** np.arange(K - 1, -1, -1)


def token_ids(text: str) -> list[int]:
    """Ids that the original tokenizer gives a text, without the `<s>` and `</s>` that it adds by default.

    A written special token is one token, and the next 6-mer begins after it.
    """
    return [_IDS.get(piece, OOV) for piece in _PIECE.findall(text)]


def encode_kmers(bases: str) -> Int64[np.ndarray, " T"]:
    """Ids of a haplotype: `<s>`, then its 6-mers by `POLICY`."""
    padded = bases + "A" * (-len(bases) % K)
    digits = _DIGITS[np.frombuffer(padded.encode("ascii", "replace"), np.uint8)].reshape(-1, K)
    ids = np.where((digits < 0).any(axis=1), OOV, len(SPECIAL) + digits @ _PLACES)
    return np.concatenate([[BOS], ids])


def kmers_of(start: int, end: int) -> slice:
    """The tokens of `encode_kmers` that hold at least one base of a stretch (start, end)."""
    return slice(1 + start // K, 1 + -(-end // K))
