"""The segments of a JPEG file: which process it uses, where it ends, whether all of it is there."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from srgan_infer.errors import ImageError

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
LOSSLESS_LS = 0xF7
END = b"\xff\xd9"
# Bits that the decoder would read where a scan goes on behind the end of the file.
FILLERS = (b"", b"\x55" * 64, b"\xaa" * 64)
ALONE = {0x01, *range(0xD0, 0xD8)}

_marker = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")


def check_jpeg(stream: BinaryIO) -> None:
    """Refuse the kinds of JPEG that Pillow does not decode, by name.

    Raises
    ------
    ImageError
        For 12 bits, JPEG-LS, and two or more than four channels.
    """
    stream.seek(2)
    while True:
        head = stream.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] == SOS:
            return
        if head[1] in ALONE or head[1] == 0xFF:
            stream.seek(-3 if head[1] == 0xFF else -2, 1)
            continue
        (length,) = struct.unpack(">H", head[2:])
        if head[1] in FRAMES:
            frame = stream.read(6)
            if head[1] == LOSSLESS_LS:
                raise ImageError("it is JPEG-LS, which is not read; convert it to PNG.")
            if len(frame) == 6 and frame[0] != 8:
                raise ImageError(
                    f"it is a JPEG with {frame[0]} bits a channel, of which 8 are read; "
                    "convert it to PNG or TIFF with 16."
                )
            if len(frame) == 6 and frame[5] not in (1, 3, 4):
                raise ImageError(
                    f"it is a JPEG with {frame[5]} channels, which is not read; convert it."
                )
            return
        stream.seek(length - 2, 1)


@dataclass(frozen=True)
class Extent:
    """How far the segments of a JPEG reach.

    Parameters
    ----------
    end
        Behind the end marker; None if there is none.
    kept
        Behind the last segment or coded data that is whole, as far as the markers tell.
    refined
        Whether the scans bring all bits of all coefficients.
    """

    end: int | None
    kept: int
    refined: bool


def extent(data: bytes) -> Extent:
    """Follow the markers of a JPEG file."""
    at, progressive, components = 2, False, 0
    open_bits: dict[tuple[int, int], int] = {}  # of each coefficient of each component
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == EOI:
            return Extent(at + 2, at + 2, True)
        if marker in ALONE or marker == 0xFF:
            at += 2 if marker in ALONE else 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if len(body) < length - 2:
            break
        if marker in FRAMES and len(body) > 5:
            progressive, components = marker in PROGRESSIVE, body[5]
        if marker != SOS:
            at += 2 + length
            continue
        count = body[0]
        if len(body) >= 4 + 2 * count:
            first, last, bits = body[1 + 2 * count : 4 + 2 * count]
            for component in body[1 : 1 + 2 * count : 2]:
                for k in range(first, last + 1 if progressive else 64):
                    open_bits[component, k] = bits & 15 if progressive else 0
        found = _marker.search(data, at + 2 + length)
        refined = len(open_bits) == 64 * components and not any(open_bits.values())
        if found is None:
            return Extent(None, len(data), refined)
        at = found.end() - 2
    if data[at : at + 2] == END:
        return Extent(at + 2, at + 2, True)
    return Extent(None, min(at, len(data)), False)


def closed(data: bytes, extent: Extent) -> list[bytes]:
    """The file with an end marker, three times.

    They decode to the same pixels if all of these were there: else the decoder goes on
    into what was put in between, which is different each time.
    """
    kept = data[: extent.kept].rstrip(b"\xff")
    return [kept + filler + END for filler in FILLERS]
