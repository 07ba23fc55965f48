"""Make the next items in the background while the present one is used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetched(make: Callable[[Item], Made], items: Iterable[Item], *, ahead: int) -> Iterator[Made]:
    """``make(item)`` for each item, in order, up to ``ahead`` of them made in advance by a thread.

    Yields what a plain loop would. An error of ``make`` is raised where its item is due. The thread has ended when the
    loop ends, however it ends: one that is cut off at exit aborts the whole process.

    Args:
        make: Called in another thread, for one item at a time.
        items: Taken as they are needed.
        ahead: Most items made and not yet asked for (count); 0 makes each when it is asked for, without a thread.
    """
    if ahead < 1:
        yield from map(make, items)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
