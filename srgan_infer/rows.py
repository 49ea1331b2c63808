"""What all parts mean by the rows of a picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class RowSource(Protocol):
    """Rows of a picture on demand; a NumPy array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8, uint16, or float32 in [0, 1]."""

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]:
        """(h, W, C) of the rows ``[top:bottom]``."""


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
