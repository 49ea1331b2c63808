"""Transparency: colour for the pixels nobody sees, and a smooth larger alpha.

The colour stored under fully transparent pixels is arbitrary (often black or
white). A network that looks at it draws a fringe of it along every edge, so
it is replaced by the nearest visible colour before the image is upscaled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from srgan_infer.images.rows import Channels, DecodedImage, RowSource

Array = npt.NDArray[Any]

# Further from an edge than any usual network looks; beyond it one colour does.
REACH = 48
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
    height, width, channels = color.shape
    if hidden.all():
        return np.zeros_like(color)
    mean = np.array([color[..., c].mean(where=~hidden, dtype=np.float64) for c in range(channels)])
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


def split_alpha(rows: RowSource) -> DecodedImage:
    """Split alpha off, and give the hidden pixels the colour of visible ones."""
    height, _, channels = rows.shape
    if channels in (1, 3):
        return DecodedImage(rows, None)
    alpha = np.empty(rows.shape[:2], rows.dtype)
    for top in range(0, height, 256):
        alpha[top : top + 256] = rows[top : top + 256][..., -1]
    color = Channels(rows, 0, channels - 1)
    if alpha.all():
        return DecodedImage(color, alpha)
    return DecodedImage(fill_transparent(color[0:height], alpha), alpha)


def upscale_alpha(alpha: Array, scale: int, top: int = 0, bottom: int | None = None) -> Array:
    """Upscale alpha smoothly (bicubic), whole or a band of rows.

    Parameters
    ----------
    alpha
        (H, W) uint8, uint16 or float32.
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


def join_alpha(bands: Iterable[Array], alpha: Array, scale: int) -> Iterator[Array]:
    """Put the upscaled alpha behind the colours of an upscaled image.

    Parameters
    ----------
    bands
        (h, scale·W, C) rows from top to bottom.
    alpha
        (H, W) of the source, of the same dtype.
    scale
        Magnification.

    Yields
    ------
    ndarray
        (h, scale·W, C + 1) for each band.
    """
    top = 0
    for rows in bands:
        bottom = top + len(rows)
        first, last = top // scale, -(-bottom // scale)
        big = upscale_alpha(alpha, scale, first, last)[top - first * scale : bottom - first * scale]
        yield np.concatenate([rows, big[..., None]], axis=2)
        top = bottom
