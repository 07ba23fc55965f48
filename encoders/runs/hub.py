"""Where model files come from: a folder, or a Hugging Face repository at one commit.

Only the files a caller names are fetched, by default the configuration and the safetensors file: no code, no
pickles. A branch or a tag may move: it is resolved to its commit, which is what a run records, and the user is
told once how to pin it. The hub names every file after a digest of its content, so a damaged download, or one
that was damaged later on the disk, is refused.
"""

import functools
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from encoders.runs.artifact import file_sha256
from encoders.runs.errors import InputError

FILES = ("config.json", "model.safetensors")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A local folder with the files of a model.

    Args:
        folder: Holds the files that were asked for.
        name: Hub id, or the name of the folder.
        revision: Commit hash on the hub; None for a folder of the user's.
        listed: Names of all files there are, fetched or not, as far as they are known.
    """

    folder: Path
    name: str
    revision: str | None = None
    listed: frozenset[str] = field(default=frozenset(), compare=False)

    def sha256(self, name: str) -> str:
        """sha256 of one of the files, as 64 hex digits; read once in a process."""
        return _sha256(self.folder / name)


def resolve_model(
    model: str,
    *,
    files: tuple[str, ...] = FILES,
    also: tuple[str, ...] = (),
    revision: str | None = None,
    option: str = "--model",
    local_only: bool = False,
) -> ModelFiles:
    """Find, or download, the files of a model.

    Args:
        model: A folder, or a hub id `owner/name`.
        files: Names of the files wanted; no other is fetched.
        also: Names of more files, taken if they are there; `*` stands for anything.
        revision: Commit, tag or branch on the hub; without it, the newest commit of `main`, which is recorded.
        option: The option that a user gave the model with, for messages.
        local_only: Take what was downloaded before and ask no one.

    Raises:
        InputError: no such folder or repository, no network, files missing, E_HASH, a file is damaged, or
            E_ABSENT, it was not downloaded before.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise InputError(
                f"{folder} is a folder, which has no revision {revision!r}; a revision goes with a hub id"
            )
        if missing := [name for name in files if not (folder / name).is_file()]:
            raise InputError(
                f"{folder} lacks {' and '.join(missing)}; a model folder in the Hugging Face layout was wanted"
            )
        folder = folder.resolve()
        return ModelFiles(
            folder=folder, name=folder.name, listed=frozenset(path.name for path in folder.iterdir())
        )
    if model.count("/") != 1 or model.startswith(("/", ".", "~")):
        raise InputError(
            f"{model} is neither a folder nor a hub id (owner/name); pass an existing folder to {option}"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError

    try:
        listed = frozenset() if local_only else _names_on_hub(model, revision)
        patterns = [*files, *also]
        folder = Path(
            snapshot_download(model, revision=revision, allow_patterns=patterns, local_files_only=local_only)
        )
    except LocalEntryNotFoundError as cause:
        if not local_only:
            raise _no_download(model, revision, cause, option) from cause
        raise InputError(
            f"{model} (revision {revision or 'main'}) was not downloaded to this machine", code="E_ABSENT"
        ) from cause
    except (HTTPError, HFValidationError, OSError) as cause:
        raise _no_download(model, revision, cause, option) from cause
    if missing := [name for name in files if not (folder / name).is_file()]:
        where = "on the hub" if listed else "in the local cache"
        raise InputError(
            f"{model} {where} has no {' and no '.join(missing)}; a model with safetensors weights was wanted"
        )
    for path in _fetched(folder, (*files, *also)):
        _refuse_damaged(path, model)
    # The hub's cache names the folder of a snapshot after its commit.
    commit = folder.name
    if revision != commit and not local_only:
        _say_moving(model, revision or "main", commit)
    return ModelFiles(
        folder=folder,
        name=model,
        revision=commit,
        listed=listed or frozenset(p.name for p in folder.iterdir()),
    )


def _no_download(model: str, revision: str | None, cause: Exception, option: str) -> InputError:
    reason = (str(cause).strip().splitlines() or ["no reason given"])[0].rstrip(".")
    return InputError(
        f"{model} (revision {revision or 'main'}) could not be downloaded ({type(cause).__name__}: {reason}); check "
        f"the name and the network, or download it elsewhere and pass the folder to {option}"
    )


def _names_on_hub(model: str, revision: str | None) -> frozenset[str]:
    """Names of all files of a repository; none where the hub cannot be reached.

    The library then looks for what was downloaded before, by the commit that the branch or tag had.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    try:
        info = HfApi().model_info(model, revision=revision or "main")
    except HfHubHTTPError as cause:
        if cause.response.status_code < 500:  # it answered: no such repository, revision or permission
            raise
        return frozenset()
    except (HTTPError, OfflineModeIsEnabled):
        return frozenset()
    return frozenset(file.rfilename for file in info.siblings or ())


def _fetched(folder: Path, names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        yield from sorted(folder.glob(name))


def _refuse_damaged(path: Path, model: str) -> None:
    """Compare a file of the hub's cache with the digest that its content lies under.

    A snapshot holds links; the file that one points to is named after its sha256 (large files), or after the sha1
    that git gives it. Where the file system has no links there is no such name, and nothing to compare.
    """
    blob = path.resolve()
    if blob.parent.name != "blobs":
        return
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        found = _sha256(path)
    elif COMMIT.fullmatch(blob.name):
        content = blob.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    else:
        return
    if found != blob.name:
        raise InputError(
            f"{path.name} of {model} is damaged: its content does not match the digest that the hub gives it; delete "
            f"{blob} and run the same command again, which downloads it anew",
            code="E_HASH",
        )


def _sha256(path: Path) -> str:
    state = path.stat()
    return _sha256_of(path.resolve(), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256_of(path: Path, size: int, changed: int) -> str:
    return file_sha256(path)


@functools.cache
def _say_moving(model: str, revision: str, commit: str) -> None:
    print(
        f"{model}: {revision!r} may move on the hub; this run takes commit {commit}, and --revision={commit} pins it",
        file=sys.stderr,
    )
