"""`scripts/prepare_fmri.py` with many processes: killed, interrupted, divided, short of a worker; nothing is lost."""

import contextlib
import gzip
import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from encoders.brainmt.preparation.prepare import FEW_BYTES
from encoders.brainmt.store import FMRIStore
from scripts.prepare_fmri import main

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "scripts/prepare_fmri.py")
spec = importlib.util.spec_from_file_location("bids_tree", ROOT / "tests/encoders/brainmt/bids_tree.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
SCANS = 24  # of some 0.9 MB each: together more than what one process does by itself


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A tree that processes share, one refused scan in it, and the store of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("cohort")
    tree = build.BidsTree(folder / "raw")
    rng = np.random.default_rng(0)
    brain = build.brain()[..., None]
    for i in range(SCANS):
        noise = 5000 + 60 * rng.standard_normal((*build.GRID, 2200), dtype=np.float32)
        tree.add(f"{i:02d}", data=np.where(brain, noise, np.float32(0)))
    tree.add("short", frames=5)
    assert sum(path.stat().st_size for path in tree.root.rglob("*_bold.nii.gz")) > FEW_BYTES
    assert main(["--study", str(folder / "study"), "--scans", str(tree.root)]) == 3
    return tree.root, content(folder / "study/store")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def start(scans: Path, study: Path, *options: str, **more) -> subprocess.Popen:
    """The command in a process group of its own."""
    command = [sys.executable, SCRIPT, "--study", str(study), "--scans", str(scans), *options]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | more
    return subprocess.Popen(command, cwd="/", start_new_session=True, text=True, **quiet)


def kill_and_resume(cohort, study: Path, rng: random.Random, kills: int) -> int:
    """Kill the command and all its workers at ``kills`` random moments, then let it end; returns runs found at kills."""
    scans, wanted = cohort
    found = 0
    for _ in range(kills):
        process = start(scans, study)
        after = rng.randrange(SCANS)  # a random amount of work, then a random moment within the next piece
        deadline = time.monotonic() + 60
        while process.poll() is None and len(list(study.glob("store/runs/*.safetensors"))) < after:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(rng.random() * 0.3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found += len(list(study.glob("store/runs/*.safetensors")))
    assert start(scans, study).wait() == 3
    assert content(study / "store") == wanted
    return found


def test_killed_with_all_its_workers_it_resumes_to_the_same_store_byte_for_byte(cohort, tmp_path):
    assert kill_and_resume(cohort, tmp_path / "study", random.Random(1), kills=3) > 0


@pytest.mark.slow
def test_thirty_kills_at_random_moments_lose_nothing(cohort, tmp_path):
    rng = random.Random(0)
    found = sum(kill_and_resume(cohort, tmp_path / f"{k}", rng, kills=1) for k in range(30))
    assert 0 < found < 30 * SCANS


def test_two_shards_at_the_same_time_and_then_the_whole_give_the_same_store(cohort, tmp_path):
    scans, wanted = cohort
    study = tmp_path / "study"
    shards = [start(scans, study, f"--shard={n}/2", "--num_workers=1") for n in (1, 2)]
    assert sorted(process.wait() for process in shards) == [0, 3]  # one of them has the refused scan
    assert (
        len(list((study / "store/runs").iterdir())) == SCANS and not (study / "store/manifest.json").exists()
    )
    whole = start(scans, study, stdout=subprocess.PIPE)
    said, _ = whole.communicate()
    assert whole.returncode == 3 and f"kept from before: {SCANS}" in said and "prepared now: 0" in said
    assert content(study / "store") == wanted


def test_shards_agree_on_the_options_and_keep_clear_of_a_run_of_the_whole(cohort, tmp_path, capsys):
    scans, _ = cohort
    tree = build.BidsTree(tmp_path / "raw")
    for i in range(4):
        tree.add(f"{i}")
    study = tmp_path / "study"
    command = ["--study", str(study), "--scans", str(tree.root)]
    assert main([*command, "--shard=1/2"]) == 0
    assert "run once without --shard: it writes the manifest" in capsys.readouterr().out
    assert main([*command, "--shard=2/2", "--normalisation=voxel"]) == 2
    assert "normalisation: global -> voxel" in capsys.readouterr().err

    other = tmp_path / "other"
    busy = start(scans, other)
    lock, deadline = other / "runs/prepare_fmri/.lock", time.monotonic() + 60
    while not (lock.exists() and lock.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert main(["--study", str(other), "--scans", str(scans), "--shard=1/2"]) == 2
    assert "the preparation of the whole is being done by process" in capsys.readouterr().err
    os.killpg(busy.pid, signal.SIGKILL)
    busy.wait()
    busy = start(scans, other, "--shard=2/2")
    lock = other / "runs/prepare_fmri/shard-2-of-2/.lock"
    while not (lock.exists() and lock.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert main(["--study", str(other), "--scans", str(scans)]) == 2
    assert "a shard of the same preparation is being done by process" in capsys.readouterr().err
    os.killpg(busy.pid, signal.SIGKILL)
    busy.wait()


def test_a_killed_worker_is_reported_for_its_scan_and_the_rest_is_prepared(cohort, tmp_path):
    scans, wanted = cohort
    tree = build.BidsTree(tmp_path / "raw")
    for folder in sorted(scans.iterdir()):
        (tree.root / folder.name).symlink_to(folder)
    header = build.nifti(np.zeros((1, 1, 1, 1), "i2"), dim=(60, 70, 60, 900))
    zeros = gzip.compress(bytes(2**20), 1)
    heavy = tree.add("heavy", content=build.pack(header) + zeros * (2 * 60 * 70 * 60 * 900 // 2**20 + 1))
    process = start(tree.root, tmp_path / "study", stderr=subprocess.PIPE)
    deadline, killed = time.monotonic() + 60, None
    while killed is None and process.poll() is None:
        assert time.monotonic() < deadline
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(Path(file.path).name == heavy.name for file in child.open_files()):
                    child.kill()
                    killed = child.pid
    _, said = process.communicate()
    assert killed and process.returncode == 3 and "Traceback" not in said
    rows = (tmp_path / "study/store/quarantine.tsv").read_text().splitlines()
    found = {row.split("\t")[0]: row.split("\t")[5:] for row in rows[1:]}
    assert {who: row[0] for who, row in found.items()} == {"sub-heavy": "E_WORKER", "sub-short": "E_FRAMES"}
    assert "died (SIGKILL(-9))" in found["sub-heavy"][1] and "--num_workers" in found["sub-heavy"][2]
    runs = {name: raw for name, raw in content(tmp_path / "study/store").items() if name.startswith("runs/")}
    assert set(runs) == {name for name in wanted if name.startswith("runs/")} and len(runs) == SCANS
    heavy.unlink()  # tried again by the same command, not remembered as refused
    tree.add("heavy")
    assert start(tree.root, tmp_path / "study").wait() == 3
    assert "sub-heavy" in FMRIStore(tmp_path / "study/store").subjects


def test_ctrl_c_stops_all_workers_and_the_same_command_resumes(cohort, tmp_path):
    scans, wanted = cohort
    study = tmp_path / "study"
    process = start(scans, study, stderr=subprocess.PIPE)
    while len(list(study.glob("store/runs/*.safetensors"))) < 3 and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "run the same command again to resume" in said
    assert "Traceback" not in said
    made = {path: path.stat().st_mtime_ns for path in study.glob("store/runs/*.safetensors")}
    assert 3 <= len(made) < SCANS
    assert start(scans, study).wait() == 3
    assert content(study / "store") == wanted
    assert {path: path.stat().st_mtime_ns for path in made} == made


@pytest.mark.slow
def test_one_process_many_processes_and_a_memory_cap_give_the_same_store(cohort, tmp_path):
    scans, wanted = cohort
    for options in (["--num_workers=1"], ["--num_workers=3", "--max_memory_gib=0.3"]):
        study = tmp_path / options[0]
        process = start(scans, study, *options, stderr=subprocess.PIPE)
        _, said = process.communicate()
        assert process.returncode == 3 and content(study / "store") == wanted
        lines = said.replace("\r", "\n").splitlines()  # the bar is drawn over itself
        told = any(line.startswith("prepare_fmri: 1 of 3 workers: the largest scan takes") for line in lines)
        assert told == (len(options) == 2)


@pytest.mark.slow
def test_a_cluster_that_is_not_there_costs_no_earlier_store(tmp_path, capsys):
    tree = build.BidsTree(tmp_path / "raw")
    tree.add("0")
    command = ["--study", str(tmp_path / "study"), "--scans", str(tree.root)]
    assert main(command) == 0
    before = content(tmp_path / "study/store")
    assert main([*command, "--redo=true", "--dask=tcp://127.0.0.1:9"]) == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err
    assert content(tmp_path / "study/store") == before
