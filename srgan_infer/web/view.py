"""What is looked at in the browser: before and after, overviews, details."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from srgan_infer.images.read import SourceImage, open_file
from srgan_infer.images.rows import DecodedImage
from srgan_infer.resolver import SuperResolver

Array = npt.NDArray[Any]

# Larger results are looked at in part: a browser holds four bytes a pixel, twice.
WHOLE_PIXELS = 12_000_000
OVERVIEW_EDGE = 1200
DETAIL_EDGE = 1024
# More input pixels than the network looks around a pixel, so that the edge of what
# is computed for a detail does not show in it.
MARGIN = 64
BROWSER_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF")


@dataclass(frozen=True)
class Pair:
    """Two files of the same size that a browser shows one over the other.

    Parameters
    ----------
    before, after
        Bicubic interpolation, and the result.
    size
        (W, H) of both.
    transparent, animated
        Whether they are.
    """

    before: Path
    after: Path
    size: tuple[int, int]
    transparent: bool
    animated: bool = False


def is_whole(size: tuple[int, int]) -> bool:
    """Whether a result of this size is looked at as it is."""
    return size[0] * size[1] <= WHOLE_PIXELS


def pair(source: Path, target: Path, folder: Path) -> Pair:
    """A result beside the bicubic interpolation of its source.

    Parameters
    ----------
    source, target
        The files before and after.
    folder
        Where files for the browser go.
    """
    file, done = open_file(source), open_file(target)
    after = target
    if done.format not in BROWSER_FORMATS:
        after = _save(_image(next(done.frames())), done, folder)
    frames = (_resized(_image(frame), done.size) for frame in file.frames())
    animated = file.n_frames > 1 and done.n_frames > 1
    if animated:
        before = _save_animation(frames, file, folder)
    else:
        before = _save(next(frames), file, folder)
    return Pair(before, after, done.size, file.channels in (2, 4), animated)


def overview(source: Path, folder: Path) -> Path:
    """A reduced view of an image."""
    file = open_file(source)
    image = _image(next(file.frames()))
    image.thumbnail((OVERVIEW_EDGE, OVERVIEW_EDGE), Image.Resampling.LANCZOS)
    return _save(image, file, folder)


def detail(
    resolver: SuperResolver,
    source: Path,
    size: tuple[int, int],
    center: tuple[float, float],
    folder: Path,
) -> Pair:
    """Part of a result at its own size, computed anew.

    A large result is not read again: a file has to be decoded whole for any part of
    it, and the network gives the same pixels for a part as for the whole.

    Parameters
    ----------
    resolver
        The model.
    source
        The image.
    size
        (W, H) of the whole result.
    center
        Of the part, each in [0, 1] from the left and the top.
    folder
        Where files for the browser go.
    """
    file = open_file(source)
    factor = size[0] / file.size[0]
    spans = [
        _span(edge, at, round(DETAIL_EDGE / factor))
        for edge, at in zip(file.size, center, strict=True)
    ]
    (left, right), (top, bottom) = spans
    outer = (max(0, left - MARGIN), max(0, top - MARGIN))
    pixels = _pixels(next(file.frames()), slice(outer[1], bottom + MARGIN))
    pixels = pixels[:, outer[0] : right + MARGIN]
    whole = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
    after = _as_image(resolver(np.ascontiguousarray(pixels), size=whole))
    before = _resized(_as_image(pixels), after.size)
    inner = (
        round((left - outer[0]) * factor),
        round((top - outer[1]) * factor),
        min(round((right - outer[0]) * factor), after.width),
        min(round((bottom - outer[1]) * factor), after.height),
    )
    before, after = before.crop(inner), after.crop(inner)
    return Pair(
        _save(before, file, folder),
        _save(after, file, folder),
        after.size,
        file.channels in (2, 4),
    )


def _span(edge: int, at: float, wanted: int) -> tuple[int, int]:
    """Pixels from and to, around a place but within the image."""
    wanted = max(1, min(wanted, edge))
    start = min(max(0, round(at * edge - wanted / 2)), edge - wanted)
    return start, start + wanted


def _pixels(frame: DecodedImage, rows: slice) -> Array:
    """(h, W, 1 to 4) of some rows, alpha last."""
    color = frame.color[rows]
    if frame.alpha is None:
        return color
    return np.concatenate([color, frame.alpha[rows][..., None]], axis=2)


def _image(frame: DecodedImage) -> Image.Image:
    """8 bits for the screen."""
    return _as_image(_pixels(frame, slice(0, frame.color.shape[0])))


def _as_image(pixels: Array) -> Image.Image:
    if pixels.dtype == np.uint16:
        pixels = np.round(pixels / 257).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        pixels = np.round(pixels * 255).astype(np.uint8)
    if pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BICUBIC)


def _save(image: Image.Image, file: SourceImage, folder: Path) -> Path:
    """A file that a browser shows, in the colours of ``file``."""
    transparent = image.mode in ("LA", "RGBA")
    path = folder / f"{secrets.token_hex(16)}{'.png' if transparent else '.jpg'}"
    profile = file.metadata.icc or None
    if transparent:
        image.save(path, compress_level=1, icc_profile=profile)
    else:
        image.save(path, quality=95, subsampling=0, icc_profile=profile)
    return path


def _save_animation(frames: Iterator[Image.Image], file: SourceImage, folder: Path) -> Path:
    path = folder / f"{secrets.token_hex(16)}.webp"
    next(frames).save(
        path,
        save_all=True,
        append_images=frames,
        duration=[round(value) for value in file.metadata.durations],
        loop=1 if file.metadata.loop is None else file.metadata.loop,
        quality=90,
        method=0,
    )
    return path
