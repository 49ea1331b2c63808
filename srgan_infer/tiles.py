"""How a picture is cut: integer geometry only."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Span:
    """A stretch of rows or columns, and the wider stretch its result depends on.

    ``start <= core < stop`` is what the piece contributes to the result;
    ``first <= read < last`` is what must be read for it: the core and a halo
    on both sides, cut off at the edges of the picture.
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
        """Where the core lies in the enlarged result of what was read."""
        return slice((self.start - self.first) * scale, (self.stop - self.first) * scale)

    def enlarged(self, scale: int) -> slice:
        """Where the core lies in the enlarged picture."""
        return slice(self.start * scale, self.stop * scale)


def cut(length: int, size: int, halo: int, start: int = 0) -> tuple[Span, ...]:
    """Cut a length into the fewest pieces of at most ``size``, as equal as can be.

    Parameters
    ----------
    length
        Pixels of the picture along this side, at least 1.
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
