"""Which encoder a model folder or a hub repository holds, and the one door to load it.

A kind is recognised by what config.json says and by the names of the files. Everything else about it lies in
its own module, imported when it is needed: no kind costs a run of another anything, and asking costs no torch.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from encoders.genetics.evo2.released import is_evo2
from encoders.genetics.sequence_encoder import SequenceEncoder
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles, resolve_model

CONFIG = "config.json"
YAML = ("*.yml", "*.yaml")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One row of the table of encoders.

    Args:
        name: What messages call it.
        recognises: (parsed config.json or {}, names of all files) -> whether it is this kind.
        files: Names of the files that it must have.
        also: Names of more files that belong to it, `*` stands for anything; no other file is fetched.
        encoder: `module:class`; the class takes (files, device, dtype, batch_bases) and its options.
        facts: `module:function`, (files) -> :class:`EncoderFacts`, from the configuration alone.
        options: Names of options that only this kind has; "layer" is one of `facts` as well.
    """

    name: str
    recognises: Callable[[dict[str, Any], frozenset[str]], bool]
    files: tuple[str, ...]
    also: tuple[str, ...] = ()
    encoder: str
    facts: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EncoderFacts:
    """What a plan needs to know of an encoder whose weights were not read.

    Args:
        name: Kind.
        dim: Numbers of a vector.
        context: Most bases of one sequence; None: any.
        operations: Floating-point operations for one sequence of so many bases, both strands.
    """

    name: str
    dim: int
    context: int | None
    operations: Callable[[int], float]


KINDS = (
    Kind(
        name="Caduceus",
        recognises=lambda config, names: config.get("model_type") == "caduceus",
        files=(CONFIG, "model.safetensors"),
        encoder="encoders.genetics.caduceus_encoder:Caduceus",
        facts="encoders.genetics.caduceus_encoder:caduceus_facts",
    ),
    Kind(
        name="GENERator",
        recognises=lambda config, names: config.get("model_type") == "llama",
        files=(CONFIG,),
        also=("model.safetensors", "model.safetensors.index.json", "model-*.safetensors", "vocab.txt"),
        encoder="encoders.genetics.generator_encoder:Generator",
        facts="encoders.genetics.generator_encoder:generator_facts",
    ),
    Kind(
        name="Evo 2",
        recognises=is_evo2,
        files=(),
        also=(CONFIG, *YAML, "*.pt", "*.pt.part*", "model.safetensors*", "model-*.safetensors"),
        encoder="encoders.genetics.evo2.encoder:Evo2",
        facts="encoders.genetics.evo2.model_files:evo2_facts",
        options=("layer", "backend", "device_map", "max_memory", "offload"),
    ),
)


def find_model(
    model: str, *, revision: str | None = None, option: str = "--model", local_only: bool = False
) -> tuple[ModelFiles, Kind]:
    """Find, or download, the files of a model of any known kind.

    Args:
        model: A folder, or a hub id `owner/name`.
        revision: Commit, tag or branch on the hub.
        option: The option that a user gave the model with, for messages.
        local_only: Take what was downloaded before and ask no one.

    Raises:
        InputError: no such model, no network, an unknown kind, files missing, or E_ABSENT, it was not downloaded.
    """
    common = {"option": option, "local_only": local_only}
    files = resolve_model(model, files=(), also=(CONFIG,), revision=revision, **common)
    try:
        kind = kind_of(files)
    except InputError as cause:
        if not local_only or Path(model).expanduser().is_dir():
            raise
        # what a plan fetched does not tell every kind: an Evo 2 is known by the names of its weights
        raise InputError(
            f"the weights of {model} were not downloaded to this machine", code="E_ABSENT"
        ) from cause
    pinned = files.revision
    return resolve_model(model, files=kind.files, also=kind.also, revision=pinned, **common), kind


def kind_of(files: ModelFiles) -> Kind:
    """The row of the table that a folder belongs to.

    Raises:
        InputError: it belongs to none, or its config.json is unreadable.
    """
    path = files.folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as cause:
        raise InputError(f"{path} is not readable ({cause}); a model's config.json was wanted") from cause
    # glob, because the folder does not exist if nothing was fetched
    names = files.listed | frozenset(p.name for p in files.folder.glob("*"))
    for kind in KINDS:
        if isinstance(content, dict) and kind.recognises(content, names):
            return kind
    if loose := sorted(name for name in names if name.endswith(".pt") or ".pt.part" in name):
        raise InputError(
            f"{files.name} holds {loose[0]}, but nothing says what it is; if it is an Evo 2, put the YAML of the authors' "
            f"package beside it (evo2/configs/*.yml), or give it a released name such as evo2_7b.pt"
        )
    if not path.is_file():
        why = f"it has no {CONFIG}"
    else:
        found = content.get("model_type") if isinstance(content, dict) else content
        why = f"its {CONFIG} says model_type = {found!r}"
    raise InputError(
        f"{files.name} is none of the known genome models ({', '.join(kind.name for kind in KINDS)}): {why}; pass the "
        f"folder or the hub id of one of these to --model"
    )


def encoder_files(folder: Path) -> list[Path]:
    """The files of a model folder that decide its vectors, in order of name.

    Raises:
        InputError: the folder holds no known kind of model.
    """
    kind = kind_of(ModelFiles(folder=Path(folder), name=Path(folder).name))
    return sorted({path for pattern in (*kind.files, *kind.also) for path in Path(folder).glob(pattern)})


def load_encoder(
    model: str | ModelFiles,
    *,
    revision: str | None = None,
    device: Any = "cpu",
    dtype: str = "fp32",
    batch_bases: int = 16384,
    **options: Any,
) -> SequenceEncoder:
    """Load a frozen encoder, whatever its kind.

    Args:
        model: A folder, a hub id, or files that were found already.
        revision: Commit, tag or branch on the hub.
        device: Where it runs, a torch.device or its name.
        dtype: "fp32" or "bf16".
        batch_bases: Bases per batch, which bounds memory; at least one sequence is taken.
        options: Options that only some kinds have.

    Raises:
        InputError: no such model, an unknown kind, an option that it does not have, or weights that are not those
            of their configuration.
    """
    if isinstance(model, ModelFiles):
        files, kind = model, kind_of(model)
    else:
        files, kind = find_model(model, revision=revision)
    _refuse_foreign(options, kind)
    return _attribute(kind.encoder)(files, device=device, dtype=dtype, batch_bases=batch_bases, **options)


def encoder_facts(model: str | ModelFiles, *, revision: str | None = None, **options: Any) -> EncoderFacts:
    """What the configuration alone says; no weights are fetched or read."""
    if isinstance(model, ModelFiles):
        files = model
    else:
        files = resolve_model(model, files=(), also=(CONFIG, *YAML), revision=revision)
    kind = kind_of(files)
    _refuse_foreign(options, kind)
    layer = {"layer": options["layer"]} if "layer" in options else {}
    return _attribute(kind.facts)(files, **layer)


def _refuse_foreign(options: dict[str, Any], kind: Kind) -> None:
    if foreign := sorted(set(options) - set(kind.options)):
        having = [other.name for other in KINDS if set(foreign) <= set(other.options)]
        raise InputError(
            f"{', '.join(f'--{name}' for name in foreign)} is an option of {' and '.join(having) or 'no model'}; this "
            f"model is a {kind.name}"
        )


def _attribute(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
