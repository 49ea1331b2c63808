"""What image files hold beside their pixels: each format's blocks, read raw.

Nothing is decoded that need not be, and nothing is read by way of Pillow, which changes
types, keeps one text of a name and refuses what is long.
"""

from __future__ import annotations

import binascii
import bisect
import importlib.util
import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from srgan_infer.images import boxes, exif, xmp
from srgan_infer.images.exif import Value

# What is inflated of a compressed profile or packet, and read of a text, at most.
LARGEST = 1 << 26
LARGEST_TEXT = 1 << 20

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"
EXTENSION_NAME = b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP_NAME = b"Photoshop 3.0\0"
ICC_NAME = b"ICC_PROFILE\0"
XMP_KEYWORD = b"XML:com.adobe.xmp"
RAW_PROFILE = "raw profile type "
RAW_PROFILES = {"exif", "app1", "xmp", "icc", "icm", "iptc", "8bim"}

UUID_EXIF = b"JpgTiffExif->JP2"
UUID_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
UUID_IPTC = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")

INCH, CENTIMETRE, METRE = Fraction(254, 10000), Fraction(1, 100), Fraction(1)


@dataclass(frozen=True)
class Density:
    """Pixels per length, or only the shape of a pixel.

    Parameters
    ----------
    x, y
        Pixels per unit.
    unit
        In metres; 0 if only the ratio of the two means something.
    physical
        Whether pixels count the thing that is shown, as under a microscope, and not
        the paper it is printed on.
    """

    x: Fraction
    y: Fraction
    unit: Fraction
    physical: bool = False

    def per(self, unit: Fraction) -> tuple[Fraction, Fraction]:
        """Pixels per another unit."""
        return (self.x / self.unit * unit, self.y / self.unit * unit)


@dataclass(frozen=True)
class Color:
    """Colour signalling: code points of ITU-T H.273, which stand above a profile.

    Parameters
    ----------
    primaries
        1 is sRGB's, 9 BT.2020's, 12 Display P3's.
    transfer
        13 is sRGB's; 16 (PQ) and 18 (HLG) are those of HDR.
    full_range
        Whether 0 is black and the largest value white.
    """

    primaries: int
    transfer: int
    full_range: bool = True

    @property
    def hdr(self) -> bool:
        """Whether the values reach beyond white."""
        return self.transfer in (16, 18)

    @property
    def usual(self) -> bool:
        """Whether it says what is assumed of an image that says nothing."""
        return self.primaries in (1, 2) and self.transfer in (2, 13) and self.full_range


@dataclass(frozen=True)
class PngText:
    """One text chunk of a PNG file, as it lies there.

    Parameters
    ----------
    kind
        ``tEXt``, ``zTXt`` or ``iTXt``.
    data
        The chunk's content.
    """

    kind: bytes
    data: bytes

    @property
    def key(self) -> str:
        """Its keyword."""
        return self.data.partition(b"\0")[0].decode("latin-1")

    @property
    def value(self) -> str:
        """Its text; empty if it cannot be read."""
        return text_content(self).decode("utf-8" if self.kind == b"iTXt" else "latin-1", "replace")


@dataclass(frozen=True)
class FileBlocks:
    """What one file holds, as it lies there.

    Parameters
    ----------
    exif
        Without prefix.
    extension
        The joined extension of the XMP packet.
    photoshop
        Image resources (``8BIM``).
    iptc
        IPTC-IIM records.
    resolution
        Of a TIFF file: the numbers of its density, whatever their unit.
    ground
        Of a TIFF file: entries that say where the image lies on the ground, little-endian.
    parts
        Other images in the file, in words.
    others
        What is there and has no field here, in words.
    damaged
        What cannot be read, in words.
    """

    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    extension: bytes = b""
    photoshop: bytes = b""
    iptc: bytes = b""
    comment: bytes = b""
    density: Density | None = None
    text: tuple[PngText, ...] = ()
    color: Color | None = None
    mastering: bytes = b""
    light: bytes = b""
    gamma: float | None = None
    chromaticity: tuple[float, ...] = ()
    srgb: int | None = None
    resolution: tuple[Fraction, Fraction] | None = None
    ground: tuple[tuple[int, Value], ...] = ()
    parts: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


def read_blocks(name: str, stream: BinaryIO) -> FileBlocks:
    """Read what a file of format ``name`` (Pillow's) holds beside its pixels.

    Parameters
    ----------
    name
        Such as ``"JPEG"``; of formats that are not known here nothing is read.
    stream
        The file; can seek.
    """
    reader = READERS.get(name)
    if reader is None:
        return FileBlocks()
    stream.seek(0)
    try:
        return reader(stream)
    except (struct.error, IndexError, boxes.DamagedError, exif.DamagedError):
        return FileBlocks(damaged=("metadata",))


def density(x: Fraction | float, y: Fraction | float, unit: Fraction) -> Density | None:
    """A density, or None if it means nothing: zero, negative, or a pixel that is square."""
    if not (x > 0 and y > 0 and x != float("inf") and y != float("inf")):  # false for NaN too
        return None
    x, y = Fraction(x), Fraction(y)
    return None if not unit and x == y else Density(x, y, unit)


def density_of_metres(x: int, y: int) -> Density | None:
    """Whole pixels a metre; as pixels an inch where that is what was rounded to them."""
    inches = [round(value * INCH) for value in (x, y)]
    if all(inches) and [round(value / INCH) for value in inches] == [x, y]:
        return density(inches[0], inches[1], INCH)
    return density(x, y, METRE)


# --- JPEG


def _jpeg(stream: BinaryIO) -> FileBlocks:
    found = FileBlocks()
    profiles: dict[int, bytes] = {}
    count = 0
    extensions: dict[bytes, dict[int, bytes]] = {}
    comments: list[bytes] = []
    photoshop: list[bytes] = []
    exifs: list[bytes] = []
    others: list[str] = []
    parts: list[str] = []
    for marker, data in _segments(stream):
        if marker == 0xE0 and data.startswith(b"JFIF\0") and len(data) >= 12:
            unit, x, y = struct.unpack_from(">BHH", data, 7)
            units = {0: Fraction(0), 1: INCH, 2: CENTIMETRE}
            if unit in units:
                found = replace(found, density=density(x, y, units[unit]))
        elif marker == 0xE1 and data.startswith(exif.PREFIX):
            rest = data[len(exif.PREFIX) :]
            # One that is too long for a segment goes on in the next.
            if not exifs or rest[:2] not in (b"II", b"MM"):
                exifs.append(rest)
        elif marker == 0xE1 and data.startswith(XMP_NAME):
            found = replace(found, xmp=found.xmp or data[len(XMP_NAME) :])
        elif marker == 0xE1 and data.startswith(EXTENSION_NAME) and len(data) >= 75:
            digest, _, offset = struct.unpack_from(">32sII", data, len(EXTENSION_NAME))
            extensions.setdefault(digest, {})[offset] = data[len(EXTENSION_NAME) + 40 :]
        elif marker == 0xE2 and data.startswith(ICC_NAME) and len(data) >= 14:
            profiles[data[12]] = data[14:]
            count = data[13]
        elif marker == 0xE2 and data.startswith(b"MPF\0"):
            parts += _multi_picture(data[4:])
        elif marker == 0xED and data.startswith(PHOTOSHOP_NAME):
            photoshop.append(data[len(PHOTOSHOP_NAME) :])
        elif marker == 0xFE:
            comments.append(data)
        elif marker == 0xEB and b"jumb" in data[:32]:
            others.append("content credentials (C2PA)")
        elif 0xE1 <= marker <= 0xEF and marker not in (0xEC, 0xEE):
            others.append(f"data of other programs (APP{marker - 0xE0})")
    chosen = extensions.get(xmp.extended_digest(found.xmp), {}) if extensions else {}
    extension, damaged = _joined(chosen)
    broken = [] if len(profiles) == count else ["the colour profile"]
    if damaged or (extensions and not chosen):
        broken.append("the extended XMP")
    return replace(
        found,
        exif=b"".join(exifs),
        icc=b"".join(profiles[index] for index in sorted(profiles))
        if len(profiles) == count
        else b"",
        extension=extension,
        photoshop=b"".join(photoshop),
        comment=b"\n".join(comments),
        parts=tuple(parts),
        others=tuple(dict.fromkeys(others)),
        damaged=tuple(broken),
    )


def _segments(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Segments in front of the pixels: marker and content."""
    stream.seek(2)
    while True:
        byte = stream.read(1)
        if byte != b"\xff":
            if not byte:
                return
            continue  # filling that does not belong there
        while byte == b"\xff":
            byte = stream.read(1)
        if not byte:
            return
        marker = byte[0]
        if marker in (0xDA, 0xD9):
            return
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            continue
        raw = stream.read(2)
        if len(raw) < 2:
            return
        length = int.from_bytes(raw, "big") - 2
        if marker >= 0xE0:
            data = stream.read(max(length, 0))
            if len(data) < length:
                return
            yield marker, data
        else:
            stream.seek(max(length, 0), io.SEEK_CUR)


def _joined(pieces: dict[int, bytes]) -> tuple[bytes, bool]:
    """The pieces of an extension in one, and whether some are missing."""
    whole = b""
    for offset, piece in sorted(pieces.items()):
        if offset != len(whole):
            return b"", True
        whole += piece
    return whole, False


def _multi_picture(data: bytes) -> list[str]:
    """What other images a multi-picture file says it holds."""
    try:
        structure = exif.Structure(data)
        directory = structure.directory(structure.first)
        table = structure.value(directory.entries[0xB002])
    except (exif.DamagedError, KeyError):
        return ["second view or gain map"]
    kinds = [
        struct.unpack_from(structure.order + "I", table, at)[0] & 0xFFFFFF
        for at in range(0, len(table) - 15, 16)
    ]
    words = {0x010001: "preview", 0x010002: "preview", 0x020001: "panorama", 0x050000: "gain map"}
    words |= {0x020002: "second view", 0x020003: "second view"}
    return [words.get(kind, "second view or gain map") for kind in kinds[1:]]


# --- PNG

# Chunks that belong to the pixels, or describe only how they are stored.
PNG_PIXELS = {
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"bKGD"),
    *(b"hIST", b"sBIT", b"sPLT", b"tIME", b"iDOT", b"vpAg"),
}
PNG_READ = {
    *(b"iCCP", b"eXIf", b"iTXt", b"tEXt", b"zTXt", b"pHYs", b"gAMA", b"cHRM", b"sRGB"),
    *(b"cICP", b"mDCv", b"mDCV", b"cLLi", b"cLLI"),
}
# Those that Pillow refuses when they are long or damaged, and that it need not see.
PNG_HIDDEN = {b"iCCP", b"iTXt", b"tEXt", b"zTXt"}


def png_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, place of the content and its length, of each chunk that is whole."""
    end = stream.seek(0, io.SEEK_END)
    at = len(PNG_SIGNATURE)
    while at + 12 <= end:
        stream.seek(at)
        length, kind = struct.unpack(">I4s", stream.read(8))
        if at + 12 + length > end:
            return
        yield kind, at + 8, length
        if kind == b"IEND":
            return
        at += 12 + length


def _png(stream: BinaryIO) -> FileBlocks:
    found = FileBlocks()
    texts: list[PngText] = []
    others: list[str] = []
    damaged: list[str] = []
    total = 0
    for kind, place, length in png_chunks(stream):
        if kind not in PNG_READ:
            if kind == b"caBX":
                others.append("content credentials (C2PA)")
            elif kind not in PNG_PIXELS:
                others.append(f"PNG chunk {kind.decode('latin-1')}")
            continue
        total += length
        stream.seek(place)
        data = stream.read(length + 4) if total <= LARGEST else b""
        if struct.pack(">I", zlib.crc32(data[:-4], zlib.crc32(kind))) != data[-4:]:
            damaged.append(f"PNG chunk {kind.decode('latin-1')}")
            continue
        data = data[:-4]
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            texts.append(PngText(kind, data))
        elif kind == b"iCCP":
            icc = inflate(data.partition(b"\0")[2][1:])
            found = replace(found, icc=icc)
            damaged += [] if icc else ["the colour profile"]
        else:
            found = _png_fact(found, kind, data)
    plain = []
    budget = LARGEST
    for text in texts:
        if _is_block(text) and budget > 0:
            content = text_content(text, budget)
            # What was not inflated to its end has cost as much as deflate can pack.
            budget -= len(content) or min(budget, 1032 * len(text.data))
            found = _png_block(found, text, content)
        else:
            plain.append(text)
    return replace(
        found,
        text=tuple(plain),
        others=tuple(dict.fromkeys(others)),
        damaged=tuple(dict.fromkeys(damaged)),
    )


def _png_fact(found: FileBlocks, kind: bytes, data: bytes) -> FileBlocks:
    if kind == b"eXIf":
        return replace(found, exif=data.removeprefix(exif.PREFIX))
    if kind == b"pHYs" and len(data) == 9:
        x, y, unit = struct.unpack(">IIB", data)
        stated = density_of_metres(x, y) if unit == 1 else density(x, y, Fraction(0))
        return replace(found, density=stated)
    if kind == b"gAMA" and len(data) == 4 and any(data):
        return replace(found, gamma=int.from_bytes(data, "big") / 100000)
    if kind == b"cHRM" and len(data) == 32:
        points = struct.unpack(">8I", data)
        return replace(found, chromaticity=tuple(one / 100000 for one in points))
    if kind == b"sRGB" and len(data) == 1:
        return replace(found, srgb=data[0])
    if kind == b"cICP" and len(data) == 4:
        return replace(found, color=Color(data[0], data[1], bool(data[3])))
    if kind in (b"mDCv", b"mDCV") and len(data) == 24:
        return replace(found, mastering=data)
    if kind in (b"cLLi", b"cLLI") and len(data) == 8:
        return replace(found, light=data)
    return found


def _is_block(text: PngText) -> bool:
    """Whether a text is XMP, or a block that older programs write as text."""
    key = text.key.lower()
    if text.kind == b"iTXt" and key == XMP_KEYWORD.decode().lower():
        return True
    return key.startswith(RAW_PROFILE) and key.removeprefix(RAW_PROFILE) in RAW_PROFILES


def _png_block(found: FileBlocks, text: PngText, content: bytes) -> FileBlocks:
    """What a text holds, where there is no other block of that kind."""
    if text.kind == b"iTXt" and not text.key.lower().startswith(RAW_PROFILE):
        return replace(found, xmp=found.xmp or content)
    profile = _raw_profile(content)
    kind = text.key.lower().removeprefix(RAW_PROFILE)
    if profile.startswith(XMP_NAME) or kind == "xmp":
        return replace(found, xmp=found.xmp or profile.removeprefix(XMP_NAME))
    if kind in ("exif", "app1"):
        return replace(found, exif=found.exif or profile.removeprefix(exif.PREFIX))
    if kind in ("icc", "icm"):
        return replace(found, icc=found.icc or profile)
    profile = profile.removeprefix(PHOTOSHOP_NAME)
    if profile.startswith(b"8BIM"):
        return replace(found, photoshop=found.photoshop or profile)
    return replace(found, iptc=found.iptc or profile)


def _raw_profile(value: bytes) -> bytes:
    """The bytes of a profile that is written as hexadecimal text."""
    match = re.match(rb"\s*\S+\s+(\d+)\s+([0-9A-Fa-f\s]*)$", value.rstrip(b"\0"))
    if not match:
        return b""
    try:
        return binascii.unhexlify(re.sub(rb"\s", b"", match[2]))[: int(match[1])]
    except binascii.Error:
        return b""


def png_text(key: str, value: str, language: str = "", translated: str = "") -> PngText:
    """A text as a chunk, of the plainest kind that holds it.

    Parameters
    ----------
    key, value
        The keyword and its text.
    language, translated
        Of an international chunk.
    """
    name = key.encode("latin-1", "replace")[:79]
    if not language and not translated:
        try:
            return PngText(b"tEXt", name + b"\0" + value.encode("latin-1"))
        except UnicodeEncodeError:
            pass
    tags = language.encode("latin-1", "replace") + b"\0" + translated.encode() + b"\0"
    return PngText(b"iTXt", name + b"\0\0\0" + tags + value.encode())


def text_content(text: PngText, most: int = LARGEST) -> bytes:
    """The text of a chunk, inflated, in its own encoding; nothing if it is longer than ``most``."""
    rest = text.data.partition(b"\0")[2]
    if text.kind == b"zTXt":
        return inflate(rest[1:], most)
    if text.kind == b"iTXt":
        flag, rest = rest[:1], rest[2:]
        rest = rest.partition(b"\0")[2].partition(b"\0")[2]
        return inflate(rest, most) if flag == b"\1" else rest
    return rest


def inflate(data: bytes, most: int = LARGEST) -> bytes:
    """Inflate; nothing if the data is damaged or becomes longer than ``most``."""
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(data, most)
    except zlib.error:
        return b""
    return plain if unpacker.eof else b""


def _short_xmp(stream: BinaryIO, kind: bytes, place: int, length: int) -> bool:
    """Whether a chunk is a packet that Pillow can read, where it may look for an orientation."""
    if kind != b"iTXt" or length > 1 << 19:
        return False
    stream.seek(place)
    data = stream.read(length + 4)
    sound = struct.pack(">I", zlib.crc32(data[:-4], zlib.crc32(kind))) == data[-4:]
    return sound and data.startswith(XMP_KEYWORD + b"\0\0")


class WithoutTexts(io.RawIOBase):
    """A PNG file without its texts and profile, as if they were not in it.

    Pillow refuses a whole file for a text or a profile that is long or damaged.

    Parameters
    ----------
    stream
        The file; can seek.
    """

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._at = 0
        # (place here, place in the file, length) of what is left.
        self._spans: list[tuple[int, int, int]] = []
        start = here = 0
        for kind, place, length in png_chunks(stream):
            if kind in PNG_HIDDEN and not _short_xmp(stream, kind, place, length):
                if place - 8 > start:
                    self._spans.append((here, start, place - 8 - start))
                    here += place - 8 - start
                start = place + length + 4
        end = stream.seek(0, io.SEEK_END)
        self._spans.append((here, start, max(end - start, 0)))
        self._length = here + max(end - start, 0)
        self._starts = [span[0] for span in self._spans]

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: object) -> int:
        """As of any file."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        index = bisect.bisect_right(self._starts, self._at) - 1
        here, place, length = self._spans[index]
        skip = self._at - here
        if skip >= length:
            return 0
        self._stream.seek(place + skip)
        data = self._stream.read(min(len(view), length - skip))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def without_texts(stream: BinaryIO) -> BinaryIO:
    """A view of a PNG file without its texts and profile; any other file as it is."""
    stream.seek(0)
    signature = stream.read(len(PNG_SIGNATURE))
    stream.seek(0)
    if signature != PNG_SIGNATURE:
        return stream
    if not any(kind in PNG_HIDDEN for kind, _, _ in png_chunks(stream)):
        stream.seek(0)
        return stream
    return io.BufferedReader(WithoutTexts(stream))


# --- WebP, GIF, BMP, PSD


def _webp(stream: BinaryIO) -> FileBlocks:
    data = {b"ICCP": b"", b"EXIF": b"", b"XMP ": b""}
    end = stream.seek(0, io.SEEK_END)
    at = 12
    while at + 8 <= end:
        stream.seek(at)
        kind, length = struct.unpack("<4sI", stream.read(8))
        if kind in data and length <= LARGEST and at + 8 + length <= end:
            data[kind] = stream.read(length).removeprefix(exif.PREFIX)
        at += 8 + length + length % 2
    return FileBlocks(exif=data[b"EXIF"], icc=data[b"ICCP"], xmp=data[b"XMP "])


def _gif(stream: BinaryIO) -> FileBlocks:
    head = stream.read(13)
    found = FileBlocks()
    if head[12]:
        found = replace(found, density=density(64, head[12] + 15, Fraction(0)))
    at = 13 + (3 * (2 << (head[10] & 7)) if head[10] & 0x80 else 0)
    comments: list[bytes] = []
    reader = io.BufferedReader(stream, 1 << 16) if isinstance(stream, io.RawIOBase) else stream
    reader.seek(at)
    while (byte := reader.read(1)) and byte != b"\x3b":
        if byte == b"\x2c":
            shape = reader.read(9)
            if len(shape) < 9:
                break
            table = 3 * (2 << (shape[8] & 7)) if shape[8] & 0x80 else 0
            reader.seek(table + 1, io.SEEK_CUR)
            _skip_blocks(reader)
        elif byte == b"\x21":
            label = reader.read(1)
            if label == b"\xfe":
                comments.append(_sub_blocks(reader))
            elif label == b"\xff":
                name = reader.read(reader.read(1)[0])
                if name == b"XMP DataXMP":
                    # Its bytes lie plainly there; the lengths of blocks are part of the text.
                    packet = _magic_trailer(reader)
                    found = replace(found, xmp=found.xmp or packet)
                elif name.startswith(b"ICCRGBG1"):
                    found = replace(found, icc=_sub_blocks(reader))
                else:
                    _skip_blocks(reader)
            else:
                _skip_blocks(reader)
        else:
            break
    return replace(found, comment=b"\n".join(comments))


def _sub_blocks(stream: BinaryIO) -> bytes:
    pieces = []
    while (size := stream.read(1)) and size != b"\0":
        pieces.append(stream.read(size[0]))
    return b"".join(pieces)


def _skip_blocks(stream: BinaryIO) -> None:
    while (size := stream.read(1)) and size != b"\0":
        stream.seek(size[0], io.SEEK_CUR)


def _magic_trailer(stream: BinaryIO) -> bytes:
    """XMP in a GIF file, up to the 257 bytes that lead any reader to the end."""
    pieces = []
    while (size := stream.read(1)) and size != b"\0":
        pieces += [size, stream.read(size[0])]
    whole = b"".join(pieces)
    end = whole.rfind(b"\x01\xff\xfe")
    return whole[:end] if end >= 0 else whole


def _bmp(stream: BinaryIO) -> FileBlocks:
    head = stream.read(138)
    if len(head) < 54 or struct.unpack_from("<I", head, 14)[0] < 40:
        return FileBlocks()
    x, y = struct.unpack_from("<ii", head, 38)
    icc = b""
    if len(head) == 138 and head[14] == 124 and head[70:74] == b"DEBM":  # embedded, reversed
        place, length = struct.unpack_from("<II", head, 126)
        stream.seek(14 + place)
        icc = stream.read(min(length, LARGEST))
    return FileBlocks(icc=icc, density=density_of_metres(x, y) if x > 0 and y > 0 else None)


def _tga(stream: BinaryIO) -> FileBlocks:
    head = stream.read(18)
    return FileBlocks(comment=stream.read(head[0]).strip(b"\0 "))


def _ppm(stream: BinaryIO) -> FileBlocks:
    head = stream.read(1 << 16)
    match = re.match(rb"P[1-7fF](?:\s+|#[^\n]*\n)*", head)
    comments = re.findall(rb"#\s?([^\n]*)\n", match.group()) if match else []
    return FileBlocks(comment=b"\n".join(comments))


def _psd(stream: BinaryIO) -> FileBlocks:
    stream.seek(26)
    (length,) = struct.unpack(">I", stream.read(4))
    stream.seek(length, io.SEEK_CUR)
    (length,) = struct.unpack(">I", stream.read(4))
    resources = stream.read(min(length, LARGEST))
    by_number = {number: data for number, _, data in resource_list(resources)}
    return FileBlocks(
        exif=by_number.get(0x0422, b"").removeprefix(exif.PREFIX),
        icc=by_number.get(0x040F, b""),
        xmp=by_number.get(0x0424, b""),
        photoshop=resources,
    )


def resource_list(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """Photoshop's image resources: number, name (with its length) and content."""
    found = []
    at = 0
    while data[at : at + 4] in (b"8BIM", b"8BPS", b"MeSa", b"AgHg", b"PHUT", b"DCSR"):
        if at + 12 > len(data):
            break
        number = int.from_bytes(data[at + 4 : at + 6], "big")
        name = data[at + 6 : at + 7 + data[at + 6]]
        name += bytes(len(name) % 2)
        start = at + 6 + len(name)
        length = int.from_bytes(data[start : start + 4], "big")
        content = data[start + 4 : start + 4 + length]
        if len(content) < length:
            break
        found.append((number, name, content))
        at = start + 4 + length + length % 2
    return found


def encode_resources(resources: list[tuple[int, bytes, bytes]]) -> bytes:
    """Image resources as Photoshop writes them."""
    return b"".join(
        b"8BIM" + struct.pack(">H", number) + name + struct.pack(">I", len(data)) + data
        + bytes(len(data) % 2)
        for number, name, data in resources
    )  # fmt: skip


# --- files of boxes


def _jp2(stream: BinaryIO) -> FileBlocks:
    if stream.read(4) == b"\xff\x4f\xff\x51":
        return FileBlocks(comment=_codestream_comment(stream, 0))
    found = FileBlocks()
    for box in boxes.file_boxes(stream):
        if box.kind == b"jp2h":
            for inner in boxes.walk(stream, box.body, box.end):
                data = boxes.content(stream, inner)
                if inner.kind == b"colr" and data[:1] == b"\2":
                    found = replace(found, icc=data[3:])
                elif inner.kind == b"res ":
                    found = _jp2_density(stream, inner, found)
        elif box.kind == b"uuid":
            data = boxes.content(stream, box)
            key, data = data[:16], data[16:]
            if key == UUID_EXIF:
                found = replace(found, exif=data.removeprefix(exif.PREFIX))
            elif key == UUID_XMP:
                found = replace(found, xmp=data)
            elif key == UUID_IPTC:
                found = replace(found, iptc=data)
        elif box.kind == b"jp2c":
            found = replace(found, comment=_codestream_comment(stream, box.body))
    return found


def _jp2_density(stream: BinaryIO, box: boxes.Box, found: FileBlocks) -> FileBlocks:
    for inner in boxes.walk(stream, box.body, box.end):
        data = boxes.content(stream, inner)
        if inner.kind in (b"resc", b"resd") and len(data) == 10:
            up_y, down_y, up_x, down_x, ten_y, ten_x = struct.unpack(">HHHHbb", data)
            if down_x and down_y:
                x = Fraction(up_x, down_x) * Fraction(10) ** ten_x
                y = Fraction(up_y, down_y) * Fraction(10) ** ten_y
                found = replace(found, density=density(x, y, METRE))
    return found


def _codestream_comment(stream: BinaryIO, place: int) -> bytes:
    """The first comment in text of a JPEG 2000 codestream, but not its encoder's."""
    stream.seek(place + 2)
    while len(head := stream.read(4)) == 4:
        marker, length = struct.unpack(">HH", head)
        if marker in (0xFF90, 0xFFD9) or length < 2:
            break
        data = stream.read(length - 2)
        if marker == 0xFF64 and not data[2:].startswith((b"Created by OpenJPEG", b"Kakadu")):
            return data[2:]
    return b""


def _heif(stream: BinaryIO) -> FileBlocks:
    items = boxes.Items(stream)
    primary = items.items.get(items.primary)
    if primary is None:
        raise boxes.DamagedError("it has no main image.")
    found = FileBlocks()
    for item in items.described_by(primary.number):
        data = items.data(item)
        if item.kind == b"Exif":
            found = replace(found, exif=_boxed_exif(data))
        elif item.kind == b"mime" and item.content == b"application/rdf+xml":
            found = replace(found, xmp=data)
    return replace(_heif_color(found, primary), parts=tuple(_heif_parts(items)))


def _boxed_exif(data: bytes) -> bytes:
    """EXIF behind the four bytes that say where it begins, which some programs leave out."""
    if not data.startswith((b"II*\0", b"MM\0*", exif.PREFIX)):
        data = data[4 + int.from_bytes(data[:4], "big") :]
    return data.removeprefix(exif.PREFIX)


def _heif_color(found: FileBlocks, item: boxes.Item) -> FileBlocks:
    for kind, data in item.properties:
        if kind == b"colr" and data[:4] in (b"prof", b"rICC"):
            found = replace(found, icc=data[4:])
        elif kind == b"colr" and data[:4] == b"nclx" and len(data) >= 10:
            primaries, transfer = struct.unpack_from(">HH", data, 4)
            found = replace(found, color=Color(primaries, transfer))
        elif kind == b"mdcv" and len(data) == 24:
            # Green, blue, red there; red, green, blue in PNG.
            found = replace(found, mastering=data[8:12] + data[:8] + data[12:])
        elif kind == b"clli" and len(data) == 4:
            light = (10000 * one for one in struct.unpack(">HH", data))
            found = replace(found, light=struct.pack(">II", *light))
        elif kind == b"pasp" and len(data) == 8:
            x, y = struct.unpack(">II", data)
            found = replace(found, density=density(y, x, Fraction(0)))
    # The decoder has undone the matrix and the range; a profile stands above code points.
    return replace(found, color=None) if found.icc else found


def heif_orientation(stream: BinaryIO) -> int:
    """How an AVIF or HEIF file asks to be turned, as an EXIF orientation."""
    try:
        items = boxes.Items(stream)
    except boxes.DamagedError:
        return 1
    corners = np.arange(4).reshape(2, 2)
    primary = items.items.get(items.primary)
    for kind, data in primary.properties if primary else ():
        if kind == b"irot" and data:
            corners = np.rot90(corners, data[0] & 3)
        elif kind == b"imir" and data:
            corners = corners[:, ::-1] if data[0] & 1 else corners[::-1]
    turns = ("0123", "1032", "3210", "2301", "0213", "2031", "3120", "1302")
    return turns.index("".join(map(str, corners.ravel()))) + 1


def _heif_parts(items: boxes.Items) -> Iterator[str]:
    for item in items.items.values():
        kinds = dict(item.properties)
        name = kinds.get(b"auxC", b"")[4:].lower()
        if item.kind == b"tmap" or b"gainmap" in name:
            yield "gain map"
        elif b"depth" in name or b"disparity" in name:
            yield "depth map"
    known = {one for kind, one, _ in items.references if kind in (b"thmb", b"auxl")}
    known.add(items.primary)
    for kind, _, others in items.references:
        if kind in (b"dimg", b"tbas"):
            known.update(others)
    images = {b"av01", b"hvc1", b"grid", b"iovl", b"iden", b"jpeg", b"unci"}
    more = [
        item for item in items.items.values() if item.kind in images and item.number not in known
    ]
    if more:
        yield "second view" if len(more) == 1 else f"{len(more)} other images"


def _jxl(stream: BinaryIO) -> FileBlocks:
    found = FileBlocks()
    others: list[str] = []
    for box in boxes.file_boxes(stream):
        kind = box.kind
        if kind in (b"Exif", b"xml ", b"brob"):
            data = boxes.content(stream, box)
        if kind == b"brob":
            kind, packed = data[:4], data[4:]
            if importlib.util.find_spec("imagecodecs") is None:
                others.append("compressed metadata of JPEG XL (pip install 'srgan-infer[formats]')")
                continue
            data = _unpack_brotli(packed)
            if not data:
                found = replace(found, damaged=(*found.damaged, "compressed metadata"))
        if kind == b"Exif":
            found = replace(found, exif=_boxed_exif(data))
        elif kind == b"xml ":
            found = replace(found, xmp=data)
        elif kind == b"jumb":
            others.append("content credentials (C2PA)")
        elif kind == b"jhgm":
            found = replace(found, parts=("gain map",))
    return replace(found, others=tuple(dict.fromkeys(others)))


def _unpack_brotli(data: bytes) -> bytes:
    """Unpack; nothing if the data is damaged or too long."""
    import imagecodecs

    try:
        return bytes(imagecodecs.brotli_decode(data, out=LARGEST))
    except imagecodecs.BrotliError:
        return b""


# --- TIFF

# Tags that describe how the bytes of a TIFF lie in its file, not what is shown.
STRUCTURE = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281),
    *(282, 283, 284, 288, 289, 290, 291, 292, 293, 296, 297, 317, 320, 321, 322, 323, 324, 325),
    *(326, 327, 328, 332, 333, 334, 336, 337, 338, 339, 340, 341, 347, 512, 513, 514, 515, 517),
    *(518, 519, 520, 521, 529, 530, 531, 532, 559, 32995, 32996, 32997, 32998, 34232, 50674),
    *(700, 33723, 34377, 34675),
}
# Tags of a main directory that say what is shown, when, by whom and with what.
ALLOWED = {
    *(269, 270, 271, 272, 285, 305, 306, 315, 316, 318, 319, 18246, 18249, 33432),
    *(34665, 34853, 37510, 40091, 40092, 40093, 40094, 40095, 50341),
    # Of the camera, where TIFF/EP puts them.
    *(33434, 33437, 34850, 34855, 34859, 34864, 34865, 34866, 36867, 36868, 36880, 36881, 36882),
    *(37377, 37378, 37379, 37380, 37381, 37382, 37383, 37384, 37385, 37386, 37387, 37393, 37394),
    *(37395, 37396, 37397, 37398, 37399, 41486, 41487, 41488, 41492, 42016, 42032, 42033, 42034),
    *(42035, 42036, 42037),
}
# Where the image lies on the ground: only a TIFF has a place for it.
GEOGRAPHY = {33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113, 50844}
# What describes the old file.
STALE_TAGS = {
    330: "reduced images",
    34377: "Photoshop's resources",
    37724: "Photoshop layers",
    50784: "Alias layers",
    51159: "layers",
    50838: "ImageJ metadata",
    50839: "ImageJ metadata",
}


RESOLUTION = {282, 283, 296}
# Room that Windows leaves for later edits.
PADDING = 59932


def _tiff(stream: BinaryIO) -> FileBlocks:
    structure = exif.Structure(stream)
    main = structure.directory(structure.first)
    tree, lost = exif.read_tree(structure, structure.order, ALLOWED | RESOLUTION)
    if set(tree) <= RESOLUTION:  # which has a place of its own in other formats
        tree = {}
    ground, lost_ground = exif.read_tree(structure, "<", GEOGRAPHY)
    stated, resolution = _tiff_density(structure, main)
    stated = _electron_density(structure, main) or stated
    raw = {tag: structure.value(entry) for tag, entry in main.entries.items() if tag in TIFF_BLOCKS}
    others: list[str] = []
    parts = [STALE_TAGS[tag] for tag in main.entries if tag in STALE_TAGS and tag != 34377]
    known = STRUCTURE | ALLOWED | GEOGRAPHY | set(STALE_TAGS)
    unknown = [tag for tag in (*main.entries, *main.unreadable) if tag not in known]
    if unknown:
        others.append(f"TIFF tags of other programs ({exif.tag_names(unknown)})")
    iptc = raw.get(33723, b"")
    entry = main.entries.get(33723)
    if entry and entry.kind == exif.LONG and iptc[:1] != b"\x1c" and iptc[3:4] == b"\x1c":
        # Programs that take it for numbers write it in the byte order of numbers.
        iptc = exif.swapped((entry.kind, entry.count, iptc))[2]
    return FileBlocks(
        exif=exif.encode_block(tree, structure.order),
        xmp=raw.get(700, b""),
        icc=raw.get(34675, b""),
        iptc=iptc,
        photoshop=raw.get(34377, b""),
        density=stated,
        resolution=resolution,
        ground=tuple(
            (tag, value) for tag, value in sorted(ground.items()) if isinstance(value, tuple)
        ),
        parts=tuple(dict.fromkeys(parts)),
        others=tuple(others),
        damaged=(exif.tag_names((*lost, *lost_ground)),) if lost or lost_ground else (),
    )


TIFF_BLOCKS = (700, 33723, 34377, 34675)


# What electron microscopes write: FEI (34680, 34682) in metres, Zeiss (34118) with a unit.
FEI, ZEISS = (34682, 34680), 34118


def _electron_density(structure: exif.Structure, directory: exif.Directory) -> Density | None:
    """The size of a pixel as an electron microscope states it."""
    for tag in (*FEI, ZEISS):
        entry = directory.entries.get(tag)
        text = structure.value(entry)[:LARGEST_TEXT].decode("latin-1") if entry else ""
        across = re.search(r"PixelWidth\s*=\s*([\d.]+(?:[eE][-+]?\d{1,3})?)\s", text)
        down = re.search(r"PixelHeight\s*=\s*([\d.]+(?:[eE][-+]?\d{1,3})?)\s", text)
        zeiss = re.search(r"Image Pixel Size = ([\d.]+) ([pnµu]?m)\b", text)
        try:
            if across and down:
                sizes = [1 / Fraction(one[1]) for one in (across, down)]
            elif zeiss:
                metres = {"pm": 12, "nm": 9, "µm": 6, "um": 6, "m": 0}[zeiss[2]]
                sizes = [Fraction(10**metres) / Fraction(zeiss[1])] * 2
            else:
                continue
        except (ValueError, ZeroDivisionError):
            continue
        own = density(sizes[0], sizes[1], METRE)
        return replace(own, physical=True) if own else None
    return None


def _tiff_density(
    structure: exif.Structure, directory: exif.Directory
) -> tuple[Density | None, tuple[Fraction, Fraction] | None]:
    """The density, and its numbers whatever their unit."""
    values = []
    for tag in (282, 283):
        entry = directory.entries.get(tag)
        numbers = structure.numbers(entry) if entry else []
        values.append(numbers[0] if numbers else 0)
    entry = directory.entries.get(296)
    unit = (structure.numbers(entry) or [2])[0] if entry else 2
    own = density(values[0], values[1], INCH)
    if own is None:
        return None, None
    units = {1: Fraction(0), 2: INCH, 3: CENTIMETRE}
    stated = density(own.x, own.y, units[int(unit)]) if unit in units else None
    return stated, (own.x, own.y)


READERS = {
    "JPEG": _jpeg,
    "MPO": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
    "BMP": _bmp,
    "TGA": _tga,
    "PPM": _ppm,
    "PSD": _psd,
    "JPEG2000": _jp2,
    "AVIF": _heif,
    "HEIF": _heif,
    "JXL": _jxl,
    "TIFF": _tiff,
}
