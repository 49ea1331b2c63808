"""The formats that can be written: what each holds, how it is told, and who encodes it."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from srgan_infer.errors import ImageError
from srgan_infer.images.metadata import EXIF_PREFIX, Metadata

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Format:
    """What a file format can hold.

    Parameters
    ----------
    name
        Pillow's name.
    suffixes
        File name endings, the usual one first.
    edge
        Largest width or height in pixels.
    pixels
        Largest number of pixels.
    alpha, animated, sixteen_bit
        Whether it has transparency, several frames, 16 bits a channel.
    quality
        The default quality, 1 to 100; None where there is none to choose.
    feature
        The optional part of Pillow that it needs.
    """

    name: str
    suffixes: tuple[str, ...]
    edge: int
    pixels: int = 2**62
    alpha: bool = True
    animated: bool = False
    sixteen_bit: bool = False
    quality: int | None = None
    feature: str | None = None


FORMATS = (
    Format("PNG", (".png", ".apng"), 2**31 - 1, animated=True, sixteen_bit=True),
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), 65500, alpha=False, quality=95),
    Format("WEBP", (".webp",), 16383, animated=True, quality=95, feature="webp"),
    Format("TIFF", (".tif", ".tiff"), 2**31 - 1, sixteen_bit=True),
    Format("AVIF", (".avif",), 32768, 16384**2, animated=True, quality=90, feature="avif"),
    Format("BMP", (".bmp",), 2**31 - 1, 2**32 // 4 - 64, alpha=False),
    Format("GIF", (".gif",), 65535, animated=True),
    Format("JPEG2000", (".jp2", ".j2k", ".jpx"), 2**31 - 1, feature="jpg_2000"),
    Format("PPM", (".ppm", ".pgm", ".pnm"), 2**31 - 1, alpha=False),
    Format("TGA", (".tga",), 65535),
)
LARGE = "PNG or TIFF"


def choose_format(file: str | Path | BinaryIO, format: str | None) -> Format:
    """Find the format by its name, or by the suffix of a path.

    Raises
    ------
    ImageError
        If it is unknown, or this Pillow cannot write it; the sentence lists
        what there is.
    """
    if format is None and not isinstance(file, (str, os.PathLike)):
        raise ImageError(f"name the format of the output: {_possible()}.")
    wanted = format.lower().removeprefix(".") if format else Path(str(file)).suffix.lower()[1:]
    for kind in FORMATS:
        if wanted == kind.name.lower() or f".{wanted}" in kind.suffixes:
            if kind.feature and not features.check(kind.feature):
                raise ImageError(f"this Pillow is built without {kind.name}; choose {LARGE}.")
            return kind
    what = f"{wanted!r} is no format" if wanted else f"{file} has no suffix"
    raise ImageError(f"{what} that can be written; choose one of {_possible()}.")


def _possible() -> str:
    return ", ".join(
        kind.suffixes[0][1:] for kind in FORMATS if not kind.feature or features.check(kind.feature)
    )


def check_output(
    file: str | Path | BinaryIO,
    *,
    format: str | None = None,
    size: tuple[int, int],
    channels: int,
    dtype: npt.DTypeLike = np.uint8,
    n_frames: int = 1,
    quality: int | None = None,
) -> tuple[str, ...]:
    """Say, before anything is computed, whether an image fits its file.

    Parameters
    ----------
    file, format, size, channels, dtype, n_frames, quality
        As for :func:`create`.

    Returns
    -------
    tuple of str
        Sentences on what the format will not keep.

    Raises
    ------
    ImageError
        If the format is unknown or cannot hold the image at all.
    """
    kind = choose_format(file, format)
    width, height = size
    if quality is not None and not 1 <= quality <= 100:
        raise ImageError(f"quality must be between 1 and 100, not {quality}.")
    if max(size) > kind.edge or width * height > kind.pixels:
        limit = f"{kind.edge} pixels a side" if max(size) > kind.edge else f"{kind.pixels} pixels"
        raise ImageError(
            f"{kind.name} holds at most {limit}, not {width}×{height}; choose {LARGE}."
        )
    if n_frames > 1 and not kind.animated:
        raise ImageError(
            f"{kind.name} holds one image, not an animation of {n_frames}; choose {_animated()}."
        )
    warnings = []
    if channels in (2, 4) and not kind.alpha:
        warnings.append(f"{kind.name} has no transparency: the image is put on white.")
    if np.dtype(dtype) != np.uint8 and (not kind.sixteen_bit or n_frames > 1):
        warnings.append(f"{kind.name} is written with 8 bits a channel: the finer steps are lost.")
    elif np.dtype(dtype) == np.float32 and kind.name != "TIFF":
        warnings.append(f"{kind.name} is written with 16 bits a channel, not as floating point.")
    return tuple(warnings)


def _animated() -> str:
    return ", ".join(kind.name for kind in FORMATS if kind.animated)


class Sink(Protocol):
    """Takes the rows of one file."""

    def write(self, rows: Array) -> None:
        """Take the next (h, W, channels) rows."""

    def finish(self) -> None:
        """Write what is left."""

    def close(self) -> None:
        """Let go of threads and memory, finished or not."""


class PillowSink:
    """Collects frames as Pillow images and has Pillow write them at the end."""

    def __init__(
        self,
        stream: BinaryIO,
        kind: Format,
        size: tuple[int, int],
        channels: int,
        metadata: Metadata,
        n_frames: int,
        quality: int | None,
    ) -> None:
        self._stream = stream
        self._kind = kind
        self._mode = ("L", "LA", "RGB", "RGBA")[channels - 1]
        self._size = size
        self._options = save_options(kind, metadata, n_frames, quality)
        self._frames: list[Image.Image] = []
        self._top = size[1]

    def write(self, rows: Array) -> None:
        """Paste the rows into the current frame; a new one begins when it is full."""
        while rows.shape[0]:
            if self._top == self._size[1]:
                self._frames.append(Image.new(self._mode, self._size))
                self._top = 0
            part = rows[: self._size[1] - self._top]
            pixels = part[..., 0] if part.shape[2] == 1 else part
            self._frames[-1].paste(Image.fromarray(np.ascontiguousarray(pixels)), (0, self._top))
            self._top += part.shape[0]
            rows = rows[part.shape[0] :]

    def finish(self) -> None:
        """Encode."""
        first, *others = self._frames
        if self._kind.name == "GIF" and "A" in self._mode:
            # A GIF pixel is there or not; Pillow would take the faintest for there.
            for frame in self._frames:
                frame.putalpha(frame.getchannel("A").point([0] * 128 + [255] * 128))
        if self._mode == "LA" and self._kind.name not in ("PNG", "JPEG2000", "TGA"):
            first, *others = (frame.convert("RGBA") for frame in self._frames)
        if others:
            self._options |= {"save_all": True, "append_images": others}
        if self._stream.seekable():
            first.save(self._stream, self._kind.name, **self._options)
        else:
            buffer = io.BytesIO()
            first.save(buffer, self._kind.name, **self._options)
            self._stream.write(buffer.getbuffer())

    def close(self) -> None:
        """Drop the frames."""
        self._frames = []


def save_options(
    kind: Format, metadata: Metadata, n_frames: int, quality: int | None
) -> dict[str, Any]:
    """What ``Image.save`` is told: quality, metadata, timing."""
    options: dict[str, Any] = {}
    if metadata.icc and kind.name in ("JPEG", "WEBP", "AVIF", "PNG"):
        options["icc_profile"] = metadata.icc
    if metadata.exif and kind.name in ("JPEG", "WEBP", "AVIF", "PNG"):
        options["exif"] = EXIF_PREFIX + metadata.exif
    if metadata.xmp and kind.name in ("JPEG", "WEBP", "AVIF"):
        options["xmp"] = metadata.xmp
    if metadata.dpi and kind.name in ("JPEG", "BMP", "PNG"):
        options["dpi"] = metadata.dpi
    if metadata.comment and kind.name in ("JPEG", "GIF", "JPEG2000"):
        options["comment"] = metadata.comment
    if kind.quality is not None:
        options["quality"] = kind.quality if quality is None else quality
    if kind.name == "JPEG":
        options |= {"subsampling": 0, "optimize": False}
    if kind.name == "WEBP" and quality == 100:
        options["lossless"] = True
    if kind.name == "AVIF":
        options["subsampling"] = "4:4:4"
    if n_frames > 1:
        durations = [round(value) for value in metadata.durations] or [100] * n_frames
        options["duration"] = durations
        loop = 1 if metadata.loop is None else metadata.loop
        if kind.name != "GIF" or metadata.loop is not None:
            options["loop"] = loop
        if kind.name == "GIF":
            options["disposal"] = 2
    return options
