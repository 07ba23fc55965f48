"""Where the weights of an Evo 2 lie: one device, or several with what is left on the CPU or a disk.

Models larger than one card go through Accelerate's own `infer_auto_device_map` and `dispatch_model`: whole blocks
lie on one device, activations travel between them. Each tensor is read straight to its place.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from encoders.genetics.evo2.checkpoint import Loaded, empty_model, load_evo2
from encoders.genetics.evo2.config import Evo2Config
from encoders.genetics.evo2.hyena import GROUP_BYTES
from encoders.genetics.evo2.weight_files import WeightFile
from encoders.runs.errors import InputError

WHOLE = ["HyenaBlock", "AttentionBlock"]  # never cut: their weights meet inside one forward
Place = int | str | torch.device


def load_on(
    weights: WeightFile,
    config: Evo2Config,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    device_map: str | Mapping[str, Place] | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
    offload: Path | None = None,
    bases: int = 0,
) -> tuple[Loaded, torch.device]:
    """Load a model onto one device or several.

    Args:
        weights: Its file or files.
        config: Its shape.
        device: Where all of it goes without a map.
        dtype: Of the weights.
        device_map: "auto": GPUs first, then CPU memory, then the disk, as far as ``max_memory`` allows; or module
            name -> device, "cpu" or "disk", as Accelerate takes it.
        max_memory: Device number or "cpu" -> bytes, or text such as "60GiB".
        offload: Folder for what goes to the disk.
        bases: How many a batch holds; "auto" without ``max_memory`` leaves memory for their activations.

    Returns:
        The model, and the device that takes its inputs.

    Raises:
        InputError: wrong weights, or a map that leaves out a module or needs a folder that was not given.
    """
    if device_map is None:
        device = torch.device(device)
        return load_evo2(weights, config, dtype=dtype, put=lambda name, tensor: tensor.to(device)), device
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.utils import (
        check_device_map,
        get_balanced_memory,
        get_max_memory,
        offload_weight,
        save_offload_index,
    )

    outline = empty_model(config)
    if device_map == "auto":
        if max_memory is not None:
            limits: dict = dict(max_memory)
        else:  # evenly: a first card full of weights would have no memory left for activations
            free = with_room(get_max_memory(), config, bases=bases, dtype=dtype)
            limits = get_balanced_memory(outline, free, no_split_module_classes=WHOLE, dtype=dtype)
        found = infer_auto_device_map(outline, max_memory=limits, no_split_module_classes=WHOLE, dtype=dtype)
    elif isinstance(device_map, str):
        raise InputError(f"device_map is {device_map!r}; auto, or a map of modules to devices was wanted")
    else:
        found = dict(device_map)
    if "" in found:  # all of it in one place, which may be the disk
        blocks = [f"blocks.{index}" for index in range(config.num_layers)]
        found = dict.fromkeys(["embedding_layer", *blocks, "norm"], found[""])
    main = _main_device(found)
    found |= {
        name: main for name in ("embedding_layer", "norm") if name in found
    }  # small, and used at both ends
    try:
        check_device_map(outline, found)
    except ValueError as cause:
        raise InputError(f"the device map does not cover the model: {cause}") from cause
    if "disk" in found.values() and offload is None:
        raise InputError(
            "the model does not fit into the memory of GPUs and CPU, and no folder was given for the rest; pass one"
        )
    index: dict[str, dict] = {}

    def put(name: str, tensor: Tensor) -> Tensor | None:
        place = _place(name, found)
        if place != "disk":
            return tensor.to(place)
        offload_weight(tensor.contiguous(), name, str(offload), index)
        return None

    if offload is not None:
        Path(offload).mkdir(parents=True, exist_ok=True)
    loaded = load_evo2(weights, config, dtype=dtype, put=put)
    if index:
        save_offload_index(index, str(offload))
    if len(set(found.values())) > 1:
        dispatch_model(
            loaded.model,
            found,
            main_device=main,
            offload_dir=str(offload) if index else None,
            offload_buffers=True,
            preload_module_classes=WHOLE,
        )
    return loaded, torch.device(main)


def with_room(
    free: Mapping[int | str, int], config: Evo2Config, *, bases: int, dtype: torch.dtype
) -> dict[int | str, int]:
    """Bytes of each device that weights may take, so that a batch still fits beside them.

    Args:
        free: Device number or "cpu" -> free bytes.
        config: Shape of the model.
        bases: How many a batch holds.
        dtype: Of the activations.
    """
    stream = 4 * bases * config.hidden_size * dtype.itemsize  # some four buffers of the width
    kinds = {place: "cpu" if place == "cpu" else "cuda" for place in free}
    return {place: max(0, size - stream - 2 * GROUP_BYTES[kinds[place]]) for place, size in free.items()}


def _main_device(device_map: Mapping[str, Place]) -> Place:
    """The first GPU in use, or the CPU."""
    for place in device_map.values():
        if place not in ("cpu", "disk", torch.device("cpu")):
            return place
    return "cpu"


def _place(name: str, device_map: Mapping[str, Place]) -> Place:
    """Device of the innermost module of the map that a tensor lies in."""
    while name and name not in device_map:
        name = name.rpartition(".")[0]
    return device_map[name]
