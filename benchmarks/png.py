"""How fast and how small the PNG writer is beside Pillow, in alternating runs.

    python benchmarks/png.py --size 16000 12000 --threads 2 --images folder/*.jpg

The content is what a ×4 network makes: the images (or, without any, a
synthetic texture) laid side by side at a quarter of the size and upscaled,
by bicubic interpolation or by a model (``--model srgan``). Every result is
read back and compared bit for bit. Prints a table; ``--json`` writes it.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from srgan_infer.images.metadata import Metadata
from srgan_infer.images.png import PngWriter
from srgan_infer.threads import processors

Array = npt.NDArray[Any]
SCALE = 4
BAND = 64


def texture(width: int, height: int) -> Image.Image:
    """An RGB texture with the spectrum of photographs (1/f)."""
    random = np.random.default_rng(0)
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    envelope = 1 / np.maximum(np.hypot(x, y), 1 / max(width, height))
    planes = []
    base = np.fft.rfft2(random.normal(size=(height, width))) * envelope
    for _ in range(3):
        own = np.fft.rfft2(random.normal(size=(height, width))) * envelope
        plane = np.fft.irfft2(base + 0.3 * own, (height, width))
        planes.append(np.clip(128 + 50 * plane / plane.std(), 0, 255))
    return Image.fromarray(np.dstack(planes).astype(np.uint8))


def mosaic(images: list[Path], width: int, height: int) -> Image.Image:
    """The images side by side, again and again, on width×height."""
    result = Image.new("RGB", (width, height))
    x = y = tallest = index = 0
    while y < height:
        with Image.open(images[index % len(images)]) as image:
            result.paste(image.convert("RGB"), (x, y))
            x, tallest = x + image.width, max(tallest, image.height)
        if x >= width:
            x, y, tallest = 0, y + tallest, 0
        index += 1
    return result


def upscale(small: Image.Image, model: str | None) -> Array:
    """The (H, W, 3) image that is encoded."""
    if model is None:
        size = (SCALE * small.width, SCALE * small.height)
        return np.asarray(small.resize(size, Image.Resampling.BICUBIC))
    from srgan_infer import SuperResolver

    return np.asarray(SuperResolver.from_pretrained(model)(small))


def with_pillow(pixels: Array, threads: int) -> bytes:
    """As ``Image.save`` writes it by default; one thread."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def with_writer(pixels: Array, threads: int) -> bytes:
    """As it is streamed here, band by band."""
    file = io.BytesIO()
    height, width, channels = pixels.shape
    writer = PngWriter(file, (width, height), channels, pixels.dtype, Metadata(), threads=threads)
    for top in range(0, height, BAND):
        writer.write(pixels[top : top + BAND])
    writer.finish()
    writer.close()
    return file.getvalue()


def same_pixels(data: bytes, pixels: Array) -> bool:
    """Whether Pillow reads the image back exactly."""
    image = Image.open(io.BytesIO(data))
    image.load()
    bands = range(0, image.height, BAND)
    return all(
        np.array_equal(
            np.asarray(image.crop((0, top, image.width, min(top + BAND, image.height)))),
            pixels[top : top + BAND],
        )
        for top in bands
    )


def measure(pixels: Array, threads: int, runs: int) -> dict[str, Any]:
    """Seconds of both, in turn, and their sizes."""
    seconds: dict[str, list[float]] = {"pillow": [], "writer": []}
    sizes: dict[str, int] = {}
    for _ in range(runs):
        for name, encode in (("pillow", with_pillow), ("writer", with_writer)):
            start = time.perf_counter()
            data = encode(pixels, threads)
            seconds[name].append(time.perf_counter() - start)
            sizes[name] = len(data)
    if not same_pixels(data, pixels):
        raise SystemExit("The image was not read back exactly.")
    ratios = [a / b for a, b in zip(seconds["pillow"], seconds["writer"], strict=True)]
    return {
        "megapixels": pixels.shape[0] * pixels.shape[1] / 1e6,
        "threads": threads,
        "runs": runs,
        "seconds": seconds,
        "bytes": sizes,
        "speed_ratio": statistics.median(ratios),
        "speed_ratio_range": [min(ratios), max(ratios)],
        "size_ratio": sizes["writer"] / sizes["pillow"],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="PNG encoding: srgan-infer against Pillow.")
    parser.add_argument("--size", type=int, nargs=2, default=(16000, 12000), metavar=("W", "H"))
    parser.add_argument("--threads", type=int, default=processors())
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=Path, nargs="*", default=[])
    parser.add_argument("--model", help="upscale with this model instead of bicubic interpolation")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None
    width, height = (edge // SCALE for edge in options.size)
    small = mosaic(options.images, width, height) if options.images else texture(width, height)
    result = measure(upscale(small, options.model), options.threads, options.runs)
    low, high = result["speed_ratio_range"]
    print(  # noqa: T201
        f"{result['megapixels']:.0f} Mpixel, {options.threads} threads, {options.runs} runs: "
        f"{result['speed_ratio']:.2f} times Pillow's speed ({low:.2f} to {high:.2f}), "
        f"{result['size_ratio']:.3f} of its size "
        f"(medians {statistics.median(result['seconds']['pillow']):.1f} s and "
        f"{statistics.median(result['seconds']['writer']):.1f} s)"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
