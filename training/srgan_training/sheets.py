"""Comparison sheets: enlargements of one image side by side, with zoomed crops."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLUMN = 384  # width of a column, pixels
CROP = 96  # edge of a zoomed crop, pixels of the original
CROPS = 2
LABEL = 24
GAP = 8
BACKGROUND = (255, 255, 255)
INK = (0, 0, 0)
FRAMES = ((230, 40, 40), (40, 90, 230))


def sheet(
    low: Image.Image, results: Mapping[str, Image.Image], original: Image.Image
) -> Image.Image:
    """Put a low-resolution image, its enlargements and the original side by side.

    Parameters
    ----------
    low
        The input; shown enlarged by repeating pixels.
    results
        Name → enlargement, of the original's size; from left to right.
    original
        What they should look like.

    Returns
    -------
    Image
        RGB: a row of labels, a row of whole images fitted to the column, and
        rows of zoomed crops (without smoothing) from where the original has
        the most detail, framed in the whole images.
    """
    columns = {
        f"low-resolution, {low.width} by {low.height}": low.resize(
            original.size, Image.Resampling.NEAREST
        ),
        **results,
        "original": original,
    }
    crop = min(CROP, *original.size)
    boxes = detailed_boxes(original, crop)
    whole_height = round(original.height * COLUMN / original.width)
    step = COLUMN + GAP
    page = Image.new(
        "RGB",
        (GAP + step * len(columns), LABEL + whole_height + GAP + step * len(boxes)),
        BACKGROUND,
    )
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(14)
    zoom = COLUMN / original.width
    for number, (name, image) in enumerate(columns.items()):
        left = GAP + number * step
        draw.text((left, 3), name, INK, font)
        image = image.convert("RGB")
        page.paste(image.resize((COLUMN, whole_height), Image.Resampling.LANCZOS), (left, LABEL))
        top = LABEL + whole_height + GAP
        for box, colour in zip(boxes, FRAMES, strict=False):
            frame = [round(edge * zoom) for edge in box]
            frame = [frame[0] + left, frame[1] + LABEL, frame[2] + left, frame[3] + LABEL]
            draw.rectangle(frame, outline=colour, width=2)
            part = image.crop(box).resize((COLUMN, COLUMN), Image.Resampling.NEAREST)
            page.paste(part, (left, top))
            edge = [left - 2, top - 2, left + COLUMN + 1, top + COLUMN + 1]
            draw.rectangle(edge, outline=colour, width=2)
            top += step
    return page


def detailed_boxes(image: Image.Image, edge: int) -> list[tuple[int, int, int, int]]:
    """Square crops where neighbouring pixels differ most, not overlapping, best first.

    Returns
    -------
    list
        At most ``CROPS`` boxes (left, top, right, bottom).
    """
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    detail = np.zeros_like(grey)
    detail[1:] += np.abs(np.diff(grey, axis=0))
    detail[:, 1:] += np.abs(np.diff(grey, axis=1))
    # Sums over all squares, by the integral image.
    integral = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = (
        integral[edge:, edge:]
        - integral[:-edge, edge:]
        - integral[edge:, :-edge]
        + integral[:-edge, :-edge]
    )
    boxes: list[tuple[int, int, int, int]] = []
    while len(boxes) < CROPS and np.isfinite(sums.max()):
        top, left = (int(at) for at in np.unravel_index(sums.argmax(), sums.shape))
        boxes.append((left, top, left + edge, top + edge))
        sums[max(0, top - edge + 1) : top + edge, max(0, left - edge + 1) : left + edge] = -np.inf
    return boxes
