"""A preparation divided into parts, for job arrays: which scans are whose, and what a part leaves for the whole.

    store/shards/2-of-8.json    what part 2 refused

Runs need no such record: each is a file of its own in the store that says what it was made from.
"""

import zlib
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import Listing
from encoders.brainmt.preparation.quarantine import Quarantined
from encoders.runs.artifact import PRIVATE, content_digest, load_json, save_json
from encoders.runs.errors import InputError

PARTS = "shards"
KIND, FORMAT = "neurohelix.fmri_shard", 1


def part_of(listing: Listing, config: PrepareFMRI) -> Listing:
    """The scans of the part that ``config`` names; by name, so that a scan stays in its part while others arrive."""
    assert config.part is not None
    number, count = config.part

    def mine(name: str) -> bool:
        return zlib.crc32(name.encode()) % count == number - 1

    return replace(
        listing,
        scans=[scan for scan in listing.scans if mine(scan.name)],
        refused=[row for row in listing.refused if mine(row.file)],
    )


def save_part(folder: Path, config: PrepareFMRI, refused: Iterable[Quarantined]) -> None:
    """Leave what this part refused in the store."""
    content = {
        "options_sha256": content_digest(config.numbers),
        "quarantine": [asdict(row) for row in refused],
    }
    save_json(part_file(folder, config), KIND, FORMAT, content, mode=PRIVATE)


def part_file(folder: Path, config: PrepareFMRI) -> Path:
    """Where the part leaves what it refused."""
    assert config.part is not None
    return folder / PARTS / "{}-of-{}.json".format(*config.part)


def load_parts(folder: Path) -> list[dict[str, Any]]:
    """What parts have left; one that cannot be read is passed over, so its refused scans are read again."""
    found = []
    for path in sorted((folder / PARTS).glob("*.json")):
        try:
            found.append(load_json(path, KIND, FORMAT))
        except (InputError, OSError):
            continue
    return found


def forget_parts(folder: Path) -> None:
    """Remove what parts have left, once the manifest holds it."""
    if (folder / PARTS).is_dir():
        for path in (folder / PARTS).iterdir():
            path.unlink()
        (folder / PARTS).rmdir()
