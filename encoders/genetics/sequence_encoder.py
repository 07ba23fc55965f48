"""What the rest of the genetics tower knows of a DNA language model.

Glossary: N sequences · D numbers of a vector.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from encoders.runs.errors import InputError

# "mean": over all bases. "last": the last position of each strand, of models that read in one direction. Or one
# (start, end) stretch of bases per sequence, such as an exon or a variant's surroundings, in coordinates of the
# sequence as given.
Pool = str | Sequence[tuple[int, int]]

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}  # ours -> torch's; this module does not import torch

RANDOM_MARK = "random_weights_seed"  # in a config.json: the weights are random numbers, never trained


@runtime_checkable
class SequenceEncoder(Protocol):
    """Bases in, one vector per sequence out; the same whatever else is in the batch.

    Attributes:
        name: Kind of the model.
        dim: D.
        identity: Whatever decides the vector of a sequence (weights, tokenizer, rules, number format), as JSON.
        random_weights: Whether the checkpoint says of itself that it was never trained.
        context: Most bases of one sequence; a longer one is refused. None: any length.
        pads: Whether sequences of different lengths may share a batch.
        max_workers: How many batches at a time are worth running side by side on a CPU, each on one core.
        device: The torch.device where it runs.
    """

    name: str
    dim: int
    identity: dict[str, Any]
    random_weights: bool
    context: int | None
    pads: bool
    max_workers: int

    @property
    def device(self) -> Any: ...

    def operations(self, length: int) -> float:
        """Floating-point operations for one sequence of that many bases, both strands, counted on paper."""
        ...

    def encode(self, sequences: Sequence[str], *, pool: Pool = "mean") -> Float32[np.ndarray, "N D"]:
        """One vector per sequence, strand-invariant, in the order given.

        Raises:
            InputError: E_CONTEXT, a sequence is longer than the context.
        """
        ...


def stretches(sequences: Sequence[str], pool: Pool) -> list[tuple[int, int]]:
    """The (start, end) of bases that each sequence is averaged over.

    Raises:
        InputError: a kind of pooling other than "mean" and stretches.
        ValueError: an empty sequence or stretch.
    """
    if pool == "mean":
        spans = [(0, len(sequence)) for sequence in sequences]
    elif isinstance(pool, str):
        raise InputError(
            f"pool {pool!r} is not one of this model's; 'mean' or one (start, end) per sequence was wanted ('last' is "
            f"for models that read in one direction)"
        )
    else:
        spans = list(pool)
    for (start, end), sequence in zip(spans, sequences, strict=True):
        if not 0 <= start < end <= len(sequence):
            raise ValueError(
                f"stretch {start}-{end} of a sequence of {len(sequence)} bases; it must hold bases"
            )
    return spans


def refuse_longer(sequences: Sequence[str], context: int | None, name: str) -> None:
    """Refuse sequences that a model would have to cut.

    Raises:
        InputError: E_CONTEXT.
    """
    longest = max(map(len, sequences), default=0)
    if context is not None and longest > context:
        raise InputError(
            f"a sequence of {longest:,} bases is longer than the context of {name}, {context:,} bases, and nothing "
            f"is ever cut off; make the windows shorter, have them tiled, or take a model with a longer context",
            code="E_CONTEXT",
        )
