"""Damage that Pillow reads over, and where a file ends: from its headers, or its checksums."""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from typing import Any, BinaryIO

from srgan_infer.errors import ImageError
from srgan_infer.images import exif
from srgan_infer.images.blocks import png_chunks
from srgan_infer.images.boxes import file_boxes
from srgan_infer.images.jpeg import check_jpeg, extent
from srgan_infer.images.timing import read_timing

BLOCK = 1 << 20
# With which a file begins, and so one that follows.
FIRST_BOX = {"AVIF": b"ftyp", "HEIF": b"ftyp"}
# Of a TIFF: tags that point to directories, and those that say where data lie and how much.
INNER = (330, 34665, 34853)
DATA = ((273, 279), (324, 325), (513, 514))
MOST_DIRECTORIES = 1000
# The passes of an interlaced PNG: first column and row, steps.
ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
# Of an ICNS file; larger images in it are not what their type says.
LARGEST_ICON = 1024


def check_header(name: str, stream: BinaryIO) -> None:
    """Raise ``ImageError`` if a file is damaged, or of a kind that Pillow reads wrongly.

    Only headers are looked at, so this takes no time.

    Parameters
    ----------
    name
        Pillow's name of the format.
    stream
        The file.
    """
    stream.seek(0)
    if name == "PNG":
        if not any(kind == b"IEND" for kind, _, _ in png_chunks(stream)):
            raise ImageError("it is cut short.")
    elif name == "JPEG":
        check_jpeg(stream)
    elif name == "BMP":
        _check_bmp(stream.read(64), 14)
    elif name == "PSD":
        _check_psd(stream)
    elif name == "ICNS":
        _check_icns(stream)
    elif name == "":
        _check_bmp(stream.read(64), 0)


def check_pixels(name: str, stream: BinaryIO) -> None:
    """Raise ``ImageError`` if a PNG file is damaged or lacks rows: Pillow reads over both."""
    if name == "PNG":
        _check_checksums(stream)
        _check_rows(stream)


def end_of(name: str, stream: BinaryIO) -> int | None:
    """Where the image ends in its file, for formats that are sent one after the other."""
    if name == "PNG":
        return next((at + 4 for kind, at, _ in png_chunks(stream) if kind == b"IEND"), None)
    if name == "GIF":
        return read_timing(name, stream).end or None
    if name == "TIFF":
        return _end_of_tiff(stream)
    if name in FIRST_BOX:
        again = (box.start for box in file_boxes(stream) if box.kind == FIRST_BOX[name])
        return next(itertools.islice(again, 1, None), None)
    stream.seek(0)
    if name == "JPEG":
        return extent(stream.read()).end
    head = stream.read(12)
    if name == "BMP":
        return int(struct.unpack_from("<I", head, 2)[0]) or None
    if name == "WEBP":
        return int(struct.unpack_from("<I", head, 4)[0]) + 8
    return _end_of_ppm(head + stream.read(1000)) if name == "PPM" else None


def _end_of_tiff(stream: BinaryIO) -> int | None:
    """Behind all that its directories point to."""
    try:
        structure = exif.Structure(stream)
        places, seen, end = [structure.first], {0}, 8
        while places and len(seen) < MOST_DIRECTORIES:
            place = places.pop()
            if place in seen:
                continue
            seen.add(place)
            directory = structure.directory(place)
            end = max(end, directory.link + (8 if structure.big else 4))
            values: dict[int, list[int]] = {}
            for tag, entry in directory.entries.items():
                end = max(end, entry.place + entry.length)
                if tag in (*INNER, *itertools.chain(*DATA)):
                    values[tag] = [int(value) for value in structure.numbers(entry)]
            for starts, lengths in DATA:
                ends = map(sum, zip(values.get(starts, ()), values.get(lengths, ()), strict=False))
                end = max(end, *ends, 0)
            places += [directory.next, *itertools.chain(*(values.get(tag, ()) for tag in INNER))]
    except (exif.DamagedError, ValueError):
        return None
    return end


def _end_of_ppm(head: bytes) -> int | None:
    """Of the binary kinds, whose size follows from the numbers in front."""
    space = rb"(?:\s|#[^\n]*\n)+"
    found = re.match(rb"P([456])" + space + rb"(\d+)" + space + rb"(\d+)", head)
    if found is None:
        return None
    kind, width, height = map(int, found.groups())
    end = found.end()
    if kind == 4:
        return end + 1 + -(-width // 8) * height
    top = re.compile(space + rb"(\d+)\s").match(head, end)
    if top is None:
        return None
    return top.end() + width * height * (3 if kind == 6 else 1) * (2 if int(top[1]) > 255 else 1)


def _check_checksums(stream: BinaryIO) -> None:
    for kind, at, length in png_chunks(stream):
        if kind[0] & 0x20 and kind not in (b"fcTL", b"fdAT"):
            continue  # other chunks hold nothing that the pixels need
        stream.seek(at)
        checksum = zlib.crc32(kind)
        while length:
            block = stream.read(min(length, BLOCK))
            if not block:
                raise ImageError("it is cut short.")
            checksum = zlib.crc32(block, checksum)
            length -= len(block)
        if stream.read(4) != struct.pack(">I", checksum):
            raise ImageError(f"the checksum of its {kind.decode('latin-1')} data is wrong.")


def _check_rows(stream: BinaryIO) -> None:
    """Whether the pixels of a PNG file are as many as its header says; they are not kept."""
    unpacker, missing = zlib.decompressobj(), 0
    for kind, at, length in png_chunks(stream):
        if kind == b"IHDR":
            stream.seek(at)
            missing = _png_length(*struct.unpack(">IIBBxxB", stream.read(13)))
        if kind != b"IDAT":
            continue
        while length and missing > 0:
            stream.seek(at)
            block = stream.read(min(length, BLOCK))
            at, length = at + len(block), length - len(block)
            while block and missing > 0 and not unpacker.eof:
                missing -= len(_inflated(unpacker, block))
                block = unpacker.unconsumed_tail
    if missing > 0:
        raise ImageError("it is cut short: rows are missing.")


def _inflated(unpacker: Any, block: bytes) -> bytes:
    try:
        pixels: bytes = unpacker.decompress(block, BLOCK)
    except zlib.error as error:
        raise ImageError(f"it is damaged: its pixels cannot be unpacked ({error}).") from error
    return pixels


def _png_length(width: int, height: int, bits: int, color: int, interlaced: int) -> int:
    """Bytes of all rows with the filter in front of each."""
    samples = {2: 3, 4: 2, 6: 4}.get(color, 1)
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = (
        (-(-(width - left) // across), -(-(height - top) // down))
        for left, top, across, down in passes
    )
    return sum(rows * (1 + -(-line * samples * bits // 8)) for line, rows in sizes if line > 0)


def _check_bmp(head: bytes, start: int) -> None:
    if len(head) < start + 40 or not 40 <= struct.unpack_from("<I", head, start)[0] <= 124:
        return
    height, planes, _, compression = struct.unpack_from("<iHHI", head, start + 8)
    if planes != 1 and start:
        raise ImageError(f"its header says {planes} planes, where there is always 1.")
    if height < 0 and compression in (1, 2):
        raise ImageError("its rows are run-length coded and upside down, which cannot be.")


def _check_psd(stream: BinaryIO) -> None:
    """Photoshop keeps the merged image only if it is told to be compatible."""
    head = stream.read(26)
    if len(head) < 26:
        raise ImageError("it is cut short.")
    depth, mode = struct.unpack_from(">HH", head, 22)
    if depth not in (1, 8):
        raise ImageError(
            f"it is a PSD with {depth} bits a channel, of which 8 are read; save it as TIFF."
        )
    if mode == 7:
        raise ImageError("it is a PSD of multichannel colour, which is not read; save it as RGB.")
    at = 26
    for _ in range(2):
        stream.seek(at)
        size = stream.read(4)
        if len(size) < 4:
            raise ImageError("it is cut short.")
        start, at = at + 4, at + 4 + int.from_bytes(size, "big")
    while start + 12 <= at:
        stream.seek(start)
        block = stream.read(7)
        if block[:4] != b"8BIM":
            return
        name = 1 + block[6]
        stream.seek(start + 6 + name + name % 2)
        length = int.from_bytes(stream.read(4), "big")
        if block[4:6] == b"\x04\x21":  # version info: is there a merged image?
            if stream.read(5)[4:] == b"\0":
                raise ImageError(
                    "it is a PSD that holds layers only; save it with Maximize Compatibility, "
                    "or as PNG."
                )
            return
        start += 10 + name + name % 2 + length + length % 2


def _check_icns(stream: BinaryIO) -> None:
    at, end = 8, stream.seek(0, 2)
    stream.seek(4)
    if int.from_bytes(stream.read(4), "big") > end:
        raise ImageError("it is cut short.")
    while at + 8 <= end:
        stream.seek(at)
        _, length = struct.unpack(">4sI", stream.read(8))
        head = stream.read(24)
        if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 24:
            size = struct.unpack(">II", head[16:])
            if max(size) > LARGEST_ICON:
                raise ImageError(f"it is damaged: an icon of {size[0]}×{size[1]} pixels.")
        at += max(length, 8)
