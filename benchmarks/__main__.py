"""Measure, and write the report.

    pip install . -r benchmarks/requirements.txt
    python -m benchmarks                        # everything
    python -m benchmarks --only 192 512         # some parts; the rest of the report stays

In each part the contenders take turns, round after round and each in a process
of its own, so that whatever else the machine does meets all of them. Reported
are medians, the spread between the lower and upper quartile, and the median of
the ratios within a round. Writes docs/benchmarks.json, docs/benchmarks.md and
docs/images/benchmarks.png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import contenders, report
from benchmarks.contenders import Pixels
from benchmarks.report import FLOOR, OURS, OURS_FLOAT32
from benchmarks.worker import Factory, Worker
from srgan_infer import weights

ROOT = Path(__file__).parent.parent
PARTS = ("192", "512", "1mp", "pixels", "avx2", "files", "memory", "gpu")
PLAIN = "PyTorch as trained"
LOOP, WHOLE = "tile loop, pad 10", "srgan-infer, whole image"

Part = dict[str, Any]


def image(height: int, width: int) -> Pixels:
    """The sample image, mirrored as often as it takes and cut to size."""
    sample = np.asarray(Image.open(ROOT / "docs/images/sample.png").convert("RGB"))
    down, across = (
        -(-side // have) for side, have in zip((height, width), sample.shape, strict=False)
    )
    row = np.concatenate([sample[:, :: -1 if step % 2 else 1] for step in range(across)], 1)
    whole = np.concatenate([row[:: -1 if step % 2 else 1] for step in range(down)], 0)
    return np.ascontiguousarray(whole[:height, :width])


def note(text: str) -> None:
    """Say how far it is."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def alternate(timed: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, one after the other in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for step in range(rounds):
        for name, run in timed.items():
            seconds[name].append(run())
        note(f"  round {step + 1}: " + ", ".join(f"{n} {s[-1]:.3f}" for n, s in seconds.items()))
    return seconds


def timer(worker: Worker, pixels: Pixels) -> Callable[[], float]:
    """A function that runs once and gives the seconds it took."""
    return lambda: worker(pixels)[0]


def compare(model: str, factories: dict[str, Factory], pixels: Pixels, rounds: int) -> Part:
    """Check the contenders' results against the first one's, then time them."""
    workers = {name: Worker(model, factory) for name, factory in factories.items()}
    workers[FLOOR] = Worker(model, contenders.floor)
    same, expected = {}, None
    for name, worker in workers.items():
        result = worker(pixels)[1]
        if result is not None:
            expected = result if expected is None else expected
            worst, part = contenders.levels(result, expected)
            rms = contenders.rms(result, expected)
            same[name] = {"levels": worst, "identical": part, "rms": rms}
            note(f"  {name}: at most {worst} levels off, {part:.3%} identical")
    seconds = alternate({name: timer(worker, pixels) for name, worker in workers.items()}, rounds)
    for worker in workers.values():
        worker.pipe.close()
        worker.process.join()
    height, width = pixels.shape[:2]
    gflop = contenders.flop(weights.load(model).config) * height * width / 1e9
    return {"height": height, "width": width, "gflop": gflop, "seconds": seconds, "same": same}


def square(model: str, side: int, rounds: int, folder: Path) -> Part:
    """All contenders on one square image."""
    threads, size = torch.get_num_threads(), (side, side)
    generator = weights.build(weights.load(model))
    contenders.exported(generator, folder)
    openvino = partial(contenders.openvino, folder=folder, size=size)
    factories: dict[str, Factory] = {
        PLAIN: contenders.plain,
        "ONNX Runtime": partial(contenders.onnx_runtime, folder=folder),
        "OpenVINO, float32": partial(openvino, precision="f32"),
        "OpenVINO, its default": partial(openvino, precision=None),
        "ncnn": partial(contenders.ncnn, folder=folder, threads=threads),
        LOOP: partial(contenders.tile_loop, tile=128 if side < 256 else 256),
        OURS: contenders.ours,
        OURS_FLOAT32: partial(contenders.ours, dtype="float32"),
    }
    return compare(model, factories, image(side, side), rounds)


def megapixel(model: str, rounds: int) -> Part:
    """Bands against the whole image and against the tile loop."""
    factories: dict[str, Factory] = {
        WHOLE: partial(contenders.ours, tile="whole"),
        OURS: contenders.ours,
        LOOP: contenders.tile_loop,
    }
    part = compare(model, factories, image(1024, 1024), rounds)
    part["left_out"] = (
        "At 1 Mpixel and above, plain PyTorch, ONNX Runtime, OpenVINO and ncnn are left out: their"
        " time goes with the pixels, and on the whole image they need many gigabytes."
    )
    return part


def pixels_part(model: str, rounds: int) -> Part:
    """The time for a pixel as images grow."""
    worker = Worker(model, contenders.streamed)
    sides = (512, 1024, 2048)
    worker(image(256, 256))
    timed = {f"{side}x{side}": timer(worker, image(side, side)) for side in sides}
    return {"sides": sides, "seconds": alternate(timed, rounds)}


def with_avx2(model: str, rounds: int) -> Part:
    """Plain PyTorch and the library on a processor without AVX-512."""
    factories: dict[str, Factory] = {PLAIN: contenders.plain, OURS: contenders.ours}
    # The instructions are chosen when a process loads the library.
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    try:
        return compare(model, factories, image(192, 192), rounds)
    finally:
        del os.environ["ONEDNN_MAX_CPU_ISA"]


SCRIPT = """
import sys, numpy, torch
from PIL import Image
network = torch.load(sys.argv[1], weights_only=False)
pixels = numpy.asarray(Image.open(sys.argv[2]).convert("RGB"))
with torch.inference_mode():
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    out = network(x)[0].clamp(0, 1).mul(255).round().to(torch.uint8)
Image.fromarray(out.permute(1, 2, 0).numpy()).save(sys.argv[3])
"""


def upscale(model: str, source: Path, target: Path) -> list[str]:
    """The command line that upscales one file."""
    program = "import sys; from srgan_infer.cli.main import main; sys.exit(main())"
    options = ["--model", model, "--device", "cpu", "--overwrite", "--quiet"]
    return [sys.executable, "-c", program, *options, str(source), "-o", str(target)]


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident MiB of a command, start of the process included."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} failed")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return time.perf_counter() - start, usage.ru_maxrss / unit


def stopwatch(command: list[str]) -> Callable[[], float]:
    """A function that runs a command and gives the seconds it took."""
    return lambda: measured(command)[0]


def files(model: str, rounds: int, folder: Path) -> Part:
    """From a JPEG file to a PNG file, start of the process included."""
    (folder / "script.py").write_text(SCRIPT)
    torch.save(contenders.as_trained(weights.build(weights.load(model))), folder / "network.pth")
    timed = {}
    for side in (64, 512):
        source = folder / f"{side}.jpg"
        Image.fromarray(image(side, side)).save(source, quality=92)
        script = [str(folder / name) for name in ("script.py", "network.pth")]
        commands = {
            "a script around plain PyTorch": [
                sys.executable,
                *script,
                str(source),
                str(folder / "a.png"),
            ],
            "srgan-upscale": upscale(model, source, folder / "b.png"),
        }
        for name, command in commands.items():
            timed[f"{name}, {side}x{side}"] = stopwatch(command)
    timed["python -c 'import torch'"] = stopwatch([sys.executable, "-c", "import torch"])
    return {"seconds": alternate(timed, rounds)}


def memory(model: str, folder: Path) -> Part:
    """Peak resident memory from file to file."""
    peaks = {}
    for width, height in ((2000, 500), (2000, 8000)):
        source = folder / f"{width}x{height}.jpg"
        Image.fromarray(image(height, width)).save(source, quality=92)
        seconds, peak = measured(upscale(model, source, folder / "big.png"))
        peaks[f"{width}x{height}"] = {"mebibytes": peak, "seconds": seconds}
        note(f"  {width}x{height}: {peak:.0f} MiB, {seconds:.0f} s")
    return {"peaks": peaks}


def gpu(model: str, rounds: int) -> Part:
    """The contenders on a GPU, where there is one."""
    if not torch.cuda.is_available():
        return {"not_measured": "no CUDA GPU"}
    result: Part = {"device": torch.cuda.get_device_name()}
    for side in (512, 1024):
        factories: dict[str, Factory] = {
            PLAIN: partial(contenders.plain, device="cuda"),
            "PyTorch as trained, float16": partial(
                contenders.plain, device="cuda", dtype=torch.float16
            ),
            "torch.compile, float16": partial(
                contenders.compiled, device="cuda", dtype=torch.float16
            ),
            LOOP: partial(contenders.tile_loop, device="cuda"),
            OURS: partial(contenders.ours, device="cuda"),
            "srgan-infer, float32": partial(contenders.ours, device="cuda", dtype="float32"),
        }
        result[str(side)] = compare(model, factories, image(side, side), rounds)
    return result


def machine() -> dict[str, Any]:
    """What was measured on, and with which versions."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in ("torch", "onnxruntime", "openvino", "ncnn"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    names = (
        [
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        if Path("/proc/cpuinfo").exists()
        else []
    )
    return {
        "processor": names[0] if names else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        **versions,
    }


def main() -> None:
    """Measure the parts asked for, and write the report over all parts measured so far."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.split("\n")[0] if __doc__ else None
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        metavar="PART",
        help=f"of {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="at least 5 for a report (default: %(default)s)"
    )
    parser.add_argument(
        "--model", default="srresnet", help="the model whose network is run (default: %(default)s)"
    )
    parser.add_argument(
        "--work", type=Path, help="folder that keeps the exported networks for the next run"
    )
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the report goes")
    options = parser.parse_args()
    store = options.docs / "benchmarks.json"
    results: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {"parts": {}}
    model, rounds = options.model, options.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = options.work or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        run: dict[str, Callable[[], Part]] = {
            "192": lambda: square(model, 192, rounds, folder),
            "512": lambda: square(model, 512, rounds, folder),
            "1mp": lambda: megapixel(model, rounds),
            "pixels": lambda: pixels_part(model, rounds),
            "avx2": lambda: with_avx2(model, rounds),
            "files": lambda: files(model, rounds, folder),
            "memory": lambda: memory(model, folder),
            "gpu": lambda: gpu(model, rounds),
        }
        for part in options.only:
            note(f"{part}:")
            results["parts"][part] = run[part]()
            results["machine"] = machine()
            store.write_text(json.dumps(results, indent=1) + "\n")
    (options.docs / "images").mkdir(exist_ok=True)
    report.write(results, options.docs)


if __name__ == "__main__":
    main()
