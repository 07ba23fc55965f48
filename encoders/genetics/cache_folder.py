"""The folder of a cache as a whole: what it holds, how large it is, and who uses it.

Every run holds a shared lock on it, which the system lets go of even if the run is killed; files are removed under the
exclusive lock only.
"""

import fcntl
import os
from pathlib import Path
from typing import Any

from encoders.runs.errors import InputError

LOCK = ".lock"


def size_text(num_bytes: float | int) -> str:
    """A size as people read it: 1.2 GB, 3.4 MB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{num_bytes / 1e3:.1f} kB"


def artefacts(root: Path) -> list[tuple[Path, os.stat_result]]:
    """Every artefact of every encoder in the folder."""
    found = []
    for path in root.glob("*/*.safetensors"):
        try:
            found.append((path, path.stat()))
        except FileNotFoundError:
            continue  # removed in this moment
    return found


def shared_lock(root: Path) -> Any:
    """An open file whose lock says that a run uses the folder; None where the file system has no locks."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as cause:
        raise InputError(
            f"cannot write to the cache {root} ({cause.strerror}); pass another folder with --cache"
        ) from cause
    file = os.fdopen(descriptor, "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:
        file.close()
        return None
    return file


def exclusively(file: Any) -> bool:
    """Whether nobody else uses the folder now; then the lock of ``file`` is the exclusive one."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(file, fcntl.LOCK_SH)  # a failed change may have let go of the shared lock
        return False
    return True
