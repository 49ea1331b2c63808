"""TIFF files written as their rows are made; BigTIFF where 4 GB are not enough.

Pillow can only write an image that is whole in memory.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from srgan_infer.images.embed import tiff_tree
from srgan_infer.images.exif import LONG, LONG8, SHORT, Tree, Value, encode_directory
from srgan_infer.images.metadata import Metadata
from srgan_infer.images.rows import Blocks
from srgan_infer.threads import InOrder

Array = npt.NDArray[Any]

STRIP_BYTES = 1 << 19
# Offsets of a classic TIFF have 32 bits.
CLASSIC_BYTES = 2**32 - 2**25
# What a directory takes without metadata, and a strip beside its pixels.
DIRECTORY_BYTES, STRIP_MORE = 512, 512
LEVEL = 5
# Of a directory's kind: one page of several.
ONE_OF_SEVERAL = 2


class TiffWriter:
    """Rows into a TIFF file of deflated strips, page after page.

    Parameters
    ----------
    stream
        Open for writing; one that cannot seek gets the file at the end.
    size
        (W, H) of the first page.
    channels
        1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    dtype
        uint8, uint16 or float32.
    metadata
        All that a TIFF file has a place for is written.
    n_pages
        How many there will be.
    big
        Whether it is a BigTIFF; by default only if the first page may exceed 4 GB.
    threads
        That deflate; default one for each processor.
    """

    def __init__(
        self,
        stream: BinaryIO,
        size: tuple[int, int],
        channels: int,
        dtype: np.dtype[Any],
        metadata: Metadata,
        *,
        n_pages: int = 1,
        big: bool | None = None,
        threads: int | None = None,
    ) -> None:
        if big is None:
            big = exceeds_classic(page_bytes(size, channels, dtype, metadata))
        self._big = big
        self._n_pages = n_pages
        self._page = 0
        self._stream = stream
        self._file = stream if stream.seekable() else tempfile.TemporaryFile()  # noqa: SIM115
        self._start = self._file.tell()
        self._work = InOrder(self._append, threads)
        if big:
            self._file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        else:
            self._file.write(struct.pack("<2sHI", b"II", 42, 0))
        # Where the place of the next directory is to be written.
        self._link = 8 if big else 4
        self._begin(size, channels, dtype, metadata)

    def write(self, rows: Array) -> None:
        """Take the next (h, W, channels) rows."""
        self._deflate(self._strips.push(rows.copy()))

    def next_page(
        self, size: tuple[int, int], channels: int, dtype: np.dtype[Any], metadata: Metadata
    ) -> None:
        """Begin the next page; parameters as of the first."""
        self._end_page()
        self._begin(size, channels, dtype, metadata)

    def finish(self) -> None:
        """Write what is left."""
        self._end_page()
        if self._file is not self._stream:
            self._file.seek(0)
            shutil.copyfileobj(self._file, self._stream, 1 << 20)

    def close(self) -> None:
        """Stop without finishing the file."""
        self._work.close()
        if self._file is not self._stream:
            self._file.close()

    def _begin(
        self, size: tuple[int, int], channels: int, dtype: np.dtype[Any], metadata: Metadata
    ) -> None:
        self._width, self._height = size
        self._channels = channels
        self._dtype = dtype
        self._metadata = metadata
        line = self._width * channels * dtype.itemsize
        self._strip_rows = min(max(STRIP_BYTES // line, 1), self._height)
        self._strips = Blocks(self._strip_rows)
        self._offsets: list[int] = []
        self._lengths: list[int] = []

    def _end_page(self) -> None:
        """Write the rows that are left, and the directory behind them."""
        self._deflate(self._strips.rest())
        self._work.finish()
        here = self._file.tell() - self._start
        here += here % 2
        self._file.seek(self._start + here)
        tree = self._directory()
        self._file.write(encode_directory(tree, here, self._big))
        self._file.seek(self._start + self._link)
        self._file.write(struct.pack("<Q" if self._big else "<I", here))
        self._file.seek(0, 2)
        self._link = here + (8 + 20 * len(tree) if self._big else 2 + 12 * len(tree))
        self._page += 1

    def _deflate(self, strips: Iterator[Array]) -> None:
        for strip in strips:
            self._work.put(deflate_strip, strip)

    def _append(self, data: bytes) -> None:
        self._offsets.append(self._file.tell() - self._start)
        self._lengths.append(len(data))
        self._file.write(data)

    def _directory(self) -> Tree:
        metadata, channels = self._metadata, self._channels
        kept, _ = tiff_tree(metadata)
        offset_type, offset_code = (LONG8, "Q") if self._big else (LONG, "I")
        strips = len(self._offsets)
        own: Tree = {
            256: (LONG, 1, struct.pack("<I", self._width)),
            257: (LONG, 1, struct.pack("<I", self._height)),
            258: _shorts(*[8 * self._dtype.itemsize] * channels),
            259: _shorts(8),
            262: _shorts(1 if channels < 3 else 2),
            273: (offset_type, strips, struct.pack(f"<{strips}{offset_code}", *self._offsets)),
            277: _shorts(channels),
            278: (LONG, 1, struct.pack("<I", self._strip_rows)),
            279: (offset_type, strips, struct.pack(f"<{strips}{offset_code}", *self._lengths)),
            284: _shorts(1),
            317: _shorts(1 if self._dtype == np.float32 else 2),
            339: _shorts(*[3 if self._dtype == np.float32 else 1] * channels),
        }
        if channels in (2, 4):
            own[338] = _shorts(2)
        if self._n_pages > 1:
            own[254] = (LONG, 1, struct.pack("<I", ONE_OF_SEVERAL))
            own[297] = _shorts(self._page, self._n_pages)
        return kept | own


def page_bytes(
    size: tuple[int, int], channels: int, dtype: np.dtype[Any], metadata: Metadata
) -> int:
    """What a page takes if nothing of it can be compressed."""
    pixels = size[0] * size[1] * channels * dtype.itemsize
    strips = -(-pixels // STRIP_BYTES)
    told = len(encode_directory(tiff_tree(metadata)[0], 0))
    return pixels + told + STRIP_MORE * strips + DIRECTORY_BYTES


def exceeds_classic(size: int) -> bool:
    """Whether a file of pages of so many bytes in all has to be a BigTIFF."""
    return size > CLASSIC_BYTES


def deflate_strip(strip: Array) -> bytes:
    """One strip as TIFF wants it: each sample less its left neighbour (integers), deflated."""
    if strip.dtype != np.float32:
        difference = strip.astype(strip.dtype.newbyteorder("<"))
        difference[:, 1:] -= strip[:, :-1]
        strip = difference
    return zlib.compress(np.ascontiguousarray(strip).data, LEVEL)


def _shorts(*values: int) -> Value:
    return SHORT, len(values), struct.pack(f"<{len(values)}H", *values)
