"""Shards of a preparation: every scan in exactly one, together the same store."""

import json
from pathlib import Path

import pytest

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.parts import part_of
from encoders.brainmt.preparation.prepare import is_current, prepare, prepare_part
from encoders.runs.errors import InputError


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def shard(number: int, count: int, **options) -> PrepareFMRI:
    return PrepareFMRI(shard=f"{number}/{count}", **options)


def test_every_scan_belongs_to_one_part_and_stays_there(tree):
    for i in range(12):
        tree.add(f"{i}")
    parts = [[s.name for s in part_of(discover(tree.root), shard(n, 3)).scans] for n in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == [
        scan.name for scan in discover(tree.root).scans
    ]
    assert all(parts)
    tree.add("a")
    after = [[s.name for s in part_of(discover(tree.root), shard(n, 3)).scans] for n in (1, 2, 3)]
    assert all(set(before) <= set(now) for before, now in zip(parts, after, strict=True))


def test_parts_and_then_the_whole_give_the_store_of_one_run(tree, tmp_path):
    for i in range(8):
        tree.add(f"{i}")
    tree.add("short", frames=5)
    tree.add("twin", content=tree.add("0").read_bytes())
    listing, store = discover(tree.root), tmp_path / "parts"
    outcomes = [prepare_part(listing, store, shard(n, 3)) for n in (1, 2, 3)]
    assert sum(outcome.made for outcome in outcomes) == 9 and not (store / "manifest.json").exists()
    assert [row.code for outcome in outcomes for row in outcome.quarantined] == ["E_FRAMES"]
    files = [path for path in (store / "shards").iterdir()]
    assert len(files) == 3 and {path.stat().st_mode & 0o777 for path in files} == {0o600}
    stamps = {path: path.stat().st_mtime_ns for path in (store / "runs").iterdir()}

    whole = prepare(listing, store, PrepareFMRI())
    assert {path: path.stat().st_mtime_ns for path in (store / "runs").iterdir()} == stamps
    assert [row.code for row in whole.quarantined] == ["E_DUPLICATE", "E_FRAMES", "E_DUPLICATE"]
    assert is_current(listing, store, PrepareFMRI()) and not (store / "shards").exists()
    prepare(listing, tmp_path / "one", PrepareFMRI())
    assert content(store) == content(tmp_path / "one")


def test_the_whole_does_not_read_again_what_a_part_refused(tree, tmp_path):
    tree.add("good")
    bad = tree.add("bad", frames=5)
    for n in (1, 2):
        prepare_part(discover(tree.root), tmp_path / "store", shard(n, 2))
    listing = discover(tree.root)
    bad.write_bytes(b"what lies there now is not looked at")
    assert [row.code for row in prepare(listing, tmp_path / "store", PrepareFMRI()).quarantined] == [
        "E_FRAMES"
    ]


def test_the_whole_does_what_a_part_has_not_done(tree, tmp_path):
    for i in range(6):
        tree.add(f"{i}")
    done = prepare_part(discover(tree.root), tmp_path / "store", shard(1, 2)).made
    (tmp_path / "store/shards/1-of-2.json").write_text("{damaged")
    outcome = prepare(discover(tree.root), tmp_path / "store", PrepareFMRI())
    assert 0 < done < 6 and outcome.made == 6 - done and len(outcome.runs) == 6


def test_a_part_run_again_does_only_what_is_new(tree, tmp_path):
    for i in range(6):
        tree.add(f"{i}")
    first = prepare_part(discover(tree.root), tmp_path / "store", shard(2, 2))
    again = prepare_part(discover(tree.root), tmp_path / "store", shard(2, 2))
    assert again.made == 0 and again.kept == {entry["name"] for entry in first.runs}
    assert json.loads((tmp_path / "store/shards/2-of-2.json").read_text())["content"]["quarantine"] == []


@pytest.mark.parametrize("text", ["3/2", "0/2", "2", "1/", "-1/2", "1 of 2"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(InputError, match="give i/n with i from 1 to n"):
        PrepareFMRI(shard=text)


def test_a_part_neither_discards_nor_dry_runs():
    for option in ("redo", "dry_run"):
        with pytest.raises(
            InputError, match="--shard can be combined neither with --redo nor with --dry_run"
        ):
            PrepareFMRI(shard="1/2", **{option: True})
