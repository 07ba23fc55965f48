"""Files that cannot be half-written and cannot be silently damaged.

Every artefact is one file that carries its kind, its format version and a sha256 over all of its
content, so a flipped bit anywhere is refused when it is loaded. Writing goes to a temporary name in
the same folder, then fsync, then rename: a killed process leaves the old file or the new one.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from encoders.runs.errors import InputError

HEADER = "neurohelix"  # the key of the safetensors header under which everything but the arrays lies
PRIVATE = 0o600  # participant-level data: readable by its owner only
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path, *, num_bytes: int = 0) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync it and rename it onto ``path``.

    On any exception (a full disk, Ctrl-C) the temporary file is removed and the old file is intact.

    Args:
        path: The file to write.
        num_bytes: What it will need at least, for the message; 0 if unknown.

    Raises:
        InputError: the disk or the quota is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as cause:
        number = re.search(r"os error (\d+)", str(cause))  # safetensors has it in its text alone
        if (int(number[1]) if number else getattr(cause, "errno", None)) not in NO_ROOM:
            raise
        temporary.unlink(missing_ok=True)
        needed = f"{num_bytes:,} bytes are needed, " if num_bytes else ""
        raise InputError(
            f"cannot write to {path} ({cause}; {needed}{shutil.disk_usage(path.parent).free:,} are free); make room, "
            f"then run the same command again"
        ) from cause
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write UTF-8 text atomically with the permission bits ``mode``."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(mode)


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(content: Any) -> str:
    """sha256 of JSON-serialisable content, independent of key order; 64 hex digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save_json(path: Path, kind: str, version: int, content: dict[str, Any], *, mode: int = 0o644) -> str:
    """Write ``content`` as a JSON artefact; returns its digest."""
    content = json.loads(json.dumps(content))  # what a reader will see: lists for tuples, text for int keys
    digest = content_digest([kind, version, content])
    envelope = {"kind": kind, "format_version": version, "sha256": digest, "content": content}
    write_text(path, json.dumps(envelope, indent=1, ensure_ascii=False) + "\n", mode=mode)
    return digest


def load_json(path: Path, kind: str, version: int) -> dict[str, Any]:
    """Read a JSON artefact written by :func:`save_json`, refusing damage and other kinds."""
    return load_json_with_digest(path, kind, version)[0]


def load_json_with_digest(path: Path, kind: str, version: int) -> tuple[dict[str, Any], str]:
    """As :func:`load_json`, with the digest of the content."""
    try:
        envelope = json.loads(Path(path).read_text(encoding="utf-8"))
        found = (envelope["kind"], envelope["format_version"])
        digest, content = envelope["sha256"], envelope["content"]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (ValueError, KeyError, TypeError) as cause:
        raise InputError(
            f"{path} is not a readable {kind} file ({cause}); delete it and rebuild it"
        ) from cause
    _check_kind(path, found, kind, version)
    if content_digest([*found, content]) != digest:
        raise _damaged(path)
    return content, digest


def save_tensors(
    path: Path,
    kind: str,
    version: int,
    tensors: dict[str, np.ndarray],
    metadata: dict[str, Any],
    *,
    mode: int = PRIVATE,
) -> str:
    """Write arrays and JSON-serialisable metadata as one safetensors artefact; returns its digest."""
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    metadata = json.loads(json.dumps(metadata))
    digest = _tensor_digest(kind, version, tensors, metadata)
    described = {"kind": kind, "format_version": version, "sha256": digest, "metadata": metadata}
    # one key only: safetensors writes several in an order that changes from process to process
    header = {HEADER: json.dumps(described, sort_keys=True, ensure_ascii=False)}
    with replacing(path, num_bytes=sum(array.nbytes for array in tensors.values())) as temporary:
        save_file(tensors, temporary, metadata=header)
        temporary.chmod(mode)
    return digest


def load_tensors(path: Path, kind: str, version: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a safetensors artefact whole and check every byte of it; returns (arrays, metadata)."""
    metadata, digest = load_tensor_metadata(path, kind, version)
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if _tensor_digest(kind, version, tensors, metadata) != digest:
        raise _damaged(path)
    return tensors, metadata


def load_tensor_metadata(path: Path, kind: str, version: int) -> tuple[dict[str, Any], str]:
    """Read only (metadata, stored digest) of a safetensors artefact; the payload is not checked."""
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist")
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
        _check_kind(path, (header.get("kind", "unlabelled"), header.get("format_version", -1)), kind, version)
        return header["metadata"], header["sha256"]
    except InputError:
        raise
    except (SafetensorError, ValueError, KeyError, OSError) as cause:
        raise InputError(
            f"{path} is not a readable {kind} file ({cause}); delete it and rebuild it"
        ) from cause


def _tensor_digest(kind: str, version: int, tensors: dict[str, np.ndarray], metadata: dict[str, Any]) -> str:
    described = {name: [str(array.dtype), list(array.shape)] for name, array in tensors.items()}
    total = hashlib.sha256(content_digest([kind, version, described, metadata]).encode())
    for name in sorted(tensors):
        total.update(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _check_kind(path: Path, found: tuple[str, int], kind: str, version: int) -> None:
    if found[0] != kind:
        raise InputError(f"{path} holds {found[0]!r}, but {kind!r} was wanted; pass the right file")
    if found[1] != version:
        advice = "upgrade NeuroHelix" if found[1] > version else "rebuild it with this version"
        raise InputError(
            f"{path} has format version {found[1]} of {kind}, this release reads {version}; {advice}"
        )


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} is damaged: its content does not match its sha256; restore it from a copy or delete it and rebuild it",
        code="E_HASH",
    )
