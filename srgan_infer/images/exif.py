"""TIFF structures, of which EXIF is one: read entry by entry, changed where the bytes lie.

Maker notes point to places inside their block, and nobody knows all their formats. So
a block that goes from file to file keeps its bytes, its byte order and its offsets, and
only the values that must change are written over. Into and out of TIFF, where that
cannot be, entries are copied raw.

Source: TIFF 6.0 section 2; EXIF 3.0 (CIPA DC-008) section 4; the BigTIFF design.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, TiffTags

PREFIX = b"Exif\x00\x00"

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
SLONG, SRATIONAL, DOUBLE, IFD = 9, 10, 12, 13
LONG8, SLONG8, IFD8 = 16, 17, 18
# Bytes of one value; 129 is the UTF-8 text of EXIF 3.0.
SIZES = {
    **{1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4},
    **{LONG8: 8, SLONG8: 8, IFD8: 8, 129: 1},
}
CODES = {
    **{1: "B", 3: "H", 4: "I", 5: "I", 6: "b", 8: "h", 9: "i", 10: "i", 11: "f", 12: "d"},
    **{13: "I", LONG8: "Q", SLONG8: "q", IFD8: "Q"},
}
WHOLE = {1, 3, 4, 6, 8, 9, 13, LONG8, SLONG8, IFD8}
# Its contents are the maker's secret.
MAKER_NOTE = 37500
# What only BigTIFF has, and what stands for it elsewhere.
SMALLER = {LONG8: LONG, SLONG8: SLONG, IFD8: IFD}

MAIN, EXIF, GPS, INTEROP, THUMBNAIL = "main", "exif", "gps", "interop", "thumbnail"
# Directories that others point to: (where the pointer is, its tag).
POINTERS = {EXIF: (MAIN, 34665), GPS: (MAIN, 34853), INTEROP: (EXIF, 40965)}
POINTER_TAGS = {tag: name for name, (_, tag) in POINTERS.items()}
# Values of more bytes are damage, or something that is no metadata.
LARGEST_VALUE = 1 << 26
MOST_ENTRIES = 8192

# (type, count, bytes), or a directory of its own.
Value = tuple[int, int, bytes]
Tree = dict[int, "Value | Tree"]


class DamagedError(ValueError):
    """The structure cannot be read at all."""


@dataclass(frozen=True)
class Entry:
    """One entry of a directory.

    Parameters
    ----------
    tag, kind, count
        Its number, type and number of values.
    slot
        Where the entry lies.
    place, length
        Where its value lies, and how many bytes it has.
    """

    tag: int
    kind: int
    count: int
    slot: int
    place: int
    length: int


@dataclass(frozen=True)
class Directory:
    """The entries of one directory.

    Parameters
    ----------
    place
        Where it lies.
    entries
        By tag; the first one of a tag that is there twice.
    unreadable
        Tags of an unknown type, or whose values lie outside of the file.
    link
        Where the place of the next directory is written.
    next
        That place, 0 for none.
    """

    place: int
    entries: dict[int, Entry]
    unreadable: tuple[int, ...]
    link: int
    next: int


class Structure:
    """A TIFF or BigTIFF structure.

    Parameters
    ----------
    data
        The bytes, or a file that can seek (read from its start).

    Raises
    ------
    DamagedError
        If it does not begin as a TIFF structure does.
    """

    def __init__(self, data: bytes | bytearray | BinaryIO) -> None:
        self._data = data
        if isinstance(data, (bytes, bytearray)):
            self.length = len(data)
        else:
            self.length = data.seek(0, io.SEEK_END)
        head = self.read(0, 16).ljust(16, b"\0")
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        if not self.order:
            raise DamagedError("it has no TIFF header.")
        (version,) = struct.unpack_from(self.order + "H", head, 2)
        if version not in (42, 43):
            raise DamagedError("it has no TIFF header.")
        self.big = version == 43
        at, code = (8, "Q") if self.big else (4, "I")
        self.first: int = struct.unpack_from(self.order + code, head, at)[0]

    def read(self, place: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``place`` on."""
        if isinstance(self._data, (bytes, bytearray)):
            return bytes(self._data[place : place + length])
        if place > self.length:
            return b""
        self._data.seek(place)
        return self._data.read(length)

    def value(self, entry: Entry) -> bytes:
        """The bytes of an entry's values, in the order of the structure."""
        return self.read(entry.place, entry.length)

    def numbers(self, entry: Entry) -> list[int | float | Fraction]:
        """The values of an entry; none for a type without numbers.

        A fraction whose denominator is 0 is NaN.
        """
        return numbers((entry.kind, entry.count, self.value(entry)), self.order)

    def directory(self, place: int) -> Directory:
        """Read the directory at ``place``.

        Raises
        ------
        DamagedError
            If its table lies outside of the structure.
        """
        head, size, room = ("Q", 20, 8) if self.big else ("H", 12, 4)
        start = place + struct.calcsize(head)
        raw = self.read(place, start - place)
        if place < 8 or len(raw) < start - place:
            raise DamagedError("a directory lies outside of it.")
        (count,) = struct.unpack(self.order + head, raw)
        link = start + size * count
        if link > self.length or count > MOST_ENTRIES:
            raise DamagedError("a directory lies outside of it.")
        table = self.read(start, size * count)
        entries: dict[int, Entry] = {}
        unreadable: list[int] = []
        for index in range(count):
            slot = start + size * index
            entry = self._entry(table[slot - start : slot - start + size], slot, room)
            if not isinstance(entry, Entry):
                unreadable.append(entry)
            elif entry.tag not in entries:
                entries[entry.tag] = entry
        follows = self.read(link, room)
        code = self.order + ("Q" if self.big else "I")
        following = struct.unpack(code, follows)[0] if len(follows) == room else 0
        return Directory(place, entries, tuple(unreadable), link, following)

    def _entry(self, raw: bytes, slot: int, room: int) -> Entry | int:
        """An entry, or the tag of one that cannot be read."""
        wide = "Q" if self.big else "I"
        tag, kind, count = struct.unpack_from(self.order + "HH" + wide, raw)
        length = SIZES.get(kind, 0) * count
        place = slot + len(raw) - room
        if length > room:
            (place,) = struct.unpack_from(self.order + wide, raw, len(raw) - room)
        if not length or length > LARGEST_VALUE or place + length > self.length:
            return int(tag)
        return Entry(tag, kind, count, slot, place, length)

    def directories(self) -> tuple[dict[str, Directory], tuple[int, ...]]:
        """The main directory, those it points to, and the one of the thumbnail.

        Returns
        -------
        tuple
            The directories by name, and the tags of pointers that lead nowhere, or to a
            directory that was read already.

        Raises
        ------
        DamagedError
            If the main directory cannot be read.
        """
        main = self.directory(self.first)
        found, seen, astray = {MAIN: main}, {main.place}, []
        for name, (parent, tag) in POINTERS.items():
            entry = found[parent].entries.get(tag) if parent in found else None
            if entry is None:
                continue
            directory = self._follow(entry, seen)
            if directory is None:
                astray.append(tag)
            else:
                found[name] = directory
        if main.next and main.next not in seen:
            with suppress(DamagedError):
                found[THUMBNAIL] = self.directory(main.next)
        return found, tuple(astray)

    def _follow(self, pointer: Entry, seen: set[int]) -> Directory | None:
        values = self.numbers(pointer)
        if len(values) != 1 or not isinstance(values[0], int) or values[0] in seen:
            return None
        seen.add(values[0])
        try:
            return self.directory(values[0])
        except DamagedError:
            return None


def tag_names(tags: Iterable[int], most: int = 12) -> str:
    """What people call several tags; only the first of many."""
    names = list(dict.fromkeys(map(tag_name, tags)))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def tag_name(tag: int) -> str:
    """What people call a tag."""
    name = ExifTags.TAGS.get(tag) or TiffTags.lookup(tag).name
    return f"tag {tag}" if name in (None, "unknown") else str(name)


def numbers(value: Value, order: str) -> list[int | float | Fraction]:
    """The numbers of a value in byte order ``order``; see :meth:`Structure.numbers`."""
    kind, count, data = value
    if kind not in CODES:
        return []
    if kind in (RATIONAL, SRATIONAL):
        flat = struct.unpack(f"{order}{2 * count}{CODES[kind]}", data)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return [Fraction(up, down) if down else math.nan for up, down in pairs]
    return list(struct.unpack(f"{order}{count}{CODES[kind]}", data))


def pack(kind: int, values: Sequence[int | float | Fraction], order: str) -> bytes | None:
    """The bytes of values of a numeric type; None if the type cannot hold them."""
    code = f"{order}{len(values)}{CODES[kind]}"
    try:
        if kind in (RATIONAL, SRATIONAL):
            pairs = [fraction_that_fits(value, 31 if kind == SRATIONAL else 32) for value in values]
            if None in pairs:
                return None
            flat = [part for pair in pairs if pair for part in pair]
            return struct.pack(f"{order}{len(flat)}{CODES[kind]}", *flat)
        if kind in WHOLE:
            values = [round(value) for value in values]
        return struct.pack(code, *values)
    except (struct.error, OverflowError, ValueError):
        return None


def fraction_that_fits(value: int | float | Fraction, bits: int = 32) -> tuple[int, int] | None:
    """Numerator and denominator of at most ``bits`` bits; None if there are none near it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    exact, top = Fraction(value), 2**bits - 1
    if abs(exact) > top:
        return None
    if max(abs(exact.numerator), exact.denominator) > top:
        exact = exact.limit_denominator(max(int(top / max(abs(exact), 1)), 1))
        if not exact and value:
            return None
    return exact.numerator, exact.denominator


def swapped(value: Value) -> Value:
    """The same value in the other byte order."""
    kind, count, data = value
    unit = 4 if kind in (RATIONAL, SRATIONAL) else SIZES[kind]
    if kind in CODES and unit > 1:
        data = np.frombuffer(data, f"u{unit}").byteswap().tobytes()
    return kind, count, data


def read_tree(
    structure: Structure, order: str, wanted: Iterable[int] | None = None
) -> tuple[Tree, tuple[int, ...]]:
    """Copy the entries of a structure, raw, but in byte order ``order``.

    Parameters
    ----------
    wanted
        Tags of the main directory that are copied; all if None.

    Returns
    -------
    tuple
        The directories (the thumbnail's left out), and the tags that were to be copied
        but cannot be.

    Raises
    ------
    DamagedError
        If the main directory cannot be read.
    """
    found, astray = structure.directories()
    lost = [tag for tag in astray if wanted is None or tag in wanted]
    trees: dict[str, Tree] = {name: {} for name in found}
    for name, directory in found.items():
        chosen = wanted if name == MAIN else None
        lost += [tag for tag in directory.unreadable if chosen is None or tag in chosen]
        for tag, entry in directory.entries.items():
            pointed = POINTER_TAGS.get(tag)
            if chosen is not None and tag not in chosen:
                continue
            if pointed is not None and POINTERS[pointed][0] == name:
                continue
            value: Value = (entry.kind, entry.count, structure.value(entry))
            narrow = _narrow(value, structure.order)
            if narrow is None:
                lost.append(tag)
            else:
                trees[name][tag] = narrow if order == structure.order else swapped(narrow)
    for name in (INTEROP, EXIF, GPS):  # inner ones first
        parent, tag = POINTERS[name]
        if trees.get(name) and (wanted is None or parent != MAIN or tag in wanted):
            trees[parent][tag] = trees[name]
    return trees[MAIN], tuple(lost)


def _narrow(value: Value, order: str) -> Value | None:
    """A value in a type that is not BigTIFF's alone; None if it does not fit one."""
    kind, count, _ = value
    if kind not in SMALLER:
        return value
    packed = pack(SMALLER[kind], numbers(value, order), order)
    return None if packed is None else (SMALLER[kind], count, packed)


def encode_directory(tree: Tree, place: int, big: bool = False, order: str = "<") -> bytes:
    """Lay a directory out for ``place`` in a TIFF or BigTIFF file.

    Parameters
    ----------
    tree
        Its values are in byte order ``order``.
    """
    room, head, entry, tail = (8, "Q", "HHQ", "Q") if big else (4, "H", "HHI", "I")
    table = bytearray(struct.pack(order + head, len(tree)))
    width = struct.calcsize("<" + entry) + room
    start = place + len(table) + width * len(tree) + room
    values = bytearray()
    for tag, content in sorted(tree.items()):
        here = start + len(values)
        if isinstance(content, dict):
            kind, count, data = LONG8 if big else LONG, 1, struct.pack(order + tail, here)
            values += encode_directory(content, here, big, order)
        else:
            kind, count, data = content
            if len(data) > room:
                values += data
                data = struct.pack(order + tail, here)
        values += bytes(len(values) % 2)
        table += struct.pack(order + entry, tag, kind, count) + data.ljust(room, b"\0")
    return bytes(table) + bytes(room) + bytes(values)


def encode_block(tree: Tree, order: str = "<") -> bytes:
    """An EXIF block; empty for an empty tree."""
    if not tree:
        return b""
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HI", 42, 8) + encode_directory(tree, 8, False, order)


class Block:
    """An EXIF block that is changed where its bytes lie.

    Parameters
    ----------
    data
        The block, without the prefix that it has in JPEG.

    Raises
    ------
    DamagedError
        If it is not one, or its main directory cannot be read.
    """

    def __init__(self, data: bytes) -> None:
        self._data = bytearray(data)
        self._read()

    def _read(self) -> None:
        self._structure = Structure(self._data)
        if self._structure.big:
            raise DamagedError("it is a BigTIFF.")
        self.directories, self.astray = self._structure.directories()

    @property
    def order(self) -> str:
        """``"<"`` for little-endian, ``">"`` for big-endian."""
        return self._structure.order

    def data(self) -> bytes:
        """The block as it is now."""
        return bytes(self._data)

    def tags(self, name: str) -> tuple[int, ...]:
        """Tags of a directory; none if it is not there."""
        directory = self.directories.get(name)
        return tuple(directory.entries) + directory.unreadable if directory else ()

    def numbers(self, name: str, tag: int) -> list[int | float | Fraction]:
        """Values of an entry; none if it is not there or holds no numbers."""
        entry = self._find(name, tag)
        return self._structure.numbers(entry) if entry else []

    def value(self, name: str, tag: int) -> bytes:
        """Bytes of an entry's value; none if it is not there."""
        entry = self._find(name, tag)
        return self._structure.value(entry) if entry else b""

    def put(self, name: str, tag: int, values: Sequence[int | float | Fraction]) -> bool:
        """Write numbers over those of an entry.

        Returns
        -------
        bool
            False, and nothing is changed, if the entry has no room for them.
        """
        entry = self._find(name, tag)
        if entry is None or entry.kind not in CODES or entry.count != len(values):
            return False
        kind, packed = entry.kind, pack(entry.kind, values, self.order)
        if packed is None and entry.kind in WHOLE and entry.count == 1:
            kind, packed = LONG, pack(LONG, values, self.order)
        if packed is None or (len(packed) > 4 and self._in_a_table(entry)):
            return False
        struct.pack_into(self.order + "H", self._data, entry.slot + 2, kind)
        if len(packed) <= 4:
            entry = replace(entry, kind=kind, place=entry.slot + 8, length=len(packed))
        self._data[entry.place : entry.place + len(packed)] = packed
        self.directories[name].entries[tag] = entry
        return True

    def remove(self, name: str, *tags: int) -> None:
        """Take entries out of their directory, and blank their values."""
        directory = self.directories[name]
        entries = [directory.entries[tag] for tag in tags if tag in directory.entries]
        start, code = directory.place + 2, self.order + "H"
        table = bytes(self._data[start : directory.link + 4])
        slots = [table[at : at + 12] for at in range(0, len(table) - 4, 12)]
        kept = [slot for slot in slots if struct.unpack_from(code, slot)[0] not in tags]
        # The entries behind it move up, and so does the place of the next directory.
        shorter = b"".join(kept) + table[-4:]
        self._data[start : directory.link + 4] = shorter.ljust(len(table), b"\0")
        struct.pack_into(code, self._data, directory.place, len(kept))
        self._read()
        self._blank(
            (entry.place, entry.place + entry.length)
            for entry in entries
            if entry.place != entry.slot + 8
        )

    def drop_thumbnail(self) -> None:
        """Unlink the thumbnail's directory, and blank it and the thumbnail."""
        main, thumbnail = self.directories[MAIN], self.directories.pop(THUMBNAIL, None)
        self._data[main.link : main.link + 4] = bytes(4)
        if thumbnail is None:
            return
        spans = [(thumbnail.place, thumbnail.link + 4)]
        spans += [(one.place, one.place + one.length) for one in thumbnail.entries.values()]
        pictures = []
        for where, length in ((513, 514), (273, 279)):
            pairs = [
                self._structure.numbers(thumbnail.entries[tag]) if tag in thumbnail.entries else []
                for tag in (where, length)
            ]
            pictures += [(int(a), int(a + b)) for a, b in zip(*pairs, strict=False)]
        self._blank(spans + pictures)
        self._cut(pictures)
        self._read()

    def _find(self, name: str, tag: int) -> Entry | None:
        directory = self.directories.get(name)
        return directory.entries.get(tag) if directory else None

    def _in_a_table(self, entry: Entry) -> bool:
        """Whether a damaged entry's values lie where a directory or the header does."""
        end = entry.place + entry.length
        tables = [(one.place, one.link + 4) for one in self.directories.values()]
        return any(entry.place < last and first < end for first, last in [(0, 8), *tables])

    def _used(self) -> list[tuple[int, int]]:
        """Where everything lies that stays."""
        spans = [(0, 8)]
        for directory in self.directories.values():
            spans.append((directory.place, directory.link + 4))
            spans += [(one.place, one.place + one.length) for one in directory.entries.values()]
        return spans

    def _blank(self, spans: Iterable[tuple[int, int]]) -> None:
        """Write zeros, but not over what is used otherwise."""
        free = np.zeros(len(self._data), bool)
        for start, end in spans:
            free[max(start, 0) : max(end, 0)] = True
        for start, end in self._used():
            free[start:end] = False
        np.frombuffer(self._data, np.uint8)[free] = 0

    def _cut(self, pictures: Iterable[tuple[int, int]]) -> None:
        """Shorten the block by thumbnails that were its end."""
        last = max(end for _, end in self._used())
        for start, end in pictures:
            if last <= start < len(self._data) <= end + 4:
                del self._data[start:]


def shortened(data: bytes, limit: int) -> tuple[bytes, tuple[int, ...]]:
    """A block of at most ``limit`` bytes: laid out anew, without its largest values.

    Returns
    -------
    tuple
        The block, and the tags that are no longer in it.
    """
    if len(data) <= limit:
        return data, ()
    structure = Structure(data)
    tree, lost = read_tree(structure, structure.order)
    gone = list(lost)
    length = len(encode_block(tree, structure.order))
    for size, inner, tag in sorted(_sizes(tree), key=lambda one: -one[0]):
        if length <= limit:
            break
        del inner[tag]
        gone.append(tag)
        length -= size
    return encode_block(tree, structure.order), tuple(gone)


def _sizes(tree: Tree) -> Iterator[tuple[int, Tree, int]]:
    """Bytes that each value takes at least, with the directory that it is in and its tag."""
    for tag, value in tree.items():
        if isinstance(value, dict):
            yield from _sizes(value)
        else:
            yield 12 + (len(value[2]) if len(value[2]) > 4 else 0), tree, tag
