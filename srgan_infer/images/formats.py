"""The formats that can be written: what each holds, how it is told, and who encodes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from srgan_infer.errors import ImageError
from srgan_infer.images import embed
from srgan_infer.images.animation import ApngSink, GifSink, SpooledSink
from srgan_infer.images.encoder_output import EncoderOutput
from srgan_infer.images.keeping import fit
from srgan_infer.images.kinds import PLUGINS, is_installed
from srgan_infer.images.metadata import Metadata
from srgan_infer.images.palette import indexed
from srgan_infer.images.png import PngWriter
from srgan_infer.images.tiff import TiffWriter, exceeds_classic

Array = npt.NDArray[Any]


class Sink(Protocol):
    """Takes the rows of one file."""

    def write(self, rows: Array) -> None:
        """Take the next (h, W, channels) rows."""

    def finish(self) -> None:
        """Write what is left."""

    def close(self) -> None:
        """Let go of threads and memory, finished or not."""


@runtime_checkable
class PagedSink(Sink, Protocol):
    """Takes the rows of one file, page after page."""

    def next_page(
        self, size: tuple[int, int], channels: int, dtype: np.dtype[Any], metadata: Metadata
    ) -> None:
        """Begin the next page."""


@dataclass(frozen=True)
class Content:
    """What goes into one file, in the form that its format holds; of several pages the first.

    Attributes
    ----------
    size
        (W, H) in pixels.
    channels
        1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    dtype
        uint8, uint16, or float32 in [0, 1].
    metadata
        What is carried over.
    n_frames
        More than 1 for an animation.
    quality
        1 to 100, or None for the format's own.
    n_pages
        More than 1 for several pages.
    most_bytes
        Of all pages, if nothing can be compressed; None where there is one.
    """

    size: tuple[int, int]
    channels: int
    dtype: np.dtype[Any]
    metadata: Metadata
    n_frames: int
    quality: int | None
    n_pages: int = 1
    most_bytes: int | None = None


Encoder = Callable[[BinaryIO, "Format", Content], Sink]


@dataclass(frozen=True)
class Format:
    """An output format: what it can hold, what it is told, and who encodes it.

    Parameters
    ----------
    name
        Pillow's name.
    suffixes
        File name endings, the usual one first.
    encode
        Makes the sink that takes the rows.
    edge
        Largest width or height in pixels.
    pixels
        Largest number of pixels.
    alpha, grey_alpha, animated, paged, sixteen_bit, float32
        Whether it has transparency, transparent grey, several frames, several pages, 16 bits
        a channel, floating point.
    mask
        Whether a pixel is either transparent or not.
    options
        What else Pillow's encoder is told.
    lossless
        What it is told at quality 100.
    quality
        The default quality, 1 to 100; None where there is none to choose.
    feature
        The optional part of Pillow that it needs.
    memory
        What a still takes while it is encoded, as a multiple of the image as Pillow holds
        it; 0 where it is encoded in strips. Measured on 3000×2000 RGB.
    density
        Bytes of the file for each byte of pixels that there will be at least: half of what
        an upscaled photograph takes, all where nothing is compressed.
    """

    name: str
    suffixes: tuple[str, ...]
    encode: Encoder
    edge: int = 2**31 - 1
    pixels: int = 2**62
    alpha: bool = True
    grey_alpha: bool = False
    animated: bool = False
    paged: bool = False
    sixteen_bit: bool = False
    float32: bool = False
    mask: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    lossless: Mapping[str, Any] = field(default_factory=dict)
    quality: int | None = None
    feature: str | None = None
    memory: float = 1.25
    density: float = 1.0

    @property
    def writable(self) -> bool:
        """Whether this Pillow has what it needs."""
        return self.feature is None or bool(features.check(self.feature))

    def dtype_for(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """The type that pixels are stored in: their own, or the nearest there is."""
        dtype = np.dtype(dtype)
        if not self.sixteen_bit:
            return np.dtype(np.uint8)
        return np.dtype(np.uint16) if dtype == np.float32 and not self.float32 else dtype

    def channels_for(self, channels: int, dtype: np.dtype[Any]) -> int:
        """The channels that are stored for pixels of so many and, in the file, of this type."""
        if not self.alpha:
            return 1 if channels < 3 else 3
        # Few programs read grey and alpha of more than 8 bits in a TIFF, and not Pillow.
        return 4 if channels == 2 and self.name == "TIFF" and dtype != np.uint8 else channels


class PillowSink:
    """Collects the rows of a still image and has Pillow write them at the end."""

    def __init__(self, stream: BinaryIO, kind: Format, content: Content) -> None:
        self._stream = stream
        self._kind = kind
        self._mode = ("L", "LA", "RGB", "RGBA")[content.channels - 1]
        self._size = content.size
        self._options = save_options(kind, content)
        self._metadata = content.metadata
        self._image = Image.new(self._mode, self._size)
        self._top = 0

    def write(self, rows: Array) -> None:
        """Paste the rows."""
        pixels = rows[..., 0] if rows.shape[2] == 1 else rows
        self._image.paste(Image.fromarray(np.ascontiguousarray(pixels)), (0, self._top))
        self._top += rows.shape[0]

    def finish(self) -> None:
        """Encode."""
        image = self._image
        if self._kind.mask:
            image = indexed(np.asarray(image).reshape(image.height, image.width, -1)).image
        elif self._mode == "LA" and not self._kind.grey_alpha:
            image = image.convert("RGBA")
        finish = FINISH.get(self._kind.name)
        metadata = self._metadata
        with EncoderOutput(
            self._stream, finish and (lambda file: finish(file, metadata))
        ) as output:
            image.save(cast(BinaryIO, output), self._kind.name, **self._options)

    def close(self) -> None:
        """Drop the image."""
        self._image = Image.new("1", (1, 1))


def save_options(kind: Format, content: Content) -> dict[str, Any]:
    """What ``Image.save`` is told: quality, metadata, timing."""
    metadata = content.metadata
    options: dict[str, Any] = {}
    if kind.name in ("WEBP", "AVIF"):
        options = {"icc_profile": metadata.icc, "xmp": metadata.xmp, "exif": metadata.exif}
        if kind.name == "AVIF":
            options["exif"] = embed.avif_exif(metadata.exif)
        options = {name: value for name, value in options.items() if value}
    elif kind.name == "BMP" and metadata.dpi:
        options["dpi"] = metadata.dpi
    elif kind.name in ("GIF", "JPEG2000") and metadata.comment:
        options["comment"] = metadata.comment
    options |= kind.options
    if kind.quality is not None:
        options["quality"] = kind.quality if content.quality is None else content.quality
    if content.quality == 100:
        options |= kind.lossless
    if content.n_frames > 1:
        durations = [round(value) for value in metadata.durations] or [100] * content.n_frames
        options["duration"] = durations
        options["loop"] = 1 if metadata.loop is None else metadata.loop
    return options


# Who puts the metadata in that Pillow's encoder has no argument for, or changes.
FINISH: dict[str, Callable[[BinaryIO, Metadata], Iterator[bytes]]] = {
    "JPEG": embed.jpeg,
    "PNG": embed.png,
    "GIF": embed.gif,
    "AVIF": embed.avif,
    "JPEG2000": embed.jpeg2000,
}


def encode_animated(stream: BinaryIO, kind: Format, content: Content) -> Sink:
    """Pillow, from a temporary file where there are several frames."""
    if content.n_frames == 1:
        return PillowSink(stream, kind, content)
    finish, metadata = FINISH.get(kind.name), content.metadata
    return SpooledSink(
        stream,
        kind.name,
        content.size,
        content.channels,
        content.n_frames,
        save_options(kind, content),
        finish and (lambda file: finish(file, metadata)),
    )


def encode_gif(stream: BinaryIO, kind: Format, content: Content) -> Sink:
    """Pillow, frame by frame."""
    if content.n_frames == 1:
        return PillowSink(stream, kind, content)
    return GifSink(stream, content.size, content.channels, content.metadata)


def encode_png(stream: BinaryIO, kind: Format, content: Content) -> Sink:
    """Our encoder."""
    if content.n_frames > 1:
        return ApngSink(
            stream,
            content.size,
            content.channels,
            content.dtype,
            content.metadata,
            content.n_frames,
        )
    return PngWriter(stream, content.size, content.channels, content.dtype, content.metadata)


def encode_tiff(stream: BinaryIO, kind: Format, content: Content) -> Sink:
    """Our encoder."""
    return TiffWriter(
        stream,
        content.size,
        content.channels,
        content.dtype,
        content.metadata,
        n_pages=content.n_pages,
        big=None if content.most_bytes is None else exceeds_classic(content.most_bytes),
    )


FORMATS = (
    Format(
        "PNG",
        (".png", ".apng"),
        encode_png,
        grey_alpha=True,
        animated=True,
        sixteen_bit=True,
        memory=0,
        density=0.23,
    ),
    Format(
        "JPEG",
        (".jpg", ".jpeg", ".jpe", ".jfif"),
        PillowSink,
        edge=65500,
        alpha=False,
        options={"subsampling": 0, "optimize": False},
        quality=95,
        density=0.07,
    ),
    Format(
        "WEBP",
        (".webp",),
        encode_animated,
        edge=16383,
        animated=True,
        lossless={"lossless": True},
        quality=95,
        feature="webp",
        memory=3,
        density=0.04,
    ),
    Format(
        "TIFF",
        (".tif", ".tiff"),
        encode_tiff,
        grey_alpha=True,
        paged=True,
        sixteen_bit=True,
        float32=True,
        memory=0,
        density=0.26,
    ),
    Format(
        "AVIF",
        (".avif",),
        encode_animated,
        edge=32768,
        pixels=16384**2,
        animated=True,
        options={"subsampling": "4:4:4"},
        quality=90,
        feature="avif",
        memory=11,
        density=0.035,
    ),
    Format("BMP", (".bmp",), PillowSink, pixels=2**32 // 4 - 64, alpha=False),
    Format(
        "GIF",
        (".gif",),
        encode_gif,
        edge=65535,
        animated=True,
        mask=True,
        memory=3.5,
        density=0.11,
    ),
    Format(
        "JPEG2000",
        (".jp2", ".j2k", ".jpx"),
        PillowSink,
        grey_alpha=True,
        feature="jpg_2000",
        memory=10,
        density=0.2,
    ),
    Format("PPM", (".ppm", ".pgm", ".pnm"), PillowSink, alpha=False),
    Format("TGA", (".tga",), PillowSink, edge=65535, grey_alpha=True),
)
# By the endings of file names.
WRITTEN = {suffix: format for format in FORMATS for suffix in format.suffixes}
# Of what is read but not written: results become PNG.
READ_ONLY = (
    *(".mpo", ".ico", ".cur", ".icns", ".pcx", ".psd", ".dds", ".qoi", ".apng", ".dib"),
    *(".pbm", ".pfm", ".jpf", ".j2c", ".jpc"),
    *(suffix for name in PLUGINS if is_installed(name) for suffix in PLUGINS[name][1]),
)
READ = {*WRITTEN, *READ_ONLY}
FALLBACK = ".png"
LARGE = "PNG or TIFF"
# What the blocks take that PNG and TIFF encode at a time.
STREAM_BYTES = 32 << 20


def encoder_bytes(
    kind: Format, size: tuple[int, int], channels: int, dtype: npt.DTypeLike, n_frames: int
) -> tuple[int, int]:
    """Memory, and space for temporary files, that writing takes; estimated.

    Parameters
    ----------
    kind, size, channels, dtype, n_frames
        Of what is written.
    """
    frame = size[0] * size[1] * channels * kind.dtype_for(dtype).itemsize
    in_pillow = size[0] * size[1] * (1 if channels == 1 else 4)
    if n_frames > 1:
        # One frame, and the one before it or a copy for Pillow.
        spooled = n_frames * frame if kind.encode is encode_animated else 0
        return STREAM_BYTES + frame + in_pillow, spooled
    return (int(kind.memory * in_pillow) or STREAM_BYTES), 0


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
            if not kind.writable:
                raise ImageError(f"this Pillow is built without {kind.name}; choose {LARGE}.")
            return kind
    what = f"{wanted!r} is no format" if wanted else f"{file} has no suffix"
    raise ImageError(f"{what} that can be written; choose one of {_possible()}.")


def _possible() -> str:
    return ", ".join(kind.suffixes[0][1:] for kind in FORMATS if kind.writable)


def check_output(
    file: str | Path | BinaryIO,
    *,
    format: str | None = None,
    size: tuple[int, int],
    channels: int,
    dtype: npt.DTypeLike = np.uint8,
    n_frames: int = 1,
    quality: int | None = None,
    metadata: Metadata | None = None,
) -> tuple[str, ...]:
    """Say, before anything is computed, whether an image fits its file.

    Parameters
    ----------
    file, format, size, channels, dtype, n_frames, quality, metadata
        As for :func:`create`.

    Returns
    -------
    tuple of str
        Sentences on what the format will not keep.

    Raises
    ------
    ImageError
        If the format is unknown or cannot hold the image at all.
    ValueError
        If the quality is out of range.
    """
    kind = choose_format(file, format)
    width, height = size
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality must be between 1 and 100, not {quality}.")
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
    if np.dtype(dtype) != np.uint8 and not kind.sixteen_bit:
        warnings.append(f"{kind.name} is written with 8 bits a channel: the finer steps are lost.")
    elif np.dtype(dtype) == np.float32 and not kind.float32:
        warnings.append(f"{kind.name} is written with 16 bits a channel, not as floating point.")
    if metadata is not None:
        warnings += fit(kind.name, metadata.resized(size), n_frames)[1]
    return tuple(warnings)


def _animated() -> str:
    return ", ".join(kind.name for kind in FORMATS if kind.animated)
