"""Weights of Evo 2 from the authors' `.pt` (whole or in parts) or our safetensors onto an empty model, strictly.

Tensors are read one block at a time, each put where it belongs in the number format wanted, and their pages given
back; so host memory stays near the size of the weights, or of one block if they go to a GPU. Nothing but tensors
is unpickled: `weights_only=True`, with io.BytesIO allowed while the file is open (Transformer Engine's
`_extra_state` values are BytesIO with a pickle inside, which nobody here opens).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encoders.genetics.evo2.config import Evo2Config
from encoders.genetics.evo2.model import FP32, Evo2Model
from encoders.genetics.evo2.weight_files import WeightFile
from encoders.runs.errors import InputError

# In the files, but no weights of ours: FP8 bookkeeping, time axes of the long filters, a copy of the embedding.
DROPPED = re.compile(r"(\._extra_state|\.filter\.t|^unembed\.weight)$")
FORMATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
QKV = ".inner_mha_cls.Wqkv.weight"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model with its weights.

    Args:
        model: In evaluation mode, no gradients.
        dropped: How many entries of the file were left aside: FP8 bookkeeping, time axes, the copy of the embedding.
    """

    model: Evo2Model
    dropped: int


def load_evo2(
    weights: WeightFile,
    config: Evo2Config,
    *,
    dtype: torch.dtype = torch.bfloat16,
    put: Callable[[str, Tensor], Tensor | None] | None = None,
) -> Loaded:
    """Read all tensors of a model.

    Args:
        weights: From :func:`encoders.genetics.evo2.weight_files.open_weights`.
        config: Shape of the model.
        dtype: Of all tensors but poles, residues and rotary frequencies, which are fp32 (or fp64) always.
        put: (name, tensor) -> the tensor where it belongs, or None if it was put elsewhere; default: it stays on
            the CPU.

    Raises:
        InputError: tensors missing, left over, of another shape or number format, or not finite.
    """
    model, stored = empty_model(config), weights.shapes()
    names = check_tensors(stored, config, weights)
    for group in kept_by_block(names):
        for name, tensor in weights.tensors(group):
            check_format(name, tensor, weights)
            if not torch.isfinite(torch.stack(tensor.aminmax())).all():  # as isfinite(), without its buffers
                raise InputError(f"{weights.path}: {name} holds NaN or infinite numbers; download it again")
            if name.endswith(QKV):
                tensor = regroup_heads(tensor, config.num_attention_heads)
            kept = name.rpartition(".")[2] in FP32
            number = torch.promote_types(dtype, torch.float32) if kept else dtype
            # a copy of the small ones that keep their format: left in place, they would keep the pages of a whole
            # block of the file in memory, though all others were converted
            tensor = tensor.to(number, copy=kept)
            placed = tensor if put is None else put(name, tensor)
            if placed is None:
                placed = torch.empty_like(tensor, device="meta")  # Accelerate reads the number format off it
            _assign(model, name, placed)
            del tensor
    return Loaded(model=model.eval().requires_grad_(False), dropped=len(stored) - len(names))


def empty_model(config: Evo2Config) -> Evo2Model:
    """A model without memory for its weights."""
    with torch.device("meta"):
        return Evo2Model(config)


def regroup_heads(weight: Tensor, heads: int) -> Tensor:
    """Rows of Wqkv from the file's order (head, then q k v, then channel) to ours (q k v, then head, then channel)."""
    return weight.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)


def check_tensors(stored: dict[str, tuple[int, ...]], config: Evo2Config, weights: WeightFile) -> list[str]:
    """Names of the weights among all entries of a file, after comparing them with the configuration.

    Args:
        stored: Name -> shape of everything the file holds.
        config: Shape of the model.
        weights: For messages.

    Raises:
        InputError: naming every tensor that is missing, left over, or of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in empty_model(config).state_dict().items()}
    found = {name: shape for name, shape in stored.items() if not DROPPED.search(name)}
    missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or unexpected:
        raise InputError(
            f"{weights.path} does not hold the tensors of its configuration ({config.num_layers} blocks of width "
            f"{config.hidden_size}): {len(missing)} missing ({', '.join(missing) or 'none'}), {len(unexpected)} "
            f"unexpected ({', '.join(unexpected) or 'none'}); pass the weights and the configuration of one model"
        )
    if other := [
        f"{name} {found[name]} instead of {wanted[name]}" for name in found if found[name] != wanted[name]
    ]:
        raise InputError(
            f"{weights.path} holds {len(other)} tensors of other shapes than its configuration wants: {'; '.join(other)}; "
            f"pass the weights and the configuration of one model"
        )
    return list(found)


def check_format(name: str, tensor: Tensor, weights: WeightFile) -> None:
    """Refuse integers, complex numbers and FP8 without its scales: no released weights are such.

    Raises:
        InputError: naming the tensor and its number format.
    """
    if tensor.dtype not in FORMATS:
        raise InputError(
            f"{weights.path}: {name} holds numbers of the format {str(tensor.dtype).removeprefix('torch.')}; an Evo 2 in "
            f"bfloat16, float16, float32 or float64 was wanted"
        )


def kept_by_block(names: list[str]) -> Iterator[list[str]]:
    """Names in groups of one block, so that the memory of the last one can be given back."""
    groups: dict[str, list[str]] = {}
    for name in names:
        found = re.match(r"blocks\.\d+\.", name)
        groups.setdefault(found[0] if found else "", []).append(name)
    yield from groups.values()


def _assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Make a tensor the parameter or buffer of its name."""
    owner, _, last = name.rpartition(".")
    module = model.get_submodule(owner)
    if last in module._parameters:
        module._parameters[last] = nn.Parameter(tensor, requires_grad=False)
    else:
        module._buffers[last] = tensor
