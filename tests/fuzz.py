# ruff: noqa: T201 (a program, which talks)
"""Mutated files and models against the library, in processes with limits.

    python -m tests.fuzz --seconds 600

Every case is a file that the tests make, damaged at random; seed and number give the
same case again. Right is a result that can be opened, or an ``UpscaleError``. Wrong is
any other exception, a crash, a case that takes too long or too much memory, and anything
left on the disk after a refusal. A table is printed; the status is 1 if a case was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does

ROOT = Path(__file__).parents[1]
TARGETS = ("png", "jpg", "webp", "tif", "gif", "avif", "bmp", "jp2", "ppm", "tga")
MODEL = "model"
SECONDS_A_CASE = 30.0
PIXELS = 250_000
# What one case may take beyond the program: an input of PIXELS, its result, an encoder.
MEMORY = 600 << 20
ADDRESSES = 3 << 30
WRONG = ("raw", "crash", "hang", "memory", "litter")


def mutate(data: bytes, random: random.Random, others: list[bytes]) -> bytes:
    """Damage a file in one to four ways."""
    inside = data.startswith(b"\x89PNG") and random.random() < 0.7
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        if inside:  # checksums would keep most damage from being read at all
            data = mutate_chunks(data, random, others)
        else:
            data = random.choice(MUTATIONS)(bytearray(data), random, others)
    return data


def mutate_chunks(data: bytes, random: random.Random, others: list[bytes]) -> bytes:
    """Damage a PNG file within its chunks, whose lengths and checksums are right."""
    chunks = read_chunks(data)
    index = random.randrange(len(chunks))
    kind, body = chunks[index]
    way = random.random()
    if way < 0.7:
        chunks[index] = (kind, random.choice(MUTATIONS)(bytearray(body), random, others))
    elif way < 0.8:
        del chunks[index]
    elif way < 0.9:
        chunks.insert(random.randrange(len(chunks) + 1), (kind, body))
    else:
        pngs = [other for other in others if other.startswith(b"\x89PNG")]
        stranger = random.choice(read_chunks(random.choice(pngs)))
        chunks.insert(random.randrange(1, len(chunks) + 1), stranger)
    result = bytearray(data[:8])
    for kind, body in chunks or [(b"IEND", b"")]:
        result += struct.pack(">I", len(body)) + kind + body
        result += struct.pack(">I", zlib.crc32(kind + body))
    return bytes(result)


def read_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kinds and bodies of the chunks of a PNG file."""
    chunks, at = [], 8
    while len(data) - at >= 12:
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def flip(data: bytearray, random: random.Random, _: list[bytes]) -> bytes:
    """Change bits, mostly in the header."""
    for _count in range(random.choice((1, 2, 8, 64))):
        if data:
            end = len(data) if random.random() < 0.4 else min(len(data), 256)
            data[random.randrange(end)] ^= 1 << random.randrange(8)
    return bytes(data)


def number(data: bytearray, random: random.Random, _: list[bytes]) -> bytes:
    """Put an extreme number somewhere."""
    value = random.choice((0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1))
    form = (
        random.choice(("<I", ">I")) if value > 0xFFFF else random.choice(("<H", ">H", "<I", ">I"))
    )
    if len(data) >= 4:
        end = len(data) if random.random() < 0.4 else min(len(data), 400)
        struct.pack_into(form, data, random.randrange(max(end - 3, 1)), value)
    return bytes(data)


def cut(data: bytearray, random: random.Random, _: list[bytes]) -> bytes:
    """End the file early."""
    return bytes(data[: random.randrange(len(data) + 1)])


def drop(data: bytearray, random: random.Random, _: list[bytes]) -> bytes:
    """Leave out a piece."""
    start = random.randrange(len(data) + 1)
    return bytes(data[:start] + data[start + random.choice((1, 2, 4, 16, 500)) :])


def repeat(data: bytearray, random: random.Random, _: list[bytes]) -> bytes:
    """A piece, many times."""
    start = random.randrange(len(data) + 1)
    piece = data[start : start + random.choice((1, 4, 16, 200))]
    return bytes(data[:start] + piece * random.choice((2, 10, 1000)) + data[start:])


def graft(data: bytearray, random: random.Random, others: list[bytes]) -> bytes:
    """A piece of another file."""
    other = random.choice(others)
    start, at = random.randrange(len(other) + 1), random.randrange(len(data) + 1)
    piece = other[start : start + random.choice((4, 30, 500, 5000))]
    over = len(piece) if random.random() < 0.5 else 0
    return bytes(data[:at]) + piece + bytes(data[at + over :])


def blank(data: bytearray, random: random.Random, _: list[bytes]) -> bytes:
    """A piece of zeros or ones."""
    start, length = random.randrange(len(data) + 1), random.choice((1, 4, 32, 1000))
    value = random.choice((b"\0", b"\xff"))
    return bytes(data[:start] + value * len(data[start : start + length]) + data[start + length :])


MUTATIONS: tuple[Callable[[bytearray, random.Random, list[bytes]], bytes], ...] = (
    flip,
    flip,
    number,
    number,
    cut,
    drop,
    repeat,
    graft,
    blank,
)


@dataclass(frozen=True)
class Case:
    """One thing to try."""

    kind: str
    data: bytes
    target: str
    file: str = ""


def make_case(seed: int, index: int, samples: dict[str, bytes], model: dict[str, bytes]) -> Case:
    """The case of a number, the same every time."""
    chance = random.Random(f"{seed}-{index}")
    pieces = list(samples.values())
    if chance.random() < 0.06:
        name = chance.choice(sorted(model))
        return Case(MODEL, mutate(model[name], chance, list(model.values())), "", name)
    name = chance.choice(sorted(samples))
    kind = name.split(".")[-1]
    return Case(kind, mutate(samples[name], chance, pieces), chance.choice(TARGETS))


def parts(folder: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What is damaged: files by name, and the files of a model."""
    from conformance import sound
    from helpers import make_model

    samples = {made.name: made.data for made in sound()}
    tiny = make_model(folder / "tiny")
    return samples, {
        name: (tiny / name).read_bytes() for name in ("config.json", "model.safetensors")
    }


def work(seed: int, start: int, step: int, folder: Path) -> None:
    """Try every ``step``-th case from ``start`` on, and tell about each on standard output."""
    import warnings

    import torch

    from srgan_infer import SuperResolver

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    samples, model = parts(folder)
    tiny = folder / "tiny"
    resolver = SuperResolver.from_pretrained(tiny, max_memory="200MB", max_pixels=PIXELS)
    for data in samples.values():  # what is loaded once is not a case's memory
        try_file(Case("", data, "png"), resolver, folder / "first")
        try_file(Case("", data, "jpg"), resolver, folder / "first")
    limit_addresses()
    for index in range(start, 1 << 60, step):
        print(json.dumps({"begin": index}), flush=True)
        before = reset_peak()
        case = make_case(seed, index, samples, model)
        began = time.perf_counter()
        place = folder / "case"
        if case.kind == MODEL:
            verdict, said = try_model(case, tiny, place)
        else:
            verdict, said = try_file(case, resolver, place)
        seconds, memory = time.perf_counter() - began, max(peak() - before, 0)
        if verdict in ("done", "refused") and memory > MEMORY:
            verdict, said = "memory", f"{memory >> 20} MiB. {said}"
        line = {"end": index, "kind": case.kind, "verdict": verdict, "said": said}
        print(json.dumps({**line, "seconds": seconds, "memory": memory}), flush=True)


def try_file(case: Case, resolver: Any, folder: Path) -> tuple[str, str]:
    """Upscale a file; what came of it and what was said."""
    from srgan_infer import UpscaleError

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    source, target = folder / "in", folder / f"out.{case.target}"
    source.write_bytes(case.data)
    try:
        result = resolver.upscale_file(source, target)
    except UpscaleError as error:
        left = sorted(name for name in os.listdir(folder) if name != "in")
        return ("litter", f"{left} after: {error}") if left else ("refused", str(error))
    except Exception as error:
        return "raw", f"{type(error).__name__}: {error}"
    left = sorted(name for name in os.listdir(folder) if name not in ("in", target.name))
    if left:
        return "litter", f"{left} beside the result"
    try:
        size = read_size(target)
    except Exception as error:
        return "litter", f"the result cannot be opened: {type(error).__name__}: {error}"
    if size != tuple(result.size):
        return "litter", f"the result is {size}, not {result.size}"
    return "done", ""


def read_size(path: Path) -> tuple[int, int]:
    """(W, H) of a sound image file; whatever its decoder raises if it is none."""
    from PIL import Image

    from srgan_infer.images.read import open_file

    Image.MAX_IMAGE_PIXELS = None
    if path.suffix == ".tif":  # of which Pillow does not read every kind
        file = open_file(path)
        for frame in file.frames():
            frame.color[0 : frame.color.shape[0]]
        return file.size
    with Image.open(path) as image:
        image.load()
        return image.size


def try_model(case: Case, tiny: Path, folder: Path) -> tuple[str, str]:
    """Load a model of which one file is damaged."""
    import numpy as np

    from srgan_infer import SuperResolver, UpscaleError

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tiny, folder)
    (folder / case.file).write_bytes(case.data)
    try:
        resolver = SuperResolver.from_pretrained(folder, max_memory="200MB")
        resolver(np.zeros((5, 7, 3), np.uint8))
    except UpscaleError as error:
        return "refused", str(error)
    except Exception as error:
        return "raw", f"{type(error).__name__}: {error}"
    return "done", ""


def limit_addresses() -> None:
    """Have large requests refused, as on a small machine."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + ADDRESSES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def reset_peak() -> int:
    """Begin to measure the highest memory anew; the memory now, in bytes."""
    if sys.platform != "linux":
        return 0
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """The highest resident memory since, in bytes."""
    if sys.platform != "linux":
        return 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass
class Row:
    """One line of the table."""

    counts: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    memory: int = 0

    def add(self, end: dict[str, Any]) -> None:
        """Count a case."""
        self.counts[end["verdict"]] = self.counts.get(end["verdict"], 0) + 1
        self.slowest = max(self.slowest, end["seconds"])
        self.memory = max(self.memory, end["memory"])


class Worker:
    """A process that tries cases, replaced when one of them ends it."""

    def __init__(self, seed: int, first: int, step: int) -> None:
        self.seed, self.step = seed, step
        self.start(first)

    def start(self, first: int) -> None:
        """Begin with a case."""
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.begun: int | None = None
        self.since = time.monotonic()
        command = [sys.executable, "-m", "tests.fuzz", "--work", str(self.folder)]
        command += ["--seed", str(self.seed), "--start", str(first), "--step", str(self.step)]
        self.errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )
        assert self.process.stdout is not None
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines.put(line)
        self.lines.put("")

    def ends(self) -> Iterator[dict[str, Any]]:
        """Cases that have ended since the last call, for good or ill."""
        while True:
            try:
                line = self.lines.get(timeout=0.05)
            except queue.Empty:
                if self.begun is not None and time.monotonic() - self.since > SECONDS_A_CASE:
                    yield self._lost("hang", f"no end after {SECONDS_A_CASE:.0f} s")
                return
            if not line:
                self.errors.seek(0)
                last = self.errors.read()[-300:]
                if self.begun is None:
                    raise SystemExit(f"a worker could not start: {last}")
                yield self._lost("crash", f"status {self.process.wait()}: {last}")
                return
            said = json.loads(line)
            if "begin" in said:
                self.begun, self.since = said["begin"], time.monotonic()
            else:
                yield said

    def _lost(self, verdict: str, said: str) -> dict[str, Any]:
        begun, seconds = self.begun, time.monotonic() - self.since
        assert begun is not None
        self.stop()
        self.start(begun + self.step)
        end = {"end": begun, "kind": "?", "verdict": verdict, "said": said}
        return {**end, "seconds": seconds, "memory": 0}

    def stop(self) -> None:
        """End the process, and remove what it wrote."""
        self.process.kill()
        self.process.wait()
        self.errors.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def table(rows: dict[str, Row]) -> str:
    """The counts as text."""
    columns = ("done", "refused", *WRONG)
    lines = ["kind      cases " + "".join(f"{name:>8}" for name in columns) + "  slowest   memory"]
    for kind, row in sorted(rows.items()):
        counts = "".join(f"{row.counts.get(name, 0):8}" for name in columns)
        total = sum(row.counts.values())
        lines.append(f"{kind:9} {total:5} {counts} {row.slowest:6.1f} s {row.memory >> 20:4} MiB")
    return "\n".join(lines)


def run(seconds: float, seed: int, jobs: int, keep: Path) -> int:
    """Try cases until the time is over; the exit status."""
    workers = [Worker(seed, first, jobs) for first in range(jobs)]
    rows: dict[str, Row] = {}
    wrong: list[dict[str, Any]] = []
    end_at = time.monotonic() + seconds
    try:
        while time.monotonic() < end_at:
            for worker in workers:
                for end in worker.ends():
                    wrong += [end] if end["verdict"] in WRONG else []
                    if end["kind"] != "?":
                        rows.setdefault(end["kind"], Row()).add(end)
    finally:
        for worker in workers:
            worker.stop()
    if wrong:
        with tempfile.TemporaryDirectory() as folder:
            samples, model = parts(Path(folder))
        keep.mkdir(parents=True, exist_ok=True)
        for end in wrong:
            case = make_case(seed, end["end"], samples, model)
            if end["kind"] == "?":
                rows.setdefault(case.kind, Row()).add(end)
            name = f"{seed}-{end['end']}-{end['verdict']}.{case.file or case.kind}"
            (keep / name).write_bytes(case.data)
            print(f"{end['verdict']}: {keep / name} to {case.target}: {end['said'][:400]}")
    print(table(rows))
    return 1 if wrong else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, help="0 in CI; drawn if absent")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--keep", type=Path, help="folder for the files of wrong cases")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--step", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    if args.work:
        work(seed, args.start, args.step, args.work)
        return 0
    print(f"seed {seed}, {args.jobs} jobs, {args.seconds:.0f} s")
    keep = args.keep or Path(tempfile.gettempdir()) / "fuzz-wrong"
    return run(args.seconds, seed, args.jobs, keep)


if __name__ == "__main__":
    sys.exit(main())
