"""Long lists and Ray: images a second with one worker and with two, and the memory.

    pip install '.[ray]'
    python -m benchmarks.scale                   # 100,000 tiny files, a tiny network
    python -m benchmarks.scale --files 2000 --only list shards ray

Parts: ``list`` is one process with ``--from-file`` and ``--manifest``; ``shards`` is one
process with one thread, one with all, and two with a half of the list and of the threads
each, with the tiny network and with the bundled one; ``ray`` is the bundled network, by one
actor with all processors, then by two with half.
Prints what it finds; Linux, since it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from srgan_infer import weights
from srgan_infer.network.generator import Generator, GeneratorConfig
from srgan_infer.threads import processors

COMMAND = [sys.executable, "-m", "srgan_infer"]


@dataclass
class Run:
    """One process of the command: when its lines came, and its memory then.

    Attributes
    ----------
    first
        Seconds until the first result.
    seconds
        Until the last one.
    images
        Results.
    memory
        MiB resident at each tenth of the images, the first after a hundred.
    """

    first: float
    seconds: float
    images: int
    memory: list[float]


def say(text: str) -> None:
    """One line of the result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def resident(process: int) -> float:
    """MiB of memory that a process has now."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def make_files(folder: Path, count: int, edge: int) -> Path:
    """Images of noise in folders of a thousand, and a list of them."""
    pixels = np.random.default_rng(0).integers(0, 256, (edge, edge, 3), dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / "image.png"
    Image.fromarray(pixels).save(image)
    data = image.read_bytes()
    names = [f"in/{index // 1000:04d}/{index:07d}.png" for index in range(count)]
    for name in names:
        path = folder / name
        if not int(path.stem) % 1000:
            path.parent.mkdir(parents=True)
        path.write_bytes(data)
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in names))
    return folder / "list.txt"


def make_model(folder: Path) -> Path:
    """A network so small that everything else is what is measured."""
    config = GeneratorConfig(channels=8, blocks=1)
    weights.save(folder, config, Generator(config).state_dict(), "")
    return folder


def start(folder: Path, threads: int, *options: str) -> subprocess.Popen[str]:
    """The command, in a process with so many threads."""
    return subprocess.Popen(
        [*COMMAND, *options, "--json", "--device", "cpu"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
    )


def follow(process: subprocess.Popen[str], total: int, begun: float) -> Run:
    """Read its lines."""
    marks = {100, *(total * tenth // 10 for tenth in range(1, 11))}
    run = Run(0.0, 0.0, 0, [])
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["status"] != "done":
            raise RuntimeError(line)
        run.images += 1
        run.first = run.first or time.perf_counter() - begun
        if run.images in marks:
            run.memory.append(resident(process.pid))
    run.seconds = time.perf_counter() - begun
    if process.wait():
        raise RuntimeError("The command failed.")
    return run


def long_list(folder: Path, model: Path, count: int) -> None:
    """One process, a long list, a manifest."""
    options = ("--from-file", "list.txt", "-o", "out", "--manifest", "manifest.jsonl")
    begun = time.perf_counter()
    # One thread: a network of this size would only wait for others.
    run = follow(start(folder, 1, *options, "--model", str(model)), count, begun)
    say(f"list: {run.images} images, first result after {run.first:.1f} s")
    say(f"list: {run.images / run.seconds:.1f} images/s")
    say(f"list: MiB resident along the way: {', '.join(f'{m:.0f}' for m in run.memory)}")
    begun = time.perf_counter()
    again = subprocess.run(
        [*COMMAND, *options, "--model", str(model), "--retry-failed"],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    seconds = time.perf_counter() - begun
    say(f"list: --retry-failed finds nothing in {seconds:.1f} s ({again.stderr.decode().strip()})")


def shards(folder: Path, model: str, count: int, what: str) -> None:
    """One process with one thread, one with all, and two that share the list and the threads.

    From the first result to the last, so that the start is left out.
    """
    cases = ((1, 1), (1, processors()), (2, max(1, processors() // 2)))
    rates: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    memory: dict[tuple[int, int], float] = {}
    for round_ in range(3):
        for case in cases:
            workers, threads = case
            options = ("--from-file", "list.txt", "-o", f"{what}-{round_}-{workers}-{threads}")
            begun = time.perf_counter()
            processes = [
                start(folder, threads, *options, "--model", model, "--shard", f"{index}/{workers}")
                for index in range(workers)
            ]
            with ThreadPoolExecutor(workers) as pool:
                told = [pool.submit(follow, one, count // 2, begun) for one in processes]
                runs = [one.result() for one in told]
            if sum(run.images for run in runs) != count:
                raise RuntimeError("Not all is done.")
            rates[case].append(sum((run.images - 1) / (run.seconds - run.first) for run in runs))
            memory[case] = sum(max(run.memory, default=0) for run in runs)
    medians = {case: float(np.median(found)) for case, found in rates.items()}
    for (workers, threads), rate in medians.items():
        say(
            f"shards, {what}: {workers} x {threads} threads: {rate:.2f} images/s, "
            f"{memory[workers, threads]:.0f} MiB in all"
        )
    one, all_, two = medians.values()
    say(f"shards, {what}: two are {two / one:.2f} times one of them, {two / all_:.2f} times one")


def actors(folder: Path, count: int, edge: int) -> None:
    """The bundled network: one actor, then two with half of the processors each."""
    import ray

    make_files(folder / "ray", count, edge)
    ray.init(num_cpus=processors(), object_store_memory=200 * 2**20, log_to_driver=False)
    from srgan_infer.ray import Options, pieces
    from srgan_infer.ray import Worker as RayWorker

    source = str(folder / "ray" / "in")
    rates: dict[int, list[float]] = {1: [], 2: []}
    for round_ in range(3):
        for workers in (1, 2):
            cpus = max(1, processors() // workers)
            remote: Any = ray.remote(num_cpus=cpus)(RayWorker)
            made = [remote.remote(Options(device="cpu")) for _ in range(workers)]
            target = str(folder / f"ray-out-{round_}-{workers}")
            texts = [json.dumps(vars(piece)) for piece in pieces(source, target, 4)]
            # The first piece of each loads the model.
            warm = [{"piece": [text]} for text in texts[:workers]]
            work = [m.__call__.remote(b) for m, b in zip(made, warm, strict=True)]
            ray.get(work)
            rest = texts[workers:]
            begun = time.perf_counter()
            ray.get(
                [
                    actor.__call__.remote({"piece": rest[index::workers]})
                    for index, actor in enumerate(made)
                ]
            )
            rates[workers].append(4 * len(rest) / (time.perf_counter() - begun))
            for actor in made:
                ray.kill(actor)
    ray.shutdown()
    medians = {workers: float(np.median(found)) for workers, found in rates.items()}
    for workers, rate in medians.items():
        cpus = max(1, processors() // workers)
        say(f"ray: {workers} x {cpus} processors: {rate:.2f} images of {edge}x{edge} a second")
    say(f"ray: ratio {medians[2] / medians[1]:.2f}")


def main() -> None:
    """Measure the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--edge", type=int, default=8, help="of the tiny files, in pixels")
    parser.add_argument("--network-files", type=int, default=48, help="for the bundled network")
    parser.add_argument("--network-edge", type=int, default=96, help="of these")
    parser.add_argument("--only", nargs="+", default=["list", "shards", "ray"])
    args = parser.parse_args()
    say(f"{processors()} processors, torch {torch.__version__}")
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        model = make_model(folder / "model")
        if {"list", "shards"} & set(args.only):
            make_files(folder, args.files, args.edge)
        if "list" in args.only:
            long_list(folder, model, args.files)
        if "shards" in args.only:
            shards(folder, str(model), args.files, "tiny network")
            make_files(folder / "network", args.network_files, args.network_edge)
            shards(folder / "network", "srgan", args.network_files, "srgan")
        if "ray" in args.only:
            actors(folder, args.network_files, args.network_edge)


if __name__ == "__main__":
    main()
