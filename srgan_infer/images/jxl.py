"""The first bits of a JPEG XL file, and the JPEG that it may hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from srgan_infer.errors import ImageError
from srgan_infer.images.timing import inner_box


@dataclass(frozen=True)
class JxlHeader:
    """What the first bits of a JPEG XL file say.

    Parameters
    ----------
    size
        (W, H), upright.
    bits
        Of each channel.
    floating
        Whether these are floating point.
    animated
        Whether there are frames.
    orientation
        As in EXIF, 1 to 8; undone when the image is decoded.
    """

    size: tuple[int, int]
    bits: int
    floating: bool
    animated: bool
    orientation: int = 1


class _Bits:
    """Bits of a byte string, the low ones first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._value & (1 << count) - 1
        self._value >>= count
        return value

    def choose(self, *ways: tuple[int, int]) -> int:
        """One of four ways, each an offset and a number of bits that are added to it."""
        offset, count = ways[self.take(2)]
        return offset + self.take(count)

    def size(self) -> tuple[int, int]:
        small = self.take(1)
        far = ((1, 9), (1, 13), (1, 18), (1, 30))
        height = 8 * (self.take(5) + 1) if small else self.choose(*far)
        ratio = self.take(3)
        if ratio:
            above, below = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
            return height * above // below, height
        return 8 * (self.take(5) + 1) if small else self.choose(*far), height


def jpeg_inside(stream: BinaryIO) -> bytes | None:
    """The JPEG file that a JPEG XL file holds without loss, or None if it holds another image.

    Its EXIF says how it is to be turned, which decoding it as JPEG XL would have done.
    """
    if inner_box(stream, b"jbrd") is None:
        return None
    from pillow_jxl import Decoder

    stream.seek(0)
    is_jpeg, _, data, *_ = Decoder(num_threads=-1)(stream.read())
    return data if is_jpeg else None


def read_jxl_header(stream: BinaryIO) -> JxlHeader:
    """Size and depth of a JPEG XL file (ISO/IEC 18181-1), without decoding it.

    Raises
    ------
    ImageError
        If it is cut short.
    """
    stream.seek(0)
    data = stream.read(64)
    if data[:2] != b"\xff\x0a":
        place = inner_box(stream, b"jxlc")
        skip = 0
        if place is None:
            place, skip = inner_box(stream, b"jxlp"), 4
        if place is None:
            raise ImageError("it is cut short.")
        stream.seek(place.body + skip)
        data = stream.read(64)
    bits = _Bits(data[2:])
    size = bits.size()
    if bits.take(1):  # everything is usual
        return JxlHeader(size, 8, False, False)
    animated, turn = False, 1
    if bits.take(1):
        turn = bits.take(3) + 1
        size = size[::-1] if turn > 4 else size
        if bits.take(1):
            bits.size()
        if bits.take(1):
            raise ImageError("it is a JPEG XL with a preview, which is not read; convert it.")
        animated = bool(bits.take(1))
    floating = bool(bits.take(1)) if not animated else False
    ways = ((32, 0), (16, 0), (24, 0), (1, 6)) if floating else ((8, 0), (10, 0), (12, 0), (1, 6))
    return JxlHeader(size, bits.choose(*ways), floating, animated, turn)
