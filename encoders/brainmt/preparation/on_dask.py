"""Run one function on many items on a Dask cluster, through joblib's Dask backend."""

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from encoders.brainmt.preparation.workers import WorkerDied
from encoders.runs.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

WAIT_FOR_CLUSTER = 10.0  # s
GIVEN_UP = "several workers died over it, one after the other"


def connect(address: str, *, patience: float = WAIT_FOR_CLUSTER) -> Any:
    """A client of the cluster, a context manager.

    Args:
        address: Of the scheduler, `tcp://host:8786`.
        patience: How long to wait for it, and for a first worker, s.

    Raises:
        InputError: Dask is not installed, nobody answers, or there is no worker.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as cause:
        raise InputError(
            "--dask needs Dask, which is not installed; run: pip install 'neurohelix[dask]'"
        ) from cause
    try:
        client = Client(address, timeout=patience, set_as_default=False)
    except (OSError, ValueError) as cause:
        raise InputError(
            f"no Dask scheduler answers at {address} ({cause}); start one with `dask scheduler` and workers with "
            f"`dask worker`, or drop --dask"
        ) from cause
    try:
        client.wait_for_workers(1, timeout=patience)
    except TimeoutError as cause:
        client.close()
        raise InputError(
            f"the Dask cluster at {address} has no workers; start some with `dask worker`"
        ) from cause
    return client


def on_dask(
    function: Callable[[Item], Result], items: Sequence[Item], *, address: str
) -> Iterator[tuple[Item, Result | WorkerDied]]:
    """Each item with its result, as they come, from the workers of the cluster.

    Dask gives an item whose worker died to another one. When that has happened too often (its `allowed-failures`, 3),
    it gives the item up, and the rest goes on. It blames whatever lay with that worker, also what only waited there:
    so the items given up are tried once more at the end, each alone, and only one that fails alone is lost.

    Args:
        function: Must be picklable; the workers must be able to import it.
        items: What to do.
        address: Of the scheduler.

    Raises:
        InputError: as :func:`connect`, or the workers cannot import what they need.
    """
    import joblib

    with connect(address) as client:
        run = joblib.Parallel(
            backend=_backend(client), n_jobs=-1, batch_size=1, return_as="generator_unordered"
        )
        jobs = [joblib.delayed(_Numbered(function, number))(item) for number, item in enumerate(items)]
        given_up = []
        try:
            for number, result in run(jobs):
                if isinstance(result, WorkerDied):
                    given_up.append(number)
                else:
                    yield items[number], result
            for number in sorted(given_up):
                yield from ((items[number], result) for _, result in run([jobs[number]]))
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


def _backend(client: Any) -> Any:
    """joblib's Dask backend, mended in two places.

    Of tasks that Dask gives up joblib is never told, and waits forever. And where one worker is left, joblib would
    run the items in this process, where one that kills its worker would kill the whole run.
    """
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, super().effective_n_jobs(n_jobs))

        async def _collect(self) -> None:
            while self._continue:
                async for future, result in self.waiting_futures:
                    answer, callback = self._results.pop(future), self._callbacks.pop(future)
                    if future.status == "error":  # not of the function: those come back as results
                        if type(result[1]).__name__ != "KilledWorker":
                            result = result[1]  # cannot be unpickled there, say: raised by joblib
                        else:
                            result = [(_Numbered.number_in(future.key), WorkerDied(how=GIVEN_UP))]
                    answer.set_result(result)
                    callback(result)
                await asyncio.sleep(0.01)

    return Backend(client=client)
