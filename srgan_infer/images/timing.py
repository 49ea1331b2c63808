"""Frames of an animation, counted and timed from the blocks of its file, nothing decoded.

Pillow decodes every frame to tell how long each is shown: gigabytes for a file of 250 bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from srgan_infer.errors import ImageError
from srgan_infer.images.blocks import png_chunks
from srgan_infer.images.boxes import Box, walk


@dataclass(frozen=True)
class Timing:
    """When the frames of an animation are shown.

    Parameters
    ----------
    durations
        Of each frame in milliseconds.
    loop
        How often it plays, 0 for ever; None where the file is silent.
    lossless
        Whether all frames are stored without loss, where the format has the choice (WebP).
    screen
        (W, H) that the frames reach to, which may be more than the file says (GIF).
    ended
        Whether the file has its end marker (GIF).
    end
        Where the file ends (GIF); 0 if that is not known.
    """

    durations: tuple[float, ...] = ()
    loop: int | None = None
    lossless: bool = False
    screen: tuple[int, int] = (0, 0)
    ended: bool = True
    end: int = 0


def read_timing(name: str, stream: BinaryIO) -> Timing:
    """Walk through a GIF, PNG, WebP or AVIF file.

    Parameters
    ----------
    name
        Pillow's name of the format; others have no frames.
    stream
        The file.

    Raises
    ------
    ImageError
        If a GIF file ends in the middle of something.
    """
    readers = {"GIF": _gif, "PNG": _png, "WEBP": _webp, "AVIF": _avif}
    if name not in readers:
        return Timing()
    stream.seek(0)
    try:
        return readers[name](stream)
    except (IndexError, struct.error):
        return Timing()


def _gif(stream: BinaryIO) -> Timing:
    data = stream.read()
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
    durations: list[float] = []
    delay, loop = 0.0, None
    right = bottom = 0
    try:
        while at < len(data) and (kind := data[at]) != 0x3B:
            at += 1
            if kind == 0x21:
                label, body = data[at], data[at + 2 : at + 2 + data[at + 1]]
                if label == 0xF9 and len(body) >= 3:
                    delay = 10.0 * int.from_bytes(body[1:3], "little")
                inner = at + 2 + len(body)
                if label == 0xFF and body == b"NETSCAPE2.0" and data[inner : inner + 2] == b"\3\1":
                    loop = int.from_bytes(data[inner + 2 : inner + 4], "little")
                at = _behind_blocks(data, at + 1)
            elif kind == 0x2C:
                left, top, width, height, flags = struct.unpack_from("<HHHHB", data, at)
                right, bottom = max(right, left + width), max(bottom, top + height)
                at += 9 + (3 << (flags & 7) + 1 if flags & 128 else 0)
                durations.append(delay)
                delay = 0.0
                at = _behind_blocks(data, at + 1)
    except (IndexError, struct.error) as error:
        raise ImageError("it is cut short.") from error
    ended = at < len(data)
    end = at + 1 if ended else 0
    return Timing(tuple(durations), loop, screen=(right, bottom), ended=ended, end=end)


def _behind_blocks(data: bytes, at: int) -> int:
    while length := data[at]:
        at += length + 1
    return at + 1


def _png(stream: BinaryIO) -> Timing:
    durations, loop, seen = [], None, False
    for kind, at, _ in png_chunks(stream):
        seen |= kind == b"IDAT"
        if kind == b"acTL" and not seen:
            stream.seek(at)
            _, loop = struct.unpack(">II", stream.read(8))
        elif kind == b"fcTL" and loop is not None:
            stream.seek(at + 20)
            number, parts = struct.unpack(">HH", stream.read(4))
            durations.append(1000 * number / (parts or 100))
    return Timing(tuple(durations), loop)


def _webp(stream: BinaryIO) -> Timing:
    durations: list[float] = []
    loop = None
    kinds = set()
    end = stream.seek(0, 2)
    at = 12
    while at + 8 <= end:
        stream.seek(at)
        kind, length = struct.unpack("<4sI", stream.read(8))
        if kind == b"ANIM":
            loop = struct.unpack_from("<H", stream.read(6), 4)[0]
        elif kind == b"ANMF":
            frame = stream.read(24)
            durations.append(float(int.from_bytes(frame[12:15], "little")))
            kinds.add(_webp_codec(stream, frame[16:24], at + 32, at + 8 + length))
        elif kind in (b"VP8 ", b"VP8L"):
            kinds.add(kind)
        at += 8 + length + length % 2
    return Timing(tuple(durations), loop, kinds == {b"VP8L"})


def _webp_codec(stream: BinaryIO, head: bytes, at: int, end: int) -> bytes:
    """How a frame is coded; its transparency may come first."""
    kind, length = struct.unpack("<4sI", head)
    while kind not in (b"VP8 ", b"VP8L") and at + length + length % 2 + 8 <= end:
        at += length + length % 2 + 8
        stream.seek(at - 8)
        kind, length = struct.unpack("<4sI", stream.read(8))
    return bytes(kind)


def inner_box(stream: BinaryIO, *path: bytes) -> Box | None:
    """The first box along a path of nested ones."""
    start, end, found = 0, stream.seek(0, 2), None
    for kind in path:
        found = next((box for box in walk(stream, start, end) if box.kind == kind), None)
        if found is None:
            return None
        start, end = found.body, found.end
    return found


def _avif(stream: BinaryIO) -> Timing:
    if stream.read(12)[8:] != b"avis":
        return Timing()
    header = inner_box(stream, b"moov", b"trak", b"mdia", b"mdhd")
    table = inner_box(stream, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts")
    if header is None or table is None:
        return Timing()
    stream.seek(header.body)
    version = stream.read(1)
    stream.seek(header.body + (20 if version == b"\1" else 12))
    (scale,) = struct.unpack(">I", stream.read(4))
    stream.seek(table.body + 4)
    (count,) = struct.unpack(">I", stream.read(4))
    durations: list[float] = []
    for _ in range(min(count, (table.end - table.body - 8) // 8)):
        number, delta = struct.unpack(">II", stream.read(8))
        durations += [1000 * delta / (scale or 1000)] * min(number, table.end)
    return Timing(tuple(durations))
