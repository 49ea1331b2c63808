"""The pixels of a TIFF file: what its tags say is done here, Pillow only undoes the compression.

Pillow has a list of layouts that it reads, and some of them it reads wrongly: 16-bit planes
become noise, compressed samples of the other byte order are swapped twice. Described to it as
rows of bytes, the strips of any layout come through its decoders unharmed.
"""

from __future__ import annotations

import io
import itertools
import struct
import sys
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, features

from srgan_infer.errors import ImageError
from srgan_infer.images.pillow import any_size

Array = npt.NDArray[Any]

# Bytes of decoded strips that are held at a time.
GROUP_BYTES = 8 << 20
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4} | {
    16: 8,
    17: 8,
    18: 8,
}
INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}

# Compressions that turn rows of bytes into rows of bytes, whatever the bytes mean.
BYTE_CODECS = {
    1: "raw",
    5: "LZW",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    34925: "LZMA",
    50000: "Zstandard",
}
# Those that know what they compress; Pillow gives 8 bits, or 1 bit, of each of these.
PIXEL_CODECS = {2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "JPEG", 7: "JPEG"}
DEFLATE, LZMA = (8, 32946), 34925
# Its dictionary may take no more than this.
LZMA_MEMORY = 1 << 30
# Each strip or tile is a file of this kind, which the libtiff inside of Pillow does not decode.
WEBP = 50001
OTHER_CODECS = {
    32766: "NeXT",
    32767: "Sony ARW",
    32769: "packed raw",
    32770: "Samsung SRW",
    32809: "ThunderScan",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34713: "Nikon NEF",
    34887: "LERC",
    34892: "lossy JPEG",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
    65000: "Kodak DCR",
    65535: "Pentax PEF",
}
PREDICTED = {5, 8, 32946, 34925, 50000}
NATIVE = {"little": "<", "big": ">"}[sys.byteorder]

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
COLORS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4}
OTHER_COLORS = {
    4: "a transparency mask",
    9: "ICC Lab colour",
    10: "ITU Lab colour",
    32844: "LogL brightness",
    32845: "LogLuv colour",
    51177: "a depth map",
}
CAMERA_RAW = {32803, 34892}
UINT, INT, FLOAT = 1, 2, 3


@dataclass(frozen=True)
class Entry:
    """One tag as it lies in the file.

    Parameters
    ----------
    kind
        TIFF's number for the type: 3 is SHORT, 4 LONG and so on.
    count
        How many values.
    data
        Their bytes, in the byte order of the file.
    """

    kind: int
    count: int
    data: bytes


@dataclass(frozen=True)
class Directory:
    """One directory of a TIFF file: the tags of one image.

    Parameters
    ----------
    order
        ``"<"`` or ``">"``, as in :mod:`struct`.
    big
        Whether it is of a BigTIFF, with offsets of 64 bits.
    entries
        By their number; those that are damaged are left out.
    """

    order: str
    big: bool
    entries: dict[int, Entry]

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The integers of a tag; none if it is missing or of another type."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in INTEGERS:
            return ()
        return struct.unpack(f"{self.order}{entry.count}{INTEGERS[entry.kind]}", entry.data)

    def number(self, tag: int, default: int) -> int:
        """The first integer of a tag."""
        return next(iter(self.numbers(tag)), default)


def read_directory(stream: BinaryIO, offset: int | None = None) -> Directory:
    """Read one directory.

    Parameters
    ----------
    stream
        The file; TIFF or BigTIFF of either byte order.
    offset
        Where the directory lies; the first one by default.

    Raises
    ------
    ImageError
        If there is none.
    """
    stream.seek(0)
    head = stream.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise ImageError("it is no TIFF file.")
    # Files with their version in the other order exist; there is no other way to read them.
    version = struct.unpack(f"{order}H", head[2:4])[0]
    big = version in (43, 43 << 8)
    length = stream.seek(0, 2)
    if offset is None:
        first = head[8:16] if big else head[4:8]
        (offset,) = struct.unpack(order + ("Q" if big else "I"), first.ljust(8 if big else 4))
    stream.seek(min(offset, length))
    number, code, size, room = ("Q", "HHQ", 20, 8) if big else ("H", "HHI", 12, 4)
    number, code = order + number, order + code
    data = stream.read(struct.calcsize(number))
    if len(data) < struct.calcsize(number) or not offset:
        raise ImageError("it is cut short: its directory is missing.")
    (count,) = struct.unpack(number, data)
    table = stream.read(min(count * size, length) + room)
    entries: dict[int, Entry] = {}
    left = length  # values that lie over each other cannot take more than the file
    for at in range(0, min(len(table) - room, count * size) - size + 1, size):
        tag, kind, values = struct.unpack_from(code, table, at)
        width = values * TYPE_BYTES.get(kind, 1)
        data = table[at + size - room : at + size]
        if width > room:
            (place,) = struct.unpack(order + ("Q" if big else "I"), data)
            if place + width > length or width > left:
                continue
            left -= width
            stream.seek(place)
            data = stream.read(width)
        entries.setdefault(tag, Entry(kind, values, data[:width]))
    return Directory(order, big, entries)


@dataclass(frozen=True)
class Layout:
    """How the pixels of one directory lie in the file.

    Parameters
    ----------
    size
        (W, H), not turned.
    segment
        (W, H) of a tile; of a strip, whose width is that of the image.
    offsets, lengths
        Of the strips or tiles, in bytes; plane after plane.
    order
        ``"<"`` or ``">"``.
    fill_order
        2 if the bits of each byte are the other way round.
    compression, predictor, photometric
        TIFF's numbers.
    planar
        Whether each channel has strips or tiles of its own.
    samples, bits, format
        Of each pixel, of each sample; 1 unsigned, 2 signed, 3 floating point.
    alpha
        The sample that is the transparency, or None.
    premultiplied
        Whether the colours are multiplied with it.
    palette
        (3, 2**bits) uint8 or uint16, or None.
    orientation
        As in EXIF, 1 to 8.
    profile
        The ICC profile, of CMYK only.
    """

    size: tuple[int, int]
    segment: tuple[int, int]
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    order: str
    fill_order: int
    compression: int
    predictor: int
    photometric: int
    planar: bool
    samples: int
    bits: int
    format: int
    alpha: int | None
    premultiplied: bool
    palette: Array | None
    orientation: int
    profile: bytes

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels: uint8, uint16, or float32 in [0, 1]."""
        if self.palette is not None:
            return self.palette.dtype
        if self.format == FLOAT:
            return np.dtype(np.float32)
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16)

    @property
    def channels(self) -> int:
        """Of the pixels, alpha included; CMYK counts 4."""
        colors = 3 if self.palette is not None else COLORS[self.photometric]
        return colors + (self.alpha is not None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what is not read."""
        sentences = []
        extra = self.samples - COLORS[self.photometric] - (self.alpha is not None)
        if extra:
            what = "a channel that is" if extra == 1 else f"{extra} channels that are"
            sentences.append(f"It has {what} neither colour nor transparency: left out.")
        if self.photometric == CMYK and self.bits > 8:
            sentences.append(f"Its CMYK of {self.bits} bits is converted with 8.")
        if self.bits == 64 and self.format == FLOAT:
            sentences.append("Its floating point of 64 bits is read with 32.")
        return tuple(sentences)


def read_layout(directory: Directory, stream: BinaryIO) -> Layout | None:
    """How the pixels of a directory lie, or None if Pillow has to know.

    Pillow is right about JPEG and CCITT fax, and about 8-bit YCbCr and Lab.

    Parameters
    ----------
    directory
        Of the image.
    stream
        The file, for what the directory points to.

    Raises
    ------
    ImageError
        If they cannot be read; the sentence names the kind of TIFF.
    """
    get = directory.number
    width, height = get(256, 0), get(257, 0)
    if width < 1 or height < 1:
        raise ImageError(f"it has no pixels: its tags say {width}×{height}.")
    compression, samples = get(259, 1), get(277, 1)
    photometric = get(262, RGB if samples > 2 else BLACK_IS_ZERO)
    refuse_camera_raw(directory, stream)
    bits = set(directory.numbers(258)[:samples]) or {1}
    kinds = set(directory.numbers(339)[:samples]) or {UINT}
    if compression in PIXEL_CODECS or (photometric in (6, 8) and compression != WEBP):
        _check_pillow_knows(compression, photometric, max(bits), kinds)
        if (fault := pillow_fault(directory)) is not None:
            raise ImageError(f"it is a TIFF {fault}, which is not read; {CONVERT}.")
        return None
    webp = compression == WEBP and photometric == RGB and samples in (3, 4) and bits == {8}
    webp = webp and get(284, 1) == 1 and bool(features.check("webp"))
    if compression not in BYTE_CODECS and not webp:
        name = OTHER_CODECS.get(compression, f"number {compression}")
        raise ImageError(f"it is a TIFF with {name} compression, which is not read; {AGAIN}.")
    if photometric not in COLORS:
        what = OTHER_COLORS.get(photometric, f"colour of kind {photometric}")
        raise ImageError(f"it is a TIFF that holds {what}, which is not read; {CONVERT}.")
    if len(bits) > 1 or len(kinds) > 1:
        raise ImageError(f"it is a TIFF whose channels differ in depth, not read; {CONVERT}.")
    (depth,), (kind,) = bits, kinds
    kind = UINT if kind == 4 else kind  # 4 is "undefined"
    predictor = get(317, 1) if compression in PREDICTED else 1
    _check_samples(photometric, depth, kind, predictor)
    if samples < COLORS[photometric]:
        raise ImageError(f"its {samples} channels are too few for its colours.")
    alpha, premultiplied = _alpha(directory, photometric) or (None, False)
    tiled = 322 in directory.entries
    segment = (get(322, 0), get(323, 0)) if tiled else (width, min(get(278, height), height))
    if min(segment) < 1:
        raise ImageError("its strips or tiles have no size.")
    planar = get(284, 1) == 2 and samples > 1
    planes = samples if planar else 1
    across, down = -(-width // segment[0]), -(-height // segment[1])
    needed = across * down * planes
    offsets = directory.numbers(324 if tiled else 273)
    lengths = directory.numbers(325 if tiled else 279)
    if not lengths and len(offsets) == 1 == needed:
        lengths = (2**63,)  # old writers leave them out: to the end
    if min(len(offsets), len(lengths)) < needed:
        raise ImageError("it is cut short: strips or tiles are missing.")
    if compression == 1 and not tiled and down == 1:
        # One strip of bytes as they are: read it in pieces.
        line = -(-width * samples // planes * depth // 8)
        piece = min(max(GROUP_BYTES // line, 1), height)
        tops = range(0, height, piece)
        segment = (width, piece)
        offsets = tuple(start + line * top for start in offsets[:needed] for top in tops)
        lengths = tuple(length - line * top for length in lengths[:needed] for top in tops)
        needed = len(tops) * planes
    turn = get(274, 1)
    profile = directory.entries.get(34675)
    return Layout(
        size=(width, height),
        segment=segment,
        offsets=offsets[:needed],
        lengths=lengths[:needed],
        order=directory.order,
        fill_order=get(266, 1),
        compression=compression,
        predictor=predictor,
        photometric=photometric,
        planar=planar,
        samples=samples,
        bits=depth,
        format=kind,
        alpha=alpha,
        premultiplied=premultiplied,
        palette=_palette(directory, depth) if photometric == PALETTE else None,
        orientation=turn if 1 <= turn <= 8 else 1,
        profile=profile.data if photometric == CMYK and profile else b"",
    )


AGAIN = "save it again, uncompressed or with deflate"
CONVERT = "convert it to RGB or grey"


def pillow_fault(directory: Directory) -> str | None:
    """The layout that Pillow opens, and gets wrong; None if it is right, or refuses.

    Found by comparing all that it opens with what is read here.

    Parameters
    ----------
    directory
        Of the image; its pixels are not looked at.
    """
    get = directory.number
    raw, samples, bits = get(259, 1) == 1, get(277, 1), get(258, 1)
    photometric, kind = get(262, RGB if samples > 2 else BLACK_IS_ZERO), get(339, UINT)
    planar = samples > 1 and get(284, 1) == 2
    order = {"<": "little", ">": "big"}[directory.order]
    if planar and raw and bits == 16:
        return "of 16 bits in planes"
    if planar and raw and get(266, 1) == 2:
        return "in planes whose bits are in the other order"
    if planar and not raw and COLORS.get(photometric) == 1 and _alpha(directory, photometric):
        return "of grey and transparency in compressed planes"
    if not raw and bits > 8 and kind in (INT, FLOAT) and directory.order != NATIVE:
        return f"of compressed {order}-endian {'floats' if kind == FLOAT else 'signed integers'}"
    if kind == FLOAT and photometric == WHITE_IS_ZERO:
        return "of floating point where white is 0"
    if photometric == PALETTE and 0 < max(directory.numbers(320), default=0) < 256:
        return "with a palette of 8 bits"
    if photometric == 6 and raw and directory.numbers(530) not in ((), (1, 1)):
        return "of uncompressed YCbCr with thinned colours"
    return None


def refuse_camera_raw(directory: Directory, stream: BinaryIO) -> None:
    """Raise ``ImageError`` for a TIFF that is a camera's.

    Its first image is a thumbnail, and the sensor's is further in.

    Parameters
    ----------
    directory
        Of the first image.
    stream
        The file, for the directories inside of this one.
    """
    if 50706 in directory.entries:
        raise ImageError("it is a camera raw file (DNG); develop it first.")
    inner = []
    for offset in directory.numbers(330)[:8]:
        with suppress(ImageError):
            inner.append(read_directory(stream, offset))
    for one in (directory, *inner):
        sensor = one.number(262, -1) in CAMERA_RAW
        if sensor or one.number(259, 1) in (32767, 32769, 32770, 34713, 65000, 65535):
            raise ImageError("it is a camera raw file; develop it first.")


def _check_pillow_knows(compression: int, photometric: int, bits: int, kinds: set[int]) -> None:
    name = PIXEL_CODECS.get(compression, {6: "YCbCr", 8: "CIE Lab"}.get(photometric, ""))
    if bits > 8 or kinds != {UINT}:
        raise ImageError(
            f"it is a {name} TIFF with {bits} bits a channel, of which 8 are read; {CONVERT}."
        )


def _check_samples(photometric: int, bits: int, kind: int, predictor: int) -> None:
    """Refuse numbers that mean no brightness, or of sizes that nothing writes."""
    name = {UINT: "integers", INT: "signed integers", FLOAT: "floating point"}.get(kind)
    if name is None:
        raise ImageError("it is a TIFF of complex numbers, which are no image; convert it.")
    known = (16, 32, 64) if kind == FLOAT else (*range(1, 17), 32, 64)
    if kind == INT:
        known = (8, 16, 32, 64)
    if photometric in (PALETTE, CMYK) and (kind != UINT or bits > 16):
        known = ()
    if bits not in known:
        what = {PALETTE: "palette ", CMYK: "CMYK "}.get(photometric, "")
        raise ImageError(
            f"it is a {what}TIFF with {name} of {bits} bits, which is not read; "
            "convert it to 8 or 16 bits a channel."
        )
    if not (predictor == 1 or (predictor == 2 and bits in (8, 16, 32, 64))) and not (
        predictor == 3 and kind == FLOAT
    ):
        raise ImageError(
            f"it is a TIFF with predictor {predictor} for {name} of {bits} bits, "
            f"which is not read; {AGAIN}."
        )


def _alpha(directory: Directory, photometric: int) -> tuple[int, bool] | None:
    """The sample that is the transparency, and whether colours are multiplied with it."""
    colors, samples = COLORS[photometric], directory.number(277, 1)
    extra = directory.numbers(338)[: samples - colors]
    if not extra and samples == colors + 1 and photometric != CMYK:
        extra = (2,)  # the tag is missing; everyone takes a fourth channel for this
    for index, meaning in enumerate(extra):
        if meaning in (1, 2) or (meaning == 999 and photometric == RGB):  # 999 by Corel Draw
            return colors + index, meaning == 1
    return None


def _palette(directory: Directory, bits: int) -> Array:
    """The colours, with 8 bits where these are all they have."""
    values = np.array(directory.numbers(320), np.uint16)
    if values.size != 3 << bits:
        raise ImageError("its palette is missing or cut short.")
    values = values.reshape(3, -1)
    if values.max() < 256:  # by mistake, but it happens
        return values.astype(np.uint8)
    if not (values % 257).any() or not (values % 256).any():
        return (values >> 8).astype(np.uint8)
    return values


class TiffRows:
    """Rows of a TIFF image, decoded as they are asked for, not turned.

    Parameters
    ----------
    stream
        The file.
    layout
        How its pixels lie; CMYK comes as four channels.
    """

    def __init__(self, stream: BinaryIO, layout: Layout) -> None:
        self._stream = stream
        self._layout = layout
        self.shape = (layout.size[1], layout.size[0], layout.channels)
        self.dtype = layout.dtype
        line = layout.size[0] * layout.samples * max(layout.bits // 8, 1)
        down = max(GROUP_BYTES // (line * layout.segment[1]), 1)
        self._group = down * layout.segment[1]
        self._held = (-1, np.empty(0))

    def __getitem__(self, rows: slice) -> Array:
        top, bottom, _ = rows.indices(self.shape[0])
        parts = []
        for group in range(top // self._group, -(-bottom // self._group)):
            first = group * self._group
            if self._held[0] != group:
                last = min(first + self._group, self.shape[0])
                self._held = group, self._decode(first, last)
            parts.append(self._held[1][max(top - first, 0) : bottom - first])
        if not parts:
            return np.empty((0, *self.shape[1:]), self.dtype)
        return parts[0].copy() if len(parts) == 1 else np.concatenate(parts)

    def _decode(self, top: int, bottom: int) -> Array:
        """Rows from ``top``, a multiple of the strip height, as pixels."""
        layout = self._layout
        planes = layout.samples if layout.planar else 1
        parts = [self._plane(plane, top, bottom) for plane in range(planes)]
        samples = np.concatenate(parts, axis=2) if planes > 1 else parts[0]
        return _pixels(samples, layout)

    def _plane(self, plane: int, top: int, bottom: int) -> Array:
        """(h, W, samples) of one plane, as the numbers that the file holds."""
        layout = self._layout
        width, height = layout.size
        across, down = -(-width // layout.segment[0]), -(-height // layout.segment[1])
        samples = 1 if layout.planar else layout.samples
        line = -(-layout.segment[0] * samples * layout.bits // 8)
        first, last = top // layout.segment[1], -(-bottom // layout.segment[1])
        start = (plane * down + first) * across
        chosen = range(start, start + (last - first) * across)
        tiled = across > 1 or layout.segment[0] != width or 0
        full = layout.segment[1]
        rows = [full] * len(chosen)
        if not tiled and last == down:
            rows[-1] = height - (down - 1) * full
        data = self._segments(chosen, line, rows)
        numbers = _numbers(data, layout, samples)
        if across > 1 or tiled:
            numbers = numbers.reshape(last - first, across, full, layout.segment[0], samples)
            numbers = numbers.swapaxes(1, 2).reshape((last - first) * full, -1, samples)
        return numbers[: bottom - top, :width]

    def _segments(self, chosen: range, line: int, rows: list[int]) -> Array:
        """Decompressed strips or tiles one below the other, (rows, line) bytes."""
        layout = self._layout
        # GDAL leaves out what is 0 throughout.
        there = [bool(layout.offsets[index] or layout.lengths[index]) for index in chosen]
        if all(there):
            return self._stored(chosen, line, rows)
        data = np.zeros((sum(rows), line), np.uint8)
        if any(there):
            counts = list(itertools.compress(rows, there))
            stored = self._stored(itertools.compress(chosen, there), line, counts)
            data[np.repeat(there, rows)] = stored
        return data

    def _stored(self, chosen: Iterable[int], line: int, rows: list[int]) -> Array:
        layout = self._layout
        parts = []
        for index, count in zip(chosen, rows, strict=True):
            self._stream.seek(layout.offsets[index])
            length = layout.lengths[index]
            if layout.compression == 1:
                length = min(length, line * count)
            parts.append(self._stream.read(length if length < 2**62 else -1))
            if len(parts[-1]) < length < 2**62 or not parts[-1]:
                raise ImageError("it is cut short.")
        if layout.compression == 1:
            for part, count in zip(parts, rows, strict=True):
                if len(part) < line * count:
                    raise ImageError("it is cut short.")
            data = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, line)
            return REVERSED[data] if layout.fill_order == 2 else data
        return _decompress(parts, line, rows, layout)


REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], 1)
REVERSED = REVERSED.ravel()


def _decompress(parts: list[bytes], line: int, rows: list[int], layout: Layout) -> Array:
    """Strips or tiles as rows of bytes.

    Most are decoded by Pillow, described to it as images of grey bytes.
    """
    sizes = zip(parts, rows, strict=True)
    if layout.compression == WEBP:
        return np.concatenate([_webp(part, line, count, layout) for part, count in sizes])
    if layout.compression in (*DEFLATE, LZMA):
        whole = [_unpacked(part, line * count, layout) for part, count in sizes]
        return np.frombuffer(b"".join(whole), np.uint8).reshape(-1, line)
    start = 8 + 2 + 12 * 10 + 4
    offsets, lengths, at = [], [], start + 8 * len(parts)
    for part in parts:
        offsets.append(at)
        lengths.append(len(part))
        at += len(part)
    count = len(parts)
    inline = count == 1
    tags = {
        256: (4, 1, line),
        257: (4, 1, sum(rows)),
        258: (3, 1, 8),
        259: (3, 1, layout.compression),
        262: (3, 1, 1),
        266: (3, 1, layout.fill_order),
        273: (4, count, offsets[0] if inline else start),
        277: (3, 1, 1),
        278: (4, 1, rows[0]),
        279: (4, count, lengths[0] if inline else start + 4 * count),
    }
    table = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + table + bytes(4)
    values = struct.pack(f"<{2 * count}I", *offsets, *lengths)
    stream = io.BytesIO(b"".join([head, values, *parts]))
    image = TiffImagePlugin.TiffImageFile(stream)
    with any_size(image):
        image.load()
    return np.asarray(image)


def _unpacked(part: bytes, length: int, layout: Layout) -> bytes:
    """The bytes of a strip or tile, by Python's own modules: libtiff reads over damage in them."""
    if layout.fill_order == 2:
        part = part.translate(REVERSED.tobytes())
    unpacker: Any = zlib.decompressobj()
    damage: type[Exception] = zlib.error
    if layout.compression == LZMA:
        import lzma  # which not every Python has

        unpacker, damage = lzma.LZMADecompressor(memlimit=LZMA_MEMORY), lzma.LZMAError
    try:
        data: bytes = unpacker.decompress(part, length)
        if len(data) == length and not unpacker.eof:
            # Its end has a checksum; where that is cut off no pixel is lost.
            unpacker.decompress(getattr(unpacker, "unconsumed_tail", b""), 1)
    except damage as error:
        raise ImageError(f"it is damaged: a strip or tile cannot be unpacked ({error}).") from error
    if len(data) < length:
        raise ImageError("it is cut short.")
    return data


def _webp(part: bytes, line: int, rows: int, layout: Layout) -> Array:
    """(rows, line) bytes of a strip or tile that is a WebP file."""
    with any_size(None):
        try:
            image = Image.open(io.BytesIO(part), formats=("WEBP",))
        except UnidentifiedImageError:
            raise ImageError("it is damaged: a strip or tile is no WebP.") from None
        if image.width != layout.segment[0] or not rows <= image.height <= layout.segment[1]:
            raise ImageError("it is damaged: a strip or tile has another size than its tags say.")
        pixels = np.asarray(image.convert("RGB" if layout.samples == 3 else "RGBA"))
    return pixels[:rows].reshape(rows, line)


def _numbers(data: Array, layout: Layout, samples: int) -> Array:
    """(rows, W, samples) numbers in the machine's byte order from rows of bytes."""
    width, bits = layout.segment[0], layout.bits
    if bits not in (8, 16, 32, 64):
        return _unpack(data, width * samples, bits).reshape(-1, width, samples)
    code = f"u{bits // 8}"
    if layout.predictor == 3:
        # Bytes are differences along the row, all first bytes before all second ones.
        steps = data.reshape(len(data), -1, samples)
        bytes_ = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(len(data), bits // 8, -1)
        numbers = np.ascontiguousarray(bytes_.swapaxes(1, 2)).view(f">{code}")
    else:
        numbers = np.ascontiguousarray(data).view(layout.order + code)
    numbers = numbers.astype(code).reshape(-1, width, samples)
    if layout.predictor == 2:
        numbers = np.cumsum(numbers, axis=1, dtype=code)
    if layout.format == FLOAT:
        return numbers.view(f"f{bits // 8}")
    return numbers.view(f"i{bits // 8}") if layout.format == INT else numbers


def _unpack(data: Array, count: int, bits: int) -> Array:
    """Unsigned numbers of any number of bits up to 16, packed without gaps, high bits first."""
    single = np.unpackbits(data, axis=1)[:, : count * bits].reshape(len(data), count, bits)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
    result: Array = single @ weights
    return result.astype(np.uint8 if bits < 8 else np.uint16)


def _pixels(numbers: Array, layout: Layout) -> Array:
    """(h, W, channels) on the scale of the dtype, alpha last."""
    colors = COLORS[layout.photometric]
    alpha = None if layout.alpha is None else numbers[..., layout.alpha, None]
    color = numbers[..., :colors]
    if layout.palette is not None:
        color = layout.palette.T[color[..., 0]]
        if alpha is not None:
            top = np.iinfo(layout.dtype).max
            alpha = _scaled(alpha, layout.bits, layout.dtype) if top > 255 else alpha
    else:
        color = _on_scale(color, layout)
        alpha = None if alpha is None else _on_scale(alpha, layout)
    if layout.photometric == WHITE_IS_ZERO:
        color = (1 if layout.format == FLOAT else np.iinfo(color.dtype).max) - color
    if alpha is None:
        return np.ascontiguousarray(color, layout.dtype)
    if layout.premultiplied:
        color = _divided(color, alpha)
    return np.concatenate([color, alpha], axis=2).astype(layout.dtype, copy=False)


def _on_scale(numbers: Array, layout: Layout) -> Array:
    """uint8, uint16 or float32, full scale."""
    if layout.format == FLOAT:
        if not (numbers.min() >= 0 and numbers.max() <= 1):  # false for NaN too
            raise ImageError("its float values leave the range 0 to 1; scale them first.")
        return numbers.astype(np.float32)
    if layout.format == UINT and layout.bits <= 16:
        return _scaled(numbers, layout.bits, layout.dtype)
    top = np.iinfo(layout.dtype).max
    if numbers.min() < 0 or numbers.max() > top:
        kind = "signed" if layout.format == INT else f"{layout.bits}-bit"
        raise ImageError(f"its {kind} values leave the range 0 to {top}; scale them first.")
    return numbers.astype(layout.dtype)


def _scaled(numbers: Array, bits: int, dtype: np.dtype[Any]) -> Array:
    """From 0 … 2**bits - 1 to the range of an unsigned dtype, rounded."""
    top, new = (1 << bits) - 1, int(np.iinfo(dtype).max)
    if top == new:
        return numbers.astype(dtype, copy=False)
    return ((numbers.astype(np.uint32) * new + top // 2) // top).astype(dtype)


def _divided(color: Array, alpha: Array) -> Array:
    """Undo the multiplication of colours with alpha; 0 where nothing is seen."""
    if color.dtype == np.float32:
        return np.clip(color / np.where(alpha > 0, alpha, 1), 0, 1).astype(np.float32)
    top = np.uint64(np.iinfo(color.dtype).max)
    whole, part = color.astype(np.uint64), np.maximum(alpha, 1).astype(np.uint64)
    return np.minimum((whole * top + part // np.uint64(2)) // part, top).astype(color.dtype)
