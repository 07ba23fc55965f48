"""Where model files come from: a folder, or a Hugging Face repository at one commit.

Only the files a caller names are fetched, by default the configuration and the safetensors file: no code, no
pickles.
"""

from dataclasses import dataclass
from pathlib import Path

from encoders.runs.errors import InputError

FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A local folder with the files of a model.

    Args:
        folder: Holds the files that were asked for.
        name: Hub id, or the name of the folder.
        revision: Commit hash on the hub; None for a folder of the user's.
    """

    folder: Path
    name: str
    revision: str | None = None


def resolve_model(
    model: str, *, files: tuple[str, ...] = FILES, revision: str | None = None, option: str = "--model"
) -> ModelFiles:
    """Find, or download, the files of a model.

    Args:
        model: A folder, or a hub id `owner/name`.
        files: Names of the files wanted; no other is fetched.
        revision: Commit, tag or branch on the hub; without it, the newest commit of `main`, which is recorded.
        option: The option that a user gave the model with, for messages.

    Raises:
        InputError: no such folder or repository, no network, or files missing.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if missing := [name for name in files if not (folder / name).is_file()]:
            raise InputError(
                f"{folder} lacks {' and '.join(missing)}; a model folder in the Hugging Face layout was wanted"
            )
        return ModelFiles(folder=folder.resolve(), name=folder.resolve().name)
    if model.count("/") != 1 or model.startswith(("/", ".", "~")):
        raise InputError(
            f"{model} is neither a folder nor a hub id (owner/name); pass an existing folder to {option}"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = snapshot_download(model, revision=revision, allow_patterns=list(files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as cause:
        reason = str(cause).strip().splitlines()[0].rstrip(".")
        raise InputError(
            f"{model} (revision {revision or 'main'}) could not be downloaded ({type(cause).__name__}: {reason}); check "
            f"the name and the network, or download it elsewhere and pass the folder to {option}"
        ) from cause
    if missing := [name for name in files if not (Path(snapshot) / name).is_file()]:
        raise InputError(
            f"{model} on the hub has no {' and no '.join(missing)}; a model with safetensors weights was wanted"
        )
    # The hub's cache names the folder of a snapshot after its commit.
    return ModelFiles(folder=Path(snapshot), name=model, revision=Path(snapshot).name)
