"""Pixels to tensors and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def network_values(pixels: np.ndarray) -> np.ndarray:
    """Pixels as an array that torch takes: uint8 stays, the rest becomes float32 in [0, 1]."""
    if pixels.dtype == np.uint16:
        return pixels.astype(np.float32) / np.float32(65535)
    return np.require(pixels, requirements=("C", "W"))


def to_network(pixels: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """N×h×w×C pixels as N×3×h×w in [0, 1], channels last, on the device."""
    x = pixels.to(device, non_blocking=True)
    if x.dtype == torch.uint8:
        x = x.float() / 255
    x = x.to(dtype)
    if x.shape[3] == 1:
        x = x.expand(-1, -1, -1, 3)
    return x.contiguous().permute(0, 3, 1, 2)


def to_values(out: Tensor, dtype: np.dtype[Any], channels: int) -> Tensor:
    """A result as N×h×w×C in the range of ``dtype``, clipped and rounded, where it is.

    Parameters
    ----------
    out
        N×3×h×w, nominally in [0, 1].
    dtype
        uint8, uint16 or float32.
    channels
        3, or 1 for the luma.
    """
    x = out.permute(0, 2, 3, 1).float()
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
