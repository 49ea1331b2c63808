"""The file that a PIL image was opened from, as far as the image still leads to it.

A PIL image is taken as it lies in memory. If Pillow is known to get its file wrong, by the same
rules that keep :mod:`srgan_infer.images.read` from having it decoded by Pillow, it is refused.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, BinaryIO, cast

from PIL import Image, ImageFile, TiffImagePlugin

from srgan_infer.errors import ImageError
from srgan_infer.images import tiff_rows
from srgan_infer.images.bit_depth import find_decoder
from srgan_infer.images.integrity import check_header
from srgan_infer.images.kinds import kind_of
from srgan_infer.images.pages import find_pages
from srgan_infer.images.pillow import load, one_sentence
from srgan_infer.images.sixteen_bit import sixteen_bit_channels
from srgan_infer.images.tiff_rows import Directory, Entry

INSTEAD = "pass the path or the bytes of the file, not a PIL image"
HEAD = 1024
# Colour types of PNG that have more than one channel: RGB, grey and alpha, RGBA.
SEVERAL = (2, 4, 6)
# Colour types and bits whose pixels Pillow scales when it loads them, but not the transparent one.
UNSCALED = ((0, 2), (0, 4), (2, 16))


def check_source(image: Image.Image) -> tuple[str, ...]:
    """Refuse an image whose pixels Pillow has got, or will get, wrong.

    What cannot be known is not refused: a copy leads to no file, and of one that was opened
    from bytes and loaded only TIFF tags are left.

    Parameters
    ----------
    image
        Loaded or not.

    Returns
    -------
    tuple of str
        A sentence if the image has not all of its file's bits.

    Raises
    ------
    ImageError
        If the pixels are wrong; the sentence says what to pass instead.
    """
    if not isinstance(image, ImageFile.ImageFile):
        return ()
    name = image.format or ""
    # An image that was pickled has not even these.
    path, stream = getattr(image, "filename", "") or "", getattr(image, "fp", None)
    with one_sentence(path or None), _file(stream, path, name) as stream:
        kind = None
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            kind = _of_tiff(image, stream)
        elif name == "PPM":
            kind = "a PPM with 16 bits a channel" if sixteen_bit_channels(image) else None
        elif stream is not None and name == "PNG":
            kind = _of_png(image, stream)
        elif stream is not None and name == "PSD":
            check_header(name, stream)
        elif stream is not None:
            kind = _of_other(name, image, stream)
    if kind is None:
        return ()
    return (f"The image is of {kind}, of which Pillow keeps less: {INSTEAD}.",)


def _wrong(kind: str) -> ImageError:
    return ImageError(f"it is {kind}, which Pillow gets wrong; {INSTEAD}.")


def _of_tiff(image: TiffImagePlugin.TiffImageFile, stream: BinaryIO | None) -> str | None:
    if stream is not None:
        stream.seek(0)
        kind_of(stream.read(HEAD))
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        directory = _directory(tags)
    elif stream is not None and len(find_pages(stream).pages) == 1:
        directory = tiff_rows.read_directory(stream)
        # By its tags these would be put right, but they were not pickled.
        bits, kind = directory.number(258, 1), directory.number(262, 1)
        if bits == 12 or (bits == 16 and kind == tiff_rows.WHITE_IS_ZERO):
            raise _wrong(f"a pickled TIFF of {bits} bits")
    else:
        return None
    tiff_rows.refuse_camera_raw(directory, stream or io.BytesIO())
    if (fault := tiff_rows.pillow_fault(directory)) is not None:
        raise _wrong(f"a TIFF {fault}")
    if image.mode == "F":
        load(image)
        if 0 < cast(float, image.getextrema()[1]) <= 1:
            raise ImageError(
                f"it is a TIFF of floats from 0 to 1, and white is 255 in a PIL image; {INSTEAD}."
            )
    bits = directory.number(258, 1)
    kept = image.mode in ("I", "F") or image.mode.startswith("I;16")
    return None if bits <= 8 or kept else f"a TIFF with {bits} bits a channel"


def _directory(tags: Any) -> Directory:
    """The numbers among the tags of an image, as they were in the file."""
    order = {b"II": "<", b"MM": ">"}[tags.prefix]
    entries = {}
    for tag in tags:
        kind, values = tags.tagtype.get(tag), tags[tag]
        if isinstance(values, bytes):
            entries[tag] = Entry(7, len(values), values)
        elif kind in tiff_rows.INTEGERS:
            values = values if isinstance(values, tuple) else (values,)
            code = f"{order}{len(values)}{tiff_rows.INTEGERS[kind]}"
            with suppress(struct.error):
                entries[tag] = Entry(kind, len(values), struct.pack(code, *values))
    return Directory(order, False, entries)


def _of_png(image: ImageFile.ImageFile, stream: BinaryIO) -> str | None:
    stream.seek(24)
    bits, color = stream.read(2)
    if "transparency" in image.info and not image.tile and (color, bits) in UNSCALED:
        raise _wrong(f"a PNG with {bits} bits a channel and a transparent colour")
    return f"a PNG with {bits} bits a channel" if bits == 16 and color in SEVERAL else None


def _of_other(name: str, image: Image.Image, stream: BinaryIO) -> str | None:
    try:
        decoder = find_decoder(name, image, stream)
    except ImageError:
        if name == "JPEG2000":
            raise
        return None  # animations, whose frames Pillow has
    if decoder is None:
        return None
    if not decoder.near:
        raise _wrong(decoder.kind)
    return decoder.kind


@contextmanager
def _file(stream: Any, path: str | bytes, name: str) -> Iterator[BinaryIO | None]:
    """The file, which is left as it was; None where the image leads to none of its format."""
    with ExitStack() as stack:
        yield _opened(stream, path, name, stack)


def _opened(stream: Any, path: str | bytes, name: str, stack: ExitStack) -> BinaryIO | None:
    with suppress(OSError, ValueError, AttributeError):  # closed, gone, or no file
        if stream is not None:
            stack.callback(_put_back, stream, stream.tell())
            if _is(stream, name):
                return cast(BinaryIO, stream)
        if path and os.path.isfile(path):
            file = stack.enter_context(open(path, "rb"))  # noqa: SIM115
            if _is(file, name):
                return file
    return None


def _put_back(stream: BinaryIO, place: int) -> None:
    with suppress(OSError, ValueError):  # closed by loading the image
        stream.seek(place)


def _is(stream: BinaryIO, name: str) -> bool:
    """Whether a file begins like one of the format; some decoders leave pixels in its place."""
    stream.seek(0)
    head = stream.read(HEAD)
    try:
        return kind_of(head) == name
    except ImageError:
        return name == "TIFF" and head[:2] in (b"II", b"MM")  # a camera's
