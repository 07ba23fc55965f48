"""Convert a trained BrainMT: a checkpoint of the original code to a folder of ours, ours to theirs, or for sharing.

python scripts/convert_brainmt.py --source best.pth --output models/theirs
python scripts/convert_brainmt.py --source models/ours --output ours.pth
python scripts/convert_brainmt.py --source models/ours --output models/to-share --shareable=true
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.runs import InputError, command

UNKNOWN = (
    "Nobody can tell from such a file whom it was trained on, how its scans were prepared and what its outputs mean. "
    "Do not test it on people it may have seen: no leak can be noticed here"
)


@dataclass(frozen=True, kw_only=True)
class ConvertBrainMT:
    """From one form of a trained BrainMT to another.

    Args:
        source: A checkpoint of the original code (.pth), the folder of a trained BrainMT, or a hub id owner/name.
        output: A .pth file to write in the original's form, or else a folder; it must not exist yet.
        grid: Voxels along Y, X, Z of the scans that a .pth was trained on; default: what the file says, or
            109 x 91 x 91.
        num_heads: Attention heads of a .pth (count); default: what the file says, or 2.
        revision: Commit, tag or branch of a hub id.
        shareable: Write a folder that names no person and no path.
    """

    source: str
    output: Path
    grid: tuple[int, int, int] | None = None
    num_heads: int | None = None
    revision: str | None = None
    shareable: bool = False

    def __post_init__(self) -> None:
        theirs, folder = self.reads_theirs, Path(self.source).expanduser().is_dir()
        if not theirs and not folder and self.source.count("/") != 1:
            raise InputError(
                f"{self.source} is neither a file, nor a folder, nor a hub id (owner/name); pass another --source"
            )
        if self.target.exists():
            raise InputError(f"{self.output} exists; pass an --output that does not, or remove it first")
        above = next(path for path in self.target.absolute().parents if path.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise InputError(f"nothing can be written below {above}; pass another --output")
        if theirs and self.writes_theirs:
            raise InputError(f"{self.source} and {self.output} are both .pth; pass a folder as --output")
        if not theirs and not self.writes_theirs and not self.shareable:
            raise InputError(
                f"{self.source} is in our form already; pass an --output ending in .pth, or --shareable=true for a "
                f"copy that names nobody"
            )
        if self.shareable and self.writes_theirs:
            raise InputError(
                "a .pth never names a person; leave out --shareable, or pass a folder as --output"
            )
        if not theirs and (self.grid, self.num_heads) != (None, None):
            raise InputError(
                "--grid and --num_heads are for a .pth, which may not say them; a model of ours does"
            )
        if theirs and self.revision is not None:
            raise InputError("--revision goes with a hub id; a file has none")
        if self.num_heads is not None and self.num_heads < 1:
            raise InputError(f"num_heads is {self.num_heads}; a number above 0 was wanted")

    @property
    def reads_theirs(self) -> bool:
        """Whether the source is a checkpoint file."""
        path = Path(self.source).expanduser()
        return path.is_file() or (path.suffix == ".pth" and not path.is_dir())

    @property
    def target(self) -> Path:
        """The output, with ~ resolved."""
        return self.output.expanduser()

    @property
    def writes_theirs(self) -> bool:
        """Whether the output is to be a checkpoint file."""
        return self.output.suffix == ".pth"


@command
def main(config: ConvertBrainMT) -> int:
    from encoders.brainmt.checkpoint import from_pretrained, save_pretrained
    from encoders.brainmt.released import from_released, to_released

    if config.reads_theirs:
        path = Path(config.source).expanduser()
        model, card = from_released(path, grid=config.grid, num_heads=config.num_heads)
        notes = [*card["source"]["notes"], UNKNOWN]
    else:
        model, card = from_pretrained(config.source, revision=config.revision, option="--source")
        notes = []
    if config.writes_theirs:
        notes += to_released(model, config.target, **_numbers(card))
    else:
        save_pretrained(model, config.target, card, shareable=config.shareable)
    if config.shareable:
        notes.append(
            "Whether weights learned from people may be shared is for their data agreement to say: ask first"
        )
    _report(config, model, card, notes)
    return 0


def _numbers(card: dict[str, Any]) -> dict[str, Any]:
    """Epoch and validation loss, as far as the card has them."""
    source = card.get("source") or {}
    return {"epoch": card.get("epoch", source.get("epoch")), "val_loss": source.get("val_loss")}


def _report(config: ConvertBrainMT, model: Any, card: dict[str, Any], notes: list[str]) -> None:
    shape, parameters = model.config, sum(p.numel() for p in model.parameters())
    direction = "both directions" if shape.bidirectional else "forwards only"
    shared = "shared by" if shape.shared_attention_mlp else "of their own in"
    seen = card["trained_on"]
    print(f"convert_brainmt: {config.source} -> {config.output}")
    if card.get("revision"):
        print(f"  revision: {card['revision']}")
    print(f"  parameters: {parameters:,}")
    print(f"  blocks: {shape.mamba_layers} Mamba ({direction}), {shape.attention_layers} attention")
    print(f"  form: norm and MLP {shared} the attention blocks, {shape.num_heads} heads, width {shape.width}")
    print(f"  input: {shape.num_frames} frames of {' x '.join(map(str, shape.grid))} voxels (Y, X, Z)")
    print(f"  outputs: {model.head.linear.out_features}")
    if seen is not None:
        people = seen["people"] if seen.get("ids") is None else len(seen["ids"])
        kept = (
            "named in the folder" if not (config.shareable or config.writes_theirs) else "not named any more"
        )
        print(f"  trained on: {people} people, {kept}")
    for note in notes:
        print(f"  note: {note}.")


if __name__ == "__main__":
    sys.exit(main())
