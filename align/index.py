"""The exact nearest-neighbour index over aligned vectors: `align` builds it, `retrieve` asks it.

One FAISS IndexFlatIP (exact inner product, so cosine on unit rows) per modality and kind of vector, and
`index.json` beside them, which says who stands in which row and what every file hashes to. FAISS knows only
integer rows; subject ids stay in `index.json`. All of it is person-level data: mode 600.

S people of the study · R of them with a vector · O width of the shared space · N people in a gallery
"""

import os
import secrets
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from encoders.runs.artifact import PRIVATE, file_sha256, load_json, load_tensor_metadata, save_json
from encoders.runs.errors import InputError

KIND, FORMAT = "neurohelix.index", 1
SOURCE_KIND, SOURCE_FORMAT = "neurohelix.aligned", 2
KINDS = ("raw", "adjusted")
REBUILD = "accelerate launch scripts/align.py --redo=true"
TIE = 1e-6  # float32 inner products of equal vectors may differ by this much


def build_index(
    folder: Path,
    *,
    ids: list[str],
    folds: list[str],
    vectors: Mapping[str, Float32[np.ndarray, "S _"]],
    source_digest: str,
) -> Path:
    """Write the index folder; a reader sees the old one or the new one, never a mixture.

    Args:
        folder: The index folder; an earlier one is replaced.
        ids: S subject ids.
        folds: "train", "val" or "test" for each of them.
        vectors: Entry name, MODALITY_raw and MODALITY_adjusted for each modality -> (S, O) rows of length 1 (or 0), NaN
            where the modality is missing.
        source_digest: Digest of the file of aligned vectors that these rows come from.

    Returns:
        The index folder.
    """
    faiss = _faiss()
    if bad := [name for name in vectors if name.rpartition("_")[2] not in KINDS]:
        raise ValueError(f"entries are named MODALITY_raw or MODALITY_adjusted, got {bad[0]!r}")
    if len(folds) != len(ids):
        raise ValueError(f"{len(ids)} ids do not fit {len(folds)} folds")
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a killed run
        shutil.rmtree(leftover)
    fresh = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.tmp"
    fresh.mkdir(mode=0o700)
    try:
        entries: dict[str, Any] = {}
        for name in vectors:
            rows = _present_rows(name, vectors[name], len(ids))
            index = faiss.IndexFlatIP(vectors[name].shape[1])
            index.add(np.ascontiguousarray(vectors[name][rows]))
            path = fresh / f"{name}.faiss"
            faiss.write_index(index, str(path))
            path.chmod(PRIVATE)
            _sync(path)
            entries[name] = {
                "file": path.name,
                "sha256": file_sha256(path),
                "rows": index.ntotal,
                "dim": index.d,
                "ids": [ids[row] for row in rows],
            }
        content = {
            "entries": entries,
            "folds": dict(zip(ids, folds, strict=True)),
            "source_digest": source_digest,
        }
        save_json(fresh / "index.json", KIND, FORMAT, content, mode=PRIVATE)  # last: it vouches for the rest
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One opened entry of the index.

    Args:
        name: Entry name, e.g. ``brain_adjusted``.
        ids: Subject id of each row.
        folds: Fold of every person of the study, also of those without a row here.
        faiss_index: The FAISS index, checked.
    """

    name: str
    ids: list[str]
    folds: dict[str, str]
    faiss_index: Any

    def vector(self, subject: str) -> Float32[np.ndarray, " O"]:
        """The unit vector of a person in this entry; ValueError if there is none."""
        return self.faiss_index.reconstruct(self.ids.index(subject))

    def ranked(self, vector: Float32[np.ndarray, " O"]) -> tuple[Float32[np.ndarray, " R"], list[str]]:
        """All rows by falling similarity to ``vector``: (similarities, subject ids)."""
        if vector.shape != (self.faiss_index.d,):
            raise ValueError(f"{self.name}: width {vector.shape}, but the index has {self.faiss_index.d}")
        if not self.ids:  # FAISS refuses to return zero neighbours
            return np.empty(0, dtype=np.float32), []
        similarities, rows = self.faiss_index.search(vector[None], len(self.ids))
        return similarities[0], [self.ids[row] for row in rows[0]]


def open_index(folder: Path, *names: str, source: Path, rebuild: str = REBUILD) -> tuple[Entry, ...]:
    """Open entries of the index after checking that they are whole, of one build, and of today's vectors.

    Args:
        folder: The index folder.
        names: Entries to open.
        source: File of aligned vectors that the index must have been built from.
        rebuild: Command that the error messages tell the user to run.

    Raises:
        InputError: damaged, mixed, of another format, or older than ``source``; the message ends with ``rebuild``.
    """
    advice = f"rebuild the index with: {rebuild}"
    try:
        content = load_json(Path(folder) / "index.json", KIND, FORMAT)
        _, digest = load_tensor_metadata(source, SOURCE_KIND, SOURCE_FORMAT)
    except InputError as cause:
        raise InputError(f"the index cannot be used ({cause}); {advice}") from cause
    if content["source_digest"] != digest:
        raise InputError(
            f"{folder} was built from other aligned vectors than those in {source}; {advice}", code="E_STALE"
        )
    return tuple(_open(Path(folder), name, content, advice) for name in names)


def _open(folder: Path, name: str, content: dict[str, Any], advice: str) -> Entry:
    faiss = _faiss()
    if name not in content["entries"]:
        there = sorted({entry.rpartition("_")[0] for entry in content["entries"]})
        raise InputError(
            f"{name.rpartition('_')[0]!r} is not among the modalities of {folder} ({', '.join(there)}); name one of these"
        )
    entry = content["entries"][name]
    path = folder / entry["file"]
    if not path.is_file():
        raise InputError(f"{path} does not exist; {advice}")
    if file_sha256(path) != entry["sha256"]:
        raise InputError(
            f"{path} is damaged: it does not match the sha256 in index.json; {advice}", code="E_HASH"
        )
    if len(entry["ids"]) != entry["rows"]:
        raise _wrong_shape(path, f"{len(entry['ids'])} ids", entry, advice)
    if hasattr(faiss, "set_deserialization_vector_byte_limit"):  # a file may claim any size before it is read
        faiss.set_deserialization_vector_byte_limit(16 * entry["rows"] * entry["dim"] + 2**20)
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as cause:
        raise InputError(f"{path} is no readable FAISS index; {advice}", code="E_INDEX") from cause
    if not isinstance(index, faiss.IndexFlatIP):
        raise InputError(
            f"{path} holds a {type(index).__name__}, not an IndexFlatIP; {advice}", code="E_INDEX"
        )
    if (index.ntotal, index.d) != (entry["rows"], entry["dim"]):
        raise _wrong_shape(path, f"{index.ntotal} rows of width {index.d}", entry, advice)
    return Entry(name=name, ids=entry["ids"], folds=content["folds"], faiss_index=index)


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """One person of the gallery.

    Args:
        rank: 1 for the nearest; people that tie share the mean of their ranks.
        subject: Subject id.
        similarity: Cosine, -1 to 1.
        fold: "train", "val" or "test".
        is_subject: Whether this is the person who was looked up.
    """

    rank: float
    subject: str
    similarity: float
    fold: str
    is_subject: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a query found.

    Args:
        nearest: The k nearest people, nearest first.
        own: The person looked up, as found in the gallery; None if not in it.
        num_gallery: People in the gallery.
        num_by_fold: The same, per fold.
        num_tied: Other people exactly as near as ``own``; 0 without ``own``.
    """

    nearest: list[Neighbour]
    own: Neighbour | None
    num_gallery: int
    num_by_fold: dict[str, int]
    num_tied: int


def query(source: Entry, target: Entry, subject: str, *, k: int, fold: str | None = None) -> Answer:
    """Rank the people of ``target`` by similarity to ``subject``'s vector in ``source``.

    The own rank is tie-aware: 1 + (people nearer) + (other people equally near) / 2, the mean over all orders
    of the tied people, so that identical vectors cannot look like a hit.

    Args:
        source: Entry of the modality asked from; must hold ``subject``.
        target: Entry of the other modality.
        subject: Subject id.
        k: Number of nearest people to return.
        fold: Rank only people of this fold; None for everybody.
    """
    similarities, ids = target.ranked(source.vector(subject))
    folds = [target.folds[i] for i in ids]
    kept = [row for row in range(len(ids)) if fold is None or folds[row] == fold]
    values = similarities[kept].astype(np.float64)
    ascending = values[::-1]
    nearer = len(values) - np.searchsorted(ascending, values + TIE, side="right")
    not_farther = len(values) - np.searchsorted(ascending, values - TIE, side="left")
    tied = not_farther - nearer - 1  # without the person itself

    def person(place: int) -> Neighbour:
        return Neighbour(
            rank=1 + float(nearer[place]) + float(tied[place]) / 2,
            subject=ids[kept[place]],
            similarity=float(values[place]),
            fold=folds[kept[place]],
            is_subject=ids[kept[place]] == subject,
        )

    own_place = next((place for place, row in enumerate(kept) if ids[row] == subject), None)
    num = Counter(folds[row] for row in kept)
    return Answer(
        nearest=[person(place) for place in range(min(k, len(kept)))],
        own=None if own_place is None else person(own_place),
        num_gallery=len(kept),
        num_by_fold={f: num[f] for f in ("train", "val", "test") if num[f]},
        num_tied=0 if own_place is None else int(tied[own_place]),
    )


def _present_rows(name: str, values: Float32[np.ndarray, "S O"], num_ids: int) -> list[int]:
    """Rows that hold a vector; half-NaN rows and rows of a length other than 1 (or 0) are our own bugs."""
    if len(values) != num_ids:
        raise ValueError(f"{name}: {num_ids} ids do not fit {len(values)} vectors")
    missing = np.isnan(values).all(axis=1)
    norms = np.linalg.norm(values[~missing].astype(np.float64), axis=1)
    if not np.all((np.abs(norms - 1) < 1e-3) | (norms == 0)):  # NaN in part of a row fails this too
        raise ValueError(f"{name}: rows must have length 1 (or 0: like nobody), or be all NaN")
    return [int(row) for row in np.flatnonzero(~missing)]


def _wrong_shape(path: Path, found: str, entry: dict[str, Any], advice: str) -> InputError:
    wanted = f"{entry['rows']} rows of width {entry['dim']}"
    return InputError(f"{path} has {found}, but index.json says {wanted}; {advice}", code="E_INDEX")


def _swap(fresh: Path, folder: Path) -> None:
    """Put a finished folder in the place of an older one. Killed in between, there is none: never a mixture."""
    old = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.tmp"
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError:
        raise InputError(
            "FAISS is not installed; install it with: pip install faiss-cpu (or faiss-gpu)"
        ) from None
    return faiss
