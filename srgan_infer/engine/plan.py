"""How an image is cut into spans, and the memory that it then takes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from srgan_infer.engine.devices import mebibytes
from srgan_infer.errors import OutOfMemoryError
from srgan_infer.network.generator import GeneratorConfig


@dataclass(frozen=True)
class Span:
    """A stretch of rows or columns, and the wider stretch its result depends on.

    ``start <= core < stop`` is what the piece contributes to the result;
    ``first <= read < last`` is what must be read for it: the core and a halo
    on both sides, cut off at the edges of the image.
    """

    start: int
    stop: int
    first: int
    last: int

    @property
    def length(self) -> int:
        """Pixels read."""
        return self.last - self.first

    def crop(self, scale: int) -> slice:
        """Where the core lies in the upscaled result of what was read."""
        return slice((self.start - self.first) * scale, (self.stop - self.first) * scale)

    def upscaled(self, scale: int) -> slice:
        """Where the core lies in the upscaled image."""
        return slice(self.start * scale, self.stop * scale)


def cut(length: int, size: int, halo: int, start: int = 0) -> tuple[Span, ...]:
    """Cut a length into the fewest pieces of at most ``size``, as equal as can be.

    Parameters
    ----------
    length
        Pixels of the image along this side, at least 1.
    size
        Largest core of a piece, at least 1.
    halo
        Pixels that a piece reads beyond its core on each side.
    start
        First pixel to cut; what lies before it is done, but can be read.
    """
    if not 0 <= start < length or size < 1 or halo < 0:
        raise ValueError(
            f"cannot cut pixels {start} to {length} into pieces of {size} with a halo of {halo}."
        )
    count = -(-(length - start) // size)
    edges = [start + (length - start) * step // count for step in range(count + 1)]
    return tuple(
        Span(low, high, max(0, low - halo), min(length, high + halo))
        for low, high in pairwise(edges)
    )


Tile = int | Literal["auto", "whole"]


def check_tile(tile: Any) -> None:
    """Raise ``ValueError`` for what is no :data:`Tile`."""
    number = isinstance(tile, int) and not isinstance(tile, bool) and tile >= 1
    if not number and tile not in ("auto", "whole"):
        raise ValueError(f'tile must be "auto", "whole" or a positive integer, not {tile!r}.')


@dataclass(frozen=True)
class Plan:
    """How an image is cut.

    Attributes
    ----------
    kind
        ``"bands"`` or ``"tiles"``.
    height, width
        Of the image, in pixels.
    scale
        Magnification.
    rows, columns
        The pieces, top to bottom and left to right.
    tail_rows
        Rows that the sub-pixel layers take at a time; None for no limit.
    peak_bytes
        Estimated memory at the highest point, without the image itself and
        the program.
    """

    kind: Literal["bands", "tiles"]
    height: int
    width: int
    scale: int
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    tail_rows: int | None
    peak_bytes: int

    @property
    def steps(self) -> int:
        """Pieces to run, one more for each column of several bands: the rows held back."""
        held_back = self.kind == "bands" and len(self.rows) > 1
        return (len(self.rows) + held_back) * len(self.columns)

    def __str__(self) -> str:
        tall = max(span.stop - span.start for span in self.rows)
        wide = max(span.stop - span.start for span in self.columns)
        count = len(self.rows) * len(self.columns)
        return (
            f"{self.width}x{self.height} to {self.width * self.scale}x{self.height * self.scale}"
            f" in {count} {self.kind if count > 1 else self.kind[:-1]}"
            f" of {wide}x{tall}, about {self.peak_bytes / 2**20:.0f} MiB"
        )


def band_values(
    config: GeneratorConfig,
    rows: tuple[Span, ...],
    columns: tuple[Span, ...],
    width: int,
    tail_rows: int,
) -> int:
    """Estimated number of values in memory at the highest point of a run in bands."""
    channels, body = config.channels, config.body_kernel // 2
    wide = max(span.length for span in columns)
    read = sum(span.length for span in columns)
    growth = 1 << (config.doublings - 1)
    lag = body * (2 * config.blocks + 1)
    tall = max(span.length for span in rows)
    # The strip of features, and above it room for the rows that all layers keep.
    strip = tall + body + (lag + body if len(rows) > 1 else 0)
    # A residual block: its input in the layer's type, and two results.
    work = 3 * tall * wide * channels
    # The last sub-pixel layer: its input, its result, and both behind the rows kept.
    last = tail_rows * wide * growth**2
    work = max(work, tall * wide * channels + last * (channels * (2 + 4 + 4) + 36))
    work += strip * wide * channels
    # Features that wait for the long skip.
    kept = (lag + max(span.length for span in rows)) * channels
    if len(rows) > 1 or tail_rows < rows[0].length:
        kept += 2 * (config.stem_kernel // 2) * 3 + 2 * lag * channels
        kept += sum(2 * body * channels << step for step in range(config.doublings))
        kept += 2 * -(-(config.output_kernel // 2) // 2) * 12 * config.output_kernel * growth
    # The result as floats, and put together from columns as pixels; in the last
    # step with the rows that all layers held back.
    result = 2 * max(tall, lag if len(rows) > 1 else 0) * config.scale**2 * width * 3
    return work + kept * read + result


def tile_values(config: GeneratorConfig, rows: tuple[Span, ...], columns: tuple[Span, ...]) -> int:
    """Estimated number of values on the device at the highest point of a run in tiles."""
    area = max(span.length for span in rows) * max(span.length for span in columns)
    last = area << 2 * (config.doublings - 1)
    # As for bands; a library's workspace may take as much again as the largest result.
    return last * config.channels * (2 + 4 + 4) + last * 4 * 3 * 6


def check(plan: Plan, budget: int) -> Plan:
    """The plan, if it fits."""
    if plan.peak_bytes > budget:
        raise OutOfMemoryError(
            f"the smallest plan that the arguments allow needs about {mebibytes(plan.peak_bytes)},"
            f" but {mebibytes(budget)} may be used; give a smaller tile or a larger max_memory."
        )
    return plan
