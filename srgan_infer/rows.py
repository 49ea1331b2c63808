"""What all parts mean by the rows of a picture."""

from __future__ import annotations

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
