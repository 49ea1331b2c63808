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

DTYPES = (np.uint8, np.uint16, np.float16, np.float32, np.float64)


def layout_of(shape: tuple[int, ...], layout: str | None, by_dimensions: dict[int, str]) -> str:
    """The letters of the axes of an array or tensor, checked against its shape.

    Parameters
    ----------
    shape
        Of the array or tensor.
    layout
        One letter an axis, in any order: ``H`` and ``W``, and at will ``C`` (channels) and
        ``N`` (images). None takes the usual layout for the number of dimensions.
    by_dimensions
        The usual layouts.

    Raises
    ------
    ImageError
        If they do not go together, or the channels are not 1 to 4.
    ValueError
        If the layout is none.
    """
    if layout is not None:
        known = len(set(layout)) == len(layout) and {"H", "W"} <= set(layout) <= set("NCHW")
        if not known:
            raise ValueError(
                f"layout names each axis once, H and W and at will C and N, such as 'NHWC', "
                f"not {layout!r}."
            )
        if len(layout) != len(shape):
            raise ImageError(
                f"The layout {layout} has {len(layout)} axes, but the shape {_times(shape)} has "
                f"{len(shape)}; give the one that fits."
            )
    found = layout or by_dimensions.get(len(shape))
    if found is None:
        usual = " or ".join("×".join(letters) for letters in by_dimensions.values())
        raise ImageError(
            f"An image is {usual}, not {_times(shape)}; name the axes of anything else, as in "
            "sr(images, layout='NHWC')."
        )
    if "C" in found and shape[found.index("C")] not in (1, 2, 3, 4):
        where = {0: "first", len(shape) - 1: "last"}.get(found.index("C"), "there")
        hint = "HWC" if found == "CHW" else "CHW" if found == "HWC" else "".join(sorted(found))
        raise ImageError(
            f"{'×'.join(found)} has 1 to 4 channels {where}, not {_times(shape)}; permute or "
            f"split it, or name its axes, as in sr(image, layout={hint!r})."
        )
    if 0 in shape:
        raise ImageError(f"The image is empty ({_times(shape)}); give at least one pixel.")
    return found


def from_array(array: Array, layout: str | None = None) -> list[DecodedImage]:
    """The images in a NumPy array.

    Parameters
    ----------
    array
        H×W (grey), or H×W×C with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA, or as the
        layout says; uint8, uint16, or floating point in [0, 1]; of any byte order and
        strides. Not changed.
    layout
        As of :func:`layout_of`.

    Raises
    ------
    ImageError
        If it has another shape, dtype or range.
    """
    found = layout_of(array.shape, layout, {2: "HW", 3: "HWC"})
    if array.dtype.newbyteorder("=") not in DTYPES:
        raise ImageError(
            f"An array must be uint8, uint16 or floating point, not {array.dtype}; convert it, "
            f"as with {_conversion(array.dtype)}."
        )
    floats = array.dtype.kind == "f"
    if floats:
        _check_range(array)
    array = array.astype(np.float32 if floats else array.dtype.newbyteorder("="), copy=False)
    missing = [letter for letter in "NHWC" if letter not in found]
    images = array[(*[np.newaxis] * len(missing),)].transpose(
        [[*missing, *found].index(letter) for letter in "NHWC"]
    )
    return [split_alpha(image) for image in images]


def to_array(images: list[Array], like: Array, layout: str | None = None) -> Array:
    """H×W×C results in the layout and dtype of the array that came."""
    found = layout_of(like.shape, layout, {2: "HW", 3: "HWC"})
    stack = images[0][np.newaxis] if len(images) == 1 else np.stack(images)
    kept = stack.transpose(["NHWC".index(letter) for letter in _padded(found)])
    result = kept.reshape(kept.shape[4 - len(found) :])
    return np.ascontiguousarray(result, like.dtype)


def _padded(layout: str) -> str:
    """The layout with the axes in front that it lacks."""
    return "".join(letter for letter in "NHWC" if letter not in layout) + layout


def _conversion(dtype: np.dtype[Any]) -> str:
    """The code that makes an image of an array of this dtype."""
    if dtype.kind == "b":
        return "array * np.uint8(255)"
    return "array.astype(np.uint8) if its values are 0 to 255"


def from_tensor(tensor: Tensor, layout: str | None = None) -> list[DecodedImage]:
    """The images in a torch tensor, on the CPU.

    Parameters
    ----------
    tensor
        C×H×W or N×C×H×W with C = 1 to 4 as in :func:`from_array`, or as the layout says;
        uint8, or floating point in [0, 1].
    layout
        As of :func:`layout_of`.

    Raises
    ------
    ImageError
        If it has another shape, dtype or range.
    """
    found = layout_of(tuple(tensor.shape), layout, {3: "CHW", 4: "NCHW"})
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise ImageError(
            f"A tensor must be uint8 or floating point between 0 and 1, not {tensor.dtype}; "
            "convert it, as with tensor.to(torch.uint8)."
        )
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()
    return from_array(tensor.numpy(), found)


def to_tensor(images: list[Array], like: Tensor, layout: str | None = None) -> Tensor:
    """H×W×C results in the layout, dtype and device of the tensor that came."""
    found = layout_of(tuple(like.shape), layout, {3: "CHW", 4: "NCHW"})
    values = np.stack(images).transpose(["NHWC".index(letter) for letter in _padded(found)])
    values = values.reshape(values.shape[4 - len(found) :])
    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device, like.dtype)


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
