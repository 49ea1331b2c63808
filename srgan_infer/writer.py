"""Pictures into files: which format holds what, and a file that is whole or not there."""

from __future__ import annotations

import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from .errors import PictureError
from .metadata import EXIF_PREFIX, Metadata
from .png import PngWriter
from .tiff import TiffWriter

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
    alpha, animated, deep
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
    deep: bool = False
    quality: int | None = None
    feature: str | None = None


FORMATS = (
    Format("PNG", (".png", ".apng"), 2**31 - 1, animated=True, deep=True),
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), 65500, alpha=False, quality=95),
    Format("WEBP", (".webp",), 16383, animated=True, quality=95, feature="webp"),
    Format("TIFF", (".tif", ".tiff"), 2**31 - 1, deep=True),
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
    PictureError
        If it is unknown, or this Pillow cannot write it; the sentence lists
        what there is.
    """
    if format is None and not isinstance(file, (str, os.PathLike)):
        raise PictureError(f"name the format of the output: {_possible()}.")
    wanted = format.lower().removeprefix(".") if format else Path(str(file)).suffix.lower()[1:]
    for kind in FORMATS:
        if wanted == kind.name.lower() or f".{wanted}" in kind.suffixes:
            if kind.feature and not features.check(kind.feature):
                raise PictureError(f"this Pillow is built without {kind.name}; choose {LARGE}.")
            return kind
    what = f"{wanted!r} is no format" if wanted else f"{file} has no suffix"
    raise PictureError(f"{what} that can be written; choose one of {_possible()}.")


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
    """Say, before anything is computed, whether a picture fits its file.

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
    PictureError
        If the format is unknown or cannot hold the picture at all.
    """
    kind = choose_format(file, format)
    width, height = size
    if quality is not None and not 1 <= quality <= 100:
        raise PictureError(f"quality must be between 1 and 100, not {quality}.")
    if max(size) > kind.edge or width * height > kind.pixels:
        limit = f"{kind.edge} pixels a side" if max(size) > kind.edge else f"{kind.pixels} pixels"
        raise PictureError(
            f"{kind.name} holds at most {limit}, not {width}×{height}; choose {LARGE}."
        )
    if n_frames > 1 and not kind.animated:
        raise PictureError(
            f"{kind.name} holds one picture, not an animation of {n_frames}; choose {_animated()}."
        )
    warnings = []
    if channels in (2, 4) and not kind.alpha:
        warnings.append(f"{kind.name} has no transparency: the picture is put on white.")
    if np.dtype(dtype) != np.uint8 and (not kind.deep or n_frames > 1):
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


class Writer:
    """Rows into one file, top to bottom, frame after frame.

    Attributes
    ----------
    warnings
        Sentences on what the format does not keep.
    """

    def __init__(
        self,
        sink: Sink,
        size: tuple[int, int],
        channels: int,
        kept: int,
        dtype: np.dtype[Any],
        name: str,
        warnings: tuple[str, ...],
    ) -> None:
        self.warnings = warnings
        self.rows = 0
        self._sink = sink
        self._width = size[0]
        self._channels = channels
        self._kept = kept
        self._dtype = dtype
        self._name = name

    def write(self, rows: Array) -> None:
        """Take the next rows; after H of them the next frame begins.

        Parameters
        ----------
        rows
            (h, W, channels) of the dtype that was announced.

        Raises
        ------
        PictureError
            If they cannot be written, such as to a full disk.
        """
        if rows.ndim != 3 or rows.shape[1:] != (self._width, self._channels):
            raise ValueError(
                f"rows must be (h, {self._width}, {self._channels}), not {rows.shape}."
            )
        if self._kept < self._channels:
            rows = _on_white(rows)
        elif self._kept > self._channels:
            rows = rows[..., [0, 0, 0, 1]]
        with _writing(self._name):
            self._sink.write(_as_dtype(rows, self._dtype))
        self.rows += rows.shape[0]


@contextmanager
def create(
    file: str | Path | BinaryIO,
    *,
    format: str | None = None,
    size: tuple[int, int],
    channels: int,
    dtype: npt.DTypeLike = np.uint8,
    metadata: Metadata | None = None,
    n_frames: int = 1,
    quality: int | None = None,
) -> Iterator[Writer]:
    """Write a picture, whole or not at all.

    The rows go into a temporary file beside the target, which replaces the
    target when the ``with`` block ends. If the block is left by an exception,
    the temporary file is removed and the old file stays.

    Parameters
    ----------
    file
        A path (a symbolic link is followed) or a binary file object, which
        need not seek.
    format
        Name or suffix of a format; by default the path's suffix decides.
    size
        (W, H) of the picture.
    channels
        1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    dtype
        uint8, uint16 or float32 (in [0, 1]) of the rows.
    metadata
        What is carried over; sizes in it are set to ``size``.
    n_frames
        Frames of an animation.
    quality
        1 to 100 for JPEG (default 95), WebP (95; 100 is lossless) and AVIF
        (90); other formats are lossless and have none.

    Raises
    ------
    PictureError
        If the format is unknown, cannot hold the picture, or the file cannot
        be written.
    """
    warnings = check_output(
        file,
        format=format,
        size=size,
        channels=channels,
        dtype=dtype,
        n_frames=n_frames,
        quality=quality,
    )
    kind = choose_format(file, format)
    metadata = (metadata or Metadata()).resized(size)
    depth = _depth(kind, np.dtype(dtype), n_frames)
    kept = channels if kind.alpha else (channels + 1) // 2 * 2 - 1
    if kind.name == "TIFF" and kept == 2 and depth != np.uint8:
        kept = 4  # few programs read grey and alpha of more than 8 bits, and not Pillow
    name = str(file) if isinstance(file, (str, os.PathLike)) else "The output"
    with _target(file) as stream:
        sink: Sink
        if kind.name == "PNG" and n_frames == 1:
            sink = PngWriter(stream, size, kept, depth, metadata)
        elif kind.name == "TIFF":
            sink = TiffWriter(stream, size, kept, depth, metadata)
        else:
            sink = PillowSink(stream, kind, size, kept, metadata, n_frames, quality)
        try:
            writer = Writer(sink, size, channels, kept, depth, name, warnings)
            yield writer
            if writer.rows != size[1] * n_frames:
                raise ValueError(f"{writer.rows} of {size[1] * n_frames} rows were written.")
            with _writing(name):
                sink.finish()
        finally:
            sink.close()


def _depth(kind: Format, dtype: np.dtype[Any], n_frames: int) -> np.dtype[Any]:
    if not kind.deep or n_frames > 1:
        return np.dtype(np.uint8)
    return np.dtype(np.uint16) if dtype == np.float32 and kind.name != "TIFF" else dtype


def _as_dtype(rows: Array, dtype: np.dtype[Any]) -> Array:
    """Between uint8, uint16 and float32 in [0, 1]; rounded."""
    if rows.dtype == np.uint16 and dtype == np.uint8:
        rows = ((rows.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif rows.dtype == np.float32 and dtype != np.float32:
        rows = np.rint(np.clip(rows, 0, 1) * np.iinfo(dtype).max).astype(dtype)
    if rows.dtype == dtype:
        return rows
    raise ValueError(f"rows are {rows.dtype}, which does not fit {dtype}.")


def _on_white(rows: Array) -> Array:
    """Composite (h, W, 2 | 4) rows over white."""
    top = 1.0 if rows.dtype == np.float32 else float(np.iinfo(rows.dtype).max)
    alpha = rows[..., -1:].astype(np.float32) / np.float32(top)
    color = rows[..., :-1] * alpha + np.float32(top) * (1 - alpha)
    if rows.dtype != np.float32:
        color = np.rint(color)
    result: Array = color.astype(rows.dtype)
    return result


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


@contextmanager
def _target(file: str | Path | BinaryIO) -> Iterator[BinaryIO]:
    """A stream into a temporary file that replaces ``file`` if all goes well."""
    if not isinstance(file, (str, os.PathLike)):
        yield file
        return
    target = Path(os.path.realpath(file))
    if target.exists() and not target.is_file():  # a pipe or a device
        with _writing(str(file)), target.open("wb") as device:
            yield device
        return
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    # Created as any new file is, so that the umask decides who may read it.
    with _writing(str(file)):
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | _BINARY, 0o666)
    try:
        stream = os.fdopen(descriptor, "w+b")
        try:
            yield stream
            with _writing(str(file)):
                stream.flush()
                os.fsync(stream.fileno())
        finally:
            with _writing(str(file)):  # closing flushes, and may fail once more
                stream.close()
        with _writing(str(file)):
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


_BINARY = getattr(os, "O_BINARY", 0)


@contextmanager
def _writing(name: str) -> Iterator[None]:
    """Name the file when the system refuses to write it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise PictureError(f"{name} cannot be written: {reason}.") from error
