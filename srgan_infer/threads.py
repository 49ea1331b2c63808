"""Work done in several threads, its results taken in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

MOST = 8


def processors() -> int:
    """Processors that this process may use.

    ``OMP_NUM_THREADS`` is how schedulers such as Ray and SLURM, and whoever runs several
    processes side by side, say how many; torch keeps to it too.
    """
    if hasattr(os, "sched_getaffinity"):
        there = len(os.sched_getaffinity(0))
    else:
        there = os.cpu_count() or 1
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return min(there, int(allowed)) if allowed.isdecimal() and int(allowed) else there


class InOrder:
    """Runs tasks in threads and hands their results on in the order they came.

    Parameters
    ----------
    consume
        Called with each result, in the thread that calls ``put`` or ``finish``.
    threads
        How many, default one for each processor up to eight; or another of
        these, whose threads are shared. Two more tasks than threads are in
        pending at most, so memory is bounded.
    """

    def __init__(
        self, consume: Callable[[Any], None], threads: int | InOrder | None = None
    ) -> None:
        self._limit: int
        self._pool: ThreadPoolExecutor
        if isinstance(threads, InOrder):
            self._limit, self._pool = threads._limit, threads._pool
        else:
            count = threads or min(processors(), MOST)
            self._limit, self._pool = count + 2, ThreadPoolExecutor(count)
        self._waiting: deque[Future[Any]] = deque()
        self._consume = consume

    def put(self, task: Callable[..., Any], *arguments: Any) -> None:
        """Start a task; waits for the oldest if too many are in pending."""
        self._waiting.append(self._pool.submit(task, *arguments))
        while self._waiting and (len(self._waiting) > self._limit or self._waiting[0].done()):
            self._consume(self._waiting.popleft().result())

    def finish(self) -> None:
        """Wait for all results and hand them on."""
        while self._waiting:
            self._consume(self._waiting.popleft().result())

    def close(self) -> None:
        """Drop what has not begun, and let the threads end."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def map_in_order(
    function: Callable[[Any], Any], items: Iterable[Any], threads: int
) -> Generator[Any | Exception, None, None]:
    """Results of a function in the order of the items, with few items taken ahead.

    Parameters
    ----------
    function
        Called with one item, in several threads at once.
    items
        Taken in the thread that takes the results, one for each result after the first few.
    threads
        How many; as many items and one more are in work, or done and not yet taken.

    Yields
    ------
    Any or Exception
        What the function returned, or the error that it raised.
    """
    waiting: deque[Future[Any]] = deque()

    def oldest() -> Any:
        future = waiting.popleft()
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, Exception):
            return error
        raise error

    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield oldest()
        while waiting:
            yield oldest()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Room:
    """Memory that several threads share, so that large images do not come together.

    Parameters
    ----------
    size
        Bytes. What takes more than all of it waits until it is alone.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken: list[int] = []
        self._change = threading.Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Hold so many bytes; waits until they are free."""
        with self._change:
            while self._taken and sum(self._taken) + size > self._size:
                self._change.wait()
            self._taken.append(size)
        try:
            yield
        finally:
            with self._change:
                self._taken.remove(size)
                self._change.notify_all()
