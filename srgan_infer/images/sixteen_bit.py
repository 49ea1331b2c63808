"""PNG and PPM colour of 16 bits a channel, which Pillow cuts to its high bytes.

Pillow has no mode for it, but it can unpack big-endian samples as if they were
little-endian: decoded once each way, a file gives its high and its low bytes.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, PpmImagePlugin

Array = npt.NDArray[Any]

# The unpacker that reads the other byte of each sample.
OTHER = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


def sixteen_bit_channels(image: Image.Image) -> int | None:
    """Channels of a file with 16-bit colour that can be kept; None for any other.

    Parameters
    ----------
    image
        As opened, not loaded.
    """
    rawmode = _rawmode(image)
    if isinstance(image, PngImagePlugin.PngImageFile) and getattr(image, "n_frames", 1) == 1:
        if rawmode == "LA;16B":
            return 2
        if rawmode == "RGB;16B":
            return 4 if "transparency" in image.info else 3
        return 4 if rawmode == "RGBA;16B" else None
    return 3 if _ppm_maximum(image) > 255 else None


def read_sixteen_bit(image: Image.Image, again: Image.Image) -> Array:
    """Decode a file for which :func:`sixteen_bit_channels` is not None.

    Parameters
    ----------
    image, again
        The same file, opened twice.

    Returns
    -------
    ndarray
        (H, W, channels) uint16, not turned upright.
    """
    if isinstance(image, PpmImagePlugin.PpmImageFile):
        return _read_ppm(image)
    rawmode = _rawmode(image)
    if rawmode == "LA;16B":  # its four bytes a pixel are those of 8-bit RGBA
        _unpack(image, "RGBA")
        image.load()
        return np.asarray(image).view(">u2").astype(np.uint16)
    _unpack(again, OTHER[rawmode])
    image.load()
    again.load()
    pixels = np.asarray(image).astype(np.uint16)
    pixels <<= 8
    pixels |= np.asarray(again)
    key = image.info.get("transparency")
    if key is not None and pixels.shape[2] == 3:
        visible = (pixels != np.array(key, np.uint16)).any(axis=2)
        pixels = np.dstack([pixels, visible * np.uint16(65535)])
    return pixels


def _rawmode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    args = tiles[0][3]
    return str(args if isinstance(args, str) else args[0] if args else "")


def _unpack(image: Any, rawmode: str) -> None:
    """Have every tile of ``image`` unpacked by ``rawmode``."""
    image.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in image.tile
    ]


def _ppm_maximum(image: Image.Image) -> int:
    """Largest sample value of a PPM file with colour; 0 for anything else."""
    if not isinstance(image, PpmImagePlugin.PpmImageFile) or image.mode != "RGB":
        return 0
    coded = image.tile and image.tile[0].codec_name in ("ppm", "ppm_plain")
    args = image.tile[0].args if coded else None
    return int(args[1]) if isinstance(args, tuple) else 0


def _read_ppm(image: PpmImagePlugin.PpmImageFile) -> Array:
    maximum = _ppm_maximum(image)
    width, height = image.size
    count = 3 * width * height
    assert image.fp is not None
    image.fp.seek(image.tile[0].offset)
    if image.tile[0].codec_name == "ppm_plain":  # decimal numbers, and comments to the line's end
        words = re.sub(rb"#[^\n\r]*", b"", image.fp.read()).split()[:count]
        pixels = np.array(words, np.int64) if words else np.empty(0, np.int64)
    else:
        pixels = np.frombuffer(image.fp.read(2 * count), ">u2")
    if pixels.size < count:
        raise OSError("image file is truncated")
    if pixels.max() > maximum:
        raise OSError("its values are larger than its header says")
    pixels = pixels.reshape(height, width, 3)
    wide = pixels.astype(np.uint32)
    return ((wide * 65535 + maximum // 2) // maximum).astype(np.uint16)
