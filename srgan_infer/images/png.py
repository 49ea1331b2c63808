"""PNG files written as their rows are made, filtered and deflated in several threads.

Pillow writes only whole images, in one thread. The stream is cut into blocks
that are filtered and deflated apart, each primed with the 32 KiB before it
and ended on a byte boundary, so that together they are one zlib stream (as
pigz does it). Pixels that a network made are smooth, and what is left of
them after filtering has next to no repetitions: there, looking only for runs
(zlib's Z_RLE) is many times faster than looking for strings, and no larger.
A small sample of each block tells which kind it is.

Source: the PNG specification, third edition, sections 9 and 10; RFC 1950, 1951.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from srgan_infer.images.embed import png_chunks
from srgan_infer.images.metadata import Metadata
from srgan_infer.images.rows import Blocks
from srgan_infer.threads import InOrder

Array = npt.NDArray[Any]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}

BLOCK_BYTES = 2 << 20
WINDOW = 32768
SAMPLE_BYTES = 1 << 16
# Rows that share one filter, chosen on one of them.
GROUP = 4
ADLER = 65521
# How a block is deflated: (level, strategy).
RUNS = (1, zlib.Z_RLE)
QUICK = (4, zlib.Z_FILTERED)
THOROUGH = (6, zlib.Z_FILTERED)


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
    threads
        That filter and deflate; default one for each processor.
    """

    def __init__(
        self,
        stream: BinaryIO,
        size: tuple[int, int],
        channels: int,
        dtype: np.dtype[Any],
        metadata: Metadata,
        *,
        threads: int | None = None,
    ) -> None:
        self._stream = stream
        self._pixel = channels * dtype.itemsize
        line = size[0] * self._pixel
        self._blocks = Blocks(max(BLOCK_BYTES // line // GROUP, 1) * GROUP)
        self._above = np.zeros(line, np.uint8)
        self._tail = b""
        self._adler = 1
        self._deflating = InOrder(self._append, threads)
        self._filtering = InOrder(self._deflate, self._deflating)
        stream.write(SIGNATURE)
        header = struct.pack(">IIBBBBB", *size, 8 * dtype.itemsize, COLOR_TYPES[channels], 0, 0, 0)
        write_chunk(stream, b"IHDR", header)
        for kind, data in png_chunks(metadata):
            write_chunk(stream, kind, data)
        write_chunk(stream, b"IDAT", b"\x78\x5e")

    def write(self, rows: Array) -> None:
        """Take the next (h, W, channels) rows."""
        self._filter(self._blocks.push(_bytes(rows)))

    def finish(self) -> None:
        """Write what is left, and the end."""
        self._filter(self._blocks.rest())
        self._filtering.finish()
        self._deflating.finish()
        # An empty last block, and the checksum of everything that was deflated.
        write_chunk(self._stream, b"IDAT", b"\x03\x00" + struct.pack(">I", self._adler))
        write_chunk(self._stream, b"IEND", b"")

    def close(self) -> None:
        """Stop without finishing the file."""
        self._deflating.close()

    def _filter(self, blocks: Iterator[Array]) -> None:
        for block in blocks:
            self._filtering.put(filter_rows, block, self._above, self._pixel)
            self._above = block[-1]

    def _deflate(self, filtered: bytes) -> None:
        self._deflating.put(deflate_block, filtered, self._tail)
        self._tail = filtered[-WINDOW:]

    def _append(self, block: tuple[bytes, int, int]) -> None:
        data, adler, length = block
        self._adler = join_adler(self._adler, adler, length)
        write_chunk(self._stream, b"IDAT", data)


def _bytes(rows: Array) -> Array:
    """A copy of (h, W, C) rows as (h, bytes), big-endian as PNG wants it."""
    big = rows.astype(rows.dtype.newbyteorder(">"))
    return big.reshape(big.shape[0], -1).view(np.uint8)


def filter_rows(rows: Array, above: Array, pixel: int) -> bytes:
    """Filter rows as PNG does, each led by its filter's number.

    The filter is the one with the least sum of absolute differences, as the
    specification advises, tried on one row of every four.

    Parameters
    ----------
    rows
        (n, bytes) uint8.
    above
        (bytes,) the row before the first.
    pixel
        Bytes of a pixel.
    """
    count, line = rows.shape
    upper = np.concatenate([above[None], rows[:-1]])
    tried = np.minimum(np.arange(0, count, GROUP) + GROUP // 2, count - 1)
    costs = [_magnitude(apply_filter(kind, rows[tried], upper[tried], pixel)) for kind in range(5)]
    kinds = np.argmin(costs, axis=0).repeat(GROUP)[:count]
    result = np.empty((count, line + 1), np.uint8)
    result[:, 0] = kinds
    # A few rows at a time stay in the cache through all steps of a filter.
    step = max(BLOCK_BYTES // 16 // line, 1)
    start = 0
    while start < count:
        kind = int(kinds[start])
        stop = start + 1
        while stop < min(start + step, count) and kinds[stop] == kind:
            stop += 1
        result[start:stop, 1:] = apply_filter(kind, rows[start:stop], upper[start:stop], pixel)
        start = stop
    return result.tobytes()


def _magnitude(filtered: Array) -> Array:
    """Sum of the absolute values of each row, the bytes taken as signed."""
    magnitude: Array = np.minimum(filtered, -filtered).sum(axis=1, dtype=np.int64)
    return magnitude


def apply_filter(kind: int, rows: Array, upper: Array, pixel: int) -> Array:
    """Rows less what PNG filter ``kind`` (0 to 4) predicts from their neighbours.

    Parameters
    ----------
    kind
        0 none, 1 left, 2 above, 3 average of both, 4 Paeth.
    rows, upper
        (n, bytes) uint8, and the row above each.
    pixel
        Bytes of a pixel.
    """
    if kind == 0:
        return rows
    if kind == 2:
        return rows - upper
    left = np.zeros_like(rows)
    left[:, pixel:] = rows[:, :-pixel]
    if kind == 1:
        return rows - left
    if kind == 3:  # ⌊(a + b) / 2⌋ without leaving 8 bits
        return rows - ((left & upper) + ((left ^ upper) >> 1))
    corner = np.zeros_like(rows)
    corner[:, pixel:] = upper[:, :-pixel]
    return rows - paeth(left, upper, corner)


def paeth(left: Array, upper: Array, corner: Array) -> Array:
    """The Paeth predictor in 8 bits.

    With p = left + upper - corner, the distances of p to left and upper are
    |upper - corner| and |left - corner|. If these two differences have the
    same sign, the distance to corner is their sum and never the least; if
    not, it is the difference of the two.
    """
    to_left = np.maximum(upper, corner)
    to_left -= np.minimum(upper, corner)
    to_upper = np.maximum(left, corner)
    to_upper -= np.minimum(left, corner)
    least = np.minimum(to_left, to_upper)
    to_corner = np.maximum(to_left, to_upper)
    to_corner -= least
    use_corner = to_corner < least
    use_corner &= (upper >= corner) ^ (left >= corner)
    use_left = _mask(to_left <= to_upper)
    result = left ^ upper
    result &= use_left
    result ^= upper
    change = result ^ corner
    change &= _mask(use_corner)
    result ^= change
    return result


def _mask(condition: Array) -> Array:
    """255 where true, 0 where false."""
    return -condition.view(np.uint8)


def deflate_block(data: bytes, before: bytes) -> tuple[bytes, int, int]:
    """Deflate one block so that it can follow another.

    Parameters
    ----------
    data
        The block.
    before
        Up to 32 KiB that come before it.

    Returns
    -------
    tuple
        The deflated bytes (not the last of their stream), the Adler-32 of
        ``data`` and its length.
    """
    level, strategy = choose_deflate(data)
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy, before)
    packed = packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)
    return packed, zlib.adler32(data), len(data)


def choose_deflate(data: bytes) -> tuple[int, int]:
    """Level and strategy for a block, by what they do to a sample from its middle."""
    middle = max(len(data) - SAMPLE_BYTES, 0) // 2
    sample = data[middle : middle + SAMPLE_BYTES]
    runs, quick = (len(_packed(sample, *how)) for how in (RUNS, QUICK))
    if 16 * quick < len(sample) or 4 * quick < 3 * runs:  # flat, or full of repetitions
        return THOROUGH
    return RUNS if runs <= 1.01 * quick else QUICK


def _packed(data: bytes, level: int, strategy: int) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    return packer.compress(data) + packer.flush()


def join_adler(first: int, second: int, length: int) -> int:
    """Adler-32 of two pieces put together; ``length`` is that of the second."""
    low = (first % 65536 + second % 65536 - 1) % ADLER
    high = (first // 65536 + second // 65536 + length * (first % 65536 - 1)) % ADLER
    return high << 16 | low


def write_chunk(stream: BinaryIO, kind: bytes, data: bytes) -> None:
    """Write one chunk with its length and checksum."""
    stream.write(struct.pack(">I", len(data)) + kind)
    stream.write(data)
    stream.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))
