"""Damage that Pillow reads over: checksums, and fields that contradict each other."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from srgan_infer.errors import ImageError

BLOCK = 1 << 20


def check_header(name: str, stream: BinaryIO) -> None:
    """Raise ``ImageError`` if a file of format ``name`` is damaged in a way we know.

    Parameters
    ----------
    name
        Pillow's name of the format.
    stream
        The file, at its start.
    """
    if name == "PNG":
        _check_png(stream)
    elif name in ("BMP", "DIB"):
        _check_bmp(stream.read(64), 14 if name == "BMP" else 0)
    elif name == "ICO":
        _check_ico(stream.read())


def _check_png(stream: BinaryIO) -> None:
    stream.seek(8)
    while True:
        head = stream.read(8)
        if len(head) < 8:
            raise ImageError("it is cut short.")
        length, kind = struct.unpack(">I4s", head)
        checksum = zlib.crc32(kind)
        while length:
            block = stream.read(min(length, BLOCK))
            if not block:
                raise ImageError("it is cut short.")
            checksum = zlib.crc32(block, checksum)
            length -= len(block)
        # Other chunks hold nothing that the pixels need.
        critical = not kind[0] & 0x20
        if stream.read(4) != struct.pack(">I", checksum) and critical:
            raise ImageError(f"the checksum of its {kind.decode('latin-1')} data is wrong.")
        if kind == b"IEND":
            return


def _check_bmp(head: bytes, start: int) -> None:
    if len(head) < start + 40 or struct.unpack_from("<I", head, start)[0] < 40:
        return
    height, planes, _, compression = struct.unpack_from("<iHHI", head, start + 8)
    if planes != 1:
        raise ImageError(f"its header says {planes} planes, where there is always 1.")
    if height < 0 and compression in (1, 2):
        raise ImageError("its rows are run-length coded and upside down, which cannot be.")


def _check_ico(data: bytes) -> None:
    (count,) = struct.unpack_from("<H", data, 4)
    for index in range(count):
        length, offset = struct.unpack_from("<II", data, 6 + 16 * index + 8)
        needed = 0
        if data[offset : offset + 4] == struct.pack("<I", 40) and len(data) >= offset + 40:
            width, height, _, bits = struct.unpack_from("<iiHH", data, offset + 4)
            needed = 40 + (width * bits + 31) // 32 * 4 * (height // 2)
        if offset + length > len(data) or length < needed:
            raise ImageError(f"image {index + 1} of {count} in it is cut short.")
