"""An image in thin bands: each pixel of each layer is computed once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from srgan_infer.engine.devices import hold_heap, release_heap
from srgan_infer.engine.plan import Plan, Progress, Span
from srgan_infer.engine.tensors import network_values, to_network, to_pixels, to_values
from srgan_infer.errors import OutOfMemoryError
from srgan_infer.images.rows import RowSource
from srgan_infer.network.stream import Network, RowStream
from srgan_infer.network.streaming import FeatureBuffer


def run_bands(
    network: Network, source: RowSource, plan: Plan, device: torch.device, progress: Progress
) -> Iterator[np.ndarray]:
    """Upscale an image as :meth:`Engine.run` does, by a plan of bands."""
    try:
        yield from _run_bands(network, source, plan, device, progress)
    finally:
        release_heap(plan.peak_bytes)


def _run_bands(
    network: Network, source: RowSource, plan: Plan, device: torch.device, progress: Progress
) -> Iterator[np.ndarray]:
    # Held for as long as this run.
    _held = hold_heap(plan.peak_bytes)
    buffer = FeatureBuffer()
    streams = [RowStream(network, plan.tail_rows, buffer) for _ in plan.columns]
    # The last step feeds nothing: the layers give the rows that they held
    # back, which together with a band would be much more than a band.
    bands = plan.rows if len(plan.rows) == 1 else (*plan.rows, None)
    nothing = np.empty((0, plan.width, source.shape[2]), source.dtype)
    done = 0
    for band in bands:
        rows = nothing if band is None else np.asarray(source[band.start : band.stop])
        last, parts = band is bands[-1], []
        for stream, column in zip(streams, plan.columns, strict=True):
            read = rows[:, column.first : column.last]
            parts.append(run_band(network, stream, read, last, column, device))
            done += 1
            progress(done, plan.pieces)
        if parts[0].shape[0]:
            yield parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


@torch.inference_mode()
def run_band(
    network: Network,
    stream: RowStream,
    rows: np.ndarray,
    last: bool,
    column: Span,
    device: torch.device,
) -> np.ndarray:
    """One band of one column through the network."""
    try:
        x = to_network(torch.from_numpy(network_values(rows))[None], device, network.feature_dtype)
        crop = column.crop(network.config.scale)
        return np.concatenate(
            [
                to_pixels(to_values(out[..., crop], rows.dtype, rows.shape[2])[0], rows.dtype)
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
