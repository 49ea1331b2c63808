"""The pages of a TIFF file: where they lie, and each as a file of its own."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from srgan_infer.errors import ImageError
from srgan_infer.images import exif

# As many as TIFF can number.
MOST = 65535
KIND, OLD_KIND, WIDTH, HEIGHT = 254, 255, 256, 257
# Of a kind: a smaller version of a page, and its mask.
REDUCED, MASK = 1, 4


@dataclass(frozen=True)
class Page:
    """Where a page lies in its file.

    Parameters
    ----------
    directory
        The place of its directory.
    link
        Where in it the place of the next directory stands.
    pixels
        How many its tags say.
    """

    directory: int
    link: int
    pixels: int


@dataclass(frozen=True)
class Pages:
    """The full pages of a TIFF file: not their thumbnails, smaller versions and masks.

    Parameters
    ----------
    pages
        In their order; none if the first directory is damaged.
    complete
        Whether the chain of directories has an end.
    masks
        How many masks there are.
    """

    pages: tuple[Page, ...]
    complete: bool
    masks: int = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be said of the last page."""
        sentences = []
        if self.masks:
            sentences.append("A mask in the file, which says what is transparent, is left out.")
        if not self.complete:
            sentences.append("What follows it in the file cannot be read: pages may be missing.")
        return tuple(sentences)


def find_pages(stream: BinaryIO) -> Pages:
    """Follow the chain of directories; their values are not read.

    Parameters
    ----------
    stream
        A TIFF file; can seek.

    Raises
    ------
    ImageError
        If there are more than TIFF can number.
    """
    found: list[Page] = []
    try:
        structure = exif.Structure(stream)
    except exif.DamagedError:
        return Pages((), complete=True)
    place, seen, masks = structure.first, set[int](), 0
    while place and place not in seen:
        if len(seen) == MOST:
            raise ImageError(f"it has more than {MOST} pages; split it.")
        seen.add(place)
        try:
            directory = structure.directory(place)
        except exif.DamagedError:
            return Pages(tuple(found), complete=False, masks=masks)
        kind, old, width, height = (
            _number(structure, directory, tag) for tag in (KIND, OLD_KIND, WIDTH, HEIGHT)
        )
        if not kind & (REDUCED | MASK) and old != 2:
            found.append(Page(place, directory.link, width * height))
        masks += kind & (REDUCED | MASK) == MASK
        place = directory.next
    return Pages(tuple(found), complete=True, masks=masks)


def _number(structure: exif.Structure, directory: exif.Directory, tag: int) -> int:
    entry = directory.entries.get(tag)
    values = structure.numbers(entry) if entry and entry.count == 1 else []
    return values[0] if values and isinstance(values[0], int) else 0


class OnePage(io.RawIOBase):
    """A TIFF file as if one of its pages were the only one.

    Parameters
    ----------
    stream
        The file; can seek. It stays open.
    page
        The page.
    """

    def __init__(self, stream: BinaryIO, page: Page) -> None:
        super().__init__()
        self._stream = stream
        stream.seek(0)
        head = stream.read(4)
        order = "<" if head[:2] == b"II" else ">"
        big = 43 in head[2:]
        place = struct.pack(order + ("Q" if big else "I"), page.directory)
        # Place and content of what reads otherwise than in the file.
        self._changes = {8 if big else 4: place, page.link: bytes(len(place))}
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """That of the file: libtiff is told the place of the directory, and reads no further."""
        return self._stream.fileno()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        if whence == io.SEEK_END:
            offset += self._stream.seek(0, io.SEEK_END)
        self._at = max(offset + (self._at if whence == io.SEEK_CUR else 0), 0)
        return self._at

    def readinto(self, buffer: object) -> int:
        """As of any file."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        self._stream.seek(self._at)
        data = self._stream.read(len(view))
        view[: len(data)] = data
        for place, content in self._changes.items():
            first, last = max(place, self._at), min(place + len(content), self._at + len(data))
            if first < last:
                view[first - self._at : last - self._at] = content[first - place : last - place]
        self._at += len(data)
        return len(data)


def one_page(stream: BinaryIO, page: Page) -> BinaryIO:
    """A view of a TIFF file as if one of its pages were the only one."""
    return io.BufferedReader(OnePage(stream, page))


@dataclass(frozen=True)
class PageFile:
    """What a page is read from.

    Parameters
    ----------
    file
        The whole file.
    page
        Where the page lies in it.
    name
        How messages call it.
    """

    file: Path | BinaryIO
    page: Page
    name: str
