"""From the rows that the network gives to the size that was asked for.

The network multiplies by a fixed scale. Any other size is reached from the next
power of it above, by a Lanczos filter that reduces the rows as they come.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from srgan_infer.errors import ImageError

Array = npt.NDArray[Any]
Box = tuple[int | None, int | None]

LARGEST_FACTOR = 16
MOST_PIXELS = 2**31 - 1
# Of Pillow's Lanczos filter, in pixels of the smaller image.
LANCZOS_RADIUS = 3
# Reduced rows that are made at a time. More rows let the filter start less often.
BLOCK_ROWS = 16


@dataclass(frozen=True)
class OutputSize:
    """The size of a result, and how often the network runs to reach it.

    Parameters
    ----------
    width, height
        Of the result, in pixels.
    passes
        How many times the network runs, one run over the result of the other.
    upscaled
        (W, H) after the last pass; the result is reduced from it, or it is this.
    """

    width: int
    height: int
    passes: int
    upscaled: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height

    @property
    def is_reduced(self) -> bool:
        """Whether a filter reduces what the network gives."""
        return self.size != self.upscaled


def output_size(
    source: tuple[int, int],
    scale: int,
    *,
    outscale: float | None = None,
    size: Box | None = None,
    megapixels: float | None = None,
) -> OutputSize:
    """The size that is asked for in one of three ways, or ``scale`` times the source.

    Parameters
    ----------
    source
        (W, H) of the source.
    scale
        Of the network.
    outscale
        A factor in (0, 16].
    size
        (width, height) of a box that the result fills in one direction and does not
        leave in the other; None for a direction without a limit. The ratio is kept.
    megapixels
        Millions of pixels, at most.

    Raises
    ------
    ValueError
        If more than one is given, or one has a value that means nothing.
    ImageError
        If the result would be more than 16 times as wide as the source.
    """
    check_size(outscale, size, megapixels)
    if size is not None:
        factor = min(new / old for new, old in zip(size, source, strict=True) if new is not None)
        width, height = (
            max(min(round(factor * old), int(new or MOST_PIXELS)), 1)
            for new, old in zip(size, source, strict=True)
        )
    elif megapixels is not None:
        factor = math.sqrt(1e6 * megapixels / (source[0] * source[1]))
        width, height = (max(math.floor(factor * old + 1e-6), 1) for old in source)
    else:
        factor = scale if outscale is None else outscale
        width, height = (max(round(factor * old), 1) for old in source)
    if factor > LARGEST_FACTOR:
        raise ImageError(
            f"An image of {source[0]}x{source[1]} pixels is upscaled {LARGEST_FACTOR} times at "
            f"most, not {factor:.3g} times; ask for a smaller size."
        )
    passes = 1
    while any(scale**passes * old < new for old, new in zip(source, (width, height), strict=True)):
        passes += 1
    upscaled = (scale**passes * source[0], scale**passes * source[1])
    return OutputSize(width, height, passes, upscaled)


def check_size(outscale: float | None, size: Box | None, megapixels: float | None) -> None:
    """Refuse what no image can have.

    Parameters
    ----------
    outscale, size, megapixels
        As for :func:`output_size`.

    Raises
    ------
    ValueError
        If more than one is given, or one has a value that means nothing.
    """
    if sum(option is not None for option in (outscale, size, megapixels)) > 1:
        raise ValueError("outscale, size and megapixels each say the output size; give one.")
    if outscale is not None and not (_is_number(outscale) and outscale <= LARGEST_FACTOR):
        raise ValueError(
            f"outscale must be a number above 0 and at most {LARGEST_FACTOR}, not {outscale!r}."
        )
    if megapixels is not None and not _is_number(megapixels):
        raise ValueError(f"megapixels must be a number above 0, not {megapixels!r}.")
    if size is None:
        return
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"size must be (width, height), either of them or None, not {size!r}.")
    edges = [edge for edge in size if edge is not None]
    if not edges:
        raise ValueError("size needs a width or a height; (None, None) says neither.")
    if not all(_is_number(edge) and edge == int(edge) for edge in edges):
        raise ValueError(f"size must be whole numbers of pixels above 0, not {size!r}.")


def _is_number(value: Any) -> bool:
    """Whether this is a finite number above 0."""
    kinds = (int, float, np.integer, np.floating)
    number = isinstance(value, kinds) and not isinstance(value, bool)
    return number and bool(0 < value < math.inf)


def parse_size(text: str) -> Box:
    """The box that ``1600x1200``, ``1600x`` or ``x1200`` names.

    Raises
    ------
    ValueError
        If the text is none of them.
    """
    match = re.fullmatch(r"(\d*)[x×](\d*)", text.strip().lower())
    if match is None or not any(match.groups()):
        raise ValueError(f"a size is written 1600x1200, 1600x or x1200, not {text!r}.")
    width, height = (int(edge) if edge else None for edge in match.groups())
    return width, height


class Reducer:
    """Rows of a large image in, rows of a smaller one out, as Pillow reduces it whole.

    The filter is Pillow's Lanczos, run on each channel in floating point without
    clipping between its horizontal and its vertical pass, in encoded light (the values
    as they are, as Pillow does), and rounded once. Rows wait only for as long as the
    filter reaches, so memory does not grow with the height.

    Parameters
    ----------
    source, target
        (W, H) of what comes and of what is made.
    dtype
        uint8, uint16 or float32 (in [0, 1]), of both.
    """

    def __init__(
        self, source: tuple[int, int], target: tuple[int, int], dtype: np.dtype[Any]
    ) -> None:
        self._height = source[1]
        self._width, self._rows = target
        self._dtype = dtype
        self._step = self._height / self._rows
        self._reach = LANCZOS_RADIUS * max(self._step, 1)
        # The rows that wait, reduced in width: one (h, W) array for each channel.
        self._waiting: list[Array] = []
        self._top = 0
        self._come = 0
        self._made = 0

    def push(self, rows: Array) -> Array:
        """Take the next rows.

        Parameters
        ----------
        rows
            (h, W, C) of the source.

        Returns
        -------
        ndarray
            (n, W, C) of the target: the rows that can be told by now, often none.
        """
        planes = [self._narrowed(rows[..., channel]) for channel in range(rows.shape[2])]
        if self._waiting:
            planes = [np.concatenate(pair) for pair in zip(self._waiting, planes, strict=True)]
        self._waiting = planes
        self._come += rows.shape[0]
        last = self._come == self._height
        ready = self._rows if last else int((self._come - self._reach) / self._step - 0.5)
        if ready - self._made < BLOCK_ROWS and not last:
            return np.empty((0, self._width, rows.shape[2]), self._dtype)
        return self._reduced(ready)

    def _narrowed(self, plane: Array) -> Array:
        """An (h, W) channel as floats, reduced in width."""
        image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
        size = (self._width, plane.shape[0])
        return np.asarray(image.resize(size, Image.Resampling.LANCZOS))

    def _reduced(self, bottom: int) -> Array:
        """The next rows up to ``bottom``, out of those that wait."""
        start, stop = self._made * self._step, bottom * self._step
        # Pillow sees a part of the rows; the box says where in it the part to reduce lies.
        first = max(int(start - self._reach) - 1, self._top)
        last = min(int(stop + self._reach) + 2, self._come)
        box = (0, start - first, self._width, min(stop, self._height) - first)
        size = (self._width, bottom - self._made)
        result = np.empty((size[1], size[0], len(self._waiting)), self._dtype)
        for channel, plane in enumerate(self._waiting):
            part = Image.fromarray(plane[first - self._top : last - self._top])
            values = np.asarray(part.resize(size, Image.Resampling.LANCZOS, box))
            if self._dtype == np.float32:
                np.clip(values, 0, 1, out=result[..., channel])
            else:
                top = np.iinfo(self._dtype).max
                result[..., channel] = np.rint(np.clip(values, 0, top))
        self._made = bottom
        keep = max(int(stop - self._reach) - 1, self._top)
        self._waiting = [plane[keep - self._top :].copy() for plane in self._waiting]
        self._top = keep
        return result

    @staticmethod
    def bytes_held(source: tuple[int, int], target: tuple[int, int], channels: int) -> int:
        """Estimated memory at the highest point, without the rows that are pushed."""
        step = max(source[1] / target[1], 1)
        rows = (2 * LANCZOS_RADIUS + BLOCK_ROWS) * step + 2
        # The rows that wait, and once more while others are put behind them.
        return round(2 * 4 * target[0] * channels * (rows + BLOCK_ROWS))


def reduce_rows(
    rows: Iterable[Array], source: tuple[int, int], target: tuple[int, int]
) -> Iterator[Array]:
    """Rows of an image of size ``source``, reduced to ``target`` as they come."""
    reducer: Reducer | None = None
    for band in rows:
        reducer = reducer or Reducer(source, target, band.dtype)
        reduced = reducer.push(band)
        if reduced.shape[0]:
            yield reduced
