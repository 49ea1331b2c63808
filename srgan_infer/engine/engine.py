"""Where and how the network runs: device, dtype, memory budget, back-off.

On the CPU an image streams through the network in thin bands.
On a GPU, and in float16, it is cut into tiles with the derived halo, because
a tile can be run again: in float32 where half precision overflowed, or
smaller where memory ran out. Both give what inference on the whole image
gives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from srgan_infer.engine.devices import (
    choose_device,
    choose_dtype,
    free_cache,
    free_memory,
    hold_heap,
    is_out_of_memory,
    parse_memory,
)
from srgan_infer.engine.plan import (
    Plan,
    Span,
    Tile,
    band_values,
    check,
    check_tile,
    cut,
    tile_values,
)
from srgan_infer.engine.tiles import (
    PendingTile,
    finish_tile,
    network_values,
    start_tile,
    to_network,
    to_pixels,
    to_values,
)
from srgan_infer.errors import OutOfMemoryError
from srgan_infer.images.rows import RowSource
from srgan_infer.network.generator import Generator, GeneratorConfig
from srgan_infer.network.stream import Network, RowStream, prepare
from srgan_infer.network.streaming import FeatureBuffer

# Low-resolution pixels in one band: large enough that starting an operation and
# copying the rows kept cost little, small enough for a layer to stay in the cache.
BAND_PIXELS = 40960

# Likewise for the sub-pixel layers, whose tensors are 16 times as large.
TAIL_PIXELS = 4096

# Narrower columns would mostly recompute each other's halo.
WIDEST_COLUMN = 4096
LARGEST_TILE = 1024
SMALLEST_TILE = 32

# The part of the free memory that is used unless the caller says otherwise.
SAFE_PART = 0.5
ProgressFn = Callable[[int, int], None]


class Engine:
    """A generator made ready for one device. Nothing changes after construction.

    Parameters
    ----------
    generator
        The network; its weights are copied.
    device
        ``"auto"`` picks CUDA, then Apple MPS, then the CPU.
    dtype
        ``"auto"`` picks for 8-bit images float16 on CUDA GPUs that are fast
        at it, and bfloat16 for the inner convolutions on CPUs with instructions
        for it; float32 elsewhere; or ``"float32"``, ``"float16"``,
        ``"bfloat16"``.

    Raises
    ------
    ValueError
        If the device or the dtype is unknown or absent.
    """

    def __init__(
        self,
        generator: Generator,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
    ) -> None:
        self.config: GeneratorConfig = generator.config
        self.device: torch.device = choose_device(device)
        self.dtype: torch.dtype = choose_dtype(dtype, self.device)
        self.network: Network = prepare(generator, self.device, self.dtype)
        # What a tile that overflows in half precision is run with.
        self.exact: Network = (
            self.network
            if self.dtype == torch.float32
            else prepare(generator, self.device, torch.float32)
        )
        # Exact to a level is enough for 8 bits; 16-bit images get no half precision unasked.
        rough = self.dtype != torch.float32 and dtype == "auto"
        self._sixteen_bit: Network = self.exact if rough else self.network

    def plan(
        self,
        height: int,
        width: int,
        tile: Tile = "auto",
        max_memory: int | str | None = None,
    ) -> Plan:
        """Decide how an image is cut.

        Parameters
        ----------
        height, width
            Of the image, in pixels, from 1 up.
        tile
            ``"auto"``, the largest edge of a piece in pixels of the input, or
            "whole" for the image in one piece.
        max_memory
            Bytes, or text such as ``"2GB"``; by default half of what is free.

        Raises
        ------
        ValueError
            If an argument is out of range.
        OutOfMemoryError
            If no cut fits.
        """
        if height < 1 or width < 1:
            raise ValueError(f"an image needs at least one pixel, not {width}x{height}.")
        check_tile(tile)
        if max_memory is None:
            free = free_memory(self.device)
            budget = int(free * (SAFE_PART if tile == "auto" else 1))
        else:
            budget = parse_memory(max_memory)
        if self.device.type == "cpu" and self.dtype != torch.float16:
            plan = self._plan_bands(height, width, tile, budget)
            if plan.peak_bytes <= budget or tile != "auto":
                return check(plan, budget)
            # The rows that the layers of a very wide image keep can take more
            # than tiles, which compute their halos again but keep nothing.
        return check(self._plan_tiles(height, width, tile, budget), budget)

    def _plan_bands(self, height: int, width: int, tile: Tile, budget: int) -> Plan:
        config = self.config
        wide = width if tile == "whole" else min(width, WIDEST_COLUMN if tile == "auto" else tile)
        tall = height
        if tile != "whole":
            tall = min(height, max(config.scale, BAND_PIXELS // wide))
            if tile != "auto":
                tall = min(tall, tile)
        size = self.network.feature_dtype.itemsize

        def planned() -> Plan:
            rows, columns = cut(height, tall, 0), cut(width, wide, config.halo)
            tail = None if tile == "whole" else max(1, min(tall, TAIL_PIXELS // wide))
            peak = size * band_values(config, rows, columns, width, tail or height)
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

    def _plan_tiles(self, height: int, width: int, tile: Tile, budget: int) -> Plan:
        edge = max(height, width) if tile == "whole" else LARGEST_TILE if tile == "auto" else tile
        plan = self._tiles(height, width, edge)
        while plan.peak_bytes > budget and tile == "auto" and edge > SMALLEST_TILE:
            edge //= 2
            plan = self._tiles(height, width, edge)
        return plan

    def _tiles(self, height: int, width: int, edge: int) -> Plan:
        rows, columns = (cut(length, edge, self.config.halo) for length in (height, width))
        # Both dtypes' worth, since a tile may be run again in float32.
        peak = 4 * tile_values(self.config, rows, columns)
        peak += 4 * 3 * (rows[0].stop - rows[0].start) * width * self.config.scale**2
        return Plan("tiles", height, width, self.config.scale, rows, columns, None, peak)

    def run(
        self, source: RowSource, plan: Plan, progress: ProgressFn | None = None
    ) -> Iterator[np.ndarray]:
        """Upscale an image.

        Parameters
        ----------
        source
            H×W×C rows, C 1 or 3; uint8, uint16, or float32 in [0, 1].
        plan
            From :meth:`plan`, for the same height and width.
        progress
            Called with the number of pieces done and to do after each piece.

        Yields
        ------
        numpy.ndarray
            h×(scale·W)×C rows from top to bottom, of the source's dtype;
            together scale·H rows. Integers are clipped and rounded, floats
            clipped to [0, 1]. Grey is the luma (BT.601) of the upscaled grey.

        Raises
        ------
        ValueError
            If the source is of another size than the plan or no image.
        OutOfMemoryError
            If memory runs out even with the smallest tiles.
        """
        if len(source.shape) != 3 or source.shape[2] not in (1, 3):
            raise ValueError(f"expected H x W x 1 or 3 values, not the shape {source.shape}.")
        if source.shape[:2] != (plan.height, plan.width):
            raise ValueError(
                f"the plan is for {plan.height} x {plan.width} pixels,"
                f" the image has {source.shape[0]} x {source.shape[1]}."
            )
        if source.dtype not in (np.uint8, np.uint16, np.float32):
            raise ValueError(f"expected uint8, uint16 or float32, not {source.dtype}.")
        report = progress or (lambda done, total: None)
        run = self._run_bands if plan.kind == "bands" else self._run_tiles
        return run(source, plan, report)

    def network_for(self, dtype: np.dtype[Any]) -> Network:
        """The network for an image's type."""
        return self.network if dtype == np.uint8 else self._sixteen_bit

    def _run_bands(
        self, source: RowSource, plan: Plan, progress: ProgressFn
    ) -> Iterator[np.ndarray]:
        # Held for as long as this run.
        _held = hold_heap(plan.peak_bytes)
        network = self.network_for(source.dtype)
        room = FeatureBuffer()
        streams = [RowStream(network, plan.tail_rows, room) for _ in plan.columns]
        # The last step feeds nothing: the layers give the rows that they held
        # back, which together with a band would be much more than a band.
        bands = plan.rows if len(plan.rows) == 1 else (*plan.rows, None)
        nothing = np.empty((0, plan.width, source.shape[2]), source.dtype)
        done = 0
        for band in bands:
            rows = nothing if band is None else np.asarray(source[band.start : band.stop])
            last, parts = band is bands[-1], []
            for stream, column in zip(streams, plan.columns, strict=True):
                parts.append(self._band(stream, rows[:, column.first : column.last], last, column))
                done += 1
                progress(done, plan.steps)
            if parts[0].shape[0]:
                yield parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    @torch.inference_mode()
    def _band(self, stream: RowStream, rows: np.ndarray, last: bool, column: Span) -> np.ndarray:
        """One band of one column through the network."""
        try:
            x = to_network(
                torch.from_numpy(network_values(rows)), self.device, self.network.feature_dtype
            )
            crop = column.crop(self.config.scale)
            return np.concatenate(
                [
                    to_pixels(to_values(out[..., crop], rows.dtype, rows.shape[2]), rows.dtype)
                    for out in stream.push(x, last)
                ]
            )
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                raise OutOfMemoryError(
                    f"memory ran out in a band of {rows.shape[1]}x{rows.shape[0]} pixels;"
                    " give a smaller max_memory or tile."
                ) from error
            raise

    def _run_tiles(
        self, source: RowSource, plan: Plan, progress: ProgressFn
    ) -> Iterator[np.ndarray]:
        rows, columns = plan.rows, plan.columns
        edge = max(span.stop - span.start for span in (*rows, *columns))
        tried: list[str] = []
        done = 0
        while rows:
            strip = None
            try:
                strip = self._strip(source, rows, columns, done, progress)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            if strip is not None:
                done += len(columns)
                rows = rows[1:]
                yield strip
                continue
            # Outside the except clause, whose error keeps the failed tile's tensors alive.
            free_cache(self.device)
            tried.append(str(edge))
            edge //= 2
            if edge < SMALLEST_TILE:
                raise OutOfMemoryError(
                    f"memory of {self.device} ran out with tiles of {', '.join(tried)} pixels;"
                    " free some of it, or use the CPU."
                )
            rows = cut(plan.height, edge, self.config.halo, rows[0].start)
            columns = cut(plan.width, edge, self.config.halo)

    @torch.inference_mode()
    def _strip(
        self,
        source: RowSource,
        rows: tuple[Span, ...],
        columns: tuple[Span, ...],
        done: int,
        progress: ProgressFn,
    ) -> np.ndarray:
        """The first of ``rows`` tile by tile, as (scale·h)×(scale·W)×C."""
        row, total = rows[0], done + len(rows) * len(columns)
        read = np.asarray(source[row.first : row.last])
        network = self.network_for(read.dtype)
        scale = self.config.scale
        height, width = (row.stop - row.start) * scale, columns[-1].stop * scale
        strip = np.empty((height, width, read.shape[2]), read.dtype)
        # The next tile is on its way before the result of this one is awaited.
        waiting: deque[PendingTile] = deque()
        for column in (*columns, None):
            if column is not None:
                block = read[:, column.first : column.last]
                waiting.append(start_tile(network, block, row, column, self.device))
            if len(waiting) > 1 or column is None:
                pending = waiting.popleft()
                values = finish_tile(pending)
                if values is None:
                    again = start_tile(self.exact, pending.block, row, pending.column, self.device)
                    values = finish_tile(again)
                assert values is not None
                strip[:, pending.column.upscaled(scale)] = to_pixels(values, read.dtype)
                done += 1
                progress(done, total)
        return strip
