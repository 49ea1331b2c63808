"""Tiles with the derived halo: a tile can be run again, smaller or in float32."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from srgan_infer.engine.devices import (
    HostCopy,
    copy_to_host,
    free_cache,
    is_out_of_memory,
    pinned,
    true_float32,
)
from srgan_infer.engine.plan import SMALLEST_TILE, Plan, Progress, Span, cut
from srgan_infer.engine.tensors import network_values, to_network, to_pixels, to_values
from srgan_infer.errors import OutOfMemoryError
from srgan_infer.images.rows import RowSource
from srgan_infer.network.stream import Network, RowStream


def run_tiles(
    network: Network,
    exact: Network,
    source: RowSource,
    plan: Plan,
    device: torch.device,
    progress: Progress,
) -> Iterator[np.ndarray]:
    """Upscale an image as :meth:`Engine.run` does, by a plan of tiles.

    Tiles that overflow in ``network`` are run again in ``exact``. Where memory runs out,
    those that are left become smaller.
    """
    rows, columns = plan.rows, plan.columns
    halo = network.config.halo
    edge = max(span.stop - span.start for span in (*rows, *columns))
    tried: list[str] = []
    done = 0
    while rows:
        strip = None
        try:
            strip = run_strip(network, exact, source, rows, columns, device, done, progress)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        if strip is not None:
            done += len(columns)
            rows = rows[1:]
            yield strip
            continue
        # Outside the except clause, whose error keeps the failed tile's tensors alive.
        free_cache(device)
        tried.append(str(edge))
        edge //= 2
        if edge < SMALLEST_TILE:
            raise OutOfMemoryError(
                f"memory of {device} ran out with tiles of {', '.join(tried)} pixels;"
                " free some of it, or use the CPU."
            )
        rows = cut(plan.height, edge, halo, rows[0].start)
        columns = cut(plan.width, edge, halo)


@torch.inference_mode()
def run_strip(
    network: Network,
    exact: Network,
    source: RowSource,
    rows: tuple[Span, ...],
    columns: tuple[Span, ...],
    device: torch.device,
    done: int,
    progress: Progress,
) -> np.ndarray:
    """The first of ``rows`` tile by tile, as (scale·h)×(scale·W)×C."""
    row, total = rows[0], done + len(rows) * len(columns)
    read = np.asarray(source[row.first : row.last])
    scale = network.config.scale
    height, width = (row.stop - row.start) * scale, columns[-1].stop * scale
    strip = np.empty((height, width, read.shape[2]), read.dtype)
    # The next tile is on its way before the result of this one is awaited.
    waiting: deque[PendingTile] = deque()
    for column in (*columns, None):
        if column is not None:
            block = read[:, column.first : column.last]
            waiting.append(start_tile(network, block, row, column, device))
        if len(waiting) > 1 or column is None:
            pending = waiting.popleft()
            values = finish_tile(pending)
            if values is None:
                again = start_tile(exact, pending.block, row, pending.column, device)
                values = finish_tile(again)
            assert values is not None
            strip[:, pending.column.upscaled(scale)] = to_pixels(values, read.dtype)
            done += 1
            progress(done, total)
    return strip


@dataclass(frozen=True)
class PendingTile:
    """A tile on the device, its result not yet awaited.

    Attributes
    ----------
    block
        The pixels it was made from.
    column
        Its place.
    result
        The result on its way to host memory, and whether every value is finite.
    """

    block: np.ndarray
    column: Span
    result: HostCopy


def start_tile(
    network: Network, block: np.ndarray, row: Span, column: Span, device: torch.device
) -> PendingTile:
    """Start a tile: copy it to the device, run it, quantise it, and start to copy it back."""
    values = pinned(torch.from_numpy(network_values(block)), device)
    x = to_network(values[None], device, network.feature_dtype)
    scale = network.config.scale
    with true_float32(device):
        (out,) = RowStream(network).push(x, last=True)
    out = out[:, :, row.crop(scale), column.crop(scale)]
    # Checked before clipping, which hides infinity.
    finite = None if network.feature_dtype == torch.float32 else torch.isfinite(out).all()
    result = to_values(out, block.dtype, block.shape[2])[0]
    return PendingTile(block, column, copy_to_host(result, finite))


def finish_tile(tile: PendingTile) -> Tensor | None:
    """Wait for a tile; None if it overflowed in half precision."""
    values, finite = tile.result.wait()
    return values if finite else None
