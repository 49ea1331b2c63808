"""Where small images are faster together than one by one.

    python -m benchmarks.batch
    python -m benchmarks.batch --device cuda --sides 32 64 128 256 512

For each size the same images are run one by one and in batches, in alternating rounds. Prints
a table: milliseconds for an image one by one, and how many times as fast batches are. The
limits of the engine (``BATCH_PIXELS``, ``SMALLEST_BATCH``) are chosen by it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from srgan_infer import weights
from srgan_infer.engine.engine import Engine


def run_alone(engine: Engine, images: np.ndarray) -> np.ndarray:
    """The images one by one."""
    plan = engine.plan(*images.shape[1:3])
    return np.stack([np.concatenate(list(engine.run(image, plan))) for image in images])


def run_together(engine: Engine, images: np.ndarray, count: int) -> np.ndarray:
    """The images in batches of ``count``."""
    plan = engine.plan(*images.shape[1:3])
    parts = [images[first : first + count] for first in range(0, len(images), count)]
    return np.stack([big for part in parts for big in engine.run_batch(part, plan)])


def measure(
    engine: Engine, side: int, counts: list[int], rounds: int, clock: Callable[[], float]
) -> tuple[float, list[float], int]:
    """Seconds for an image alone, the gain of each batch size, and the levels they are off."""
    images = np.random.default_rng(0).integers(0, 256, (max(counts), side, side, 3), np.uint8)
    runs: list[Callable[[], np.ndarray]] = [partial(run_alone, engine, images)]
    runs += [partial(run_together, engine, images, count) for count in counts]
    alone, *together = [run().astype(int) for run in runs]  # warms up too
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, kept in zip(runs, seconds, strict=True):
            start = clock()
            run()
            kept.append(clock() - start)
    first, *others = seconds
    gains = [
        statistics.median(a / b for a, b in zip(first, other, strict=True)) for other in others
    ]
    off = max(int(np.abs(one - alone).max()) for one in together)
    return statistics.median(first) / len(images), gains, off


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Batches of small images against one by one.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--model", default="srgan")
    parser.add_argument("--sides", type=int, nargs="+", default=[8, 16, 24, 32, 48, 64])
    parser.add_argument("--counts", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count the time of the processors, where other programs use them too",
    )
    options = parser.parse_args()
    engine = Engine(weights.build(weights.load(options.model)), options.device, options.dtype)
    clock = time.process_time if options.cpu_time else time.perf_counter
    head = " | ".join(f"{count} at once" for count in options.counts)
    print(f"{engine.device}, {engine.dtype}")  # noqa: T201
    print(f"| size | ms alone | {head} | off by |")  # noqa: T201
    print("|---" * (len(options.counts) + 3) + "|")  # noqa: T201
    for side in options.sides:
        alone, gains, off = measure(engine, side, options.counts, options.rounds, clock)
        cells = " | ".join(f"{gain:.2f}" for gain in gains)
        print(f"| {side}×{side} | {1000 * alone:.1f} | {cells} | {off} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
