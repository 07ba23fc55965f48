"""Work on a cluster of two worker processes: the same results, and an item that kills its workers is lost alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.on_dask import connect, on_dask
from encoders.brainmt.preparation.prepare import prepare
from encoders.brainmt.preparation.workers import WorkerDied
from encoders.runs.errors import InputError


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address of a scheduler with two worker processes, started by the commands that a user would use."""
    folder = tmp_path_factory.mktemp("dask")
    port_file = folder / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[4])}
    dask = [sys.executable, "-m", "dask"]
    quiet = {"cwd": folder, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [
            *dask,
            "scheduler",
            "--host=127.0.0.1",
            "--port=0",
            "--no-dashboard",
            f"--scheduler-file={port_file}",
        ],
        **quiet,
    )
    workers = subprocess.Popen(
        [*dask, "worker", "--nworkers=2", "--nthreads=1", "--no-dashboard", f"--scheduler-file={port_file}"],
        **quiet,
    )
    from distributed import Client

    deadline = time.monotonic() + 60
    while not port_file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with Client(scheduler_file=str(port_file), timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
        address = client.scheduler.address
    yield address
    for process in (workers, scheduler):
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_a_cluster_gives_the_same_results_from_its_two_workers(cluster):
    items = list(range(-12, 0))
    assert sorted(on_dask(abs, items, address=cluster)) == [(n, -n) for n in items]
    pids = {
        r
        for _, r in on_dask(
            eval, ["__import__('time').sleep(0.1) or __import__('os').getpid()"] * 8, address=cluster
        )
    }
    assert len(pids) == 2 and os.getpid() not in pids


@pytest.mark.slow
def test_an_item_that_kills_every_worker_of_a_cluster_is_lost_alone(cluster):
    die = "__import__('os').kill(__import__('os').getpid(), 9)"
    items = ["1", "2", die, "3", "4", "5"]
    found = dict(on_dask(eval, items, address=cluster))
    assert {item: result for item, result in found.items() if item != die} == {str(n): n for n in range(1, 6)}
    assert isinstance(found[die], WorkerDied) and "several workers died" in found[die].how


def test_the_items_of_a_cluster_with_one_worker_run_there_and_not_here(cluster):
    from distributed import Client

    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        left = sorted(client.scheduler_info()["workers"])[1:]
        client.retire_workers(left, close_workers=False, remove=True)
        pid = "__import__('os').getpid()"
        assert os.getpid() not in {found for _, found in on_dask(eval, [pid, pid], address=cluster)}


def test_a_cluster_that_is_not_there_is_one_sentence():
    with pytest.raises(InputError, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        connect("tcp://127.0.0.1:9", patience=0.5)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_store_of_a_cluster_is_the_same_byte_for_byte(cluster, tree, tmp_path):
    for i in range(6):
        tree.add(f"{i}")
    tree.add("short", frames=5)
    for folder, options in (("here", {}), ("there", {"dask": cluster})):
        outcome = prepare(discover(tree.root), tmp_path / folder, PrepareFMRI(**options))
        assert (outcome.made, [row.code for row in outcome.quarantined]) == (6, ["E_FRAMES"])
    here, there = content(tmp_path / "here"), content(tmp_path / "there")
    assert here == there and len(here) == 8
