"""Vectors of sequences that were embedded before, found by content.

The key of a vector is a sha256 over everything that decides it: weights, configuration, tokenizer, strand rule,
pooling and its version, number format, the stretch that is pooled, and the exact bases; never over a person or a
window. One artefact holds the vectors of some batches of sequences and is named after its content, so concurrent
writers cannot overwrite each other with anything different, and a killed one leaves whole files only.

Only keys are held in memory (40 bytes per sequence); vectors are read from disk where they are wanted, after the
sha256 of their file was checked once.

The sequences of a cohort reveal rare haplotypes: files are readable by their owner only, and a cache belongs
to one approval. Its size can be limited: whole files go, those used longest ago first. Every run holds a shared
lock on the folder (released by the system even if it is killed); files are removed under the exclusive one only,
so no run loses what it has found.

Glossary: N sequences · D numbers of a vector.
"""

import fcntl
import hashlib
import json
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from safetensors import safe_open

from encoders.genetics.cache_folder import artefacts, exclusively, shared_lock, size_text
from encoders.runs.artifact import content_digest, load_tensor_metadata, load_tensors, save_tensors
from encoders.runs.errors import InputError

KIND, FORMAT = "neurohelix.sequence_vectors", 1
ABANDONED = 24 * 3600  # seconds after which a temporary file of a killed process is swept away
KEY = np.dtype("S32")
OPEN_FILES = 64  # mapped at a time: each holds a file descriptor
NOWHERE = -1

Span = tuple[int, int] | None  # the stretch of a sequence that is pooled; None: all of it


@dataclass(frozen=True, kw_only=True)
class CacheStatistics:
    """What a cache holds and what it was good for.

    Args:
        files: Artefacts in the folder, of all encoders.
        num_bytes: Their size.
        sequences: Vectors of the present encoder.
        hits: Sequences asked for and found.
        misses: Sequences asked for and not found.
    """

    files: int
    num_bytes: int
    sequences: int
    hits: int
    misses: int

    def __str__(self) -> str:
        return (
            f"{self.hits:,} hits, {self.misses:,} misses; {self.sequences:,} sequences of this encoder; in all "
            f"{self.files:,} files, {size_text(self.num_bytes)}"
        )


class VectorCache:
    """The cached vectors of one encoder with one pooling. Close it, or use it as a context manager.

    Args:
        folder: Folder of the cache; encoders share it without meeting.
        identity: Whatever decides the vector of a sequence, as JSON values.
        dim: Length of a vector.
        read_only: Change nothing in the folder, not even a time of use.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], dim: int, *, read_only: bool = False) -> None:
        self.root, self.identity, self.dim, self.read_only = Path(folder), identity, dim, read_only
        self._prefix = bytes.fromhex(content_digest(identity))
        self.folder = self.root / self._prefix.hex()[:24]
        self.damaged: list[Path] = []
        self.hits = self.misses = 0
        self._lock = None if read_only else shared_lock(self.root)
        self._files: list[Path] = []
        self._number: dict[Path, int] = {}
        self._checked: set[int] = set()
        self._used: set[int] = set()
        self._mapped: OrderedDict[int, np.ndarray] = OrderedDict()
        self._keys, self._where = np.empty(0, KEY), np.empty(0, np.int64)
        self._new: list[tuple[np.ndarray, np.ndarray]] = []
        self._read_index()

    def __enter__(self) -> "VectorCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        self._mapped.clear()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __len__(self) -> int:
        self._merge()
        return len(self._keys)

    def key(self, sequence: str, span: Span = None) -> bytes:
        """32 bytes that name the vector of a sequence."""
        part = b"" if span is None else f"{span[0]}-{span[1]}:".encode()
        return hashlib.sha256(self._prefix + part + sequence.encode()).digest()

    def keys(self, sequences: Sequence[str], spans: Sequence[Span] | None = None) -> np.ndarray:
        """(N,) keys of sequences, as bytes of length 32."""
        spans = spans if spans is not None else [None] * len(sequences)
        return np.array([self.key(s, span) for s, span in zip(sequences, spans, strict=True)], KEY)

    def known(self, keys: np.ndarray) -> Bool[np.ndarray, " N"]:
        """Which vectors are there and undamaged; counts hits and misses, and marks their files as used now.

        A damaged file is removed, and its sequences are not known any more.
        """
        while True:
            where = self._locate(keys)
            wanted = {int(number) for number in np.unique(where[where != NOWHERE] >> 32)}
            if not (bad := [number for number in wanted - self._checked if not self._check(number)]):
                break
            for number in bad:
                self._drop(number)
        for number in wanted - self._used:
            self._use(number)
        found = where != NOWHERE
        self.hits += int(found.sum())
        self.misses += int((~found).sum())
        return found

    def vectors(self, keys: np.ndarray) -> Float32[np.ndarray, "N D"]:
        """The vectors of N keys, all of them :meth:`known`; read from disk.

        Raises:
            KeyError: a key is not in the cache.
        """
        where = self._locate(keys)
        if (where == NOWHERE).any():
            raise KeyError(f"{int((where == NOWHERE).sum())} of {len(keys)} sequences are not in the cache")
        result = np.empty((len(keys), self.dim), np.float32)
        files, rows = where >> 32, where & 0xFFFFFFFF
        for number in np.unique(files):
            mine = files == number
            result[mine] = self._map(int(number))[rows[mine]]
        return result

    def get(self, sequence: str, span: Span = None) -> np.ndarray | None:
        """The vector of one sequence, or None if it was never embedded."""
        keys = self.keys([sequence], [span])
        return self.vectors(keys)[0] if self.known(keys)[0] else None

    def add(
        self,
        sequences: Sequence[str],
        vectors: Float32[np.ndarray, "N D"],
        spans: Sequence[Span] | None = None,
    ) -> None:
        """Write the vectors of N sequences, as one artefact."""
        keys = self.keys(sequences, spans)
        raw = b"".join(key.ljust(32, b"\0") for key in keys.tolist())
        path = self.folder / f"{hashlib.sha256(raw).hexdigest()[:32]}.safetensors"
        tensors = {"keys": np.frombuffer(raw, np.uint8).reshape(-1, 32), "vectors": vectors}
        save_tensors(path, KIND, FORMAT, tensors, {"identity": self.identity})
        number = self._register(path)
        self._checked.add(number)
        self._used.add(number)
        self._mapped.pop(number, None)
        self._new.append((keys, (number << 32) + np.arange(len(keys), dtype=np.int64)))

    def refresh(self) -> None:
        """Take notice of what other processes have added."""
        self._read_index()

    def statistics(self) -> CacheStatistics:
        """Size and use, of the folder as it is now."""
        sizes = [stat.st_size for _, stat in artefacts(self.root)]
        return CacheStatistics(
            files=len(sizes), num_bytes=sum(sizes), sequences=len(self), hits=self.hits, misses=self.misses
        )

    def trim(self, limit: float | int) -> str:
        """Remove the files used longest ago, never those of this run, until the folder holds ``limit`` bytes.

        Returns:
            What was done, in words.
        """
        if self._lock is None or not exclusively(self._lock):
            return f"not limited to {size_text(limit)} now: another run uses the folder"
        mine = {self._files[number] for number in self._used}
        found = artefacts(self.root)
        total = before = sum(stat.st_size for _, stat in found)
        removed = 0
        for path, stat in sorted(found, key=lambda item: item[1].st_mtime_ns):
            if total <= limit:
                break
            if path not in mine:
                path.unlink(missing_ok=True)
                total -= stat.st_size
                removed += 1
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        left = f"{removed} files ({size_text(before - total)}) used longest ago were removed"
        return left + (f"; this run's own {size_text(total)} stay, above the limit" if total > limit else "")

    def _read_index(self) -> None:
        """The keys of every artefact that is not known yet."""
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir()):
            if path.suffix != ".safetensors":
                self._sweep(path)
                continue
            if path in self._number or not os.access(
                path, os.R_OK
            ):  # another user's file is not ours to judge
                continue
            try:
                metadata, _ = load_tensor_metadata(path, KIND, FORMAT)
                if metadata["identity"] != self.identity:
                    raise InputError(f"{path} holds vectors of another encoder")
                with safe_open(path, framework="numpy") as file:
                    raw = file.get_tensor("keys")
            except (InputError, KeyError):
                self._remove(path)
                continue
            number = self._register(path)
            keys = np.frombuffer(raw.tobytes(), KEY)
            self._new.append((keys, (number << 32) + np.arange(len(keys), dtype=np.int64)))

    def _register(self, path: Path) -> int:
        if path not in self._number:
            self._number[path] = len(self._files)
            self._files.append(path)
        return self._number[path]

    def _merge(self) -> None:
        """Put new keys in order; of a key that two files hold, the first known counts."""
        if not self._new:
            return
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._new)])
        where = np.concatenate([self._where, *(where for _, where in self._new)])
        self._new.clear()
        order = np.argsort(keys, kind="stable")
        keys, where = keys[order], where[order]
        first = np.ones(len(keys), bool)
        first[1:] = keys[1:] != keys[:-1]
        self._keys, self._where = keys[first], where[first]

    def _locate(self, keys: np.ndarray) -> Int64[np.ndarray, " N"]:
        """File << 32 | row of every key, NOWHERE for unknown ones."""
        self._merge()
        if not len(self._keys):
            return np.full(len(keys), NOWHERE, np.int64)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._where[at], NOWHERE)

    def _check(self, number: int) -> bool:
        """Whether every byte of a file is as it was written."""
        try:
            tensors, _ = load_tensors(self._files[number], KIND, FORMAT)
        except InputError:
            return False
        if set(tensors) != {"keys", "vectors"} or tensors["vectors"].shape != (
            len(tensors["keys"]),
            self.dim,
        ):
            return False
        self._checked.add(number)
        return True

    def _drop(self, number: int) -> None:
        self._keys, self._where = (part[self._where >> 32 != number] for part in (self._keys, self._where))
        path = self._files[number]
        del self._number[path]  # so that an artefact of the same name, written again, gets a new number
        self._remove(path)

    def _remove(self, path: Path) -> None:
        self.damaged.append(path)
        if not self.read_only:
            path.unlink(missing_ok=True)

    def _use(self, number: int) -> None:
        self._used.add(number)
        if not self.read_only:
            os.utime(self._files[number])

    def _map(self, number: int) -> np.ndarray:
        """The vectors of one file, mapped into memory."""
        if number not in self._mapped:
            path = self._files[number]
            with open(path, "rb") as file:
                length = int.from_bytes(file.read(8), "little")
                entry = json.loads(file.read(length))["vectors"]
            offset = 8 + length + entry["data_offsets"][0]
            self._mapped[number] = np.memmap(path, np.float32, "r", offset, tuple(entry["shape"]))
            if len(self._mapped) > OPEN_FILES:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(number)
        return self._mapped[number]

    def _sweep(self, path: Path) -> None:
        try:
            old = path.suffix == ".tmp" and time.time() - path.stat().st_mtime > ABANDONED
        except FileNotFoundError:
            return  # its writer finished in this moment
        if old and not self.read_only:
            path.unlink(missing_ok=True)
