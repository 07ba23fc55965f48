"""What configuration a checkpoint of the original BrainMT code has: read off the shapes of its tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.released_file import ReleasedFile
from encoders.runs.errors import InputError

# tensors whose shapes say the configuration, and what their axes are
TELLING = {
    "pos_embed": "[1, 1 + patches, width]",
    "temporal_pos_embedding": "[1, frames, width]",
    "patch_embed.conv_down.0.weight": "[width, 1, 3, 3, 3]",
    "patch_embed.conv_down.2.weight": "[width, width, 3, 3, 3]",
    "downsample0.reduction.0.weight": "[width, width, 3, 3, 3]",
    "downsample1.reduction.0.weight": "[width, width, 3, 3, 3]",
    "layers.0.mixer.A_log": "[inner width, state]",
    "layers.0.mixer.conv1d.weight": "[inner width, 1, taps]",
    "mlp.fc1.weight": "[hidden, width]",
    "head.weight": "[outputs, width]",
}


def count_blocks(state: Mapping[str, Tensor], part: str) -> int:
    """How many numbers occur after `part.`, at least 1: gaps and strays then are missing and unexpected names."""
    numbers = {name.split(".")[1] for name in state if name.startswith(f"{part}.") and name.count(".") > 1}
    return max(sum(number.isdecimal() for number in numbers), 1)


def released_config(
    path: Path, file: ReleasedFile, *, grid: tuple[int, int, int] | None, num_heads: int | None
) -> tuple[BrainMTConfig, list[str]]:
    """The configuration that the shapes say, and sentences about what had to be assumed.

    Args:
        path: The file, for messages.
        file: Its content; all tensors in :data:`TELLING` are there with as many axes.
        grid: Voxels along Y, X, Z, if the caller knows.
        num_heads: Attention heads, if the caller knows (count).

    Raises:
        InputError: a grid that does not make the patches there are.
    """
    size = {name: tuple(tensor.shape) for name, tensor in file.state.items()}
    widths = tuple(size[name][0] for name in TELLING if name.startswith(("patch_embed", "downsample")))
    width, notes = widths[-1], []
    inner, d_state = size["layers.0.mixer.A_log"]
    grid = _grid(path, size["pos_embed"][1] - 1, file.settings, grid, notes)
    told = file.settings.get("num_heads")
    heads = told if num_heads is None else num_heads
    if num_heads is not None and told not in (None, num_heads):
        notes.append(f"{num_heads} attention heads, as passed; the configuration in the file says {told}")
    if not isinstance(heads, int) or heads < 1:
        heads = BrainMTConfig.num_heads
        notes.append(f"{heads} attention heads were assumed: the file does not say how many")
    dropout = _rate(file.settings, "attn_drop_rate", 0.0)
    if dropout > 0:
        notes.append(
            f"attention dropout of {dropout:g} is off in inference here; the original's code leaves it on"
        )
    return (
        BrainMTConfig(
            grid=grid,
            num_frames=size["temporal_pos_embedding"][1],
            widths=widths,
            mamba_layers=count_blocks(file.state, "layers"),
            attention_layers=count_blocks(file.state, "blocks"),
            num_heads=heads,
            mlp_ratio=_ratio(size["mlp.fc1.weight"][0], width),
            bidirectional="layers.0.mixer.A_b_log" in size,
            shared_attention_mlp=True,
            d_state=d_state,
            d_conv=size["layers.0.mixer.conv1d.weight"][2],
            expand=max(inner // width, 1),
            drop_path=_rate(file.settings, "drop_path_rate", BrainMTConfig.drop_path),
            attention_dropout=dropout,
        ),
        notes,
    )


def _grid(
    path: Path,
    patches: int,
    settings: Mapping[str, Any],
    given: tuple[int, int, int] | None,
    notes: list[str],
) -> tuple[int, int, int]:
    told = settings.get("img_size")
    usable = isinstance(told, (list, tuple)) and len(told) == 3 and all(isinstance(n, int) for n in told)
    if given is not None:
        grid, origin = given, "the grid that was passed"
    elif usable:
        grid, origin = (told[1], told[0], told[2]), f"img_size {list(told)} of the configuration in the file"
    else:
        grid, origin = BrainMTConfig.grid, "the standard grid of 109 x 91 x 91"
        notes.append("a grid of 109 x 91 x 91 voxels (Y, X, Z) was assumed: the file does not say it")
    fits = 1
    for n in grid:
        fits *= (n + 15) // 16
    if fits != patches:
        raise InputError(
            f"{path}: pos_embed has {patches} patches, but {origin} makes {fits}; pass the voxels along Y, X, Z of "
            f"the scans it was trained on, e.g. --grid=[109,91,91]"
        )
    return grid


def _ratio(hidden: int, width: int) -> float:
    """hidden / width, such that int(width * ratio) gives hidden back."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _rate(settings: Mapping[str, Any], name: str, default: float) -> float:
    value = settings.get(name, default)
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1 else default
