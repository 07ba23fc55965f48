"""What the rest of the genetics tower knows of a DNA language model.

Glossary: N sequences · D numbers of a vector.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

# "mean": over all bases. Or one (start, end) stretch of bases per sequence, such as an exon or a variant's
# surroundings, in coordinates of the sequence as given.
Pool = str | Sequence[tuple[int, int]]


@runtime_checkable
class SequenceEncoder(Protocol):
    """Bases in, one vector per sequence out; the same whatever else is in the batch."""

    name: str
    dim: int
    identity: dict[str, Any]  # whatever decides the vector of a sequence: weights, tokenizer, rules, dtype

    def encode(self, sequences: Sequence[str], *, pool: Pool = "mean") -> Float32[np.ndarray, "N D"]:
        """One vector per sequence, strand-invariant, in the order given."""
        ...
