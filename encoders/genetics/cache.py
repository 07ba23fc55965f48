"""Vectors of sequences that were embedded before, found by content.

The key of a vector is a sha256 over everything that decides it: weights, configuration, tokenizer, strand rule,
pooling, number format, and the exact bases; never over a person or a window. One artefact holds the vectors of
one batch of sequences and is named after its content, so concurrent writers cannot overwrite each other with
anything different, and a killed one leaves whole files only.

The sequences of a cohort reveal rare haplotypes: files are readable by their owner only, and a cache belongs
to one approval.

Glossary: N sequences · D numbers of a vector.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from encoders.runs.artifact import content_digest, load_tensors, save_tensors
from encoders.runs.errors import InputError

KIND, FORMAT = "neurohelix.sequence_vectors", 1
ABANDONED = 24 * 3600  # seconds after which a temporary file of a killed process is swept away


class VectorCache:
    """The cached vectors of one encoder with one pooling.

    Args:
        folder: Folder of the cache; encoders share it without meeting.
        identity: Whatever decides the vector of a sequence, as JSON values.
        dim: Length of a vector.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], dim: int) -> None:
        self.identity, self.dim = identity, dim
        self._prefix = bytes.fromhex(content_digest(identity))
        self.folder = Path(folder) / self._prefix.hex()[:24]
        self.damaged: list[Path] = []
        self._vectors: dict[bytes, np.ndarray] = {}
        self._read()

    def __len__(self) -> int:
        return len(self._vectors)

    def key(self, sequence: str) -> bytes:
        """32 bytes that name the vector of a sequence."""
        return hashlib.sha256(self._prefix + sequence.encode()).digest()

    def get(self, sequence: str) -> np.ndarray | None:
        """The vector of a sequence, or None if it was never embedded."""
        return self._vectors.get(self.key(sequence))

    def add(self, sequences: Sequence[str], vectors: Float32[np.ndarray, "N D"]) -> None:
        """Remember the vectors of N sequences, on disk and for this run, as one artefact."""
        keys = [self.key(sequence) for sequence in sequences]
        tensors = {"keys": np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32), "vectors": vectors}
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:32]
        save_tensors(self.folder / f"{name}.safetensors", KIND, FORMAT, tensors, {"identity": self.identity})
        self._vectors.update(zip(keys, vectors, strict=True))

    def _read(self) -> None:
        """Load every artefact; a damaged one is removed and its sequences are embedded again."""
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir()):
            if path.suffix != ".safetensors":
                _sweep(path)
                continue
            try:
                tensors, metadata = load_tensors(path, KIND, FORMAT)
                keys, vectors = tensors["keys"], tensors["vectors"]
                if metadata["identity"] != self.identity or vectors.shape != (len(keys), self.dim):
                    raise InputError(f"{path} holds vectors of another encoder")
            except (InputError, KeyError):
                self.damaged.append(path)
                path.unlink(missing_ok=True)
                continue
            for key, vector in zip(keys, vectors, strict=True):
                self._vectors.setdefault(key.tobytes(), vector)


def _sweep(path: Path) -> None:
    try:
        if path.suffix == ".tmp" and time.time() - path.stat().st_mtime > ABANDONED:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return  # its writer finished in this moment
