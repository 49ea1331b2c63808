"""Rows of a large picture, kept in a temporary file instead of memory."""

from __future__ import annotations

import tempfile
import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from .rows import RowSource

Array = npt.NDArray[Any]
BAND_BYTES = 4 << 20


class SpooledRows:
    """The same rows, read back from a file that vanishes with this object.

    Pillow decodes a picture whole. For as long as the network runs over it,
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
            raise OSError("the temporary file with the picture's rows was cut short")
        return result
