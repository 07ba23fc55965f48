"""Several processes of one run: each embeds its share into the common cache, the first puts everything together.

Nothing is wrapped in DDP and no tensor travels: the cache folder, which all processes must see, is the only
meeting place. Accelerate says who is who. Waiting goes through small files with a beating counter instead of a
collective: a process that finishes hours before the others runs into no time-out, and one that dies is noticed,
whatever it died of.
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from encoders.runs.artifact import PRIVATE, write_text
from encoders.runs.errors import InputError
from encoders.runs.signals import Stop, StopRequest

BEAT = 2.0  # seconds between beats
PATIENCE = 120.0  # seconds without a beat after which a process counts as dead
WORKING, DONE, FAILED = "working", "done", "failed"


class Processes:
    """The processes of this run, one if it was not launched as several.

    Args:
        index: Which one this is, from 0; the first is the main process.
        count: How many there are.
        run: A random name that they have in common.
        device: The one that is this process's, where there are several; else None.
    """

    def __init__(self) -> None:
        self.index, self.count, self.run = 0, 1, secrets.token_hex(8)
        self.device: Any = None
        if launched():
            from encoders.runs.devices import accelerator

            made = accelerator(seed=0)
            self.index, self.count, self.device = made.process_index, made.num_processes, made.device
            self.run = self.from_main(self.run)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that reads first, writes the result and talks."""
        return self.index == 0

    def all(self, value: Any) -> list[Any]:
        """The values of all processes, in order; every process must call it. Small things only, at the start."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])

    def from_main(self, value: Any) -> Any:
        """The main process's value."""
        return self.all(value)[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a block on all processes; wrong input of any ends all of them, and one tells it.

        Raises:
            InputError: in the block of some process; the main process raises the first.
            Quiet: on the other processes.
        """
        if self.count == 1:
            yield
            return
        fault: str | None = None
        try:
            yield
        except InputError as error:
            fault = str(error)
        faults = [f for f in self.all(fault) if f is not None]
        if faults and self.is_main:
            raise InputError(faults[0])  # with its code, which stands in the text
        if faults:
            raise Quiet


class Quiet(Exception):
    """The main process tells the error, this one only ends."""


def launched() -> bool:
    """Whether `accelerate launch` or torchrun started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def processes_here() -> int:
    """How many processes of this run share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def reporting(folder: Path, processes: Processes) -> Iterator[None]:
    """Within the block a thread says every few seconds that this process lives; at its end, how it ended."""
    if processes.count == 1:
        yield
        return
    path = _status_file(folder, processes.run, processes.index)
    over = threading.Event()

    def beat() -> None:
        beats = 0
        while not over.is_set():
            beats += 1
            _say(path, WORKING, beats)
            over.wait(BEAT)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    state, why = FAILED, "it was stopped"
    try:
        yield
        state, why = DONE, ""
    except InputError as error:
        why = str(error)
        raise
    finally:
        over.set()
        thread.join()
        _say(path, state, 0, why)


def wait_for_others(folder: Path, processes: Processes, stop: StopRequest) -> None:
    """Wait, on the main process, until all others are done.

    Raises:
        InputError: one of them failed or has died.
        Stop: this process was asked to stop.
    """
    waiting = set(range(1, processes.count))
    heard = dict.fromkeys(waiting, (time.monotonic(), -1))
    while waiting:
        if stop.number:
            raise Stop("stopped as asked; run the same command again to continue", code=stop.code)
        for index in sorted(waiting):
            told = _status(_status_file(folder, processes.run, index))
            if told.get("state") == DONE:
                waiting.discard(index)
            elif told.get("state") == FAILED:
                raise InputError(
                    f"process {index + 1} of {processes.count} failed: {told.get('why')}; what was embedded is in the "
                    f"cache: run the same command again to continue"
                )
            elif told.get("beats", 0) != heard[index][1]:
                heard[index] = (time.monotonic(), told.get("beats", 0))
            elif time.monotonic() - heard[index][0] > PATIENCE:
                raise InputError(
                    f"process {index + 1} of {processes.count} has not been heard of for {PATIENCE:.0f} s, so it is "
                    f"dead; what was embedded is in the cache: run the same command again to continue"
                )
        if waiting:
            time.sleep(0.2)


def forget(folder: Path) -> None:
    """Remove what the processes of earlier and present runs have said."""
    for path in folder.glob("process-*.json"):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _status_file(folder: Path, run: str, index: int) -> Path:
    return folder / f"process-{run}-{index}.json"


def _say(path: Path, state: str, beats: int, why: str = "") -> None:
    write_text(path, json.dumps({"state": state, "beats": beats, "why": why}), mode=PRIVATE)


def _status(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
