"""Run one function on many items, in this process or in others of its own (on a cluster: `on_dask.py`).

A worker that dies (killed for want of memory, say) costs the item it was at; all others are done. Each local worker is
a pool of its own (joblib's loky), so that it is known whose worker has died, and no other one is disturbed.
"""

import ctypes
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

IDLE = 60  # s after which a worker without work leaves
PR_SET_PDEATHSIG = 1  # linux/prctl.h
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}


@dataclass(frozen=True, kw_only=True)
class WorkerDied:
    """The worker that was at an item ended without an answer.

    Args:
        how: What is known about it, such as `SIGKILL(-9)`.
    """

    how: str


def in_this_process(
    function: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[tuple[Item, Result | WorkerDied]]:
    """Each item with its result, one after the other."""
    for item in items:
        yield item, function(item)


def in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int
) -> Iterator[tuple[Item, Result | WorkerDied]]:
    """Each item with its result, as they come, from ``num_workers`` processes.

    An exception of ``function`` (or Ctrl-C) is raised here, after the items in work have ended; no other is begun. When
    this process is killed, so are the workers.

    Args:
        function: Must be picklable, as must items and results.
        items: What to do.
        num_workers: Processes (count).
    """
    from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

    def open_pool() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, timeout=IDLE, initializer=_start_worker, env=ONE_THREAD)

    waiting = iter(items)
    pools = [open_pool() for _ in range(min(num_workers, len(items)))]
    at_work: dict[Future, tuple[int, Item]] = {}
    try:
        for place, item in zip(range(len(pools)), waiting, strict=False):
            at_work[pools[place].submit(function, item)] = place, item
        while at_work:
            for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                place, item = at_work.pop(future)
                try:
                    result: Any = future.result()
                except TerminatedWorkerError as cause:
                    result = WorkerDied(how=_exit_code(cause))
                    pools[place].shutdown()
                    pools[place] = open_pool()
                for following in waiting:  # the next one, if there is one
                    at_work[pools[place].submit(function, following)] = place, following
                    break
                yield item, result
    finally:
        for pool in pools:
            pool.shutdown()  # each worker ends the item it is at, so that nothing is left half done


def _start_worker() -> None:
    """Ctrl-C is the main process's business; and a worker ends when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _exit_code(cause: BaseException) -> str:
    """`SIGKILL(-9)` out of loky's message."""
    found = re.search(r"\{(\w+\(-?\d+\))", str(cause))
    return found[1] if found else "unknown"
