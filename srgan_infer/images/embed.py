"""Metadata into files: blocks put into what an encoder has written."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

from srgan_infer.images import blocks, boxes, exif, xmp
from srgan_infer.images.metadata import Metadata

COPY_BYTES = 1 << 20

# Of one JPEG segment, without its marker and length.
SEGMENT = 65533
EXIF_LIMIT = SEGMENT - len(exif.PREFIX)
COMMENT_LIMIT = SEGMENT
PROFILE_LIMIT = 255 * (SEGMENT - 14)


def jpeg(file: BinaryIO, metadata: Metadata) -> Iterator[bytes]:
    """The bytes of a JPEG file with its metadata behind the first segment (JFIF).

    Parameters
    ----------
    file
        As an encoder wrote it; at its start.
    metadata
        That fits a JPEG file.
    """
    head = file.read(20)
    if head[2:4] == b"\xff\xe0" and head[6:11] == b"JFIF\0":
        yield head[:13] + _jfif_density(metadata.density) + head[18:20]
    else:
        yield head[:2]
        file.seek(2)
    for marker, data in jpeg_segments(metadata):
        yield b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data
    yield from _rest(file)


def _rest(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(COPY_BYTES):
        yield data


def _jfif_density(density: blocks.Density | None) -> bytes:
    unit, x, y = jfif_density(density) or (0, 1, 1)
    return struct.pack(">BHH", unit, x, y)


def jfif_density(density: blocks.Density | None) -> tuple[int, int, int] | None:
    """Unit and whole numbers of a density as JFIF has them; None if they do not fit."""
    if density is None:
        return None
    if not density.unit:
        ratio = Fraction(density.x / density.y).limit_denominator(65535)
        return (0, ratio.numerator, ratio.denominator) if 0 < ratio.numerator < 65536 else None
    best: tuple[Fraction, tuple[int, int, int]] | None = None
    for code, unit in ((1, blocks.INCH), (2, blocks.CENTIMETRE)):
        exact = density.per(unit)
        x, y = (round(value) for value in exact)
        if 0 < x < 65536 and 0 < y < 65536:
            error = max(abs(x / exact[0] - 1), abs(y / exact[1] - 1))
            if best is None or error < best[0]:
                best = (error, (code, x, y))
    return best[1] if best else None


def jpeg_segments(metadata: Metadata) -> Iterator[tuple[int, bytes]]:
    """Marker and content of the segments that carry metadata."""
    if metadata.exif:
        yield 0xE1, exif.PREFIX + metadata.exif
    if metadata.xmp:
        yield from _xmp_segments(metadata.xmp)
    resources = resources_with_iptc(metadata)
    room = SEGMENT - len(blocks.PHOTOSHOP_NAME)
    for at in range(0, len(resources), room):
        yield 0xED, blocks.PHOTOSHOP_NAME + resources[at : at + room]
    room = SEGMENT - 14
    count = -(-len(metadata.icc) // room)
    for index in range(count):
        part = metadata.icc[index * room : (index + 1) * room]
        yield 0xE2, blocks.ICC_NAME + bytes([index + 1, count]) + part
    if metadata.comment:
        yield 0xFE, metadata.comment


def _xmp_segments(packet: bytes) -> Iterator[tuple[int, bytes]]:
    """One segment, or a shorter packet and its extension in pieces."""
    parts = (packet, b"", b"") if len(packet) <= xmp.SEGMENT_LIMIT else xmp.split(packet)
    if parts is None:
        return
    main, digest, extension = parts
    yield 0xE1, blocks.XMP_NAME + main
    for at in range(0, len(extension), xmp.EXTENSION_LIMIT):
        head = struct.pack(">32sII", digest, len(extension), at)
        yield 0xE1, blocks.EXTENSION_NAME + head + extension[at : at + xmp.EXTENSION_LIMIT]


def resources_with_iptc(metadata: Metadata) -> bytes:
    """IPTC as one of Photoshop's image resources, in front of the others."""
    iptc = blocks.encode_resources([(1028, b"\0\0", metadata.iptc)]) if metadata.iptc else b""
    return iptc + metadata.photoshop


def png_chunks(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    """The chunks that carry metadata, in the order that the standard asks for."""
    if metadata.color:
        color = metadata.color
        yield b"cICP", bytes([color.primaries, color.transfer, 0, color.full_range])
    if metadata.mastering:
        yield b"mDCV", metadata.mastering
    if metadata.light:
        yield b"cLLI", metadata.light
    if metadata.chromaticity:
        points = (round(value * 100000) for value in metadata.chromaticity)
        yield b"cHRM", struct.pack(">8I", *points)
    if metadata.gamma:
        yield b"gAMA", struct.pack(">I", round(metadata.gamma * 100000))
    if metadata.icc:
        yield b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)
    elif metadata.srgb is not None:
        yield b"sRGB", bytes([metadata.srgb])
    if (physical := phys(metadata.density)) is not None:
        yield b"pHYs", struct.pack(">IIB", *physical)
    if metadata.exif:
        yield b"eXIf", metadata.exif
    if metadata.xmp:
        yield b"iTXt", blocks.XMP_KEYWORD + bytes(5) + metadata.xmp
    if resources := resources_with_iptc(metadata):
        # PNG has no chunk for it; this is how ImageMagick, ExifTool and Exiv2 have it.
        yield b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(_as_text(b"iptc", resources))
    if metadata.comment and not any(text.key == "Comment" for text in metadata.text):
        text = blocks.png_text("Comment", comment_text(metadata.comment))
        yield text.kind, text.data
    for text in metadata.text:
        yield text.kind, text.data


def comment_text(comment: bytes) -> str:
    """A comment's text: UTF-8, or else Latin-1."""
    plain = comment.strip(b"\0")
    try:
        return plain.decode()
    except UnicodeDecodeError:
        return plain.decode("latin-1")


def _as_text(name: bytes, data: bytes) -> bytes:
    """A profile as hexadecimal text, 36 bytes a line."""
    lines = (data[at : at + 36].hex().encode() for at in range(0, len(data), 36))
    return b"\n%s\n%8d\n" % (name, len(data)) + b"\n".join(lines) + b"\n"


def phys(density: blocks.Density | None) -> tuple[int, int, int] | None:
    """The numbers and unit of a density as PNG has them; None if they do not fit."""
    if density is None:
        return None
    if density.unit:
        x, y = (round(value) for value in density.per(blocks.METRE))
    else:
        ratio = Fraction(density.x / density.y).limit_denominator(2**31 - 1)
        x, y = ratio.numerator, ratio.denominator
    return (x, y, int(bool(density.unit))) if 0 < x < 2**31 and 0 < y < 2**31 else None


def png(file: BinaryIO, metadata: Metadata) -> Iterator[bytes]:
    """The bytes of a PNG file with its metadata behind the header."""
    yield file.read(33)
    for kind, data in png_chunks(metadata):
        yield struct.pack(">I", len(data)) + kind + data
        yield struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
    yield from _rest(file)


def tiff_density(
    density: blocks.Density | None, own_unit: bool = False
) -> tuple[int, tuple[int, int], tuple[int, int]] | None:
    """Unit and two fractions of a density as TIFF has them; None if they do not fit.

    Parameters
    ----------
    own_unit
        Whether a description names a unit that TIFF does not know.
    """
    if density is None:
        return None
    units = {Fraction(0): 1, blocks.INCH: 2, blocks.CENTIMETRE: 3}
    unit = 1 if own_unit else units.get(density.unit, 3)
    if own_unit or density.unit in units:
        x, y = density.x, density.y
    else:
        x, y = density.per(blocks.CENTIMETRE)
    across, down = exif.fraction_that_fits(x), exif.fraction_that_fits(y)
    return None if across is None or down is None else (unit, across, down)


def tiff_tree(metadata: Metadata) -> tuple[exif.Tree, tuple[int, ...]]:
    """The entries of a TIFF file that carry metadata, little-endian.

    Returns
    -------
    tuple
        The entries, and the tags of EXIF that do not belong into a TIFF file.
    """
    tree: exif.Tree = {}
    lost: tuple[int, ...] = ()
    if metadata.exif:
        structure = exif.Structure(metadata.exif)
        tree, lost = exif.read_tree(structure, "<")
        others = tuple(tag for tag in tree if tag not in blocks.ALLOWED)
        for tag in others:
            del tree[tag]
        for inner in (tree.get(34665), tree):
            if isinstance(inner, dict):
                inner.pop(blocks.PADDING, None)
        lost += tuple(tag for tag in others if tag not in blocks.STRUCTURE | {blocks.PADDING})
    tree.update(metadata.ground)
    description = tree.get(270)
    imagej = isinstance(description, tuple) and description[2].startswith(b"ImageJ=")
    physical = metadata.density is not None and metadata.density.physical
    numbers = tiff_density(metadata.density, own_unit=imagej and physical)
    if numbers is not None:
        unit, across, down = numbers
        tree[282] = (exif.RATIONAL, 1, struct.pack("<II", *across))
        tree[283] = (exif.RATIONAL, 1, struct.pack("<II", *down))
        tree[296] = (exif.SHORT, 1, struct.pack("<H", unit))
    for tag, kind, data in (
        (700, exif.BYTE, metadata.xmp),
        (33723, exif.UNDEFINED, metadata.iptc),
        (34377, exif.BYTE, metadata.photoshop),
        (34675, exif.UNDEFINED, metadata.icc),
    ):
        if data:
            tree[tag] = (kind, len(data), data)
    return tree, lost


def gif(file: BinaryIO, metadata: Metadata) -> Iterator[bytes]:
    """The bytes of a GIF file with the shape of its pixels, and XMP behind its first palette."""
    head = bytearray(file.read(13))
    head[12] = gif_shape(metadata.density) or 0
    yield bytes(head)
    if head[10] & 0x80:
        yield file.read(3 * (2 << (head[10] & 7)))
    yield gif_xmp(metadata)
    yield from _rest(file)


def gif_shape(density: blocks.Density | None) -> int | None:
    """The shape of a pixel as GIF has it, in 64ths; None if it does not fit."""
    if density is None or density.unit:
        return None
    value = round(64 * density.y / density.x) - 15
    return value if 1 <= value <= 255 else None


def gif_xmp(metadata: Metadata) -> bytes:
    """The extension of a GIF file that holds XMP; nothing if there is none.

    The packet lies there plainly. Readers that take its bytes for lengths of blocks come
    to the bytes behind it, each of which leads them to the last one.
    """
    if not metadata.xmp:
        return b""
    return b"\x21\xff\x0bXMP DataXMP" + metadata.xmp + b"\1" + bytes(range(255, -1, -1)) + b"\0"


def jpeg2000(file: BinaryIO, metadata: Metadata) -> Iterator[bytes]:
    """The bytes of a JP2 file with a profile, a resolution, EXIF, XMP and IPTC."""
    for box in list(boxes.file_boxes(file)):
        if box.kind == b"jp2h":
            inner = b"".join(_jp2_header(file, box, metadata))
            yield struct.pack(">I4s", len(inner) + 8, b"jp2h") + inner
            for key, data in (
                (blocks.UUID_EXIF, metadata.exif),
                (blocks.UUID_XMP, metadata.xmp),
                (blocks.UUID_IPTC, metadata.iptc),
            ):
                if data:
                    yield struct.pack(">I4s", len(data) + 24, b"uuid") + key + data
        else:
            file.seek(box.start)
            left = box.end - box.start
            while left and (data := file.read(min(left, COPY_BYTES))):
                left -= len(data)
                yield data


def _jp2_header(file: BinaryIO, header: boxes.Box, metadata: Metadata) -> Iterator[bytes]:
    for box in boxes.walk(file, header.body, header.end):
        content = boxes.content(file, box)
        if box.kind == b"colr" and metadata.icc:
            content = b"\2\0\0" + metadata.icc
        yield struct.pack(">I4s", len(content) + 8, box.kind) + content
    if (numbers := jp2_density(metadata.density)) is not None:
        inner = struct.pack(">I4s", 18, b"resc") + struct.pack(">HHHHbb", *numbers)
        yield struct.pack(">I4s", len(inner) + 8, b"res ") + inner


def jp2_density(density: blocks.Density | None) -> tuple[int, int, int, int, int, int] | None:
    """A density as JP2 has it: fractions of 16 bits and powers of ten; None if it does not fit."""
    if density is None or not density.unit:
        return None
    parts = []
    for value in density.per(blocks.METRE):
        power = 0
        while value >= 65536:
            value, power = value / 10, power + 1
        while value < 1:
            value, power = value * 10, power - 1
        near = value.limit_denominator(max(int(65535 / value), 1))
        if not -128 <= power < 128 or not 0 < near.numerator < 65536:
            return None
        parts.append((near.numerator, near.denominator, power))
    (up_x, down_x, ten_x), (up_y, down_y, ten_y) = parts
    return up_y, down_y, up_x, down_x, ten_y, ten_x


def avif_exif(block: bytes) -> bytes:
    """What stands for an EXIF block while Pillow writes an AVIF file.

    Pillow takes the orientation out, and lays the block out anew. So it gets an empty
    block of the same length, which is replaced in the finished file.
    """
    head = b"II*\0\x08\0\0\0" + bytes(6)
    digest = hashlib.sha256(block).digest()
    filling = digest * (len(block) // len(digest) + 1)
    return (head + filling)[: len(block)]


def avif(file: BinaryIO, metadata: Metadata) -> Iterator[bytes]:
    """The bytes of an AVIF file with its EXIF block and its colour signalling."""
    data = bytearray(file.read())
    if metadata.exif:
        place = data.find(avif_exif(metadata.exif))
        if place < 0:
            raise OSError("the encoder has left out the EXIF block")
        data[place : place + len(metadata.exif)] = metadata.exif
    if metadata.color:
        _signal(data, metadata.color)
    yield bytes(data)


def _signal(data: bytearray, color: blocks.Color) -> None:
    """Write primaries and transfer over those that Pillow has signalled.

    The matrix stays: it is the one that the encoder has used.
    """
    end = data.find(b"mdat")
    at = data.find(b"colrnclx", 0, end)
    if at < 0:
        raise OSError("the encoder has written no colour signalling")
    while at >= 0:
        struct.pack_into(">HH", data, at + 8, color.primaries, color.transfer)
        at = data.find(b"colrnclx", at + 8, end)
    items = boxes.Items(io.BytesIO(data))
    for place, length in items.items[items.primary].extents[:1]:
        bit = _color_description(data, place, place + length)
        if bit is not None:
            _write_bits(data, bit, color.primaries << 8 | color.transfer, 16)


def _color_description(data: bytearray, at: int, end: int) -> int | None:
    """The bit where an AV1 stream states primaries and transfer; None if it does not.

    Source: the AV1 bitstream specification, sections 5.3 (OBU), 5.5 (sequence header).
    """
    while at < end:
        head = data[at]
        kind, extended, sized = head >> 3 & 15, head >> 2 & 1, head >> 1 & 1
        at += 1 + extended
        size = shift = 0
        while sized:
            size |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if not data[at - 1] & 128:
                break
        if kind == 1:
            return _in_sequence_header(Bits(data, 8 * at))
        at += size if sized else end - at
    return None


class Bits:
    """Numbers of any number of bits, read one after the other.

    Parameters
    ----------
    data
        Read from its highest bits down.
    place
        The bit to begin at.
    """

    def __init__(self, data: bytes | bytearray, place: int) -> None:
        self._data = data
        self.place = place

    def take(self, count: int) -> int:
        """The next ``count`` bits as a number."""
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self.place >> 3] >> (7 - self.place & 7) & 1
            self.place += 1
        return value


def _in_sequence_header(bits: Bits) -> int | None:
    profile, _, reduced = bits.take(3), bits.take(1), bits.take(1)
    if reduced:
        bits.take(5)
    else:
        if bits.take(1):  # timing, which still images and their sequences do not have
            return None
        delay = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delay and bits.take(1):
                bits.take(4)
    width, height = bits.take(4) + 1, bits.take(4) + 1
    bits.take(width + height)
    if not reduced and bits.take(1):
        bits.take(7)
    bits.take(3)
    if not reduced:
        bits.take(4)
        ordered = bits.take(1)
        if ordered:
            bits.take(2)
        tools = 2 if bits.take(1) else bits.take(1)
        if tools and not bits.take(1):
            bits.take(1)
        if ordered:
            bits.take(3)
    bits.take(3)
    high = bits.take(1)
    if profile == 2 and high:
        bits.take(1)
    if profile != 1:
        bits.take(1)
    described = bits.take(1)
    return bits.place if described else None


def _write_bits(data: bytearray, place: int, value: int, count: int) -> None:
    for index in range(count):
        at = place + index
        mask = 128 >> (at & 7)
        on = value >> (count - 1 - index) & 1
        data[at >> 3] = data[at >> 3] | mask if on else data[at >> 3] & ~mask
