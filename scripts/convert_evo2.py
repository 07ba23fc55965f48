"""Convert an Evo 2 checkpoint, `.pt` or its parts, to sharded safetensors: opens faster, checked, no unpickling.

python scripts/convert_evo2.py --source arcinstitute/evo2_7b --output models/evo2_7b
python scripts/convert_evo2.py --source /data/evo2_40b --output models/evo2_40b     # evo2_40b.pt.part0, .part1
"""

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.runs import InputError, command


@dataclass(frozen=True, kw_only=True)
class ConvertEvo2:
    """From the authors' form of an Evo 2 to a folder of safetensors.

    Args:
        source: A folder with NAME.pt or NAME.pt.part0, part1, ... (and its YAML, unless NAME is a released one
            such as evo2_7b), or a hub id such as arcinstitute/evo2_7b.
        output: Folder to make; it must not exist yet.
        revision: Commit, tag or branch of a hub id; a full commit hash pins it.
        shard_gb: Largest size of one file in GB (10^9 bytes), which is also what is held in memory.
    """

    source: str
    output: Path
    revision: str | None = None
    shard_gb: float = 4.0

    def __post_init__(self) -> None:
        if self.shard_gb <= 0:
            raise InputError(f"shard_gb is {self.shard_gb}; a size in GB above 0 was wanted")
        if self.output.expanduser().exists():
            raise InputError(f"{self.output} exists; pass an --output that does not, or remove it first")


@command
def main(config: ConvertEvo2) -> int:
    from encoders.genetics.encoder_choice import find_model
    from encoders.genetics.evo2.convert import convert

    files, kind = find_model(config.source, revision=config.revision, option="--source")
    if kind.name != "Evo 2":
        raise InputError(
            f"{config.source} is a {kind.name}, which needs no conversion; pass an Evo 2 as --source"
        )
    made = convert(files, config.output.expanduser(), shard_bytes=int(config.shard_gb * 1e9))
    print(f"convert_evo2: {config.source} -> {config.output}")
    if files.revision:
        print(f"  revision: {files.revision}")
    print(f"  weights: {made.tensors} tensors, {made.parameters:,} numbers, {made.num_bytes / 1e9:.3g} GB")
    print(f"  files: {len(made.files)}, with their sha256 in model.safetensors.index.json")
    print(
        f"  left out: {made.dropped} entries that are no weights (FP8 bookkeeping, time axes, copy of the embedding)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
