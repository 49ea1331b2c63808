"""A contender in a process of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

from benchmarks.contenders import Pixels
from srgan_infer import weights
from srgan_infer.network.generator import Generator

Factory = Callable[[Generator], Callable[[Pixels], Pixels | float | None]]


class Worker:
    """A contender in a process of its own, so that its threads and memory disturb no other."""

    def __init__(self, model: str, factory: Factory) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, model, factory), daemon=True)
        self.process.start()
        theirs.close()

    def __call__(self, pixels: Pixels) -> tuple[float, Pixels | None]:
        """Run once: the seconds it took, and the result."""
        # Threads that wait for more work spin for a while; let them go to sleep.
        time.sleep(0.3)
        self.pipe.send(pixels)
        answer: tuple[float, Pixels | None] = self.pipe.recv()
        return answer


def serve(pipe: Any, model: str, factory: Factory) -> None:
    """Answer images with seconds and results."""
    run = factory(weights.build(weights.load(model)))
    while True:
        try:
            pixels = pipe.recv()
        except EOFError:
            return
        start = time.perf_counter()
        result = run(pixels)
        seconds = time.perf_counter() - start
        pipe.send((result, None) if isinstance(result, float) else (seconds, result))
