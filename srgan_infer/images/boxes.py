"""Boxes, of which AVIF, HEIF, JPEG 2000 and JPEG XL files are made.

Source: ISO/IEC 14496-12 (boxes, items), 23008-12 (HEIF), 15444-1 annex I (JP2).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

# A box with metadata of more bytes is damage.
LARGEST = 1 << 26


class DamagedError(ValueError):
    """The boxes contradict each other."""


@dataclass(frozen=True)
class Box:
    """One box.

    Parameters
    ----------
    kind
        Four letters.
    start, body, end
        Where it begins, where its content begins, and where it ends.
    """

    kind: bytes
    start: int
    body: int
    end: int


@dataclass(frozen=True)
class Item:
    """One item of a HEIF file.

    Parameters
    ----------
    number
        Its identifier.
    kind
        Four letters, such as ``Exif``, ``mime`` or ``av01``.
    content
        The MIME type of a ``mime`` item.
    extents
        Where its pieces lie: (place, length), in the file.
    properties
        The boxes that describe it: kind and content.
    """

    number: int
    kind: bytes
    content: bytes
    extents: tuple[tuple[int, int], ...]
    properties: tuple[tuple[bytes, bytes], ...]


def walk(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """The boxes between two places of a file, in order; stops at one that is damaged."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        length, kind = struct.unpack_from(">I4s", head)
        body = start + 8
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack_from(">Q", head, 8)
            body = start + 16
        elif length == 0:
            length = end - start
        if length < body - start or start + length > end:
            return
        yield Box(kind, start, body, start + length)
        start += length


def file_boxes(file: BinaryIO) -> Iterator[Box]:
    """The outermost boxes of a file."""
    return walk(file, 0, file.seek(0, io.SEEK_END))


def content(file: BinaryIO, box: Box) -> bytes:
    """What a box holds; nothing if that is too much."""
    if box.end - box.body > LARGEST:
        return b""
    file.seek(box.body)
    return file.read(box.end - box.body)


class Items:
    """The items of an AVIF or HEIF file.

    Parameters
    ----------
    file
        Can seek.

    Raises
    ------
    DamagedError
        If there are none, or their tables are damaged.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        meta = next((box for box in file_boxes(file) if box.kind == b"meta"), None)
        if meta is None:
            raise DamagedError("it has no items.")
        self._boxes = {box.kind: box for box in walk(file, meta.body + 4, meta.end)}
        try:
            self.primary = self._primary()
            self.references = tuple(self._references())
            self.items = {item.number: item for item in self._items()}
        except (struct.error, IndexError) as error:
            raise DamagedError("its tables of items are damaged.") from error

    def data(self, item: Item) -> bytes:
        """The bytes of an item; nothing if that is too much."""
        if sum(length for _, length in item.extents) > LARGEST:
            return b""
        pieces = []
        for place, length in item.extents:
            self._file.seek(place)
            pieces.append(self._file.read(length))
        return b"".join(pieces)

    def described_by(self, number: int) -> list[Item]:
        """Items that describe another: EXIF, XMP."""
        numbers = [
            one for kind, one, others in self.references if kind == b"cdsc" and number in others
        ]
        return [self.items[one] for one in numbers if one in self.items]

    def _box(self, kind: bytes) -> bytes:
        box = self._boxes.get(kind)
        return content(self._file, box) if box else b""

    def _primary(self) -> int:
        data = self._box(b"pitm")
        if not data:
            return 0
        return int.from_bytes(data[4:6] if data[0] == 0 else data[4:8], "big")

    def _references(self) -> Iterator[tuple[bytes, int, tuple[int, ...]]]:
        data = self._box(b"iref")
        if not data:
            return
        code = "H" if data[0] == 0 else "I"
        size = struct.calcsize(code)
        at = 4
        while at + 8 <= len(data):
            length, kind = struct.unpack_from(">I4s", data, at)
            if length < 8:
                return
            (source,) = struct.unpack_from(">" + code, data, at + 8)
            (count,) = struct.unpack_from(">H", data, at + 8 + size)
            yield kind, source, struct.unpack_from(f">{count}{code}", data, at + 10 + size)
            at += length

    def _items(self) -> Iterator[Item]:
        places = dict(self._places())
        properties = self._properties()
        infos = self._boxes.get(b"iinf")
        if infos is None:
            return
        version = self._box(b"iinf")[0]
        for box in walk(self._file, infos.body + (6 if version == 0 else 8), infos.end):
            data = content(self._file, box)
            if box.kind != b"infe" or data[0] < 2:
                continue
            wide = 4 if data[0] == 3 else 2
            number = int.from_bytes(data[4 : 4 + wide], "big")
            at = 4 + wide + 2
            kind = data[at : at + 4]
            names = data[at + 4 :].split(b"\0")
            mime = names[1] if kind == b"mime" and len(names) > 1 else b""
            yield Item(number, kind, mime, places.get(number, ()), properties.get(number, ()))

    def _places(self) -> Iterator[tuple[int, tuple[tuple[int, int], ...]]]:
        data = self._box(b"iloc")
        if not data:
            return
        version, sizes = data[0], int.from_bytes(data[4:6], "big")
        offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        at = 6
        wide = 4 if version == 2 else 2

        def take(size: int) -> int:
            nonlocal at
            if at + size > len(data):
                raise IndexError
            at += size
            return int.from_bytes(data[at - size : at], "big")

        inside = self._boxes.get(b"idat")
        for _ in range(take(wide)):
            number = take(wide)
            method = take(2) & 15 if version else 0
            take(2)
            start = take(base)
            extents = []
            count = take(2)
            if not offset + length:  # the file whole, and that once
                count = min(count, 1)
            for _ in range(count):
                if version and index:
                    take(index)
                place, size = start + take(offset), take(length)
                if method == 1 and inside:
                    place += inside.body
                extents.append((place, size))
            yield number, tuple(extents) if method in (0, 1) else ()

    def _properties(self) -> dict[int, tuple[tuple[bytes, bytes], ...]]:
        boxes = self._boxes.get(b"iprp")
        if boxes is None:
            return {}
        found: list[tuple[bytes, bytes]] = []
        tables = []
        for box in walk(self._file, boxes.body, boxes.end):
            if box.kind == b"ipco":
                inner = list(walk(self._file, box.body, box.end))
                found += [(one.kind, content(self._file, one)) for one in inner]
            elif box.kind == b"ipma":
                tables.append(content(self._file, box))
        result: dict[int, tuple[tuple[bytes, bytes], ...]] = {}
        for data in tables:
            version, flags = data[0], data[3]
            (count,) = struct.unpack_from(">I", data, 4)
            at = 8
            for _ in range(count):
                number = int.from_bytes(data[at : at + (2 if version == 0 else 4)], "big")
                at += 2 if version == 0 else 4
                total, at = data[at], at + 1
                wide = 2 if flags & 1 else 1
                indices = [
                    int.from_bytes(data[at + wide * k : at + wide * (k + 1)], "big")
                    & (0x7FFF if wide == 2 else 0x7F)
                    for k in range(total)
                ]
                at += wide * total
                result[number] = tuple(found[one - 1] for one in indices if 0 < one <= len(found))
        return result
