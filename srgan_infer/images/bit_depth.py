"""Depths that Pillow gets wrong: they are told from the file, and decoded by another library.

JPEG 2000 with colours of more than 8 bits wraps around (white becomes black), AVIF, HEIF and
JPEG XL are cut to 8 bits without a word.
"""

from __future__ import annotations

import importlib.util
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from srgan_infer.errors import ImageError
from srgan_infer.images.boxes import walk
from srgan_infer.images.jxl import read_jxl_header
from srgan_infer.images.timing import inner_box

Array = npt.NDArray[Any]

CODEC = "imagecodecs"

# Colour spaces of a JP2 file that Pillow turns into grey, RGB or CMYK.
JP2_COLORS = {0: "bilevel", 12: "CMYK", 15: "bilevel", 16: "sRGB", 17: "grey", 18: "sYCC"}


@dataclass(frozen=True)
class WideDecoder:
    """An image that is not decoded by Pillow alone.

    Parameters
    ----------
    channels
        Alpha included.
    dtype
        uint8, uint16 or float32.
    decode
        From the image that Pillow opened, and the file, to (H, W, channels) of this dtype.
    kind
        What is decoded, such as ``"an AVIF with 10 bits a channel"``.
    near
        Whether Pillow's own pixels are within one of 255 levels of these.
    needs_codec
        Whether it takes imagecodecs.
    """

    channels: int
    dtype: np.dtype[Any]
    decode: Callable[[Image.Image, BinaryIO], Array]
    kind: str
    near: bool
    needs_codec: bool = True


def wide_decoder(name: str, image: Image.Image, stream: BinaryIO) -> WideDecoder | None:
    """How to decode a file that has other than 8 bits a channel; None for all others.

    Parameters
    ----------
    name
        Pillow's name of the format.
    image
        As opened, not loaded.
    stream
        The file.

    Raises
    ------
    ImageError
        If it can be told, but not decoded with what is installed.
    """
    if name == "JPEG2000" and (size := _codestream(stream)[0]) != image.size:
        raise ImageError(f"it is damaged: it says {image.size} and {size} pixels.")
    found = find_decoder(name, image, stream)
    if found is not None and found.needs_codec and importlib.util.find_spec(CODEC) is None:
        raise ImageError(
            f"it is {found.kind}, of which Pillow reads 8; pip install 'srgan-infer[formats]' "
            "to have it read, or convert it to PNG with 16."
        )
    return found


def find_decoder(name: str, image: Image.Image, stream: BinaryIO) -> WideDecoder | None:
    """As :func:`wide_decoder`, but whether or not it is installed."""
    reader = {"JPEG2000": _jpeg2000, "AVIF": _avif, "HEIF": _heif, "JXL": _jxl}.get(name)
    return None if reader is None else reader(image, stream)


def _codec() -> Any:
    import imagecodecs

    return imagecodecs


def _jpeg2000(image: Image.Image, stream: BinaryIO) -> WideDecoder | None:
    _, bits = _codestream(stream)
    color = _jp2_color(stream)
    if len(set(bits)) > 1 or max(bits) > 16:
        raise ImageError(
            "it is a JPEG 2000 whose channels are signed, of different depths or of more than "
            "16 bits, which is not read; convert it to PNG."
        )
    depth, channels = bits[0], len(bits)
    if depth == 8:
        return None
    dtype = np.dtype(np.uint8 if depth < 8 else np.uint16)
    kind = f"a JPEG 2000 with {depth} bits a channel"
    if image.mode in ("L", "LA", "RGB", "RGBA") and depth < 8:
        decode = partial(_shifted, 8, depth)
        return WideDecoder(channels, dtype, decode, kind, near=depth == 7, needs_codec=False)
    if image.mode == "I;16":
        decode = partial(_shifted, 16, depth)
        return WideDecoder(1, dtype, decode, kind, near=True, needs_codec=False)
    if depth < 8 or color not in (16, 17, None):
        raise ImageError(
            f"it is a JPEG 2000 with {JP2_COLORS[color or 0]} colour of {depth} bits, "
            "which is not read; convert it to PNG."
        )

    def read(_: Image.Image, stream: BinaryIO) -> Array:
        stream.seek(0)
        return _full_scale(_codec().jpeg2k_decode(stream.read()), depth, dtype)

    return WideDecoder(channels, dtype, read, kind, near=False)


def _codestream(stream: BinaryIO) -> tuple[tuple[int, int], list[int]]:
    """(W, H) and the bits of each channel; 99 for a signed one."""
    stream.seek(0)
    start = 0
    if stream.read(4) != b"\xff\x4f\xff\x51":
        place = inner_box(stream, b"jp2c")
        if place is None:
            raise ImageError("it is cut short.")
        start = place.body
    stream.seek(start + 4)
    segment = stream.read(38)
    if len(segment) < 38:
        raise ImageError("it is cut short.")
    right, bottom, left, top = struct.unpack_from(">4I", segment, 4)
    (count,) = struct.unpack_from(">H", segment, 36)
    channels = stream.read(3 * min(count, 64))
    if len(channels) < 3 * count or not count:
        raise ImageError(f"it is a JPEG 2000 with {count} channels, which is not read.")
    bits = [99 if depth & 128 else (depth & 127) + 1 for depth in channels[::3]]
    return (right - left, bottom - top), bits


def _jp2_color(stream: BinaryIO) -> int | None:
    """The enumerated colour space of a JP2 file; None if it has a profile, or no header."""
    place = inner_box(stream, b"jp2h")
    if place is None:
        return None
    found = None
    for box in walk(stream, place.body, place.end):
        stream.seek(box.body)
        head = stream.read(64)
        if box.kind == b"colr" and head[:1] == b"\1" and found is None:
            (found,) = struct.unpack_from(">I", head, 3)
            if found not in JP2_COLORS:
                raise ImageError(
                    f"it is a JPEG 2000 in colour space {found}, which is not read; "
                    "convert it to sRGB."
                )
        if box.kind == b"pclr" and any((depth & 127) > 7 for depth in head[3 : 3 + head[2]]):
            raise ImageError(
                "it is a JPEG 2000 with a palette of more than 8 bits, which is not read; "
                "convert it to PNG."
            )
    return found


def _shifted(room: int, bits: int, image: Image.Image, _: BinaryIO) -> Array:
    """Pillow puts few bits at the top of the byte, and zeros below."""
    image.load()
    pixels = np.asarray(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return _full_scale(pixels >> (room - bits), bits, np.dtype(f"u{room // 8}"))


def _full_scale(pixels: Array, bits: int, dtype: np.dtype[Any]) -> Array:
    """From 0 … 2**bits - 1 to the range of an unsigned dtype, rounded; (H, W, C)."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    top, new = (1 << bits) - 1, int(np.iinfo(dtype).max)
    if top == new:
        return pixels.astype(dtype)
    return ((pixels.astype(np.uint32) * new + top // 2) // top).astype(dtype)


def _avif(image: Image.Image, stream: BinaryIO) -> WideDecoder | None:
    depths = set()
    for kind in (b"meta", b"moov"):
        place = inner_box(stream, kind)
        if place is not None:
            stream.seek(place.body)
            data = stream.read(place.end - place.body)
            # The box that configures the decoder: its third byte has the depth.
            for config in re.findall(rb"av1C..(.)", data, re.DOTALL):
                depths.add({0: 8, 0x40: 10, 0x60: 12}.get(config[0] & 0x60, 8))
    if max(depths, default=8) == 8:
        return None
    bits = max(depths)
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError(
            f"it is an animated AVIF with {bits} bits a channel, of which 8 are read; convert it."
        )
    dtype = np.dtype(np.uint16)
    channels = len(image.getbands())

    def decode(_: Image.Image, stream: BinaryIO) -> Array:
        stream.seek(0)
        pixels = _full_scale(_codec().avif_decode(stream.read()), bits, dtype)
        # Older Pillow takes grey for RGB.
        return np.repeat(pixels, 3, axis=2) if (pixels.shape[2], channels) == (1, 3) else pixels

    return WideDecoder(channels, dtype, decode, f"an AVIF with {bits} bits a channel", near=True)


def _heif(image: Image.Image, stream: BinaryIO) -> WideDecoder | None:
    bits = image.info.get("bit_depth", 8)
    if bits == 8:
        return None
    dtype = np.dtype(np.uint16)

    def decode(_: Image.Image, stream: BinaryIO) -> Array:
        import pillow_heif

        stream.seek(0)
        file = pillow_heif.open_heif(stream, convert_hdr_to_8bit=False)
        return _full_scale(np.asarray(file) >> (16 - bits), bits, dtype)

    kind = f"a HEIC with {bits} bits a channel"
    channels = len(image.getbands())
    return WideDecoder(channels, dtype, decode, kind, near=True, needs_codec=False)


def _jxl(image: Image.Image, stream: BinaryIO) -> WideDecoder | None:
    header = read_jxl_header(stream)
    if header.animated:
        raise ImageError("it is an animated JPEG XL, which is not read; convert it to APNG.")
    if header.bits == 8:
        return None
    dtype = np.dtype(np.float32 if header.floating else np.uint16)

    def decode(_: Image.Image, stream: BinaryIO) -> Array:
        stream.seek(0)
        pixels: Array = _codec().jpegxl_decode(stream.read())
        if not header.floating:
            return _full_scale(pixels, header.bits, dtype)
        pixels = pixels.astype(np.float32)
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # false for NaN too
            raise ImageError("its float values leave the range 0 to 1; scale them first.")
        return pixels[..., None] if pixels.ndim == 2 else pixels

    kind = f"a JPEG XL with {header.bits} bits a channel"
    # Pillow's plugin makes noise of grey and alpha.
    return WideDecoder(len(image.getbands()), dtype, decode, kind, near=image.mode != "LA")
