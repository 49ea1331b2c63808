"""What decoding and encoding beside the network is worth to a folder of images.

    python -m benchmarks.pipeline                     # both parts
    python -m benchmarks.pipeline --only small --images 200 --side 64 --device cuda

Parts: ``small`` is a folder of small images with a bundled model, the command's time over that
of the network alone; ``formats`` is larger images with a tiny network, so that encoding is
what takes time, the command's time under that of one file after the other. Rounds alternate,
and medians of the ratios within a round are printed. Each measures in one process, so
that the start of the program does not count.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.png import texture
from srgan_infer import SuperResolver, weights
from srgan_infer.cli.main import main as command
from srgan_infer.images.read import open_file
from srgan_infer.network.generator import Generator, GeneratorConfig


def say(text: str) -> None:
    """One line of the result."""
    print(text, flush=True)  # noqa: T201


def tiny_model(folder: Path) -> Path:
    """A network that takes next to no time."""
    config = GeneratorConfig(
        channels=1, blocks=1, stem_kernel=1, body_kernel=1, output_kernel=1, input_skip="nearest"
    )
    torch.manual_seed(0)
    weights.save(folder, config, Generator(config).state_dict(), "---\nlicense: mit\n---\n")
    return folder


def make_images(folder: Path, count: int, side: int, suffix: str) -> list[Path]:
    """Crops of one texture."""
    folder.mkdir()
    whole = texture(side + 256, side + 256)
    paths = []
    for number in range(count):
        left, top = 7 * number % 256, 3 * number % 256
        paths.append(folder / f"{number:04d}.{suffix}")
        whole.crop((left, top, left + side, top + side)).save(paths[-1])
    return paths


def clocked(run: Callable[[], object]) -> float:
    """Seconds that a function takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def by_command(model: str | Path, device: str, source: Path, target: Path, suffix: str) -> None:
    """The folder as the command does it."""
    options = ["--model", str(model), "--device", device, "--format", suffix, "--overwrite", "-q"]
    if command([str(source), "-o", str(target), *options]):
        raise SystemExit("the command failed")


def one_by_one(sr: SuperResolver, sources: Sequence[Path], target: Path, suffix: str) -> None:
    """The same files, each begun when the last one is written."""
    target.mkdir(exist_ok=True)
    for source in sources:
        sr.upscale_file(source, target / f"{source.stem}.{suffix}")


def network_alone(sr: SuperResolver, images: Sequence[np.ndarray]) -> None:
    """What the network takes for the images, decoded beforehand and not encoded."""
    for image in images:
        sr(image)


def compare(name: str, slow: Callable[[], object], fast: Callable[[], object], rounds: int) -> None:
    """Alternate two runs, and tell the first one's time over the second's."""
    slow(), fast()  # warm up
    pairs = [(clocked(slow), clocked(fast)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    say(
        f"{name}: {first:.2f} s over {second:.2f} s, ratio {statistics.median(ratios):.3f}"
        f" ({ratios[0]:.3f} to {ratios[-1]:.3f})"
    )


def small(folder: Path, model: str, device: str, count: int, side: int, rounds: int) -> None:
    """The command on small images against its network alone."""
    sources = make_images(folder / "small", count, side, "png")
    sr = SuperResolver.from_pretrained(model, device=device)
    images = [next(open_file(path).frames()).color[0:side] for path in sources]
    say(f"{count} images of {side}×{side}, PNG to PNG, {model} on {sr.device}")
    compare(
        "  the command over its network alone",
        partial(by_command, model, device, folder / "small", folder / "small-out", "png"),
        partial(network_alone, sr, images),
        rounds,
    )


def formats(
    folder: Path, device: str, suffixes: Sequence[str], count: int, side: int, rounds: int
) -> None:
    """The command against one file after the other, where the encoder is what takes time."""
    sources = make_images(folder / "large", count, side, "jpg")
    model = tiny_model(folder / "model")
    sr = SuperResolver.from_pretrained(model, device=device)
    say(f"{count} images of {side}×{side}, tiny network on {sr.device}, from JPEG")
    for suffix in suffixes:
        compare(
            f"  to {suffix}, one file after the other over the command",
            partial(one_by_one, sr, sources, folder / "alone", suffix),
            partial(by_command, model, device, folder / "large", folder / "large-out", suffix),
            rounds,
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="What the command's pipeline is worth.")
    parser.add_argument("--only", nargs="+", choices=("small", "formats"))
    parser.add_argument("--model", default="srgan", help="of the small images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=200, help="small ones")
    parser.add_argument("--side", type=int, default=64, help="of the small ones")
    parser.add_argument("--large-images", type=int, default=12)
    parser.add_argument("--large-side", type=int, default=384)
    parser.add_argument("--formats", nargs="+", default=["webp", "png", "tif", "jpg"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--threads",
        type=int,
        help="of the network; fewer than there are leave processors as a GPU does",
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    parts = options.only or ("small", "formats")
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        if "small" in parts:
            small(
                Path(name),
                options.model,
                options.device,
                options.images,
                options.side,
                options.rounds,
            )
        if "formats" in parts:
            formats(
                Path(name),
                options.device,
                options.formats,
                options.large_images,
                options.large_side,
                options.rounds,
            )


if __name__ == "__main__":
    main()
