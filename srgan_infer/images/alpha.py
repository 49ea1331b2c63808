"""Transparency: colour for the pixels nobody sees, and a smooth larger alpha.

The colour stored under fully transparent pixels is arbitrary (often black or
white). A network that looks at it draws a fringe of it along every edge, so
it is replaced by the nearest visible colour before the image is upscaled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from srgan_infer.images.resize import reduce_rows
from srgan_infer.images.rows import Channels, DecodedImage, Plane, RowSource, hold

Array = npt.NDArray[Any]

# Further from an edge than any usual network looks; beyond it one colour does.
REACH = 48
# Rows whose sums are taken together: floats are added in one order, however they are read.
MEAN_ROWS = 256

# Upscaled pixels that are made at a time.
BLOCK_PIXELS = 1 << 20

# Bicubic interpolation reads two rows on each side; one more makes the crop's
# own border invisible.
CONTEXT = 3


def fill_transparent(color: Array, alpha: Array) -> Array:
    """Replace colour under transparent pixels by the nearest visible colours.

    Parameters
    ----------
    color
        (H, W, C) of any integer or float type. Not changed.
    alpha
        (H, W); 0 is transparent, everything else counts as visible.

    Returns
    -------
    ndarray
        ``color`` itself where nothing is transparent, else a filled copy:
        growing outwards from the visible pixels, each takes the mean of its
        known neighbours, for 48 pixels; the rest takes the mean visible colour.
        Visible pixels keep their values exactly.
    """
    hidden = alpha == 0
    if not hidden.any():
        return color
    if hidden.all():
        return np.zeros_like(color)
    return _grow(color, hidden, visible_mean(np.dstack([color, alpha])))


def visible_mean(rows: RowSource) -> Array:
    """(C,) float64 mean of the colours where alpha, the last channel, is not 0."""
    height, _, channels = rows.shape
    total, count = np.zeros(channels - 1), 0
    for top in range(0, height, MEAN_ROWS):
        part = rows[top : min(top + MEAN_ROWS, height)]
        visible = part[..., -1] != 0
        total += part[visible][:, :-1].sum(axis=0, dtype=np.float64)
        count += int(visible.sum())
    return total / max(count, 1)


def _grow(color: Array, hidden: Array, mean: Array) -> Array:
    """A copy whose hidden pixels have the colours around them, and far away the mean."""
    height, width, channels = color.shape
    integer = np.issubdtype(color.dtype, np.integer)

    # A border of one pixel, neither known nor hidden, saves every bounds check.
    stride = width + 2
    filled = np.zeros(((height + 2) * stride, channels), color.dtype)
    grid = filled.reshape(height + 2, stride, channels)[1:-1, 1:-1]
    grid[...] = color
    grid[hidden] = np.round(mean).astype(color.dtype) if integer else mean.astype(color.dtype)
    unknown = np.zeros((height + 2, stride), bool)
    unknown[1:-1, 1:-1] = hidden
    known = np.zeros((height + 2, stride), bool)
    known[1:-1, 1:-1] = ~hidden
    beside = np.zeros_like(known)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            beside[1:-1, 1:-1] |= known[1 + dy : height + 1 + dy, 1 + dx : width + 1 + dx]
    front = np.flatnonzero(beside & unknown)
    known, unknown = known.ravel(), unknown.ravel()

    around = np.array([dy * stride + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx])
    for _ in range(REACH):
        if not front.size:
            break
        neighbours = front[:, None] + around
        weight = known[neighbours]
        total = (filled[neighbours] * weight[..., None]).sum(axis=1, dtype=np.float64)
        value = total / weight.sum(axis=1)[:, None]
        filled[front] = np.round(value).astype(color.dtype) if integer else value
        known[front] = True
        unknown[front] = False
        front = np.unique(neighbours[unknown[neighbours]])
    return grid


@dataclass(frozen=True)
class FilledRows:
    """Rows whose hidden pixels have the nearest visible colours.

    They are those that :func:`fill_transparent` makes of the whole image.

    Parameters
    ----------
    rows
        (H, W, C + 1), alpha last.
    mean
        (C,) the mean visible colour.
    """

    rows: RowSource
    mean: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C + 1)."""
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the rows."""
        return self.rows.dtype

    def __getitem__(self, rows: slice) -> Array:
        top, bottom, _ = rows.indices(self.shape[0])
        # What a pixel takes came from no further away than the reach.
        first, last = max(top - REACH, 0), min(bottom + REACH, self.shape[0])
        part = self.rows[first:last]
        hidden = part[..., -1] == 0
        if hidden.any():
            color = _grow(part[..., :-1], hidden, self.mean)
            part = np.concatenate([color, part[..., -1:]], axis=2)
        return part[top - first : bottom - first]


def split_alpha(rows: RowSource) -> DecodedImage:
    """Split alpha off, and give the hidden pixels the colour of visible ones."""
    channels = rows.shape[2]
    if channels in (1, 3):
        return DecodedImage(rows, None)
    held = hold(FilledRows(rows, visible_mean(rows)))
    if isinstance(held, np.ndarray):
        color, alpha = held[..., :-1], held[..., -1]
        return DecodedImage(np.ascontiguousarray(color), np.ascontiguousarray(alpha))
    return DecodedImage(Channels(held, 0, channels - 1), Plane(held, channels - 1))


def upscale_alpha(alpha: RowSource, scale: int, top: int = 0, bottom: int | None = None) -> Array:
    """Upscale alpha smoothly (bicubic), whole or a band of rows.

    Parameters
    ----------
    alpha
        (H, W) rows, uint8, uint16 or float32.
    scale
        Magnification.
    top, bottom
        Rows of ``alpha`` whose upscaling is wanted; default all.

    Returns
    -------
    ndarray
        (scale·(bottom - top), scale·W) of the same dtype and range. A band
        equals the same rows of the whole, bit for bit.
    """
    height, width = alpha.shape
    bottom = height if bottom is None else bottom
    first, last = max(top - CONTEXT, 0), min(bottom + CONTEXT, height)
    crop = np.ascontiguousarray(alpha[first:last])
    image = Image.fromarray(crop if alpha.dtype == np.uint8 else crop.astype(np.float32))
    image = image.resize((scale * width, scale * (last - first)), Image.Resampling.BICUBIC)
    rows: Array = np.asarray(image)[scale * (top - first) : scale * (bottom - first)]
    if alpha.dtype == np.uint16:
        rows = np.clip(np.rint(rows), 0, 65535).astype(np.uint16)
    elif alpha.dtype == np.float32:
        rows = np.clip(rows, 0, 1)
    return rows


def alpha_rows(
    alpha: RowSource, upscaled: tuple[int, int], size: tuple[int, int]
) -> Iterator[Array]:
    """Alpha in the size of the result, (h, W', 1) from top to bottom.

    Parameters
    ----------
    alpha
        (H, W) rows, uint8, uint16 or float32.
    upscaled, size
        (W, H) of what the network gives, and of the result, to which it is reduced.
    """
    height, width = alpha.shape
    scale = upscaled[0] // width
    step = max(BLOCK_PIXELS // (scale**2 * width), 1)
    rows = (
        upscale_alpha(alpha, scale, top, min(top + step, height))[..., None]
        for top in range(0, height, step)
    )
    return rows if upscaled == size else reduce_rows(rows, upscaled, size)


def join_alpha(color: Iterable[Array], alpha: Iterator[Array]) -> Iterator[Array]:
    """Put rows of alpha behind rows of colour.

    Parameters
    ----------
    color, alpha
        (h, W, C) and (h, W, 1) from top to bottom, each in bands of its own.

    Yields
    ------
    ndarray
        (h, W, C + 1) for each band of colour.
    """
    waiting: Array | None = None
    for rows in color:
        while waiting is None or waiting.shape[0] < rows.shape[0]:
            more = next(alpha)
            waiting = more if waiting is None else np.concatenate([waiting, more])
        yield np.concatenate([rows, waiting[: rows.shape[0]]], axis=2)
        waiting = waiting[rows.shape[0] :]


def on_white(rows: Array) -> Array:
    """Composite (h, W, 2 | 4) rows over white."""
    top = 1.0 if rows.dtype == np.float32 else float(np.iinfo(rows.dtype).max)
    alpha = rows[..., -1:].astype(np.float32) / np.float32(top)
    color = rows[..., :-1] * alpha + np.float32(top) * (1 - alpha)
    if rows.dtype != np.float32:
        color = np.rint(color)
    result: Array = color.astype(rows.dtype)
    return result
