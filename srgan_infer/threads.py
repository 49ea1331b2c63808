"""Work done in several threads, its results taken in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class InOrder:
    """Runs tasks in threads and hands their results on in the order they came.

    Parameters
    ----------
    consume
        Called with each result, in the thread that calls ``put`` or ``finish``.
    threads
        How many; default one for each processor. At most two tasks for each
        are in flight, so memory is bounded.
    """

    def __init__(self, consume: Callable[[Any], None], threads: int | None = None) -> None:
        self._threads = threads or processors()
        self._pool = ThreadPoolExecutor(self._threads)
        self._waiting: deque[Future[Any]] = deque()
        self._consume = consume

    def put(self, task: Callable[..., Any], *arguments: Any) -> None:
        """Start a task; waits for the oldest if too many are in flight."""
        self._waiting.append(self._pool.submit(task, *arguments))
        while self._waiting and (len(self._waiting) > 2 * self._threads or self._waiting[0].done()):
            self._consume(self._waiting.popleft().result())

    def finish(self) -> None:
        """Hand on all results and let the threads end."""
        while self._waiting:
            self._consume(self._waiting.popleft().result())
        self.close()

    def close(self) -> None:
        """Drop what has not begun and let the threads end."""
        self._pool.shutdown(wait=True, cancel_futures=True)
