"""The TIFF writer: classic and big, every depth, with its metadata."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from srgan_infer.images import tiff
from srgan_infer.images.blocks import INCH, Density
from srgan_infer.images.metadata import Metadata

Array = npt.NDArray[Any]


def encode(pixels: Array, metadata: Metadata | None = None, band: int = 5, **options: Any) -> bytes:
    height, width, channels = pixels.shape
    file = io.BytesIO()
    writer = tiff.TiffWriter(
        file, (width, height), channels, pixels.dtype, metadata or Metadata(), **options
    )
    for top in range(0, height, band):
        writer.write(pixels[top : top + band])
    writer.finish()
    writer.close()
    return file.getvalue()


def decode(data: bytes) -> Array:
    """By another library than the one that reads for us."""
    pixels = tifffile.imread(io.BytesIO(data))
    return pixels if pixels.ndim == 3 else pixels[..., None]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 30),
    width=st.integers(1, 40),
    kind=st.sampled_from(
        [(c, "uint8") for c in (1, 2, 3, 4)] + [(c, "uint16") for c in (1, 3, 4)] + [(1, "float32")]
    ),
    big=st.booleans(),
    strip=st.sampled_from([1, 200, 1 << 19]),
    seed=st.integers(0, 99),
)
def test_tifffile_reads_it_back_exactly(
    height: int, width: int, kind: tuple[int, str], big: bool, strip: int, seed: int
) -> None:
    channels, name = kind
    random = np.random.default_rng(seed)
    pixels: Array = random.random((height, width, channels), np.float32)
    if name != "float32":
        pixels = (pixels * np.iinfo(name).max).astype(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiff, "STRIP_BYTES", strip)
        data = encode(pixels, big=big)
    assert data[2] == (43 if big else 42)
    assert np.array_equal(decode(data), pixels)


@pytest.mark.parametrize("big", [False, True])
def test_metadata_reaches_pillow(big: bool) -> None:
    exif = Image.Exif()
    exif.endian = "<"
    exif[271] = "Maker with a long name"
    exif[34665] = {33434: 1 / 60, 37510: b"ASCII\0\0\0hello", 40965: {1: "R98"}}
    exif[34853] = {1: "N", 2: (51.0, 30.0, 0.5)}
    metadata = Metadata(
        exif=exif.tobytes().removeprefix(b"Exif\0\0"),
        icc=b"\0" * 16 + b"RGB " + b"\0" * 108,
        xmp=b"<x/>",
        density=Density(Fraction(300), Fraction(145, 2), INCH),
    )
    data = encode(np.zeros((3, 4, 3), np.uint8), metadata, big=big)
    image: Any = Image.open(io.BytesIO(data))
    read = image.getexif()
    assert read[271] == "Maker with a long name"
    assert read.get_ifd(34665)[33434] == pytest.approx(1 / 60)
    assert read.get_ifd(34665)[37510] == b"ASCII\0\0\0hello"
    assert read.get_ifd(34853)[2] == pytest.approx((51, 30, 0.5))
    assert image.info["icc_profile"] == metadata.icc
    assert image.info["xmp"] == b"<x/>"
    assert image.info["dpi"] == pytest.approx((300, 72.5))


def test_over_four_gigabytes_it_is_a_bigtiff() -> None:
    def magic(height: int) -> int:
        file = io.BytesIO()
        writer = tiff.TiffWriter(file, (40000, height), 3, np.dtype(np.uint8), Metadata())
        writer.close()
        return len(file.getvalue())  # the room that is kept for the header

    assert (magic(35000), magic(36000)) == (8, 16)


def test_a_file_that_cannot_seek_gets_the_same_bytes() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += bytes(data)
            return len(data)

    pixels = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    pipe = Pipe()
    writer = tiff.TiffWriter(pipe, (10, 10), 3, pixels.dtype, Metadata())  # type: ignore[arg-type]
    writer.write(pixels)
    writer.finish()
    writer.close()
    assert pipe.data == encode(pixels, band=10)
