"""Pillow's modes, orientation and profiles to arrays and back."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from srgan_infer.errors import ImageError
from srgan_infer.images.alpha import split_alpha
from srgan_infer.images.metadata import Metadata, metadata_in_memory, orientation
from srgan_infer.images.rows import DecodedImage

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PilRows:
    """Rows of a loaded Pillow image, converted and turned upright as they are asked for.

    Parameters
    ----------
    image
        A loaded image, in any mode.
    turn
        The EXIF orientation to undo.
    channels
        Of each row: 1 to 4, alpha last.
    dtype
        Of each row.
    decode
        From a crop of ``image`` to its (h, w, channels) array.
    """

    image: Image.Image
    turn: int
    channels: int
    dtype: np.dtype[Any]
    decode: Callable[[Image.Image], Array]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, channels), upright."""
        width, height = self.image.size
        return (width, height, self.channels) if self.turn > 4 else (height, width, self.channels)

    def __getitem__(self, rows: slice) -> Array:
        top, bottom, _ = rows.indices(self.shape[0])
        width, height = self.image.size
        box = {
            1: (0, top, width, bottom),
            2: (0, top, width, bottom),
            3: (0, height - bottom, width, height - top),
            4: (0, height - bottom, width, height - top),
            5: (top, 0, bottom, height),
            6: (top, 0, bottom, height),
            7: (width - bottom, 0, width - top, height),
            8: (width - bottom, 0, width - top, height),
        }[self.turn]
        with any_size(self.image):  # older Pillows look at the size of what is cut out, too
            crop = self.image.crop(box)
        return upright(self.decode(crop), self.turn)


def from_pil(image: Image.Image) -> tuple[DecodedImage, Metadata]:
    """Take a Pillow image as it lies in memory (its current frame, not turned).

    Parameters
    ----------
    image
        Any mode but those of raw planes; ``"F"`` holds 0 to 255 as everywhere
        in Pillow, ``"I"`` 0 to 65535.

    Raises
    ------
    ImageError
        If its pixels cannot be decoded or its values are out of range.
    """
    with one_sentence("The image"):
        key = transparent_key(image)
        load(image)
        channels, dtype, decode = conversion(image, key, bytes_as_float=True)
        converted = image.mode in ("CMYK", "LAB")
        metadata = metadata_in_memory(image, 1 if channels < 3 else 3, converted)
        return split_alpha(PilRows(image, 1, channels, dtype, decode)), metadata


def to_pil(pixels: Array, like_mode: str, metadata: Metadata) -> Image.Image:
    """Make a Pillow image of the kind that was given.

    Parameters
    ----------
    pixels
        (H, W, 1 to 4) uint8, uint16 or float32 as :func:`from_pil` gave them,
        alpha last.
    like_mode
        Mode of the image that came in. ``"1"`` becomes ``"L"``, palettes and
        CMYK become RGB(A); every other mode is kept.
    metadata
        Goes into ``info``, where Pillow looks for it.

    Raises
    ------
    ImageError
        If Pillow has no mode for the pixels (16-bit colour).
    """
    if pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if like_mode == "F":
        image = Image.fromarray(pixels * np.float32(255))
    elif like_mode == "I":
        image = Image.fromarray(pixels.astype(np.int32))
    elif pixels.dtype == np.uint8 or (pixels.dtype == np.uint16 and pixels.ndim == 2):
        image = Image.fromarray(np.ascontiguousarray(pixels))
    else:
        raise ImageError("Pillow holds no 16-bit colour; pass a NumPy array instead.")
    if like_mode in ("La", "RGBa", "YCbCr", "HSV"):
        image = image.convert(like_mode)
    elif like_mode == "LAB":
        image = ImageCms.profileToProfile(image, _SRGB, _LAB, outputMode="LAB") or image
    metadata = metadata.resized(image.size)
    image.info.update(metadata.pillow_info())
    return image


_SRGB = ImageCms.createProfile("sRGB")
_LAB = ImageCms.createProfile("LAB")


def conversion(
    image: Image.Image, key: Any, bytes_as_float: bool = False
) -> tuple[int, np.dtype[Any], Callable[[Image.Image], Array]]:
    """Channels and dtype of an image's pixels, and how a crop of it becomes an array."""
    mode = image.mode
    byte = np.dtype(np.uint8)
    if mode.startswith("I;16"):
        return _grey16(image, key)
    if mode == "I":
        return 1, np.dtype(np.uint16), _from_int
    if mode == "F":
        return 1, np.dtype(np.float32), _from_float255 if bytes_as_float else _from_float
    if mode in ("1", "L") and key is not None:
        return 2, byte, lambda crop: _with_key(np.asarray(crop.convert("L"))[..., None], key)
    if mode == "RGB" and key is not None:
        return 4, byte, lambda crop: _with_key(np.asarray(crop), key)
    if mode in ("1", "L"):
        return 1, byte, lambda crop: np.asarray(crop.convert("L"))[..., None]
    if mode in ("LA", "La"):
        return 2, byte, lambda crop: np.asarray(crop.convert("LA"))
    if mode in ("CMYK", "LAB"):
        return 3, byte, _through_profile(image)
    target = "RGBA" if image.has_transparency_data else "RGB"
    return len(target), byte, lambda crop: np.asarray(crop.convert(target))


def _grey16(
    image: Image.Image, key: Any
) -> tuple[int, np.dtype[Any], Callable[[Image.Image], Array]]:
    """16-bit grey; of a TIFF, Pillow neither widens 12 bits nor inverts where white is 0."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    twelve = tags.get(258, (16,))[0] == 12
    inverted = tags.get(262) == 0

    def decode(crop: Image.Image) -> Array:
        pixels: Array = np.asarray(crop).astype(np.uint16)[..., None]
        if twelve:
            pixels = ((pixels.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
        if inverted:
            pixels = 65535 - pixels
        return pixels if key is None else _with_key(pixels, key)

    return 1 if key is None else 2, np.dtype(np.uint16), decode


def _from_int(crop: Image.Image) -> Array:
    pixels = np.asarray(crop)
    if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
        raise ImageError("its 32-bit values leave the range 0 to 65535; scale them first.")
    return pixels.astype(np.uint16)[..., None]


def _from_float(crop: Image.Image) -> Array:
    pixels = np.asarray(crop)[..., None]
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # false for NaN too
        raise ImageError("its float values leave the range 0 to 1; scale them first.")
    return pixels


def _from_float255(crop: Image.Image) -> Array:
    pixels = np.asarray(crop)[..., None]
    if not (pixels.min() >= 0 and pixels.max() <= 255):  # false for NaN too
        raise ImageError("its float values leave the range 0 to 255; scale them first.")
    return pixels / np.float32(255)


def transparent_key(image: Image.Image) -> Any:
    """The transparent value or colour, on the scale of the pixels; call before loading.

    Pillow widens the pixels of a PNG file to 8 bits, or cuts them, but not this.
    """
    key = image.info.get("transparency")
    if key is None or not isinstance(image, PngImagePlugin.PngImageFile) or not image.tile:
        return key
    rawmode = str(image.tile[0].args)
    if rawmode == "RGB;16B":
        return tuple(value >> 8 for value in key)
    return key * {"L;2": 85, "L;4": 17}.get(rawmode, 1) if isinstance(key, int) else key


def _with_key(pixels: Array, key: Any) -> Array:
    visible = (pixels != np.asarray(key, pixels.dtype)).any(axis=2, keepdims=True)
    opaque = np.iinfo(pixels.dtype).max
    return np.concatenate([pixels, visible * pixels.dtype.type(opaque)], axis=2)


def _through_profile(image: Image.Image) -> Callable[[Image.Image], Array]:
    """CMYK and LAB to sRGB; CMYK without a profile by Pillow's formula."""
    transform = cmyk_transform(image) if image.mode == "CMYK" else _transform(_LAB, "LAB")
    if transform is None:
        return lambda crop: np.asarray(crop.convert("RGB"))
    return lambda crop: np.asarray(ImageCms.applyTransform(crop, transform))


def cmyk_image(pixels: Array, profile: bytes) -> Image.Image:
    """(H, W, 4) inks of 8 or 16 bits as an image of 8, with its profile."""
    if pixels.dtype == np.uint16:
        pixels = in_8_bits(pixels)
    image = Image.frombytes("CMYK", pixels.shape[1::-1], np.ascontiguousarray(pixels).tobytes())
    if profile:
        image.info["icc_profile"] = profile
    return image


def in_8_bits(pixels: Array) -> Array:
    """16 bits as 8, rounded."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def cmyk_transform(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """By the image's own profile; None if there is none that can be used."""
    icc = image.info.get("icc_profile") or b""
    if icc[16:20] != b"CMYK":
        return None
    try:
        return _transform(ImageCms.ImageCmsProfile(io.BytesIO(icc)), "CMYK")
    except (OSError, ImageCms.PyCMSError):
        return None


def _transform(profile: Any, mode: str) -> ImageCms.ImageCmsTransform:
    """To sRGB, relative colorimetric with black point compensation, as is usual for viewing."""
    return ImageCms.buildTransform(
        profile,
        _SRGB,
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def upright(pixels: Array, turn: int) -> Array:
    """Undo an EXIF orientation of an (H, W, C) array; the result may be written to."""
    if turn > 4:
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.require(pixels, requirements=["C", "W"])


def load(image: Image.Image) -> int:
    """Decode, and return the orientation that is left to undo."""
    with any_size(image):
        image.load()
    return orientation(image)


_size_lock = threading.Lock()
_size_users = 0
_size_limit: int | None = None


@contextmanager
def any_size(image: Image.Image | None) -> Iterator[None]:
    """Lift Pillow's limit on pixels, which is global, for as short as can be."""
    global _size_users, _size_limit
    if image is not None and image.width * image.height <= (Image.MAX_IMAGE_PIXELS or 0):
        yield
        return
    with _size_lock:
        if not _size_users:
            _size_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _size_users += 1
    try:
        yield
    finally:
        with _size_lock:
            _size_users -= 1
            if not _size_users:
                Image.MAX_IMAGE_PIXELS = _size_limit


def file_name(source: Any) -> str:
    """How messages call a source."""
    if isinstance(source, Path):
        return str(source)
    return source if isinstance(source, str) else getattr(source, "name", None) or "The image"


@contextmanager
def one_sentence(source: Any) -> Iterator[None]:
    """The one place where what Pillow and the system raise becomes an ``ImageError``."""
    name = file_name(source)
    try:
        yield
    except ImageError as error:
        text = str(error)
        if text.startswith(name):
            raise
        raise ImageError(f"{name} cannot be used: {text}") from error
    except FileNotFoundError as error:
        raise ImageError(f"{name} does not exist.") from error
    except PermissionError as error:
        raise ImageError(f"{name} may not be read: permission denied.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is damaged or not an image that Pillow can read.") from error
    except MemoryError as error:
        raise ImageError(f"{name} is too large for the memory of this machine.") from error
    except OSError as error:
        if error.strerror is None:  # not from the system, but what Pillow says of damaged files
            raise ImageError(_damaged(name, error)) from error
        raise ImageError(f"{name} cannot be read: {error.strerror}.") from error
    except Exception as error:  # decoders raise anything for damaged data
        raise ImageError(_damaged(name, error)) from error


def _damaged(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return f"{name} is damaged or cannot be read by Pillow: {reason}."
