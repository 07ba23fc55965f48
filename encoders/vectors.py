"""SubjectVectors: the hand-off from every encoder to alignment.

One vector per person and modality, with the names of its parts and where it came from. `align` sees
nothing of a tower but this.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from encoders.runs.artifact import load_tensors, save_tensors
from encoders.runs.errors import InputError

KIND, FORMAT = "neurohelix.vectors", 1


@dataclass(frozen=True, kw_only=True)
class SubjectVectors:
    """Vectors of S people, D numbers each.

    Args:
        ids: Subject ids, unique, in row order.
        values: (S, D) float32, finite.
        blocks: Name of a part -> (first, last + 1) column, e.g. one entry per gene. May be empty.
        provenance: What made them: ``encoder``, ``weights_sha256``, ``config``; for a trained encoder
            ``trained_on`` = {"split_digest": ..., "ids": [people whose data or labels it saw in training],
            "complete": whether these are all}; ids None: it names nobody.
    """

    ids: list[str]
    values: Float32[np.ndarray, "S D"]
    blocks: dict[str, tuple[int, int]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.ids) != len(self.values):
            raise InputError(f"{len(self.ids)} ids do not fit vectors of shape {self.values.shape}")
        repeated = (
            sorted({i for i in self.ids if self.ids.count(i) > 1})
            if len(set(self.ids)) < len(self.ids)
            else []
        )
        if repeated:
            raise InputError(
                f"{len(repeated)} subject ids appear twice among the vectors, e.g. {repeated[:3]}"
            )
        if bad := int((~np.isfinite(self.values)).any(axis=1).sum()):
            raise InputError(f"{bad} of {len(self.ids)} subject vectors hold NaN or infinite numbers")

    def select(self, ids: list[str]) -> Float32[np.ndarray, "N D"]:
        """Rows of the given people, in the given order.

        Raises:
            InputError: a person is missing.
        """
        row = {name: i for i, name in enumerate(self.ids)}
        if missing := [i for i in ids if i not in row]:
            raise InputError(f"{len(missing)} people have no vector, e.g. {missing[:3]}")
        return self.values[[row[i] for i in ids]]

    def save(self, path: Path) -> str:
        """Write one artefact, readable by its owner only; returns its sha256."""
        metadata = {"ids": self.ids, "blocks": self.blocks, "provenance": self.provenance}
        return save_tensors(path, KIND, FORMAT, {"values": self.values}, metadata)

    @classmethod
    def load(cls, path: Path) -> "SubjectVectors":
        """Read and check an artefact written by :meth:`save`."""
        tensors, metadata = load_tensors(path, KIND, FORMAT)
        in_order = sorted(metadata["blocks"].items(), key=lambda block: block[1])  # JSON sorted them by name
        blocks = {name: (first, last) for name, (first, last) in in_order}
        return cls(
            ids=metadata["ids"], values=tensors["values"], blocks=blocks, provenance=metadata["provenance"]
        )
