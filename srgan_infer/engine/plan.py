"""How an image is cut into spans, and the memory that it then takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from srgan_infer.engine.devices import mebibytes
from srgan_infer.errors import OutOfMemoryError
from srgan_infer.network.generator import GeneratorConfig
from srgan_infer.network.stream import stream_values, tile_values

# Low-resolution pixels in one band: large enough that starting an operation and
# copying the rows kept cost little, small enough for a layer to stay in the cache.
BAND_PIXELS = 40960

# Likewise for the sub-pixel layers, whose tensors are 16 times as large.
TAIL_PIXELS = 4096

# Narrower columns would mostly recompute each other's halo.
WIDEST_COLUMN = 4096
LARGEST_TILE = 1024
SMALLEST_TILE = 32


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
# Told the number of steps done and in total.
Progress = Callable[[int, int], None]


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
        Estimated memory at the highest point, with all later passes, without the image
        itself and the program.
    reduced
        (W, H) that the rows of the last pass are reduced to; None if they are not.
    next_pass
        How the network runs over the result of this pass, where one pass does not reach
        the size.
    """

    kind: Literal["bands", "tiles"]
    height: int
    width: int
    scale: int
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    tail_rows: int | None
    peak_bytes: int
    reduced: tuple[int, int] | None = None
    next_pass: Plan | None = None

    @property
    def upscaled(self) -> tuple[int, int]:
        """(W, H) of what this pass gives, before anything is reduced."""
        return self.width * self.scale, self.height * self.scale

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) of the result, in pixels."""
        return self.reduced or self.passes[-1].upscaled

    @property
    def passes(self) -> tuple[Plan, ...]:
        """This pass and those that follow it."""
        return (self,) if self.next_pass is None else (self, *self.next_pass.passes)

    @property
    def input_pixels(self) -> int:
        """Pixels that the network has to read, in all passes."""
        return sum(one.width * one.height for one in self.passes)

    @property
    def pieces(self) -> int:
        """Pieces of this pass, one more for each column of several bands: the rows held back."""
        held_back = self.kind == "bands" and len(self.rows) > 1
        return (len(self.rows) + held_back) * len(self.columns)

    @property
    def steps(self) -> int:
        """Pieces to run, in all passes."""
        return sum(one.pieces for one in self.passes)

    def __str__(self) -> str:
        last, way = self.passes[-1], ""
        if self.reduced:
            way = f" by way of {last.upscaled[0]}x{last.upscaled[1]}"
        if last is not self:
            way += f" in {len(self.passes)} passes of the network, the last one"
        tall = max(span.stop - span.start for span in last.rows)
        wide = max(span.stop - span.start for span in last.columns)
        count = len(last.rows) * len(last.columns)
        return (
            f"{self.width}x{self.height} to {self.size[0]}x{self.size[1]}{way}"
            f" in {count} {last.kind if count > 1 else last.kind[:-1]}"
            f" of {wide}x{tall}, about {self.peak_bytes / 2**20:.0f} MiB"
        )


def plan_bands(
    config: GeneratorConfig, itemsize: int, height: int, width: int, tile: Tile, budget: int
) -> Plan:
    """Bands for an image; the smallest there are may still need more than the budget.

    Parameters
    ----------
    config
        The generator's description.
    itemsize
        Bytes of one feature.
    height, width
        Of the image, in pixels.
    tile
        As of :meth:`Engine.plan`.
    budget
        Bytes that may be used.
    """
    wide = width if tile == "whole" else min(width, WIDEST_COLUMN if tile == "auto" else tile)
    tall = height
    if tile != "whole":
        tall = min(height, max(config.scale, BAND_PIXELS // wide))
        if tile != "auto":
            tall = min(tall, tile)

    def planned() -> Plan:
        rows, columns = cut(height, tall, 0), cut(width, wide, config.halo)
        tail = None if tile == "whole" else max(1, min(tall, TAIL_PIXELS // wide))
        peak = itemsize * stream_values(
            config,
            tall=max(span.length for span in rows),
            wide=max(span.length for span in columns),
            read=sum(span.length for span in columns),
            width=width,
            tail=tail or height,
            single=len(rows) == 1,
        )
        return Plan("bands", height, width, config.scale, rows, columns, tail, peak)

    plan = planned()
    while plan.peak_bytes > budget and tile == "auto" and (tall > 1 or wide > 2 * config.halo):
        # Thinner bands cost nothing but time to start operations;
        # narrower columns recompute their halos, so they come second.
        if tall > 4 or wide <= 2 * config.halo:
            tall = -(-tall // 2)
        else:
            wide = -(-wide // 2)
        plan = planned()
    return plan


def plan_tiles(config: GeneratorConfig, height: int, width: int, tile: Tile, budget: int) -> Plan:
    """Tiles for an image; parameters as of :func:`plan_bands`."""

    def planned(edge: int) -> Plan:
        rows, columns = (cut(length, edge, config.halo) for length in (height, width))
        area = max(span.length for span in rows) * max(span.length for span in columns)
        # Both dtypes' worth, since a tile may be run again in float32.
        peak = 4 * tile_values(config, area)
        peak += 4 * 3 * (rows[0].stop - rows[0].start) * width * config.scale**2
        return Plan("tiles", height, width, config.scale, rows, columns, None, peak)

    edge = max(height, width) if tile == "whole" else LARGEST_TILE if tile == "auto" else tile
    plan = planned(edge)
    while plan.peak_bytes > budget and tile == "auto" and edge > SMALLEST_TILE:
        edge //= 2
        plan = planned(edge)
    return plan


def check(plan: Plan, budget: int) -> Plan:
    """The plan, if it fits."""
    if plan.peak_bytes > budget:
        raise OutOfMemoryError(
            f"the smallest plan that the arguments allow needs about {mebibytes(plan.peak_bytes)},"
            f" but {mebibytes(budget)} may be used; give a smaller tile or a larger max_memory."
        )
    return plan
