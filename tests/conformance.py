"""Image files of every kind, made in a second, and broken ones of each.

A made file carries the pixels that it must be read as, where the format loses nothing.
"""

from __future__ import annotations

import io
import itertools
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, features

Array = npt.NDArray[Any]

WIDTH, HEIGHT = 19, 13
ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4)),
    *((1, 0, 2, 2), (0, 1, 1, 2)),
)
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
PNG_TYPES = {
    GREY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGBA: (8, 16),
}
PNG_SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}


@dataclass(frozen=True)
class Made:
    """One file.

    Attributes
    ----------
    name
        What is special, with the usual file name ending.
    data
        The file.
    pixels
        (H, W, C) as it must be read, alpha last; None if the format loses something.
    frames
        How many there are.
    """

    name: str
    data: bytes
    pixels: Array | None = None
    frames: int = 1


def picture(channels: int = 3, shift: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Array:
    """(H, W, channels) uint8 with slopes, an edge and every channel different."""
    y, x = np.mgrid[: size[1], : size[0]]
    planes = [x * 13, y * 17, (x + y) * 7, 255 - x * 5 - y]
    pixels = np.dstack([(plane + 31 * shift) % 256 for plane in planes]).astype(np.uint8)
    pixels[3:8, 4:9] = (250, 10, 120, 255)
    return np.ascontiguousarray(pixels[..., :channels])


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    values: Array, color: int, bits: int, interlaced: bool, extra: tuple[tuple[bytes, bytes], ...]
) -> bytes:
    """A PNG file of (H, W, samples) numbers, every row with another filter."""
    parts = ADAM7 if interlaced else ((0, 0, 1, 1),)
    raw = b"".join(
        _png_rows(values[top::down, left::right], bits)
        for left, top, right, down in parts
        if values[top::down, left::right].size
    )
    height, width = values.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def _png_rows(values: Array, bits: int) -> bytes:
    """Rows of one pass, filtered by none, sub, up, average and Paeth in turn."""
    height = len(values)
    if bits == 16:
        rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    elif bits == 8:
        rows = values.astype(np.uint8).reshape(height, -1)
    else:
        single = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        rows = np.packbits(single.reshape(height, -1), axis=1)
    step = max(values.shape[2] * bits // 8, 1)
    before = np.zeros_like(rows[0])
    out = b""
    for index, row in enumerate(rows):
        left, corner = (
            np.concatenate([np.zeros(step, np.uint8), r[:-step]]) for r in (row, before)
        )
        wide = [part.astype(int) for part in (left, before, corner)]
        guess = wide[0] + wide[1] - wide[2]
        distance = np.abs(guess - np.stack(wide))
        paeth = np.choose(distance.argmin(axis=0), [left, before, corner])
        kinds = [0, left, before, (wide[0] + wide[1]) // 2, paeth]
        kind = index % 5
        out += bytes([kind]) + ((row.astype(int) - kinds[kind]) % 256).astype(np.uint8).tobytes()
        before = row
    return out


def pngs() -> Iterator[Made]:
    """Every type of PNG, straight and interlaced, with and without a transparent colour."""
    source = np.random.default_rng(1)
    for color, depths in PNG_TYPES.items():
        for bits, interlaced, transparent in itertools.product(depths, (False, True), (0, 1)):
            if transparent and color in (GREY_ALPHA, RGBA):
                continue
            values = source.integers(0, 1 << bits, (HEIGHT, WIDTH, PNG_SAMPLES[color]))
            top = 65535 if bits == 16 else 255
            pixels = (values * (top // ((1 << bits) - 1))).astype(np.uint16 if top > 255 else "u1")
            extra: list[tuple[bytes, bytes]] = []
            seen = np.full((HEIGHT, WIDTH, 1), top, pixels.dtype)
            if color == PALETTE:
                colors = source.integers(0, 256, (1 << bits, 3), np.uint8)
                opacity = source.integers(0, 256, 1 << bits, np.uint8)
                extra.append((b"PLTE", colors.tobytes()))
                pixels, seen = colors[values[..., 0]], opacity[values]
                if transparent:
                    extra.append((b"tRNS", opacity.tobytes()))
            elif transparent:
                key = values[2, 3]
                extra.append((b"tRNS", key.astype(">u2").tobytes()))
                seen = seen * (values != key).any(axis=2, keepdims=True)
            if transparent:
                pixels = np.concatenate([pixels, seen.astype(pixels.dtype)], axis=2)
            name = f"type{color}-{bits}{'-interlaced' * interlaced}{'-transparent' * transparent}"
            yield Made(f"{name}.png", png(values, color, bits, interlaced, tuple(extra)), pixels)


def tiffs() -> Iterator[Made]:
    """A choice of layouts; the sweep in test_sweep.py has them all."""
    deep = np.random.default_rng(2).integers(0, 65536, (HEIGHT, WIDTH, 4), np.uint16)
    options: list[tuple[str, Array, dict[str, Any]]] = [
        ("grey", picture(1), {}),
        ("rgb-lzw", picture(3), {"compression": "lzw", "predictor": 2}),
        ("rgb-planar", picture(3), {"planarconfig": "separate", "compression": "zlib"}),
        ("rgba", picture(4), {"extrasamples": ["unassalpha"], "compression": "packbits"}),
        ("rgb16-planar", deep[..., :3], {"planarconfig": "separate"}),
        ("rgb16-big-endian", deep[..., :3], {"byteorder": ">", "compression": "lzw"}),
        ("rgba16-tiles", deep, {"extrasamples": ["unassalpha"], "tile": (16, 16)}),
        ("bigtiff", picture(3), {"bigtiff": True}),
        ("float", picture(3) / np.float32(255), {"compression": "zlib", "predictor": 3}),
    ]
    for name, pixels, how in options:
        stored = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        if how.get("planarconfig") == "separate":
            stored = np.ascontiguousarray(stored.transpose(2, 0, 1))
        file = io.BytesIO()
        kind = "minisblack" if pixels.shape[2] == 1 else "rgb"
        tifffile.imwrite(file, stored, photometric=kind, metadata=None, rowsperstrip=5, **how)
        yield Made(f"{name}.tif", file.getvalue(), pixels)
    for name, mode, compression in [
        ("fax", "1", "group4"),
        ("jpeg", "RGB", "jpeg"),
        ("palette", "P", "tiff_lzw"),
        ("cmyk", "CMYK", "raw"),
        ("lab", "LAB", "raw"),
    ]:
        image = Image.fromarray(picture()).convert(mode) if mode != "LAB" else None
        image = image or Image.frombytes("LAB", (WIDTH, HEIGHT), picture().tobytes())
        yield Made(f"{name}.tif", saved(image, "TIFF", compression=compression))


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    """What Pillow writes."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def stills() -> Iterator[Made]:
    """Every other still format, in the kinds that Pillow writes."""
    color, alpha = Image.fromarray(picture(3)), Image.fromarray(picture(4))
    grey = Image.fromarray(picture(1)[..., 0])
    for sampling, progressive in itertools.product(("4:4:4", "4:2:2", "4:2:0"), (False, True)):
        how = {"subsampling": sampling, "progressive": progressive}
        yield Made(f"{sampling.replace(':', '')}-{progressive}.jpg", saved(color, "JPEG", **how))
    yield Made("grey.jpg", saved(grey, "JPEG"))
    yield Made("cmyk.jpg", saved(color.convert("CMYK"), "JPEG"))
    yield Made("restart.jpg", saved(color, "JPEG", restart_marker_blocks=1))
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[274] = turn
        yield Made(f"turned{turn}.jpg", saved(color, "JPEG", exif=exif))
    for mode, depth in (("1", 1), ("L", 8), ("P", 8), ("RGB", 24), ("RGBA", 32)):
        source = alpha if mode == "RGBA" else color
        exact = np.asarray(source.convert(mode).convert("L" if mode in "1L" else "RGB"))
        exact = exact[..., None] if exact.ndim == 2 else exact
        yield Made(
            f"{depth}-{mode}.bmp",
            saved(source.convert(mode), "BMP"),
            exact if mode != "RGBA" else None,
        )
    yield Made("binary.ppm", saved(color, "PPM"), picture(3))
    yield Made("binary.pgm", saved(grey, "PPM"), picture(1))
    yield Made("plain.ppm", _plain_ppm(picture(3), 255), picture(3))
    wide = picture(3).astype(np.uint16) * 257
    yield Made("plain16.ppm", _plain_ppm(wide, 65535), wide)
    yield Made("deep.ppm", b"P6 19 13 65535\n" + wide.astype(">u2").tobytes(), wide)
    yield Made(
        "deep.pgm", b"P5 19 13 65535\n" + wide[..., :1].astype(">u2").tobytes(), wide[..., :1]
    )
    for name, image in (("rgb", color), ("rgba", alpha), ("grey", grey)):
        exact = np.asarray(image).reshape(HEIGHT, WIDTH, -1)
        for compression in (None, "tga_rle"):
            data = saved(image, "TGA", compression=compression)
            yield Made(f"{name}-{compression}.tga", data, exact)
    yield Made("rgb.pcx", saved(color, "PCX"), picture(3))
    yield Made("rgba.dds", saved(alpha, "DDS"), picture(4))
    yield Made("rgb.qoi", _qoi(picture(3)), picture(3))
    yield Made("merged.psd", psd(picture(3)), picture(3))
    small = Image.fromarray(picture(4, size=(16, 16)))
    yield Made("png.ico", saved(small, "ICO", sizes=[(16, 16)]), np.asarray(small))
    yield Made(
        "bmp.ico", saved(small, "ICO", sizes=[(16, 16)], bitmap_format="bmp"), np.asarray(small)
    )
    yield Made("icon.icns", saved(Image.fromarray(picture(4, size=(128, 128))), "ICNS"))
    if features.check("webp"):
        yield Made("lossless.webp", saved(alpha, "WEBP", lossless=True, exact=True), picture(4))
        yield Made("lossy.webp", saved(color, "WEBP"))
    if features.check("avif"):
        yield Made("rgb.avif", saved(color, "AVIF"))
        yield Made("rgba.avif", saved(alpha, "AVIF"))
    if features.check("jpg_2000"):
        for channels, name in ((1, "grey"), (3, "rgb"), (4, "rgba")):
            pixels = picture(channels)
            image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
            yield Made(f"{name}.jp2", saved(image, "JPEG2000"), pixels)
            yield Made(f"{name}.j2k", saved(image, "JPEG2000", no_jp2=True), pixels)


def _plain_ppm(pixels: Array, top: int) -> bytes:
    numbers = " ".join(map(str, pixels.ravel()))
    return f"P3 # a comment\n{pixels.shape[1]} {pixels.shape[0]}\n{top}\n{numbers}\n".encode()


def _qoi(pixels: Array) -> bytes:
    """Every pixel as it is; the format allows more."""
    body = b"".join(b"\xfe" + pixel.tobytes() for pixel in pixels.reshape(-1, 3))
    head = struct.pack(">4sIIBB", b"qoif", pixels.shape[1], pixels.shape[0], 3, 0)
    return head + body + bytes(7) + b"\1"


def psd(pixels: Array, *, depth: int = 8, merged: bool = True, version: int = 1) -> bytes:
    """A Photoshop document without layers; its version resource says what is merged."""
    height, width, channels = pixels.shape
    info = struct.pack(">I?", 1, merged) + bytes(12)
    resource = b"8BIM" + struct.pack(">HHI", 1057, 0, len(info)) + info + bytes(len(info) % 2)
    head = struct.pack(">4sH6xHIIHH", b"8BPS", version, channels, height, width, depth, 3)
    planes = pixels.transpose(2, 0, 1).astype(f">u{depth // 8}")
    return (
        head + bytes(4) + struct.pack(">I", len(resource)) + resource + bytes(6) + planes.tobytes()
    )


def animations() -> Iterator[Made]:
    """Frames with every way to make room for the next one."""
    opaque = [Image.fromarray(picture(3, shift)) for shift in range(3)]
    holes = [Image.fromarray(picture(4, shift)) for shift in range(3)]
    for frame in holes:
        frame.putalpha(frame.getchannel("A").point([0] * 128 + [255] * 128))
    for disposal in range(4):
        how: dict[str, Any] = {"save_all": True, "duration": [40, 60, 80], "loop": 3}
        for name, (first, *others) in (("opaque", opaque), ("holes", holes)):
            data = saved(first, "GIF", append_images=others, disposal=disposal, **how)
            yield Made(f"{name}{disposal}.gif", data, frames=3)
    for disposal, blend in itertools.product(range(3), range(2)):
        first, *others = holes
        data = saved(first, "PNG", append_images=others, disposal=disposal, blend=blend, **how)
        yield Made(f"dispose{disposal}-blend{blend}.apng", data, frames=3)
    first, *others = opaque
    data = saved(first, "PNG", append_images=others, default_image=True, save_all=True)
    yield Made("default-image.apng", data, frames=2)
    if features.check("webp"):
        for lossless in (False, True):
            data = saved(first, "WEBP", append_images=others, lossless=lossless, **how)
            yield Made(f"animated-{lossless}.webp", data, frames=3)
    if features.check("avif"):
        data = saved(first, "AVIF", append_images=others, save_all=True, duration=40)
        yield Made("animated.avif", data, frames=3)


@cache
def sound() -> tuple[Made, ...]:
    """All of them."""
    return (*pngs(), *tiffs(), *stills(), *animations())


def cut(data: bytes) -> Iterator[tuple[str, bytes]]:
    """A file that ends too early."""
    for kept in (0.3, 0.6, 0.9):
        yield f"cut at {kept}", data[: int(len(data) * kept)]


def flipped(data: bytes, count: int = 6) -> Iterator[tuple[str, bytes]]:
    """A file with one bit the other way round, in its first half mostly."""
    places = random.Random(len(data))
    for _ in range(count):
        place = int(len(data) * places.random() ** 2)
        bit = 1 << places.randrange(8)
        changed = bytearray(data)
        changed[place] ^= bit
        yield f"bit {bit} of byte {place}", bytes(changed)
