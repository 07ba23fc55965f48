"""Tokens of Evo 2 are bytes; shorter sequences of a batch are padded on the right.

`a` is another token than `A`, and nothing here changes letters: the sequences of this package are capitals
already (`encoders/genetics/reference.py`). No token is added at the beginning or the end.

Glossary: B sequences · L tokens of the longest.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

END, PAD = 0, 1  # end of document, which the authors also use as a beginning; padding
POLICY = "raw UTF-8 bytes, case kept (sequences are capitals), nothing added, right padding with 1"


def encode_bytes(sequences: Sequence[str]) -> Int64[Tensor, "B L"]:
    """Token ids, padded on the right to the longest."""
    rows = [np.frombuffer(sequence.encode(), np.uint8) for sequence in sequences]
    ids = np.full((len(rows), max(map(len, rows), default=0)), PAD, np.int64)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
    return torch.from_numpy(ids)
