"""An image file: opened, described, and its frames as rows of pixels.

Reading gives the pixels as rows on demand, so that a large image is held
once, in the form its decoder left it in.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from srgan_infer.errors import ImageError
from srgan_infer.images.alpha import split_alpha
from srgan_infer.images.blocks import without_texts
from srgan_infer.images.integrity import check_header
from srgan_infer.images.metadata import Metadata, estimated_quality, orientation, read_metadata
from srgan_infer.images.pillow import (
    PilRows,
    any_size,
    cmyk_transform,
    conversion,
    file_name,
    load,
    one_sentence,
    transparent_key,
    upright,
)
from srgan_infer.images.rows import DecodedImage, SpooledRows
from srgan_infer.images.sixteen_bit import is_cut, read_sixteen_bit, sixteen_bit_channels

ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")

# No format packs more than this into a byte (1-bit PNG behind deflate's limit
# of 1032:1); formats that can (WebP, JPEG 2000) fit their largest image here.
PIXELS_PER_BYTE = 8 * 1032
PIXELS_ALWAYS = 16384 * 16384

# Larger stills wait in a temporary file for their turn.
SPOOL_PIXELS = 2_000_000


@dataclass(frozen=True)
class SourceImage:
    """An image file whose header has been read; see :func:`open_file`.

    Parameters
    ----------
    format
        Pillow's name of the format, such as ``"JPEG"``.
    mode
        Pillow's mode of the file's pixels, before any conversion.
    size
        (W, H), upright.
    channels
        Of the result: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    dtype
        Of the result: uint8, uint16 or float32.
    metadata
        What is carried over to the result.
    n_frames
        More than 1 for an animation.
    warnings
        Sentences for the user on what cannot be kept.
    jpeg_quality
        Estimated from the quantisation tables, 1 to 100; None of other formats.
    """

    format: str
    mode: str
    size: tuple[int, int]
    channels: int
    dtype: np.dtype[Any]
    metadata: Metadata
    n_frames: int
    warnings: tuple[str, ...]
    jpeg_quality: int | None
    _file: Path | BinaryIO
    _first: int = 0

    def frames(self) -> Iterator[DecodedImage]:
        """Decode frame after frame; a still image has one.

        Raises
        ------
        ImageError
            If the pixels are damaged or cut short.
        """
        if self.n_frames == 1:
            yield self._still()
            return
        with _opened(self._file) as image:
            for index in range(self._first, self._first + self.n_frames):
                with one_sentence(self._file):
                    image.seek(index)
                    decoded = self._decode(image)
                yield decoded

    def _still(self) -> DecodedImage:
        with _opened(self._file) as image, one_sentence(self._file):
            decoded = self._decode(image)
            large = self.size[0] * self.size[1] >= SPOOL_PIXELS
            if large and isinstance(decoded.color, PilRows):
                # Without room for temporary files, the memory has to do.
                with suppress(OSError):
                    return DecodedImage(SpooledRows(decoded.color), None)
            return decoded

    def _decode(self, image: ImageFile.ImageFile) -> DecodedImage:
        if sixteen_bit_channels(image) is not None:
            turn = orientation(image)
            with _opened(self._file) as again, any_size(image):
                pixels = read_sixteen_bit(image, again)
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                turn = 1  # Pillow has turned it
            return split_alpha(upright(pixels, turn))
        key = transparent_key(image)
        turn = load(image)
        channels, dtype, decode = conversion(image, key)
        rows = PilRows(image, turn, channels, dtype, decode)
        if channels == self.channels:
            return split_alpha(rows)
        # A frame of an animation may be of another mode than the first.
        same = image.convert({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[self.channels])
        return split_alpha(PilRows(same, turn, *conversion(same, None)))


def refuse_address(name: str) -> None:
    """Refuse what names a file on another machine.

    Raises
    ------
    ImageError
        If the name begins as an address does.
    """
    if re.match(r"(https?|ftp|data):", name, re.IGNORECASE):
        kind = "holds its data itself" if name[:5].lower() == "data:" else "is a web address"
        advice = (
            "decode it and pass the bytes"
            if name[:5].lower() == "data:"
            else ("download it first, or pass the bytes that your program has fetched")
        )
        raise ImageError(f"{name[:200]} {kind}, and nothing is fetched from the web; {advice}.")


def open_file(file: str | Path | BinaryIO) -> SourceImage:
    """Read an image's header; the pixels follow with :meth:`SourceImage.frames`.

    There is no limit on the number of pixels beyond what the file can hold:
    look at ``size`` first where files come from strangers.

    Parameters
    ----------
    file
        A path, or a binary file object (read from its start; one that cannot
        seek is read into memory).

    Raises
    ------
    ImageError
        If there is no such file, or it is not an image, or a damaged one.
    """
    if isinstance(file, (str, os.PathLike)):
        source: Path | BinaryIO = Path(file)
    elif file.seekable():
        source = file
    else:
        source = io.BytesIO(file.read())
    with _opened(source) as image, one_sentence(source):
        return _describe(image, source)


def _describe(image: ImageFile.ImageFile, source: Path | BinaryIO) -> SourceImage:
    name = image.format or "unknown"
    # A phone's JPEG with more images behind it.
    name = "JPEG" if name == "MPO" else name
    with _stream(source) as stream:
        check_header(name, stream)
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{file_name(source)} has no pixels: its header says {width}×{height}.")
    if width * height > PIXELS_ALWAYS + PIXELS_PER_BYTE * _length(source):
        raise ImageError(
            f"{file_name(source)} is damaged: its header claims {width}×{height} pixels, "
            "more than the file can hold."
        )
    warnings: list[str] = []
    frames = getattr(image, "n_frames", 1)
    first = 1 if frames > 1 and image.info.get("default_image") else 0
    animated = name in ANIMATED and frames - first > 1
    if frames > 1 and name == "TIFF":
        warnings.append(
            f"Only the first of the {frames} pages is read; split the file for the rest."
        )
    wide = sixteen_bit_channels(image)
    if wide is not None:
        channels, dtype = wide, np.dtype(np.uint16)
    else:
        channels, dtype, _ = conversion(image, transparent_key(image))
        if is_cut(image):
            warnings.append("More than 8 bits a channel are cut to 8: Pillow cannot read them.")
    if image.mode == "CMYK" and image.info.get("icc_profile") and not cmyk_transform(image):
        warnings.append("The CMYK profile cannot be used: the colours are converted without it.")
    if animated and name == "GIF":
        channels = 4  # later frames may be transparent where the first is not
    upright_already = isinstance(image, TiffImagePlugin.TiffImageFile)  # Pillow turns it
    turn = orientation(image)
    turned = turn > 4 and not upright_already
    with _stream(source) as stream:
        metadata, lost = read_metadata(
            name,
            stream,
            size=(height, width) if turn > 4 and upright_already else (width, height),
            orientation=turn,
            channels=1 if channels < 3 else 3,
            converted=image.mode in ("CMYK", "LAB"),
            icc=image.info.get("icc_profile") or b"",
        )
    if animated:
        durations = _durations(image, first)
        metadata = replace(metadata, durations=durations, loop=image.info.get("loop"))
    return SourceImage(
        format=name,
        mode=image.mode,
        size=(height, width) if turned else (width, height),
        channels=channels,
        dtype=dtype,
        metadata=metadata,
        n_frames=frames - first if animated else 1,
        warnings=(*warnings, *lost),
        jpeg_quality=estimated_quality(image),
        _file=source,
        _first=first if animated else 0,
    )


def _durations(image: ImageFile.ImageFile, first: int) -> tuple[float, ...]:
    durations = []
    for index in range(first, getattr(image, "n_frames", 1)):
        image.seek(index)
        if image.format in ("WEBP", "AVIF"):  # which tell when they decode
            image.load()
        durations.append(float(image.info.get("duration", 0)))
    return tuple(durations)


@contextmanager
def _stream(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, Path):
        with source.open("rb") as stream:
            yield stream
    else:
        source.seek(0)
        yield source


@contextmanager
def _opened(source: Path | BinaryIO) -> Iterator[ImageFile.ImageFile]:
    with ExitStack() as stack:
        with one_sentence(source):
            if isinstance(source, Path) and source.is_dir():
                raise ImageError(f"{source} is a folder, not an image.")
            stream = stack.enter_context(_stream(source))
            with any_size(None):
                image = Image.open(without_texts(stream))
        yield image


def _length(source: Path | BinaryIO) -> int:
    return source.stat().st_size if isinstance(source, Path) else source.seek(0, os.SEEK_END)
