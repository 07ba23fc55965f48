"""Stopping in an orderly way: the scheduler's SIGTERM or a first Ctrl-C ends a run after its present step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop(BaseException):
    """The run was asked to stop, has saved, and can be continued; not an Exception, so that nothing swallows it.

    Args:
        message: What was saved, and how to go on.
        code: Exit code: 128 + the signal's number, as shells report it.
    """

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class StopRequest:
    """Which signal has arrived, if any.

    Args:
        number: Its number; 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0

    @property
    def code(self) -> int:
        """Exit code that tells the caller which signal it was; another process's signal counts as SIGTERM."""
        return 128 + (self.number or signal.SIGTERM)


@contextmanager
def catching_stops() -> Iterator[StopRequest]:
    """Within the block SIGTERM and the first Ctrl-C only set a flag; a second Ctrl-C interrupts at once."""
    request = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        if request.number == signal.SIGINT == number:
            raise KeyboardInterrupt
        request.number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
