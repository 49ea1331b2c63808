"""PNG files written as their rows are made."""

from __future__ import annotations

import struct
import zlib
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .metadata import Metadata

Array = npt.NDArray[Any]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
INCH = 0.0254


class PngWriter:
    """Rows into a PNG stream that need not seek.

    Parameters
    ----------
    stream
        Open for writing.
    size
        (W, H).
    channels
        1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    dtype
        uint8 or uint16.
    metadata
        Goes in front of the pixels.
    """

    def __init__(
        self,
        stream: BinaryIO,
        size: tuple[int, int],
        channels: int,
        dtype: np.dtype[Any],
        metadata: Metadata,
    ) -> None:
        self._stream = stream
        stream.write(SIGNATURE)
        header = struct.pack(">IIBBBBB", *size, 8 * dtype.itemsize, COLOR_TYPES[channels], 0, 0, 0)
        write_chunk(stream, b"IHDR", header)
        for kind, data in metadata_chunks(metadata):
            write_chunk(stream, kind, data)
        self._deflate = zlib.compressobj(1)

    def write(self, rows: Array) -> None:
        """Take the next (h, W, channels) rows."""
        lines = rows.reshape(rows.shape[0], -1)
        if lines.dtype == np.uint16:
            lines = lines.astype(">u2").view(np.uint8)
        data = np.zeros((lines.shape[0], lines.shape[1] + 1), np.uint8)
        data[:, 1:] = lines
        if packed := self._deflate.compress(data.tobytes()):
            write_chunk(self._stream, b"IDAT", packed)

    def finish(self) -> None:
        """Write what is left, and the end."""
        write_chunk(self._stream, b"IDAT", self._deflate.flush())
        write_chunk(self._stream, b"IEND", b"")


def write_chunk(stream: BinaryIO, kind: bytes, data: bytes) -> None:
    """Write one chunk with its length and checksum."""
    stream.write(struct.pack(">I", len(data)) + kind)
    stream.write(data)
    stream.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def metadata_chunks(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """The chunks that carry the metadata, in the order that the standard asks for."""
    chunks: list[tuple[bytes, bytes]] = []
    if metadata.chromaticity:
        points = (round(value * 100000) for value in metadata.chromaticity)
        chunks.append((b"cHRM", struct.pack(">8I", *points)))
    if metadata.gamma:
        chunks.append((b"gAMA", struct.pack(">I", round(metadata.gamma * 100000))))
    if metadata.icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    elif metadata.srgb is not None:
        chunks.append((b"sRGB", bytes([metadata.srgb])))
    if metadata.dpi:
        x, y = (round(value / INCH) for value in metadata.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", x, y, 1)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    if metadata.comment and not any(text.key == "Comment" for text in metadata.text):
        comment = metadata.comment.decode("utf-8", "replace").strip("\0")
        chunks.append(text_chunk("Comment", comment, "", ""))
    for text in metadata.text:
        chunks.append(text_chunk(text.key, text.value, text.language, text.translated))
    return chunks


def text_chunk(key: str, value: str, language: str, translated: str) -> tuple[bytes, bytes]:
    """A tEXt, zTXt or iTXt chunk: the simplest that holds the text."""
    name = key.encode("latin-1", "replace")[:79]
    if not language and not translated:
        try:
            plain = value.replace("\r\n", "\n").encode("latin-1")
        except UnicodeEncodeError:
            pass
        else:
            if len(plain) < 1024:
                return b"tEXt", name + b"\0" + plain
            return b"zTXt", name + b"\0\0" + zlib.compress(plain)
    tags = language.encode("latin-1", "replace") + b"\0" + translated.encode() + b"\0"
    return b"iTXt", name + b"\0\1\0" + tags + zlib.compress(value.encode())
