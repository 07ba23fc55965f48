"""GENERator: a plain Llama over 6-mers of DNA, read from the hub's layout.

Wu et al. 2025, "GENERator: A Long-Context Generative Genomic Foundation Model",
https://arxiv.org/abs/2502.07272. The network is transformers' own Llama. The hub's repositories name classes of
their own (`auto_map`); their code is neither fetched nor run. All names and shapes are compared before anything
is loaded, so that what is missing, left over or misshaped is named in one line.

Glossary: D width · T tokens · H heads.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from encoders.genetics.kmer_tokenizer import VOCAB, VOCAB_SIZE, K
from encoders.genetics.sequence_encoder import RANDOM_MARK
from encoders.runs.errors import InputError

CONFIG, WEIGHTS, INDEX, VOCABULARY = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "vocab.txt",
)
HEAD = "lm_head.weight"  # predicts the next token; no vector needs it


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Architecture of a checkpoint, from its config.json.

    Args:
        dim: D.
        num_layers: Layers.
        num_heads: H, heads of the queries.
        num_kv_heads: Heads of keys and values.
        head_dim: Numbers of a head.
        mlp_dim: Inner width of the gated MLP.
        max_tokens: Longest sequence of tokens that the model was trained on, `<s>` included.
        random_weights: Whether the checkpoint says of itself that it was never trained.
    """

    dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    max_tokens: int
    random_weights: bool

    @property
    def context(self) -> int:
        """Most bases of one sequence; `<s>` takes one of the tokens."""
        return K * (self.max_tokens - 1)

    def operations(self, length: int) -> float:
        """Floating-point operations for one sequence of ``length`` bases, both strands.

        A multiplication and an addition count as two. Counted are the matrix products, the whole square of the
        attention among them although half of it is masked; norms, softmax and gates are left out.
        """
        tokens = 1 + -(-length // K)
        queries, keys = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        weights = self.dim * (2 * queries + 2 * keys + 3 * self.mlp_dim)
        return 2.0 * self.num_layers * (2 * tokens * weights + 4 * tokens**2 * queries)


def read_config(folder: Path) -> GeneratorConfig:
    """Read config.json.

    Raises:
        InputError: it is not readable, or not that of a GENERator.
    """
    path = Path(folder) / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {"model_type": content.get("model_type"), "vocab_size": content.get("vocab_size")}
    except (OSError, ValueError, AttributeError) as cause:
        raise InputError(f"{path} is not readable ({cause}); a GENERator config.json was wanted") from cause
    if found != {"model_type": "llama", "vocab_size": VOCAB_SIZE}:
        raise InputError(
            f"{path} says {', '.join(f'{name} = {value!r}' for name, value in found.items())}, but models of "
            f"GenerTeam, which are supported, have model_type = 'llama' and vocab_size = {VOCAB_SIZE}; pass one of those"
        )
    try:
        heads = int(content["num_attention_heads"])
        return GeneratorConfig(
            dim=int(content["hidden_size"]),
            num_layers=int(content["num_hidden_layers"]),
            num_heads=heads,
            num_kv_heads=int(content.get("num_key_value_heads") or heads),
            head_dim=int(content.get("head_dim") or content["hidden_size"] // heads),
            mlp_dim=int(content["intermediate_size"]),
            max_tokens=int(content["max_position_embeddings"]),
            random_weights=RANDOM_MARK in content,
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise InputError(
            f"{path} is no GENERator configuration ({type(cause).__name__}: {cause}); "
            f"the config.json of GenerTeam's models was wanted"
        ) from cause


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: the one, or all that the index names.

    Raises:
        InputError: there are none, the index is unreadable, or a file of it is missing.
    """
    folder = Path(folder)
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        try:
            names = sorted(
                set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as cause:
            raise InputError(f"{folder / INDEX} is not readable ({cause}); download it again") from cause
        if outside := [name for name in names if Path(name).name != name]:
            raise InputError(f"{folder / INDEX} names {outside[0]!r}, a file elsewhere; download it again")
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise InputError(
                f"{folder} lacks {_few(missing)}, {len(missing)} of the {len(names)} files that its {INDEX} names; "
                f"download the model again"
            )
        return [folder / name for name in names]
    raise InputError(
        f"{folder} lacks {WEIGHTS}, and {INDEX}; a GENERator folder in the Hugging Face layout was wanted"
    )


def load_generator(folder: Path, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The Llama without its head, frozen and in evaluation mode.

    Args:
        folder: config.json and the weights, in one file or several; vocab.txt, if it is there, is checked.
        dtype: Number format to load the weights in.

    Raises:
        InputError: unreadable files, tensors missing, left over, of another shape or not finite, another
            vocabulary, or transformers is not installed.
    """
    folder = Path(folder)
    read_config(folder)
    paths = weight_files(folder)
    _check_vocabulary(folder / VOCABULARY)
    try:
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging
    except ImportError as cause:
        raise InputError(
            f"{folder} holds a GENERator, which needs the package transformers ({cause}); "
            f"pip install 'neurohelix[genetics]'"
        ) from cause
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    config = AutoConfig.from_pretrained(folder, **options)
    with torch.device("meta"):
        expected = {name: tuple(t.shape) for name, t in AutoModel.from_config(config).state_dict().items()}
    _check_tensors(folder, paths, expected)
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # its report of the head that is left out
    logging.disable_progress_bar()
    try:
        model, report = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation="sdpa",
            output_loading_info=True,
            **options,
        )
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    assert not report["missing_keys"] and set(report["unexpected_keys"]) <= {HEAD}, report
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{folder}: {name} holds NaN or infinite numbers; download it again")
    return model.eval().requires_grad_(False)


def _check_tensors(folder: Path, paths: list[Path], expected: dict[str, tuple[int, ...]]) -> None:
    """Compare names and shapes with those that the configuration asks for; only headers are read."""
    stored: dict[str, tuple[int, ...]] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                stored |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as cause:
            raise InputError(
                f"{path} is not a readable safetensors file ({cause}); download it again"
            ) from cause
    # a Llama saved without its head has no prefix
    prefix = "" if any(name.startswith("layers.") for name in stored) else "model."
    wanted = {prefix + name: shape for name, shape in expected.items()}
    missing = sorted(wanted.keys() - stored.keys())
    unexpected = sorted(stored.keys() - wanted.keys() - {HEAD})
    if missing or unexpected:
        raise InputError(
            f"{folder} does not hold the tensors of its configuration (a Llama of {len(expected)} tensors): "
            f"{len(missing)} missing ({_few(missing)}), {len(unexpected)} unexpected ({_few(unexpected)}); pass the "
            f"config.json and the weights of one model"
        )
    for name, shape in wanted.items():
        if stored[name] != shape:
            raise InputError(
                f"{folder}: {name} has shape {stored[name]}, its configuration wants {shape}; pass the config.json "
                f"and the weights of one model"
            )


def _check_vocabulary(path: Path) -> None:
    """Compare the repository's own list of tokens, one a line with or without its id, with ours."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [line.split() for line in lines if line.strip()]
    for number, token in enumerate(VOCAB):
        if number >= len(found) or found[number] not in ([token], [token, str(number)]):
            there = " ".join(found[number]) if number < len(found) else "nothing"
            raise InputError(
                f"{path} has {there!r} as token {number}, GENERator's 6-mer tokenizer has {token!r}; "
                f"models with another vocabulary are not supported"
            )


def _few(names: list[str]) -> str:
    return "none" if not names else ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
