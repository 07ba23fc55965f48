"""Run one function on many items: in this process, in processes of its own, or on a Dask cluster.

A worker that dies (killed for want of memory, say) costs the item it was at; all others are done. Each local worker is
a pool of its own (joblib's loky), so that it is known whose worker has died, and no other one is disturbed.
"""

import contextlib
import ctypes
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from encoders.runs.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

IDLE = 60  # s after which a worker without work leaves
PR_SET_PDEATHSIG = 1  # linux/prctl.h
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
WAIT_FOR_CLUSTER = 30  # s


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

    An exception of ``function`` is raised here and ends the others, at once. When this process dies, so do they.

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
                    pools[place].shutdown(wait=False, kill_workers=True)
                    pools[place] = open_pool()
                for following in waiting:  # the next one, if there is one
                    at_work[pools[place].submit(function, following)] = place, following
                    break
                yield item, result
    finally:
        for pool in pools:
            pool.shutdown(wait=True, kill_workers=True)


def on_dask(
    function: Callable[[Item], Result], items: Sequence[Item], *, address: str
) -> Iterator[tuple[Item, Result | WorkerDied]]:
    """Each item with its result, as they come, from the workers of a Dask cluster through joblib.

    Dask gives an item whose worker died to another one; when that has happened too often (its `allowed-failures`, 3),
    the item counts as lost here, and the rest goes on.

    Args:
        function: Must be picklable; the workers must be able to import it.
        items: What to do.
        address: Of the scheduler, `tcp://host:8786`.

    Raises:
        InputError: Dask is not installed, nobody answers, or the workers cannot run NeuroHelix.
    """
    try:
        from distributed import Client
        from distributed.scheduler import KilledWorker
    except ModuleNotFoundError as cause:
        raise InputError(
            "--dask needs Dask, which is not installed; run: pip install 'neurohelix[dask]'"
        ) from cause
    import joblib

    todo = dict(enumerate(items))
    while todo:
        try:
            client = Client(address, timeout=WAIT_FOR_CLUSTER, set_as_default=False)
        except (OSError, ValueError) as cause:
            raise InputError(
                f"no Dask scheduler answers at {address} ({cause}); start one with `dask scheduler` and workers with "
                f"`dask worker`, or drop --dask"
            ) from cause
        with contextlib.closing(client), joblib.parallel_config(backend="dask", client=client):
            run = joblib.Parallel(n_jobs=-1, batch_size=1, return_as="generator_unordered")
            jobs = (joblib.delayed(_Numbered(function, number))(item) for number, item in [*todo.items()])
            try:
                for number, result in run(jobs):
                    yield todo.pop(number), result
            except KilledWorker as cause:
                number = _Numbered.number_in(str(cause.task))
                yield (
                    todo.pop(number),
                    WorkerDied(how=f"{cause.allowed_failures + 1} workers one after the other"),
                )
            except TimeoutError as cause:
                raise InputError(
                    f"the Dask cluster at {address} has no workers; start some with `dask worker`"
                ) from cause
            except ModuleNotFoundError as cause:
                raise InputError(
                    f"the Dask workers at {address} cannot import {cause.name}; start them in an environment in which "
                    f"NeuroHelix is installed"
                ) from cause


class _Numbered:
    """``function`` that returns the number of its item too, and whose name, which Dask shows, tells nobody's id."""

    def __init__(self, function: Callable[[Any], Any], number: int) -> None:
        self.function, self.number = function, number
        self.__name__ = f"item_{number}_of_this_run"

    def __call__(self, item: Any) -> tuple[int, Any]:
        return self.number, self.function(item)

    @staticmethod
    def number_in(task: str) -> int:
        found = re.search(r"item_(\d+)_of_this_run", task)
        assert found is not None, f"Dask renamed the task to {task}"
        return int(found[1])


def _start_worker() -> None:
    """Ctrl-C is the main process's business; and a worker ends when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _exit_code(cause: BaseException) -> str:
    """`SIGKILL(-9)` out of loky's message."""
    found = re.search(r"\{(\w+\(-?\d+\))", str(cause))
    return found[1] if found else "unknown"
