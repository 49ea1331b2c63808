"""The 256 colours of a GIF frame: its own or those of the frame before, dithered or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Array = npt.NDArray[Any]

# A palette that the frame before has already is taken for so little more error (in dB): the
# colours of what does not move then stay the same.
SAME_PALETTE = 0.5
# Dithering costs about 3 dB of sharpness: it must take this much of the error (in dB) that is
# left when one looks from a distance, which is where bands show. Photographs gain 1.5 dB,
# broad slopes of many colours 8.
DITHER_GAIN = 5.0
DISTANCE = ImageFilter.GaussianBlur(1.5)
VISIBLE = 128


@dataclass(frozen=True)
class Frame:
    """A frame in at most 256 colours.

    Parameters
    ----------
    colors
        (H, W, 3) uint8: what was asked for.
    image
        Of mode ``"P"``. If there is transparency, its number is ``info["transparency"]``, and
        no colour comes behind it.
    """

    colors: Array
    image: Image.Image


def indexed(pixels: Array, last: Frame | None = None) -> Frame:
    """A frame in at most 256 colours.

    Parameters
    ----------
    pixels
        (H, W, C) uint8: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA. From half on, a pixel is
        visible.
    last
        What this function made of the frame before.
    """
    has_alpha = pixels.shape[2] in (2, 4)
    colors = pixels[..., :-1] if has_alpha else pixels
    if colors.shape[2] == 1:
        colors = colors.repeat(3, axis=2)
    colors = np.ascontiguousarray(colors)
    best = _best(Image.fromarray(colors), 255 if has_alpha else 256, colors, last)
    if not has_alpha:
        return Frame(colors, best)
    palette = best.getpalette() or []
    number = len(palette) // 3
    numbers = np.asarray(best).copy()
    numbers[pixels[..., -1] < VISIBLE] = number
    image = _with_palette(numbers, [*palette, 0, 0, 0])
    image.info["transparency"] = number
    return Frame(colors, image)


def _best(image: Image.Image, count: int, colors: Array, last: Frame | None) -> Image.Image:
    own = image.quantize(count, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    if _error(image, own) == 0:
        return own
    dithered = image.quantize(palette=own, dither=Image.Dither.FLOYDSTEINBERG)
    bands, left = (_error(image, one, from_afar=True) for one in (own, dithered))
    best = dithered if left * 10 ** (DITHER_GAIN / 10) < bands else own
    if last is not None:
        shared = _with_palette_of(last, image, colors)
        if _error(image, shared) <= _error(image, best) * 10 ** (SAME_PALETTE / 10):
            return shared
    return best


def _with_palette_of(last: Frame, image: Image.Image, colors: Array) -> Image.Image:
    """An image in the colours of the frame before; what has not changed stays what it was."""
    palette = last.image.getpalette() or []
    before = np.asarray(last.image)
    same = (colors == last.colors).all(axis=2)
    if "transparency" in last.image.info:
        palette = palette[: 3 * last.image.info["transparency"]]
        same &= before != last.image.info["transparency"]
    holder = _with_palette(np.zeros((1, 1), np.uint8), palette)
    numbers = np.asarray(image.quantize(palette=holder, dither=Image.Dither.NONE)).copy()
    numbers[same] = before[same]
    return _with_palette(numbers, palette)


def _with_palette(numbers: Array, palette: list[int]) -> Image.Image:
    image = Image.fromarray(numbers)
    image.putpalette(palette)
    return image


def _error(image: Image.Image, indexed: Image.Image, from_afar: bool = False) -> float:
    """Mean square of the difference; after a blur, of what is seen from a distance."""
    one, other = image, indexed.convert("RGB")
    if from_afar:
        one, other = one.filter(DISTANCE), other.filter(DISTANCE)
    difference = np.asarray(one).astype(np.int16) - np.asarray(other)
    return float(np.square(difference, dtype=np.int32).mean())
