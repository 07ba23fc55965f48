"""Preparing a cohort: what is kept, made anew, removed, refused; the same numbers however often it is run."""

import json
import os
import struct

import numpy as np
import pytest

from encoders.brainmt.preparation import prepare as module
from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.dry_run_table import table
from encoders.brainmt.preparation.prepare import dry_run, is_current
from encoders.brainmt.store import FMRIStore
from encoders.runs.errors import InputError


@pytest.fixture
def prepare(tree, tmp_path):
    """Run the preparation of the tree into `tmp_path / store`."""

    def prepare(**options):
        return module.prepare(discover(tree.root), tmp_path / "store", PrepareFMRI(**options))

    return prepare


@pytest.fixture
def current(tree, tmp_path):
    def current(**options):
        return is_current(discover(tree.root), tmp_path / "store", PrepareFMRI(**options))

    return current


def content(folder):
    """Everything in a store: header as parsed (its keys have no order), then the bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".safetensors":
            raw = path.read_bytes()
            size = struct.unpack("<Q", raw[:8])[0]
            found[path.name] = (json.loads(raw[8 : 8 + size]), raw[8 + size :])
        elif path.is_file():
            found[path.name] = path.read_bytes()
    return found


def identity(folder):
    """File -> inode and time of change; a file that is written anew gets others."""
    stats = {path.name: path.stat() for path in (folder / "runs").iterdir()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def test_the_store_holds_what_was_read(prepare, tree, tmp_path, build):
    tree.add("01", session="a", run="1")
    tree.add("01", session="a", run="2")
    tree.add("02", fd=None)
    outcome = prepare()
    assert (len(outcome.runs), outcome.made, outcome.quarantined) == (3, 3, [])
    store = FMRIStore(tmp_path / "store")
    store.verify_all()
    assert store.subjects == ["sub-01", "sub-02"] and store.grid == build.GRID
    assert [(run.session, run.run) for run in store.of("sub-01")] == [("a", "1"), ("a", "2")]
    run = store.of("sub-02")[0]
    assert (run.frames, run.tr, run.mean_fd, run.segments) == (40, 2.0, None, ((0, 40),))
    assert store.of("sub-01")[0].mean_fd == pytest.approx(0.1)
    assert store.options["normalisation"] == "global"
    np.testing.assert_array_equal(store.manifest["affine"], build.AFFINE)
    assert (tmp_path / "store/quarantine.tsv").read_text().count("\n") == 1


def test_person_level_files_are_readable_by_their_owner_only(prepare, tree, tmp_path):
    tree.add("01")
    prepare()
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert len(files) == 3 and {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_workers_do_not_change_a_byte(tree, tmp_path):
    for i in range(6):
        tree.add(f"{i}")
    for workers in (1, 3):
        module.prepare(discover(tree.root), tmp_path / f"s{workers}", PrepareFMRI(num_workers=workers))
    assert content(tmp_path / "s1") == content(tmp_path / "s3")


def test_a_second_run_keeps_everything_and_picks_up_what_changed(prepare, current, tree, tmp_path, build):
    for i in range(4):
        tree.add(f"{i}")
    prepare()
    before = identity(tmp_path / "store")
    assert current()
    assert len(prepare().kept) == 4 and identity(tmp_path / "store") == before

    tree.add("new")
    tree.add("1", data=build.bold(99))
    os.remove(tree.root / "sub-2/func/sub-2_task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz")
    assert not current()
    outcome = prepare()
    after = identity(tmp_path / "store")
    assert (outcome.made, outcome.kept, outcome.removed) == (2, {"sub-0_task-rest", "sub-3_task-rest"}, 1)
    assert {name for name in after if after[name] == before.get(name)} == {
        "sub-0_task-rest.safetensors",
        "sub-3_task-rest.safetensors",
    }
    assert FMRIStore(tmp_path / "store").subjects == ["sub-0", "sub-1", "sub-3", "sub-new"]
    assert current()


def test_a_changed_mask_or_table_counts_as_a_changed_scan(prepare, current, tree):
    scan = tree.add("0", fd=0.1)
    tree.add("1")
    prepare()
    table_ = next(scan.parent.glob("*.tsv"))
    table_.write_text(table_.read_text().replace("0.1", "0.2"))
    assert not current()
    outcome = prepare()
    assert outcome.made == 1 and outcome.runs[0]["mean_fd"] == pytest.approx(0.2)


def test_other_options_make_every_run_anew(prepare, current, tree, tmp_path):
    tree.add("0")
    tree.add("1")
    prepare()
    assert not current(normalisation="voxel")
    assert prepare(normalisation="voxel").made == 2
    assert current(normalisation="voxel", num_workers=1) and not current()
    assert {run.background for run in FMRIStore(tmp_path / "store").runs} == {0.0}


def test_a_missing_or_half_written_run_is_made_again(prepare, current, tree, tmp_path):
    for i in range(3):
        tree.add(f"{i}")
    prepare()
    before = content(tmp_path / "store")
    runs = sorted((tmp_path / "store/runs").iterdir())
    runs[0].unlink()
    runs[1].write_bytes(runs[1].read_bytes()[:100])
    (runs[0].parent / f".{runs[0].name}.12ab.tmp").write_bytes(b"left by a killed process")
    (tmp_path / "store/manifest.json").unlink()
    assert not current()
    outcome = prepare()
    assert (outcome.made, len(outcome.kept), outcome.removed) == (2, 1, 0)
    assert content(tmp_path / "store") == before


def test_a_refused_scan_is_not_read_again_until_it_changes(prepare, current, tree, tmp_path):
    good, bad = tree.add("0"), tree.add("1", frames=5)
    outcome = prepare()
    assert [row.code for row in outcome.quarantined] == ["E_FRAMES"] and current()
    assert outcome.summary["people_without_any_scan_left"] == 1
    assert outcome.summary["quarantined"] == "1 (E_FRAMES 1)"

    stat = bad.stat()
    bad.write_bytes(good.read_bytes()[: stat.st_size].ljust(stat.st_size))
    os.utime(bad, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    tree.add("2")  # something to do, so that the whole is judged again
    assert [row.code for row in prepare().quarantined] == ["E_FRAMES"]
    tree.add("1")
    assert prepare().quarantined == [] and len(FMRIStore(tmp_path / "store").runs) == 3


def test_what_could_not_be_read_is_tried_again(prepare, current, tree):
    tree.add("0")
    scan = tree.add("1")
    target = scan.rename(scan.with_name("elsewhere"))
    scan.symlink_to(scan.with_name("gone"))
    assert [row.code for row in prepare().quarantined] == ["E_READ"]
    assert not current()
    scan.unlink()
    scan.symlink_to(target)
    assert prepare().quarantined == [] and current()


def test_the_same_scan_under_two_names_is_refused(prepare, current, tree, tmp_path):
    first = tree.add("0")
    tree.add("1", content=first.read_bytes())
    tree.add("2")
    rows = prepare().quarantined
    assert [(row.subject, row.code) for row in rows] == [("sub-0", "E_DUPLICATE"), ("sub-1", "E_DUPLICATE")]
    assert "sub-1/func" in rows[0].sentence and current()
    assert FMRIStore(tmp_path / "store").subjects == ["sub-2"]
    tree.add("1")  # sorted out: the other one is used again
    assert prepare().quarantined == []


def test_a_scan_on_another_grid_than_the_others_is_refused(prepare, tree, tmp_path, build):
    moved = build.AFFINE.copy()
    moved[2, 3] += 24
    tree.add("0")
    tree.add("1")
    tree.add("2", affine=moved)
    rows = prepare().quarantined
    assert [(row.subject, row.code) for row in rows] == [("sub-2", "E_GRID")]
    assert "is not that of 2 other scans" in rows[0].sentence
    assert FMRIStore(tmp_path / "store").subjects == ["sub-0", "sub-1"]


def test_a_dry_run_says_what_would_happen_and_writes_nothing(prepare, tree, tmp_path):
    tree.add("0")
    outcome = dry_run(discover(tree.root), tmp_path / "store", PrepareFMRI())
    assert not (tmp_path / "store").exists() and outcome.made == 1
    prepare()
    tree.add("1", frames=5)
    tree.add("2")
    before = content(tmp_path / "store")
    lines = list(table(dry_run(discover(tree.root), tmp_path / "store", PrepareFMRI())))
    assert content(tmp_path / "store") == before
    assert [line.split()[0] for line in lines[1:]] == ["keep", "prepare", "E_FRAMES"]
    assert "sub-2/func/sub-2_task-rest" in lines[2] and "lower --min_frames" in lines[3]
    assert lines[2].split()[1:5] == ["40", lines[1].split()[2], "2", "0.100"]


def test_a_store_that_cannot_be_written_says_so(prepare, tree, tmp_path):
    tree.add("0")
    (tmp_path / "store").write_text("a file in its place")
    with pytest.raises(InputError, match="cannot write to .*store .*then run the same command again"):
        prepare()


def test_when_all_scans_are_refused_opening_the_store_says_so(prepare, tree, tmp_path):
    tree.add("0", frames=5)
    assert prepare().runs == []
    with pytest.raises(
        InputError, match=r"holds no run: all 1 scans are in quarantine, see .*quarantine.tsv"
    ):
        FMRIStore(tmp_path / "store")
