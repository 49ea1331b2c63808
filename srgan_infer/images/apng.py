"""The frames of an animated PNG, put together as its specification says, in all their bits.

Pillow cuts them to 8 bits, and shows black where an image without transparency shows nothing.
Here each frame becomes a PNG file of its own, and only that is Pillow's to decode.

Source: the PNG specification, third edition, sections 4.9 and 11.3.6.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from srgan_infer.errors import ImageError
from srgan_infer.images.blocks import PNG_SIGNATURE, png_chunks
from srgan_infer.images.integrity import check_pixels
from srgan_infer.images.pillow import any_size, conversion, transparent_key
from srgan_infer.images.png import write_chunk
from srgan_infer.images.sixteen_bit import read_sixteen_bit, sixteen_bit_channels

Array = npt.NDArray[Any]

# What becomes of a frame's place when the next one comes, and how it is put there.
LEAVE, CLEAR, RESTORE = 0, 1, 2
REPLACE, OVER = 0, 1
GREY, GREY_ALPHA, RGBA = 0, 4, 6
SHARED = (b"PLTE", b"tRNS")


@dataclass(frozen=True)
class Part:
    """A frame: where it goes, and where in the file its pixels are.

    Parameters
    ----------
    size, place
        (W, H); left and top.
    dispose, blend
        The specification's numbers.
    data
        Place and length of each piece of compressed data.
    """

    size: tuple[int, int]
    place: tuple[int, int]
    dispose: int
    blend: int
    data: tuple[tuple[int, int], ...]

    def covers(self, other: Part) -> bool:
        """Whether nothing of another frame is left outside of this one."""
        return all(
            mine <= theirs and theirs + length <= mine + size
            for mine, theirs, size, length in zip(
                self.place, other.place, self.size, other.size, strict=True
            )
        )


@dataclass(frozen=True)
class Animation:
    """How an animated PNG is made up.

    Parameters
    ----------
    size
        (W, H) of the whole.
    header
        The last five bytes of IHDR: bits, colour type and so on.
    shared
        Chunks that hold for all frames.
    parts
        The frames.
    """

    size: tuple[int, int]
    header: bytes
    shared: tuple[tuple[bytes, bytes], ...]
    parts: tuple[Part, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels: uint8 or uint16."""
        return np.dtype(np.uint16 if self.header[0] == 16 else np.uint8)

    @property
    def channels(self) -> int:
        """1 grey, 2 grey and alpha, 3 RGB, 4 RGBA: alpha too where no frame covers the canvas."""
        kind = self.header[1]
        alpha = kind in (GREY_ALPHA, RGBA) or any(name == b"tRNS" for name, _ in self.shared)
        if not alpha:
            first, *others = self.parts
            alpha = first.size != self.size
            before = first
            for index, part in enumerate(others):
                cleared = before.dispose == CLEAR or (index == 0 and before.dispose == RESTORE)
                alpha |= cleared and not part.covers(before)
                before = part
        return (1 if kind in (GREY, GREY_ALPHA) else 3) + alpha


def read_animation(stream: BinaryIO) -> Animation:
    """Find the frames of an animated PNG file.

    Raises
    ------
    ImageError
        If they are out of order, or lie beside the canvas.
    """
    size, header, count, sequence = (0, 0), b"", 0, 0
    shared: list[tuple[bytes, bytes]] = []
    parts: list[Part] = []
    control: tuple[int, ...] | None = None
    data: list[tuple[int, int]] = []

    def close() -> None:
        if control is not None and data:
            *numbers, _, _, dispose, blend = control
            parts.append(
                Part(
                    (numbers[0], numbers[1]), (numbers[2], numbers[3]), dispose, blend, tuple(data)
                )
            )

    for kind, at, length in png_chunks(stream):
        stream.seek(at)
        if kind == b"IHDR":
            *size_, header = struct.unpack(">II5s", stream.read(13))
            size = (size_[0], size_[1])
        elif kind in SHARED and not parts and not data:
            shared.append((kind, stream.read(length)))
        elif kind == b"acTL":
            (count,) = struct.unpack(">I", stream.read(4))
        elif kind in (b"fcTL", b"fdAT"):
            (number,) = struct.unpack(">I", stream.read(4))
            if number != sequence:
                raise ImageError("it is damaged: its frames are out of order.")
            sequence += 1
            if kind == b"fcTL":
                close()
                control, data = struct.unpack(">IIIIHHBB", stream.read(22)), []
            else:
                data.append((at + 4, length - 4))
        elif kind == b"IDAT" and control is not None:
            data.append((at, length))
    close()
    for part in parts:
        if any(
            length < 1 or start + length > whole
            for start, length, whole in zip(part.place, part.size, size, strict=True)
        ):
            raise ImageError("it is damaged: a frame lies beside the image.")
    return Animation(size, header, tuple(shared), tuple(parts[:count]))


def frames(stream: BinaryIO, animation: Animation) -> Iterator[Array]:
    """What is seen, frame after frame: (H, W, channels) of the animation's dtype."""
    width, height = animation.size
    canvas = np.zeros((height, width, animation.channels), animation.dtype)
    for index, part in enumerate(animation.parts):
        left, top = part.place
        place = canvas[top : top + part.size[1], left : left + part.size[0]]
        before = place.copy()
        pixels = _decoded(_file(stream, animation, part))
        if pixels.shape[2] < canvas.shape[2]:
            opaque = np.full((*pixels.shape[:2], 1), np.iinfo(canvas.dtype).max, canvas.dtype)
            pixels = np.concatenate([pixels, opaque], axis=2)
        if part.blend == OVER and canvas.shape[2] in (2, 4):
            pixels = blended(pixels, place)
        place[...] = pixels
        yield canvas.copy()
        if part.dispose == CLEAR or (part.dispose == RESTORE and index == 0):
            place[...] = 0
        elif part.dispose == RESTORE:
            place[...] = before


def blended(above: Array, below: Array) -> Array:
    """Lay (h, W, C) pixels over others, alpha last and not multiplied with the colours.

    Exact but for one rounding: in whole numbers, which hold the product of three of 16 bits.
    """
    top = np.uint64(np.iinfo(above.dtype).max)
    over, under = above.astype(np.uint64), below.astype(np.uint64)
    alpha = over[..., -1:]
    rest = under[..., -1:] * (top - alpha)
    total = alpha * top + rest
    weighted = over[..., :-1] * (alpha * top) + under[..., :-1] * rest
    divisor = np.maximum(total, 1)
    color = (weighted + divisor // np.uint64(2)) // divisor
    result = np.concatenate([color, (total + top // np.uint64(2)) // top], axis=2)
    return result.astype(above.dtype)


def _file(stream: BinaryIO, animation: Animation, part: Part) -> bytes:
    """A frame as a PNG file."""
    file = io.BytesIO()
    file.write(PNG_SIGNATURE)
    write_chunk(file, b"IHDR", struct.pack(">II", *part.size) + animation.header)
    for kind, data in animation.shared:
        write_chunk(file, kind, data)
    for at, length in part.data:
        stream.seek(at)
        write_chunk(file, b"IDAT", stream.read(length))
    write_chunk(file, b"IEND", b"")
    return file.getvalue()


def _decoded(png: bytes) -> Array:
    check_pixels("PNG", io.BytesIO(png))
    with any_size(None):
        image = Image.open(io.BytesIO(png), formats=("PNG",))
        if sixteen_bit_channels(image) is not None:
            return read_sixteen_bit(image, Image.open(io.BytesIO(png), formats=("PNG",)))
        key = transparent_key(image)
        image.load()
        return conversion(image, key)[2](image)
