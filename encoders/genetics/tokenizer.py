"""Caduceus' tokens: one per base, no token added at either end.

The original tokenizer appends [SEP]; the model is bidirectional, so that would change the vector at every
position, and the authors' own downstream tasks did not use it either. `POLICY` is part of every cache key.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor

POLICY = "one token per base, capitals, no special tokens"
SPECIAL = {"[CLS]": 0, "[SEP]": 1, "[BOS]": 2, "[MASK]": 3, "[PAD]": 4, "[RESERVED]": 5, "[UNK]": 6}
BASES = {"A": 7, "C": 8, "G": 9, "T": 10, "N": 11}
VOCAB_SIZE = 16  # 12 used, padded to a multiple of 8

_IDS = np.full(256, SPECIAL["[UNK]"], np.int64)
for _base, _id in BASES.items():
    _IDS[[ord(_base), ord(_base.lower())]] = _id

_COMPLEMENT_IDS = np.arange(VOCAB_SIZE)
_COMPLEMENT_IDS[[7, 8, 9, 10]] = [10, 9, 8, 7]


def encode_bases(sequences: list[str], *, sep: bool = False) -> Int64[Tensor, "N L"]:
    """Token ids of N sequences of one length; any letter but A, C, G, T, N is [UNK].

    Args:
        sequences: Bases.
        sep: Append [SEP], as the original tokenizer does by default; our vectors are made without.

    Raises:
        ValueError: the sequences differ in length.
    """
    if len({len(sequence) for sequence in sequences}) > 1:
        raise ValueError("sequences of different lengths in one batch: pads would change every vector")
    text = "".join(sequences).encode("ascii", "replace")
    ids = torch.from_numpy(_IDS[np.frombuffer(text, np.uint8)].reshape(len(sequences), -1))
    return F.pad(ids, (0, 1), value=SPECIAL["[SEP]"]) if sep else ids


def complement_map() -> Int64[Tensor, " V"]:
    """Token id of the complement of each token; special tokens, N and unused ids are their own."""
    return torch.from_numpy(_COMPLEMENT_IDS.copy())
