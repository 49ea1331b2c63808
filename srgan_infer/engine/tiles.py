"""Tiles with the derived halo: a tile can be run again, smaller or in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srgan_infer.engine.devices import true_float32
from srgan_infer.engine.plan import Span
from srgan_infer.network.stream import Network, RowStream


@dataclass(frozen=True)
class PendingTile:
    """A tile on the device, its result not yet awaited.

    Attributes
    ----------
    block
        The pixels it was made from.
    column
        Its place.
    values
        The result in host memory, complete once ``landed`` is reached.
    finite
        Whether every value was finite, likewise; None where nothing can overflow.
    landed
        The event to wait for; None where everything is done at once.
    """

    block: np.ndarray
    column: Span
    values: Tensor
    finite: Tensor | None
    landed: torch.cuda.Event | None


def start_tile(
    network: Network, block: np.ndarray, row: Span, column: Span, device: torch.device
) -> PendingTile:
    """Start a tile: copy it to the device, run it, quantise it, and start to copy it back."""
    values = torch.from_numpy(network_values(block))
    on_cuda = device.type == "cuda"
    if on_cuda:
        values = values.pin_memory()
    x = to_network(values, device, network.feature_dtype)
    scale = network.config.scale
    with true_float32(device):
        (out,) = RowStream(network).push(x, last=True)
    out = out[:, :, row.crop(scale), column.crop(scale)]
    # Checked before clipping, which hides infinity.
    finite = None if network.feature_dtype == torch.float32 else torch.isfinite(out).all()
    result = to_values(out, block.dtype, block.shape[2])
    if not on_cuda:
        return PendingTile(block, column, result.cpu(), finite, None)
    # A stream of its own, so that copying back overlaps with the next tile.
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    copies.wait_stream(torch.cuda.current_stream(device))
    landed = torch.cuda.Event()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(copies):
        host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        host.copy_(result, non_blocking=True)
        result.record_stream(copies)
        if finite is not None:
            flag = torch.empty((), dtype=torch.bool, pin_memory=True)
            flag.copy_(finite, non_blocking=True)
            finite.record_stream(copies)
            finite = flag
        landed.record(copies)
    return PendingTile(block, column, host, finite, landed)


def finish_tile(pending: PendingTile) -> Tensor | None:
    """Wait for a tile; None if it overflowed in half precision."""
    if pending.landed is not None:
        pending.landed.synchronize()
    if pending.finite is not None and not bool(pending.finite):
        return None
    return pending.values


def network_values(pixels: np.ndarray) -> np.ndarray:
    """Pixels as an array that torch takes: uint8 stays, the rest becomes float32 in [0, 1]."""
    if pixels.dtype == np.uint16:
        return pixels.astype(np.float32) / np.float32(65535)
    return np.require(pixels, requirements=("C", "W"))


def to_network(pixels: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """h×w×C pixels as 1×3×h×w in [0, 1], channels last, on the device."""
    x = pixels.to(device, non_blocking=True)
    if x.dtype == torch.uint8:
        x = x.float() / 255
    x = x.to(dtype)
    if x.shape[2] == 1:
        x = x.expand(-1, -1, 3)
    return x.contiguous().permute(2, 0, 1)[None]


def to_values(out: Tensor, dtype: np.dtype[Any], channels: int) -> Tensor:
    """A result as h×w×C in the range of ``dtype``, clipped and rounded, where it is.

    Parameters
    ----------
    out
        1×3×h×w, nominally in [0, 1].
    dtype
        uint8, uint16 or float32.
    channels
        3, or 1 for the luma.
    """
    x = out[0].permute(1, 2, 0).float()
    if channels == 1:
        x = 0.299 * x[..., :1] + 0.587 * x[..., 1:2] + 0.114 * x[..., 2:]
    x = x.clamp(0, 1)
    if dtype == np.uint8:
        return x.mul_(255).round_().to(torch.uint8)
    if dtype == np.uint16:
        return x.mul_(65535).round_().to(torch.int32)
    return x


def to_pixels(values: Tensor, dtype: np.dtype[Any]) -> np.ndarray:
    """Values as an array of the image's type."""
    return values.numpy().astype(dtype, copy=False)
