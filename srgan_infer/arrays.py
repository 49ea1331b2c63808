"""NumPy arrays and torch tensors as images, and back in the layout they came in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srgan_infer.errors import ImageError
from srgan_infer.images.alpha import split_alpha
from srgan_infer.images.rows import DecodedImage

Array = npt.NDArray[Any]

DTYPES = (np.uint8, np.uint16, np.float32)


def from_array(array: Array) -> DecodedImage:
    """A NumPy array as an image.

    Parameters
    ----------
    array
        H×W (grey), or H×W×C with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA;
        uint8, uint16, or float32 in [0, 1]. Not changed.

    Raises
    ------
    ImageError
        If it has another shape, dtype or range.
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise ImageError(
            f"An array must be H×W or H×W×C with 1 to 4 channels last, not {_times(array.shape)}; "
            "transpose or split it."
        )
    if array.dtype not in DTYPES:
        raise ImageError(
            f"An array must be uint8, uint16 or float32, not {array.dtype}; "
            "convert it, floats to float32 between 0 and 1."
        )
    if array.size == 0:
        raise ImageError(f"The array is empty ({_times(array.shape)}); give at least one pixel.")
    if array.dtype == np.float32:
        _check_range(array)
    pixels = array[..., None] if array.ndim == 2 else array
    return split_alpha(pixels)


def check_tensor(tensor: Tensor) -> None:
    """Refuse a tensor that holds no images.

    Parameters
    ----------
    tensor
        C×H×W or N×C×H×W with C = 1 to 4 as in :func:`from_array`; uint8, or
        floating point in [0, 1].

    Raises
    ------
    ImageError
        If it has another shape, dtype or range.
    """
    if tensor.ndim not in (3, 4) or tensor.shape[-3] not in (1, 2, 3, 4):
        raise ImageError(
            "A tensor must be C×H×W or N×C×H×W with 1 to 4 channels, "
            f"not {_times(tensor.shape)}; permute or split it."
        )
    if tensor.numel() == 0:
        raise ImageError(f"The tensor is empty ({_times(tensor.shape)}); give at least one pixel.")
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise ImageError(
            f"A tensor must be uint8 or floating point between 0 and 1, not {tensor.dtype}; "
            "convert it."
        )


def from_tensor(tensor: Tensor) -> DecodedImage:
    """A C×H×W tensor as an image of uint8 or float32 on the CPU."""
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()
    return from_array(tensor.permute(1, 2, 0).contiguous().numpy())


def to_tensor(array: Array, like: Tensor) -> Tensor:
    """An H×W×C array as a C×H×W tensor with the dtype and device of ``like``."""
    return torch.from_numpy(array).permute(2, 0, 1).to(like.device, like.dtype).contiguous()


def _check_range(array: Array) -> None:
    """Refuse floats that are no colours."""
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(
            "The image holds NaN or infinite values; replace them, as with np.nan_to_num."
        )
    if low < 0 or high > 1:
        raise ImageError(
            f"Floats must lie between 0 and 1, not {low:g} to {high:g}; scale or clip them."
        )


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a single number"
