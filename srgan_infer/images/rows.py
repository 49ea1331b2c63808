"""What all parts mean by the rows of an image, in memory or in a temporary file."""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
BAND_BYTES = 4 << 20

# Larger images wait in a temporary file for their turn.
SPOOL_PIXELS = 2_000_000


class RowSource(Protocol):
    """Rows of an image on demand; a NumPy array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8, uint16, or float32 in [0, 1]."""

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]:
        """(h, W, C) of the rows ``[top:bottom]``."""


@dataclass(frozen=True)
class DecodedImage:
    """One decoded still image.

    Parameters
    ----------
    color
        (H, W, 1 | 3); uint8, uint16, or float32 in [0, 1].
    alpha
        (H, W) rows of the same dtype, or None. Where it is 0 the colour is that of
        the nearest visible pixels.
    warnings
        Sentences for the user on what was found while decoding.
    """

    color: RowSource
    alpha: RowSource | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Channels:
    """Some channels of a row source."""

    rows: RowSource
    first: int
    last: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, last - first)."""
        return (self.rows.shape[0], self.rows.shape[1], self.last - self.first)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the whole."""
        return self.rows.dtype

    def __getitem__(self, rows: slice) -> Array:
        return np.ascontiguousarray(self.rows[rows][..., self.first : self.last])


@dataclass(frozen=True)
class Plane:
    """One channel of a row source, as (h, W) rows."""

    rows: RowSource
    channel: int

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return (self.rows.shape[0], self.rows.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the whole."""
        return self.rows.dtype

    def __getitem__(self, rows: slice) -> Array:
        return np.ascontiguousarray(self.rows[rows][..., self.channel])


def is_grey(rows: RowSource) -> bool:
    """Whether red, green and blue are the same in every pixel of (H, W, 3) rows."""
    height, width, _ = rows.shape
    step = max(BAND_BYTES // (3 * width * rows.dtype.itemsize), 1)
    for top in range(0, height, step):
        part = rows[top : min(top + step, height)]
        if (part[..., 0] != part[..., 1]).any() or (part[..., 0] != part[..., 2]).any():
            return False
    return True


class Blocks:
    """Gathers rows that come in any number into blocks of one height.

    Parameters
    ----------
    height
        Rows in a block; the last one may have fewer.
    """

    def __init__(self, height: int) -> None:
        self._height = height
        self._parts: list[npt.NDArray[Any]] = []
        self._missing = height

    def push(self, rows: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        """Take the next rows, which must not change any more, and give the blocks that are full."""
        while rows.shape[0]:
            self._parts.append(rows[: self._missing])
            rows = rows[self._missing :]
            self._missing -= self._parts[-1].shape[0]
            if self._missing == 0:
                yield from self.rest()

    def rest(self) -> Iterator[npt.NDArray[Any]]:
        """The block that is not full yet, if any rows are left."""
        parts, self._parts, self._missing = self._parts, [], self._height
        if parts:
            yield parts[0] if len(parts) == 1 else np.concatenate(parts)


class PassingRows:
    """Rows that are made one after the other, read as they pass.

    Parameters
    ----------
    rows
        Makes the rows from top to bottom.
    shape
        (H, W, C) of all of them.
    dtype
        Of each.
    """

    def __init__(
        self, rows: Iterator[Array], shape: tuple[int, int, int], dtype: np.dtype[Any]
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._rows = rows
        self._kept = np.empty((0, *shape[1:]), dtype)
        self._top = 0

    def __getitem__(self, rows: slice) -> Array:
        """What lies above the rows is dropped: no later slice may begin there."""
        top, bottom, _ = rows.indices(self.shape[0])
        if top < self._top:
            raise ValueError(f"row {top} has passed; the first that is left is {self._top}.")
        parts = [self._kept[top - self._top :]]
        come = self._top + self._kept.shape[0]
        while come < bottom:
            parts.append(next(self._rows))
            come += parts[-1].shape[0]
        self._kept, self._top = np.concatenate(parts), top
        return self._kept[: bottom - top]


class SpooledRows:
    """The same rows, read back from a file that vanishes with this object.

    Pillow decodes an image whole. For as long as the network runs over it,
    its rows are better off in the page cache, which the system can take back.

    Parameters
    ----------
    rows
        (H, W, C), read once from top to bottom.

    Raises
    ------
    OSError
        If the folder for temporary files has no room.
    """

    def __init__(self, rows: RowSource) -> None:
        height, width, channels = rows.shape
        self.shape = (height, width, channels)
        self.dtype = rows.dtype
        self._line = width * channels * rows.dtype.itemsize
        self._lock = threading.Lock()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        step = max(BAND_BYTES // self._line, 1)
        for top in range(0, height, step):
            self._file.write(np.ascontiguousarray(rows[top : min(top + step, height)]).data)
        self._file.flush()

    def __getitem__(self, rows: slice) -> Array:
        top, bottom, _ = rows.indices(self.shape[0])
        count = max(bottom - top, 0)
        result = np.empty((count, *self.shape[1:]), self.dtype)
        with self._lock:
            self._file.seek(top * self._line)
            read = self._file.readinto(result.data.cast("B")) if count else 0
        if read != count * self._line:
            raise OSError("the temporary file with the image's rows was cut short")
        return result


def hold(rows: RowSource) -> RowSource:
    """The same rows, ready to be read again: of a small image in memory, of a large one on disk."""
    height, width, _ = rows.shape
    if height * width >= SPOOL_PIXELS:
        # Without room for temporary files, the memory has to do.
        with suppress(OSError):
            return SpooledRows(rows)
    return rows[0:height]
