"""Work divided among processes: all of it is done, a dead worker costs one item, nothing is left behind."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from encoders.brainmt.preparation.workers import WorkerDied, in_processes, in_this_process

# functions the workers run come from the standard library: what a test file defines they cannot import


def children() -> list[psutil.Process]:
    """Worker processes of this one; loky's resource tracker is none."""
    mine = psutil.Process().children(recursive=True)
    return [p for p in mine if p.is_running() and "resource_tracker" not in " ".join(p.cmdline())]


def test_every_item_comes_back_once_with_its_result():
    items = list(range(20))
    for each in (in_this_process(abs, items), in_processes(abs, items, num_workers=3)):
        assert sorted(each) == [(n, n) for n in items]
    assert list(in_processes(abs, [], num_workers=3)) == [] and children() == []


def test_workers_are_other_processes_without_torch():
    code = "'torch' in __import__('sys').modules or __import__('os').getpid()"
    found = {result for _, result in in_processes(eval, [code] * 6, num_workers=2)}
    assert len(found) == 2 and os.getpid() not in found and True not in found


def test_an_exception_is_raised_here_and_ends_the_workers():
    with pytest.raises(ValueError, match="math domain error"):
        list(in_processes(eval, ["1", "__import__('math').sqrt(-1)", "2"], num_workers=2))
    assert children() == []


def test_a_worker_that_dies_costs_its_item_and_no_other_worker_is_disturbed():
    die = "__import__('os').kill(__import__('os').getpid(), 9)"
    items = ["__import__('time').sleep(0.3) or 1", die, "2", "3", die, "4"]
    found = list(in_processes(eval, items, num_workers=2))
    assert sorted(item for item, _ in found) == sorted(items)
    lost = [result for item, result in found if item == die]
    assert lost == [WorkerDied(how="SIGKILL(-9)")] * 2
    assert sorted(result for item, result in found if item != die) == [1, 2, 3, 4]


def test_workers_end_when_the_process_is_killed():
    code = (
        "import time\nfrom encoders.brainmt.preparation.workers import in_processes\n"
        "for _, pid in in_processes(eval, [\"__import__('os').getpid()\"] * 4 + ['__import__(\"time\").sleep(60)'] * 9,"
        " num_workers=2): print(pid, flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = {int(process.stdout.readline()) for _ in range(4)}
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pids and not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
