"""The best image of an icon file. Pillow takes the largest, but of these the one of fewest bits."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

from PIL import IcoImagePlugin, Image

from srgan_infer.errors import ImageError

PNG = b"\x89PNG\r\n\x1a\n"
# Larger ones are stored as PNG; nothing writes such a BMP.
LARGEST_BMP = 1024


def open_icon(stream: BinaryIO) -> Image.Image:
    """Open the largest image of most bits: the PNG in it, not loaded, or a loaded BMP.

    Raises
    ------
    ImageError
        If one of its images is cut short, or says to be larger than an icon.
    """
    stream.seek(0)
    icons = IcoImagePlugin.IcoFile(stream)
    length = stream.seek(0, 2)
    for index, entry in enumerate(icons.entry):
        stream.seek(entry.offset)
        head = stream.read(40)
        needed = 0
        if len(head) == 40 and head[:4] == struct.pack("<I", 40):
            width, height, _, bits = struct.unpack_from("<iiHH", head, 4)
            needed = 40 + (width * bits + 31) // 32 * 4 * (height // 2)
            if max(width, height // 2) > LARGEST_BMP:
                raise ImageError(f"it is damaged: an icon of {width}×{height // 2} pixels.")
        if entry.offset + entry.size > length or entry.size < needed:
            raise ImageError(f"image {index + 1} of {len(icons.entry)} in it is cut short.")
    if not icons.entry:
        raise ImageError("it has no image in it.")
    best = max(
        range(len(icons.entry)),
        key=lambda index: (icons.entry[index].square, icons.entry[index].color_depth),
    )
    entry = icons.entry[best]
    stream.seek(entry.offset)
    data = stream.read(entry.size)
    if data.startswith(PNG):
        image: Image.Image = Image.open(io.BytesIO(data), formats=("PNG",))
    else:
        image = icons.frame(best)
    image.format = "ICO"
    return image
