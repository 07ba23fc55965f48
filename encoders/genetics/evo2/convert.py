"""From the authors' `.pt`, whole or in parts, to a folder of safetensors with a checksum for every file.

Tensors keep their names, number format and order of rows; FP8 bookkeeping, time axes and the copy of the embedding
are left out. The folder opens faster, needs no unpickling, and no merged copy of parts.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from encoders.genetics.evo2.checkpoint import check_format, check_tensors, kept_by_block
from encoders.genetics.evo2.model_files import RANDOM_MARK, read_config
from encoders.genetics.evo2.released import MODEL_TYPE
from encoders.genetics.evo2.weight_files import INDEX, SafetensorsFile, open_weights
from encoders.runs.artifact import file_sha256, replacing, write_text
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written.

    Args:
        files: Names of the weight files.
        tensors: How many.
        parameters: Numbers in them.
        num_bytes: Their size.
        dropped: Entries of the source that are no weights.
    """

    files: list[str]
    tensors: int
    parameters: int
    num_bytes: int
    dropped: int


def convert(source: ModelFiles, output: Path, *, shard_bytes: int = 4_000_000_000) -> Converted:
    """Write a model as safetensors; the folder appears when it is complete.

    Args:
        source: From :func:`encoders.genetics.encoder_choice.find_model`.
        output: Folder to make; it must not exist yet.
        shard_bytes: Most bytes of one file, which is also what is held in memory; one tensor at least is taken.

    Raises:
        InputError: the source is no complete Evo 2, or a damaged one, the folder exists, or the disk is full.
    """
    output = Path(output)
    if output.exists():
        raise InputError(f"{output} exists; pass a folder that does not, or remove it first")
    config, random_weights = read_config(source)
    weights = open_weights(source.folder)
    if isinstance(weights, SafetensorsFile):  # or damage would get a checksum of its own
        weights.check({path.name: source.sha256(path.name) for path in weights.files})
    stored = weights.shapes()
    names = check_tensors(stored, config, weights)
    temporary = output.with_name(f".{output.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed conversion left
    temporary.mkdir(parents=True)
    try:
        shards: list[dict[str, tuple[int, ...]]] = []
        pending: dict[str, Tensor] = {}
        size = total = parameters = 0

        def write() -> None:
            path = temporary / f"shard{len(shards)}"
            with replacing(path, num_bytes=size) as file:
                save_file(pending, file, metadata={"format": "pt"})
                file.chmod(0o644)
            shards.append({name: tuple(tensor.shape) for name, tensor in pending.items()})
            pending.clear()

        for group in kept_by_block(names):
            for name, tensor in weights.tensors(group):
                check_format(name, tensor, weights)
                if pending and size + tensor.nbytes > shard_bytes:
                    write()
                    size = 0
                pending[name] = tensor.contiguous().clone()  # its own memory, not a page of the source
                size, total, parameters = (
                    size + tensor.nbytes,
                    total + tensor.nbytes,
                    parameters + tensor.numel(),
                )
        write()
        files = [f"model-{at + 1:05}-of-{len(shards):05}.safetensors" for at in range(len(shards))]
        for at, name in enumerate(files):
            (temporary / f"shard{at}").rename(temporary / name)
        index = {
            "metadata": {
                "total_size": total,
                "sha256": {name: file_sha256(temporary / name) for name in files},
                "source": source.name,
                "revision": source.revision,
            },
            "weight_map": {name: file for file, shard in zip(files, shards, strict=True) for name in shard},
        }
        content = (
            {"model_type": MODEL_TYPE} | config.official() | ({RANDOM_MARK: True} if random_weights else {})
        )
        write_text(temporary / "config.json", json.dumps(content, indent=2) + "\n")
        write_text(temporary / INDEX, json.dumps(index, indent=2) + "\n")
        write_text(
            temporary / "README.md", _README.format(name=source.name, revision=source.revision or "unknown")
        )
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Converted(
        files=files,
        tensors=len(names),
        parameters=parameters,
        num_bytes=total,
        dropped=len(stored) - len(names),
    )


_README = """# Evo 2 as safetensors

Made by `scripts/convert_evo2.py` from {name} (revision {revision}). Tensors have the names, the number format and
the order of rows of the authors' file; `model.safetensors.index.json` holds a sha256 of each file, which is checked
when the model is loaded. The weights are the authors' (Apache-2.0, Arc Institute).
"""
