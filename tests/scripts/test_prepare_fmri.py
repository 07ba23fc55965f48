"""`scripts/prepare_fmri.py` as a user runs it: faults beside healthy scans, exit codes, resume after kill -9."""

import importlib.util
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from encoders.brainmt.store import FMRIStore
from scripts.prepare_fmri import main

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("bids_tree", ROOT / "tests/encoders/brainmt/bids_tree.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


@pytest.fixture
def study(tmp_path):
    """A study folder with an empty tree, and the function that runs the command on it."""
    tree = build.BidsTree(tmp_path / "study/raw")

    def run(*options):
        return main(["--study", str(tmp_path / "study"), "--num_workers=2", *options])

    return tree, run, tmp_path / "study/store"


def content(folder):
    """Runs of a store as (parsed header, bytes), and its other files."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        raw = path.read_bytes()
        if path.suffix == ".safetensors":
            size = struct.unpack("<Q", raw[:8])[0]
            raw = (json.loads(raw[8 : 8 + size]), raw[8 + size :])
        found[path.relative_to(folder).as_posix()] = raw
    return found


def quarantine(store):
    lines = (store / "quarantine.tsv").read_text().splitlines()
    rows = [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]
    return {row["subject"].removeprefix("sub-"): row for row in rows}


def flip_bit(packed: bytes) -> bytes:
    damaged = bytearray(packed)
    damaged[len(damaged) // 2] ^= 1
    return bytes(damaged)


def damaged_scans(tree) -> dict[str, str]:
    """One scan per fault; subject -> code."""
    data = build.bold(1)
    packed = build.pack(build.nifti(data))
    with_nan = data.astype("f4")
    with_nan[2, 3, 2:4, ::3] = np.nan
    stopped = data.copy()
    stopped[..., 30:] = 0
    slab = data[:, :, 2:3]
    flat = build.AFFINE.copy()
    flat[2] = 0
    huge = build.nifti(data[:1, :1, :1, :1].astype("f4"), dim=(2175, 2175, 2175, 1)) + bytes(2**24)
    complex_, colours, long = data.astype("c8"), np.zeros((*build.GRID, 120), "u1"), data.astype("i8")
    faults = {
        "truncated": ("E_TRUNCATED", {"content": packed[: len(packed) // 2]}),
        "bitflip": ("E_CRC", {"content": flip_bit(packed)}),
        "empty": ("E_NOT_NIFTI", {"content": b""}),
        "webpage": ("E_NOT_NIFTI", {"content": b"<html>Log in</html>"}),
        "bomb": ("E_SIZE", {"content": build.pack(huge)}),
        "nan": ("E_NAN", {"data": with_nan}),
        "stopped": ("E_CONSTANT", {"data": stopped}),
        "milliseconds": ("E_TR", {"tr": 2000.0}),
        "timeless": ("E_TR", {"tr": 0.0}),
        "nowhere": ("E_AFFINE", {"sform": 0}),
        "singular": ("E_AFFINE", {"affine": flat, "mask": build.pack(b"")}),
        "native": ("E_SPACE", {"space": "", "sform": 1}),
        "complex": ("E_DTYPE", {"data": complex_}),
        "colour": ("E_DTYPE", {"data": colours, "code": 128, "bits": 24, "dim": (*build.GRID, 40)}),
        "long": ("E_DTYPE", {"data": long}),
        "five": ("E_FRAMES", {"frames": 5}),
        "single": ("E_FRAMES", {"data": data[..., 0]}),
        "slab": ("E_COVERAGE", {"data": slab, "mask": build.brain()[:, :, 2:3]}),
        "restless": ("E_MOTION", {"fd": 1.2}),
        "brokenmask": ("E_CRC", {"mask": flip_bit(build.pack(build.nifti(build.brain().astype("u1"))))}),
    }
    for subject, (_, options) in faults.items():
        tree.add(subject, **options)
    twin = tree.add("twin", run="1")
    twin.with_name(twin.name.replace("run-1", "run-01")).write_bytes(twin.read_bytes())
    return {subject: code for subject, (code, _) in faults.items()} | {"twin": "E_DUPLICATE"}


def test_every_fault_is_refused_with_its_code_and_the_healthy_scans_are_prepared(study, capsys):
    tree, run, store = study
    for i in range(3):
        tree.add(f"well{i}")
    assert run() == 0
    healthy = {name: raw for name, raw in content(store).items() if name.startswith("runs/")}
    expected = damaged_scans(tree)
    assert run() == 3
    shown = capsys.readouterr()
    rows = quarantine(store)
    assert {subject: row["code"] for subject, row in rows.items()} == expected
    assert all(
        row["sentence"] and row["fix"] and f"sub-{who}/func/" in row["file"] for who, row in rows.items()
    )
    assert "limit is 8.0 GiB" in rows["bomb"]["sentence"] and "2000 s" in rows["milliseconds"]["sentence"]
    assert rows["restless"]["sentence"].startswith("mean framewise displacement is 1.200 mm")
    assert "Traceback" not in shown.err + shown.out and "quarantined: 22 (E_AFFINE 2" in shown.out
    now = content(store)
    assert {name: raw for name, raw in now.items() if name.startswith("runs/")} == healthy
    assert FMRIStore(store).subjects == ["sub-well0", "sub-well1", "sub-well2"]
    assert run() == 3 and "already done" in capsys.readouterr().out  # nothing changed: no scan is read again
    assert content(store) == now


def test_what_the_user_vouches_for_is_accepted(study):
    tree, run, store = study
    tree.add("native", space="", sform=1)
    tree.add("milliseconds", tr=2000.0)
    tree.add("five", frames=5)
    assert run("--assume_mni=true", "--fix_tr=true", "--min_frames=5") == 0
    assert {run_.subject: (run_.tr, run_.frames) for run_ in FMRIStore(store).runs} == {
        "sub-native": (2.0, 40),
        "sub-milliseconds": (2.0, 40),
        "sub-five": (2.0, 5),
    }


def test_new_scans_are_picked_up_and_withdrawn_ones_leave(study, capsys):
    tree, run, store = study
    tree.add("01")
    gone = tree.add("02")
    assert run() == 0 and run() == 0
    assert "already done, nothing to do" in capsys.readouterr().out
    tree.add("03")
    gone.unlink()
    assert run() == 0
    shown = capsys.readouterr().out
    assert "prepared now: 1" in shown and "kept from before: 1" in shown and "removed: 1" in shown
    assert FMRIStore(store).subjects == ["sub-01", "sub-03"]
    assert not any("sub-02" in name for name in content(store))


def test_other_options_in_the_same_study_are_refused_unless_redone(study, capsys):
    tree, run, store = study
    tree.add("01")
    assert run() == 0
    before = content(store)
    assert run("--normalisation=voxel") == 2
    assert "normalisation: global -> voxel" in capsys.readouterr().err
    assert content(store) == before
    assert run("--normalisation=voxel", "--redo=true") == 0
    assert FMRIStore(store).options["normalisation"] == "voxel"


def test_a_dry_run_shows_each_scan_and_writes_nothing(study, capsys):
    tree, run, store = study
    tree.add("01", frames=5)
    assert run("--dry_run=true") == 3
    tree.add("02")
    assert run("--dry_run=true", "--min_frames=5") == 0
    shown = capsys.readouterr().out
    assert "E_FRAMES" in shown and "prepare " in shown and "dry run, nothing written" in shown
    assert "to prepare: " in shown and "to refuse: " in shown and "prepared now" not in shown
    assert not store.exists() and not (store.parent / "runs").exists()
    assert run("--min_frames=5") == 0
    before = content(store)
    assert run("--dry_run=true", "--redo=true", "--normalisation=voxel") == 3  # five frames again too few
    assert content(store) == before


def test_without_scans_one_line_says_what_was_looked_for(study, capsys):
    _, run, _ = study
    assert run() == 2
    assert "sub-*/[ses-*/]func/*_bold.nii.gz" in capsys.readouterr().err
    assert run("--scans=/nowhere") == 2
    assert run("--max_nan=3") == 2
    assert "max_nan is 3.0, but it is a share" in capsys.readouterr().err


@pytest.mark.parametrize("after", [3, 17])
def test_killed_at_any_moment_it_resumes_to_the_same_store(study, tmp_path, after):
    tree, run, store = study
    for i in range(60):
        tree.add(f"{i:02d}")
    tree.add("five", frames=5)
    command = [sys.executable, str(ROOT / "scripts/prepare_fmri.py"), "--study", str(store.parent)]
    process = subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(store.glob("runs/*.safetensors"))) < after and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    made = set(store.glob("runs/*.safetensors"))
    assert after <= len(made) < 60 and not (store / "manifest.json").exists()
    stamps = {path: path.stat().st_mtime_ns for path in made}
    assert run() == 3
    assert {path: path.stat().st_mtime_ns for path in made} == stamps  # what was done is kept
    other = tmp_path / "other"
    assert main(["--study", str(other), "--scans", str(tree.root), "--num_workers=1"]) == 3
    assert content(store) == content(other / "store")


def test_a_full_disk_leaves_no_partial_run_and_says_what_to_do(study):
    tree, run, store = study
    for i in range(3):
        tree.add(f"{i}")
    command = [sys.executable, str(ROOT / "scripts/prepare_fmri.py"), "--study", str(store.parent)]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # noqa: E731
    ended = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "error: cannot write to" in ended.stderr and "make room" in ended.stderr
    assert "Traceback" not in ended.stderr and list((store / "runs").iterdir()) == []
    assert run() == 0 and len(FMRIStore(store).runs) == 3


def test_the_configuration_for_real_studies_is_read(study):
    tree, run, store = study
    tree.add("short", frames=199)
    tree.add("long", frames=200)
    assert run("--config", str(ROOT / "configs/paper/prepare_fmri.yaml")) == 3
    assert quarantine(store)["short"]["sentence"] == "it has 199 frames, at least 200 are wanted"


def test_preparing_does_not_import_torch(study):
    tree, _, store = study
    tree.add("01")
    code = (
        "import sys; from scripts.prepare_fmri import main; import encoders.brainmt\n"
        f"assert main(['--study', {str(store.parent)!r}]) == 0 and encoders.brainmt.FMRIStore\n"
        "assert not {'torch', 'pandas'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
