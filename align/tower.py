"""What tuning must know of a tower. `align` imports none: a script hands one in.

Glossary: c people of a chunk · S people · D width of the vectors.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from accelerate import Accelerator
from jaxtyping import Float, Float32
from torch import Tensor, nn


@runtime_checkable
class Tower(Protocol):
    """An encoder of one modality that can be trained on."""

    module: nn.Module

    def feed(self, chunks: Sequence[Sequence[str]], *, epoch: int) -> Iterator[Any]:
        """Training inputs of each chunk of people, on the device; the same for the same people and epoch."""

    def forward(self, inputs: Any) -> Float[Tensor, "c D"]:
        """One vector per person of a chunk; a chunk may be empty."""

    def training_mode(self) -> None:
        """Dropout and its like on, except in what is frozen."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What is trained, as optimizer groups, each with its `peak_lr`."""

    def vectors(self, people: Sequence[str], accelerator: Accelerator) -> Float32[np.ndarray, "S D"]:
        """Vectors of people as they will be used: without randomness, in the order asked for, known to all processes."""

    def save(self, *, epoch: int, validation: dict[str, float]) -> None:
        """Keep the tower as it is now as the best so far."""
