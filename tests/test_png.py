"""The PNG writer: what it writes is read back bit for bit by others."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from srgan_infer.images import png
from srgan_infer.images.blocks import INCH, Density, png_text
from srgan_infer.images.metadata import Metadata
from srgan_infer.images.read import open_file

Array = npt.NDArray[Any]


def encode(
    pixels: Array, metadata: Metadata | None = None, band: int = 5, threads: int = 2
) -> bytes:
    height, width, channels = pixels.shape
    file = io.BytesIO()
    writer = png.PngWriter(
        file, (width, height), channels, pixels.dtype, metadata or Metadata(), threads=threads
    )
    for top in range(0, height, band):
        writer.write(pixels[top : top + band])
    writer.finish()
    writer.close()
    return file.getvalue()


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    assert data[:8] == png.SIGNATURE
    found, at = [], 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + body)
        found.append((kind, body))
        at += 12 + length
    return found


def decode(data: bytes) -> Array:
    file = open_file(io.BytesIO(data))
    image = next(file.frames())
    color = image.color[0 : file.size[1]]
    return color if image.alpha is None else np.dstack([color, image.alpha[:]])


def content(kind: str, shape: tuple[int, int, int], dtype: npt.DTypeLike, seed: int) -> Array:
    """Smooth as a photograph, flat as a drawing, or noise; nowhere transparent."""
    random = np.random.default_rng(seed)
    top = np.iinfo(np.dtype(dtype)).max
    height, width, channels = shape
    if kind == "noise":
        pixels = random.integers(0, top, shape, endpoint=True)
    elif kind == "flat":
        pixels = random.integers(0, 3, (height, 1, channels)).repeat(width, 1) * (top // 2)
    else:
        y, x = np.mgrid[:height, :width]
        wave = np.sin(x / 9 + random.random()) + np.cos(y / 7)
        pixels = (wave[..., None] + np.arange(channels) / 4 + 2) / 5 * top
    pixels = pixels.astype(dtype)
    if channels in (2, 4):
        pixels[..., -1] |= 1
    return pixels


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["noise", "flat", "smooth"]),
    height=st.integers(1, 40),
    width=st.integers(1, 60),
    channels=st.integers(1, 4),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    block=st.sampled_from([1, 300, 2 << 20]),
    band=st.integers(1, 41),
    seed=st.integers(0, 99),
)
def test_every_image_is_read_back_exactly(
    kind: str, height: int, width: int, channels: int, dtype: Any, block: int, band: int, seed: int
) -> None:
    pixels = content(kind, (height, width, channels), dtype, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "BLOCK_BYTES", block)
        data = encode(pixels, band=band)
    assert np.array_equal(decode(data), pixels)
    # Decoders that stop early do not look at the checksum of the whole stream: zlib does.
    body = zlib.decompress(b"".join(body for kind, body in chunks(data) if kind == b"IDAT"))
    assert len(body) == height * (1 + width * channels * pixels.dtype.itemsize)


def test_bands_and_threads_do_not_change_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "BLOCK_BYTES", 4000)
    pixels = content("smooth", (100, 70, 3), np.uint8, 1)
    one = encode(pixels, band=100, threads=1)
    assert encode(pixels, band=7, threads=3) == one


@settings(max_examples=30, deadline=None)
@given(pixel=st.sampled_from([1, 2, 3, 4, 6, 8]), seed=st.integers(0, 999), low=st.booleans())
def test_filters_are_those_of_the_specification(pixel: int, seed: int, low: bool) -> None:
    random = np.random.default_rng(seed)
    rows = random.integers(0, 4 if low else 256, (3, 6 * pixel), np.uint8)
    upper = random.integers(0, 4 if low else 256, rows.shape, np.uint8)

    def predict(kind: int, row: int, at: int) -> int:
        a = int(rows[row, at - pixel]) if at >= pixel else 0
        b = int(upper[row, at])
        c = int(upper[row, at - pixel]) if at >= pixel else 0
        if kind == 4:
            p = a + b - c
            distances = (abs(p - a), abs(p - b), abs(p - c))
            return (a, b, c)[distances.index(min(distances))]
        return (0, a, b, (a + b) // 2)[kind]

    for kind in range(5):
        expected = [
            [(int(rows[y, x]) - predict(kind, y, x)) % 256 for x in range(rows.shape[1])]
            for y in range(3)
        ]
        assert png.apply_filter(kind, rows, upper, pixel).tolist() == expected


@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_checksums_join(first: bytes, second: bytes) -> None:
    joined = png.join_adler(zlib.adler32(first), zlib.adler32(second), len(second))
    assert joined == zlib.adler32(first + second)


def test_checksums_join_at_the_modulus() -> None:
    first, second = b"\xff" * 70000, b"\xff" * 1234567
    joined = png.join_adler(zlib.adler32(first), zlib.adler32(second), len(second))
    assert joined == zlib.adler32(first + second)


@pytest.mark.parametrize("kind", ["flat", "smooth", "noise"])
def test_files_are_not_much_larger_than_pillows(kind: str) -> None:
    pixels = content(kind, (600, 800, 3), np.uint8, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    assert len(encode(pixels)) <= 1.05 * len(file.getvalue()) + 200


def test_metadata_reaches_pillow() -> None:
    exif = Image.Exif()
    exif[271] = "Maker"
    metadata = Metadata(
        exif=exif.tobytes().removeprefix(b"Exif\0\0"),
        icc=b"\0" * 16 + b"RGB " + b"\0" * 108,
        xmp="<x>ü</x>".encode(),
        density=Density(Fraction(300), Fraction(150), INCH),
        text=(
            png_text("Title", "plain"),
            png_text("Author", "Łukasz"),
            png_text("Title2", "x" * 5000),
            png_text("Titel", "Bild", "de", "Titel"),
        ),
        gamma=0.45455,
        comment=b"a remark",
    )
    image: Any = Image.open(io.BytesIO(encode(content("flat", (4, 5, 3), np.uint8, 0), metadata)))
    image.load()
    assert image.getexif()[271] == "Maker"
    assert image.info["icc_profile"] == metadata.icc
    assert image.info["xmp"] == metadata.xmp
    assert image.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    assert image.info["gamma"] == pytest.approx(0.45455)
    assert image.text["Title"] == "plain"
    assert image.text["Author"] == "Łukasz"
    assert image.text["Title2"] == "x" * 5000
    assert (image.text["Titel"], image.text["Titel"].lang) == ("Bild", "de")
    assert image.text["Comment"] == "a remark"
