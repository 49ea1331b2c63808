"""Every layout of the formats with many: read exactly, or refused by name; never a third thing.

What is right comes from tifffile and imagecodecs, which share no reader with Pillow.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import PIL
import pytest
import tifffile
from conformance import chunk
from PIL import Image

from srgan_infer.errors import ImageError
from srgan_infer.images.exif import Tree, encode_directory
from srgan_infer.images.pil_source import check_source
from srgan_infer.images.pillow import from_pil
from srgan_infer.images.read import open_file
from srgan_infer.images.tiff_rows import OTHER_CODECS

Array = npt.NDArray[Any]
PILLOW = int(PIL.__version__.split(".")[0])
SIZE = (11, 21)  # rows, columns: no multiple of a byte, a tile or a strip
RANDOM = np.random.default_rng(3)


def read(data: bytes | bytearray) -> Array | str:
    """(H, W, C) as it is read, hidden colours and all; or why not."""
    try:
        file = open_file(data)
        (image,) = file.frames()
    except ImageError as error:
        return str(error)
    rows = image.color[0 : image.color.shape[0]]
    assert rows.dtype == file.dtype
    if image.alpha is None:
        return rows
    return np.dstack([rows, image.alpha[0 : image.color.shape[0]]])


def check_pillow(
    data: bytes | bytearray, right: Array, tmp_path: Path, rounding: float = 1e-3
) -> str:
    """A PIL image of the same file is right, or said to be less, or wrong and refused.

    Returns which of them it was, ``"right"``, ``"less"``, ``"refused"``, or ``"none"`` where
    Pillow does not open the file.
    """
    path = tmp_path / "image"
    path.write_bytes(data)
    try:
        image = Image.open(path)
        image.load()
    except (OSError, ValueError):
        return "none"
    said = {source_says(image)}
    with Image.open(path) as unloaded:
        said.add(source_says(unloaded))
    with Image.open(io.BytesIO(data)) as unloaded:
        said.add(source_says(unloaded))
    assert len(said) == 1
    assert source_says(image.copy()) == "right"  # it leads nowhere any more
    (word,) = said
    if word == "refused":
        with suppress(ImageError):  # values that mean no colour
            assert distance(image, right) > 2
    else:
        assert distance(image, right) <= (rounding if word == "right" else 2), word
    return word


def source_says(image: Image.Image) -> str:
    try:
        return "less" if check_source(image) else "right"
    except ImageError as error:
        # Right but for the scale, which is tried below.
        return "right" if "floats from 0 to 1" in str(error) else "refused"


def distance(image: Image.Image, right: Array) -> float:
    """How far Pillow's pixels are from the right ones, in levels of 255."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "F":  # in memory 255 is white
        image = Image.fromarray(np.asarray(image) * np.float32(255))
    decoded, _ = from_pil(image)
    found = decoded.color[0 : decoded.color.shape[0]] / level(decoded.color.dtype)
    ideal = right / level(right.dtype)
    if decoded.alpha is not None:
        alpha = (decoded.alpha[0 : len(right)] / level(decoded.alpha.dtype))[..., None]
        # Colours that are hardly seen are hardly known.
        ideal = np.dstack([ideal[..., :-1] * alpha / 255, ideal[..., -1:]])
        found = np.dstack([found * alpha / 255, alpha])
    return float(np.abs(found - np.broadcast_to(ideal, found.shape)).max())


def level(dtype: np.dtype[Any]) -> float:
    return 1 / 255 if dtype.kind == "f" else np.iinfo(dtype).max / 255


def whole(numbers: Array, bits: int) -> Array:
    """Unsigned numbers of any depth on the full scale of 8 or 16 bits, rounded."""
    top = 255 if bits <= 8 else 65535
    scaled = np.floor(numbers.astype(float) * top / ((1 << bits) - 1) + 0.5)
    return scaled.astype(np.uint8 if bits <= 8 else np.uint16)


def numbers_of(dtype: str, channels: int) -> Array:
    """Numbers that mean a colour, and of alpha none that is 0."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (RANDOM.integers(1, 256, (*SIZE, channels)) / 256).astype(kind)
    top = min(np.iinfo(kind).max, 65535)
    return RANDOM.integers(1, top, (*SIZE, channels), endpoint=True).astype(kind)


COMPRESSIONS = (None, "lzw", "zlib", "packbits", "lzma", "zstd")
DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "float16", "float32", "float64")
# Name, channels that are read, photometric, meaning of the last channel.
KINDS = (
    ("black is 0", 1, "minisblack", None),
    ("white is 0", 1, "miniswhite", None),
    ("grey and alpha", 2, "minisblack", "unassalpha"),
    ("RGB", 3, "rgb", None),
    ("RGBA", 4, "rgb", "unassalpha"),
    ("RGB and more", 4, "rgb", "unspecified"),
    ("RGB multiplied with alpha", 4, "rgb", "assocalpha"),
)


def expected(numbers: Array, kind: str) -> Array:
    """What a layout is to be read as."""
    dtype = {"f": "float32", "u": "uint16", "i": "uint16"}[numbers.dtype.kind]
    dtype = "uint8" if numbers.dtype.itemsize == 1 else dtype
    top = {"float32": 1.0, "uint16": 65535.0, "uint8": 255.0}[dtype]
    pixels: Array = numbers.astype(dtype)
    if kind == "white is 0":
        return (top - pixels).astype(pixels.dtype)
    if kind == "RGB and more":
        return pixels[..., :3]
    if kind == "RGB multiplied with alpha":
        color = np.minimum(pixels[..., :3] * top / pixels[..., 3:], top)
        if pixels.dtype != np.float32:
            color = np.floor(color + 0.5)
        return np.concatenate([color.astype(pixels.dtype), pixels[..., 3:]], axis=2)
    return pixels


def tiff(numbers: Array, kind: tuple[str, int, str, str | None], **how: Any) -> bytes:
    _, channels, photometric, extra = kind
    stored = numbers[..., 0] if channels == 1 else numbers
    if how.get("planarconfig") == "separate":
        stored = np.ascontiguousarray(numbers.transpose(2, 0, 1))
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        stored,
        photometric=photometric,
        extrasamples=[extra] if extra else None,
        metadata=None,
        rowsperstrip=None if how.get("tile") else 4,
        **how,
    )
    return file.getvalue()


# What becomes of the PIL images of these files, uncompressed and compressed; Pillow opens no
# integers of 32 bits and more, and no floats of other than 32, in most of these layouts.
PILLOW_SAYS = {
    "uint8": ({"right"}, {"right", "refused"}),
    "uint16": ({"right", "less", "refused"}, {"right", "less"}),
    "uint32": ({"right"}, {"right"}),
    "int8": ({"right"}, {"right"}),
    "int16": ({"right"}, {"right", "refused"}),
    "float16": (set(), set()),
    "float32": ({"right", "refused"}, {"right", "refused"}),
    "float64": (set(), set()),
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts_of_tiff(dtype: str, compression: str | None, tmp_path: Path) -> None:
    words = set()
    predictors = [1] if compression in (None, "packbits") else [1, 3 if dtype[0] == "f" else 2]
    count = 0
    for order, predictor, planar, tile, kind in itertools.product(
        "<>", predictors, ("contig", "separate"), (None, (16, 16)), KINDS
    ):
        if planar == "separate" and kind[1] == 1:
            continue
        numbers = numbers_of(dtype, kind[1])
        data = tiff(
            numbers,
            kind,
            byteorder=order,
            compression=compression,
            predictor=predictor,
            planarconfig=planar if kind[1] > 1 else None,
            tile=tile,
        )
        found = read(data)
        where = (order, predictor, planar, tile, kind[0])
        assert isinstance(found, np.ndarray), (where, found)
        right = expected(numbers, kind[0])
        assert found.dtype == right.dtype, where
        if dtype[0] == "f" and kind[0] == "RGB multiplied with alpha":
            assert np.allclose(found, right, rtol=0, atol=1e-6), where
        else:
            assert np.array_equal(found, right), where
        if tile is None or dtype == "uint16":
            rounding = 1 if kind[0] == "RGB multiplied with alpha" else 1e-3
            words.add(check_pillow(data, right, tmp_path, rounding))
        count += 1
    assert count >= 48
    assert words - {"none"} == PILLOW_SAYS[dtype][compression is not None]


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_cmyk_of_tiff(dtype: str, planar: str, compression: str | None) -> None:
    """Through Pillow's plain conversion of 8 bits, with transparency where there is any."""
    for extra, channels in ((None, 3), ("unassalpha", 4), ("assocalpha", 4), ("unspecified", 3)):
        numbers = numbers_of(dtype, 4 if extra is None else 5)
        if extra == "assocalpha":
            numbers[..., :4] = np.minimum(numbers[..., :4], numbers[..., 4:])
        kind = ("CMYK", numbers.shape[2], "separated", extra)
        found = read(tiff(numbers, kind, planarconfig=planar, compression=compression))
        assert isinstance(found, np.ndarray), found
        assert found.shape[2] == channels
        assert found.dtype == np.uint8
        inks = numbers[..., :4].astype(float)
        if extra == "assocalpha":
            inks = np.floor(inks * np.iinfo(dtype).max / numbers[..., 4:] + 0.5)
        inks = np.floor(inks * 255 / np.iinfo(dtype).max + 0.5).astype(np.uint8)
        plain = Image.frombytes("CMYK", SIZE[::-1], inks.tobytes())
        seen = np.ones(SIZE, bool)
        if channels == 4:
            alpha = np.floor(numbers[..., 4] * (255 / np.iinfo(dtype).max) + 0.5)
            assert np.array_equal(found[..., 3], alpha)
            seen = alpha > 0
        assert np.array_equal(found[seen][:, :3], np.asarray(plain.convert("RGB"))[seen])


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_what_a_sparse_tiff_leaves_out_is_0(compression: str | None, tile: Any) -> None:
    numbers = RANDOM.integers(1, 256, (40, 40, 3)).astype(np.uint8)
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        numbers,
        photometric="rgb",
        metadata=None,
        tile=tile,
        rowsperstrip=None if tile else 16,
        compression=compression,
    )
    data = bytearray(file.getvalue())
    places, lengths = (324, 325) if tile else (273, 279)
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        tags = opened.pages.first.tags
        for tag in (tags[places], tags[lengths]):
            code = {3: "<H", 4: "<I"}[int(tag.dtype)]
            for number in (0, 2):
                struct.pack_into(code, data, tag.valueoffset + number * struct.calcsize(code), 0)
    right = numbers.copy()
    if tile:
        right[:16, :16] = right[:16, 32:] = 0
    else:
        right[:16] = right[32:] = 0
    assert np.array_equal(read(data), right)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_webp_in_tiff(order: str, tile: tuple[int, int] | None) -> None:
    for kind in KINDS[3:]:
        numbers = numbers_of("uint8", 3 if kind[0] == "RGB" else 4)
        data = tiff(
            numbers,
            kind,
            byteorder=order,
            tile=tile,
            compression="webp",
            compressionargs={"lossless": True, "level": 100},
        )
        assert np.array_equal(read(data), expected(numbers, kind[0])), kind


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
def test_damaged_strips_of_tiff_are_refused_without_a_line_on_stderr(
    compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(tiff(numbers_of("uint16", 3), KINDS[3], compression=compression))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        start, length = file.pages[0].dataoffsets[1], file.pages[0].databytecounts[1]
    for at in (start + 1, start + length // 2, start + length - 2):
        damaged = data.copy()
        damaged[at] ^= 0x55
        assert "it is damaged: a strip or tile cannot be unpacked" in str(read(damaged))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
@pytest.mark.parametrize("missing", ["a pixel", "half of the bytes"])
def test_strips_of_tiff_that_are_cut_are_refused(compression: str, missing: str) -> None:
    pixels = numbers_of("uint8", 1).tobytes()
    pack = imagecodecs.zlib_encode if compression == "zlib" else imagecodecs.lzma_encode
    number = 8 if compression == "zlib" else 34925
    packed = bytes(pack(pixels))
    kept = bytes(pack(pixels[:-1])) if missing == "a pixel" else packed[: len(packed) // 2]
    assert "it is cut short" in str(read(raw_tiff(kept, {259: [number]})))


def test_bits_in_the_other_order_are_turned_before_they_are_unpacked() -> None:
    numbers = numbers_of("uint8", 1)
    packed = np.frombuffer(bytes(imagecodecs.zlib_encode(numbers.tobytes())), np.uint8)
    turned = np.packbits(np.unpackbits(packed[:, None], axis=1)[:, ::-1], axis=1).tobytes()
    # Without its checksum all pixels are there.
    for data in (turned, turned[:-4]):
        assert np.array_equal(read(raw_tiff(data, {259: [8], 266: [2]})), numbers)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_jpeg_in_tiff(planar: str, tile: tuple[int, int] | None) -> None:
    """Grey and transparency in planes, which Pillow mixes up, are refused; others are near."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    smooth = np.dstack([x * 9, y * 12, (x + y) * 6, 255 - x * 4]).astype(np.uint8)
    for kind in KINDS[:6]:
        channels = 1 + (kind[2] == "rgb") * 2 + (kind[3] is not None)
        if channels == (4 if planar == "contig" else 1):
            continue  # which tifffile does not write
        data = tiff(
            smooth[..., :channels],
            kind,
            planarconfig=planar if channels > 1 else None,
            tile=tile,
            compression="jpeg",
            compressionargs={"level": 100},
        )
        found = read(data)
        if planar == "separate" and kind[0] == "grey and alpha":
            assert isinstance(found, str)
            assert "grey and transparency in compressed planes" in found
            continue
        theirs = tifffile.imread(io.BytesIO(data))
        if planar == "separate":
            theirs = theirs.transpose(1, 2, 0)
        right = expected(theirs.reshape(*SIZE, -1), kind[0])
        assert isinstance(found, np.ndarray), (kind, found)
        assert np.abs(found.astype(int) - right).max() < 8, kind


@pytest.mark.parametrize("scale", [1, 255])
def test_floats_of_a_pil_image_are_those_of_its_file(scale: int) -> None:
    """By Pillow's rule white is 255; where the file's is 1, its path has to be given."""
    numbers = numbers_of("float32", 1) * np.float32(scale)
    with Image.open(io.BytesIO(tiff(numbers, KINDS[0]))) as image:
        if scale == 1:
            with pytest.raises(ImageError, match=r"floats from 0 to 1, .* pass the path"):
                check_source(image)
        else:
            assert check_source(image) == ()


@pytest.mark.parametrize("bits", range(1, 65))
def test_bits_of_tiff(bits: int, tmp_path: Path) -> None:
    for channels, photometric in ((1, "minisblack"), (1, "miniswhite"), (3, "rgb")):
        numbers = RANDOM.integers(0, 1 << min(bits, 16), (*SIZE, channels), dtype=np.uint32)
        packed = packed_rows(numbers, bits)
        tags = {
            258: [bits] * channels,
            262: [{"miniswhite": 0, "minisblack": 1, "rgb": 2}[photometric]],
        }
        found = read(raw_tiff(packed, tags))
        if isinstance(found, str):
            assert bits not in (*range(1, 17), 32, 64), found
            assert f"integers of {bits} bits" in found
            continue
        right = whole(numbers, bits) if bits <= 16 else numbers.astype(np.uint16)
        if photometric == "miniswhite":
            right = np.iinfo(right.dtype).max - right
        assert np.array_equal(found, right)
        check_pillow(raw_tiff(packed, tags), right, tmp_path)
        if bits <= 32:  # as much as tifffile unpacks
            theirs = tifffile.imread(io.BytesIO(raw_tiff(packed, tags))).reshape(numbers.shape)
            assert np.array_equal(theirs, numbers)


def packed_rows(numbers: Array, bits: int) -> bytes:
    """Numbers of any number of bits, rows padded to bytes; little-endian where they are whole."""
    if bits in (8, 16, 32, 64):
        return numbers.astype(f"<u{bits // 8}").tobytes()
    flat = numbers.reshape(len(numbers), -1).astype(np.uint64)
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint64)
    single = ((flat[..., None] >> shifts) & np.uint64(1)).astype(np.uint8)
    return np.packbits(single.reshape(len(flat), -1), axis=1).tobytes()


def raw_tiff(data: bytes, tags: dict[int, list[int]]) -> bytes:
    """One strip of bytes with the tags that are said."""
    plain = {256: [SIZE[1]], 257: [SIZE[0]], 258: [8], 259: [1], 262: [1], 278: [SIZE[0]]} | tags
    plain |= {277: [len(plain[258])], 273: [8], 279: [len(data)]}
    tree: Tree = {
        tag: (
            4 if max(values) > 65535 else 3,
            len(values),
            struct.pack(f"<{len(values)}{'I' if max(values) > 65535 else 'H'}", *values),
        )
        for tag, values in plain.items()
    }
    padded = data + bytes(len(data) % 2)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(padded)) + padded
    return head + encode_directory(tree, len(head))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("scale", [1, 256, 257, 123])
def test_palettes_of_tiff(bits: int, scale: int, tmp_path: Path) -> None:
    colors = RANDOM.integers(0, 256, (3, 1 << bits)) * scale
    indices = RANDOM.integers(0, 1 << bits, (*SIZE, 1))
    tags = {258: [bits], 262: [3], 320: colors.ravel().tolist()}
    packed = packed_rows(indices.astype(np.uint32), bits)
    found = read(raw_tiff(packed, tags))
    assert isinstance(found, np.ndarray), found
    right = colors.T[indices[..., 0]]
    if found.dtype == np.uint8:  # as said by its largest value: 255, or a byte in both halves
        assert scale != 123 or colors.max() < 256
        assert np.array_equal(found, right // (1 if colors.max() < 256 else scale))
    else:
        assert np.array_equal(found, right)
    # Which halves every value, and has only black where it is of 8 bits.
    word = check_pillow(raw_tiff(packed, tags), found, tmp_path, 1)
    assert word in ("none", "refused" if scale == 1 else "right")


@pytest.mark.parametrize("compression", [1, 5])
def test_ycbcr_of_tiff_is_within_a_level(compression: int) -> None:
    numbers = RANDOM.integers(30, 220, (*SIZE, 3)).astype(np.uint8)
    data = numbers.tobytes()
    stored = imagecodecs.lzw_encode(data) if compression == 5 else data
    found = read(raw_tiff(bytes(stored), {258: [8] * 3, 259: [compression], 262: [6], 530: [1, 1]}))
    if compression == 1 and PILLOW < 13 and isinstance(found, str):
        return  # refused: earlier releases count the rows of uncompressed YCbCr wrongly
    assert isinstance(found, np.ndarray), found
    # Recommendation ITU-R BT.601 with full range, as JPEG has it.
    y, cb, cr = (numbers[..., channel].astype(float) for channel in range(3))
    cb, cr = cb - 128, cr - 128
    planes = [y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb]
    assert np.abs(found - np.clip(np.dstack(planes), 0, 255)).max() <= 1.5


def test_bits_in_the_other_order() -> None:
    numbers = RANDOM.integers(0, 2, (*SIZE, 1), dtype=np.uint32)
    packed = packed_rows(numbers, 1)
    turned = np.packbits(np.unpackbits(np.frombuffer(packed, np.uint8)[:, None], axis=1)[:, ::-1])
    found = read(raw_tiff(turned.tobytes(), {258: [1], 266: [2]}))
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, numbers * 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_orientation_of_tiff(orientation: int, dtype: str) -> None:
    numbers = numbers_of(dtype, 3)
    data = tiff(numbers, KINDS[3], extratags=[(274, 3, 1, orientation, True)])
    found = read(data)
    right = numbers.swapaxes(0, 1) if orientation > 4 else numbers
    right = right[::-1] if orientation in (3, 4, 7, 8) else right
    right = right[:, ::-1] if orientation in (2, 3, 6, 7) else right
    assert np.array_equal(found, right)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_big_tiff(order: str, dtype: str) -> None:
    numbers = numbers_of(dtype, 3)
    found = read(tiff(numbers, KINDS[3], byteorder=order, bigtiff=True, compression="lzw"))
    assert np.array_equal(found, numbers)


def test_one_large_strip_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgan_infer.images.tiff_rows.GROUP_BYTES", 300)
    for planar in ("contig", "separate"):
        numbers = numbers_of("uint16", 3)
        stored = numbers if planar == "contig" else numbers.transpose(2, 0, 1).copy()
        file = io.BytesIO()
        tifffile.imwrite(file, stored, photometric="rgb", planarconfig=planar, rowsperstrip=11)
        assert np.array_equal(read(file.getvalue()), numbers)


def others() -> Iterator[tuple[str, dict[int, list[int]], str]]:
    """Layouts that are not read, and the word by which each is refused."""
    rgb = {258: [8, 8, 8], 262: [2]}
    for number, name in OTHER_CODECS.items():
        raw = number in (32767, 32769, 32770, 34713, 65000, 65535)
        kind = rgb if number != 50001 else {262: [1]}  # of RGB it is read
        yield f"compression {number}", kind | {259: [number]}, "camera raw" if raw else name
    yield "compression 9", rgb | {259: [9]}, "number 9 compression"
    for number, name in (
        (4, "transparency mask"),
        (9, "ICC Lab"),
        (10, "ITU Lab"),
        (77, "kind 77"),
    ):
        yield f"photometric {number}", {262: [number]}, name
    yield "colour filter array", {262: [32803]}, "camera raw"
    yield "DNG", rgb | {50706: [1]}, "camera raw"
    yield "LogLuv", {262: [32845]}, "LogLuv"
    yield "complex", {258: [64], 339: [6]}, "complex"
    yield "float24", {258: [24], 339: [3]}, "floating point of 24 bits"
    yield "int12", {258: [12], 339: [2]}, "signed integers of 12 bits"
    yield "mixed depths", {258: [5, 6, 5], 262: [2]}, "differ in depth"
    yield "YCbCr of 16 bits", {258: [16] * 3, 262: [6]}, "YCbCr"
    yield "YCbCr with thinned colours", {258: [8] * 3, 262: [6], 530: [2, 2]}, "thinned colours"
    yield "Lab of 16 bits", {258: [16] * 3, 262: [8]}, "CIE Lab"
    yield "JPEG of 12 bits", {258: [12] * 3, 262: [6], 259: [7]}, "JPEG"
    yield "predictor of 12 bits", {258: [12], 259: [5], 317: [2]}, "predictor 2"
    yield "palette of float", {258: [32], 262: [3], 339: [3]}, "palette"
    yield "CMYK of float", {258: [32] * 4, 262: [5], 339: [3] * 4}, "CMYK"


@pytest.mark.parametrize(("tags", "word"), [pytest.param(t, w, id=name) for name, t, w in others()])
def test_other_tiffs_are_refused_by_name(tags: dict[int, list[int]], word: str) -> None:
    found = read(raw_tiff(bytes(SIZE[0] * SIZE[1] * 8), tags))
    assert isinstance(found, str)
    assert word in found
    assert "damaged" not in found


@pytest.mark.parametrize("inner", [{262: 32803}, {259: 34713}, {259: 32767}, {262: 34892}])
def test_a_camera_raw_file_is_not_its_thumbnail(inner: dict[int, int], tmp_path: Path) -> None:
    """As in NEF and ARW: a small RGB image, and what the sensor saw in a directory inside."""
    pixels = bytes(SIZE[0] * SIZE[1] * 3)
    sensor: Tree = {
        tag: (3, 1, struct.pack("<H", value))
        for tag, value in ({256: 320, 257: 240, 258: 14, 259: 1, 277: 1} | inner).items()
    }
    thumbnail = raw_tiff(pixels, {258: [8] * 3, 262: [2], 330: [0]})
    place = len(thumbnail) + len(thumbnail) % 2
    at = thumbnail.index(struct.pack("<HHI", 330, 3, 1))
    pointer = struct.pack("<HHII", 330, 4, 1, place)
    data = thumbnail[:at] + pointer + thumbnail[at + 12 :]
    data = data.ljust(place, b"\0") + encode_directory(sensor, place)
    assert "camera raw file; develop it first" in str(read(data))
    with Image.open(io.BytesIO(data)) as image, pytest.raises(ImageError, match="camera raw file"):
        check_source(image)


@pytest.mark.parametrize(
    ("dtype", "value", "sentence"),
    [
        ("int16", -1, "signed values leave the range 0 to 65535"),
        ("int8", -1, "signed values leave the range 0 to 255"),
        ("uint32", 65536, "32-bit values leave the range 0 to 65535"),
        ("float32", 1.5, "float values leave the range 0 to 1"),
        ("float64", np.nan, "float values leave the range 0 to 1"),
    ],
)
def test_values_that_mean_no_colour(dtype: str, value: float, sentence: str) -> None:
    numbers = numbers_of(dtype, 3)
    numbers[5, 6, 1] = value
    found = read(tiff(numbers, KINDS[3], compression="zlib"))
    assert isinstance(found, str)
    assert sentence in found


@pytest.mark.parametrize(("color", "bits"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16)])
def test_a_transparent_colour_of_a_loaded_png(color: int, bits: int, tmp_path: Path) -> None:
    """Pillow brings grey to 8 bits but not the one that is transparent."""
    numbers = RANDOM.integers(0, 1 << bits, (*SIZE, 1), dtype=np.uint32)
    rows = packed_rows(numbers, bits) if bits < 16 else numbers.astype(">u2").tobytes()
    rows = b"".join(b"\0" + row.tobytes() for row in np.frombuffer(rows, np.uint8).reshape(11, -1))
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", SIZE[1], SIZE[0], bits, color, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", int(numbers[3, 4, 0]))),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    right = read(data)
    assert isinstance(right, np.ndarray)
    path = tmp_path / "image.png"
    path.write_bytes(data)
    for loaded in (False, True):
        with Image.open(path) as image:
            if loaded:
                image.load()
            if loaded and bits in (2, 4):
                with pytest.raises(ImageError, match=r"transparent colour.*pass the path"):
                    check_source(image)
                continue
            assert check_source(image) == ()
            assert distance(image, right) < 1e-3


# JPEG 2000, AVIF, HEIF and JPEG XL, with and without the libraries that read their depths.


@pytest.fixture(params=[True, False], ids=["all libraries", "Pillow alone"])
def with_libraries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        find = importlib.util.find_spec

        def find_less(name: str, *rest: Any) -> Any:
            absent = name in ("imagecodecs", "pillow_heif", "pillow_jxl")
            return None if absent else find(name, *rest)

        monkeypatch.setattr(importlib.util, "find_spec", find_less)
    return bool(request.param)


def check(
    data: bytes | bytearray, numbers: Array, bits: int, refused: str | None, tmp_path: Path
) -> None:
    """Exact, or refused with the words that are expected."""
    found = read(data)
    if refused is not None:
        assert isinstance(found, str)
        assert refused in found
        assert "srgan-infer[formats]" in found
        return
    assert isinstance(found, np.ndarray), found
    right = whole(numbers, bits)
    assert found.dtype == right.dtype
    # Grey may come as RGB: older Pillow knows no grey AVIF.
    assert np.array_equal(found, np.broadcast_to(right.reshape(*SIZE, -1), found.shape))
    check_pillow(data, found, tmp_path)


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("container", ["jp2", "j2k"])
def test_precisions_of_jpeg_2000(
    bits: int, container: str, with_libraries: bool, tmp_path: Path
) -> None:
    for channels in (1, 2, 3, 4):
        shape = SIZE if channels == 1 else (*SIZE, channels)
        numbers = RANDOM.integers(1, (1 << bits) - 1, shape, endpoint=True)
        numbers[5] = (1 << bits) - 1  # white, which Pillow makes black
        data = imagecodecs.jpeg2k_encode(
            numbers.astype(np.uint8 if bits <= 8 else np.uint16),
            level=0,
            reversible=True,
            bitspersample=bits,
            codecformat=container,
        )
        # Pillow takes grey of 9 bits in a JP2 file for one of 8.
        theirs = bits <= 8 or (channels == 1 and not (bits == 9 and container == "jp2"))
        refused = None if theirs or with_libraries else f"JPEG 2000 with {bits} bits"
        check(data, numbers, bits, refused, tmp_path)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_depths_of_avif(bits: int, with_libraries: bool, tmp_path: Path) -> None:
    for channels in (1, 3, 4):
        shape = SIZE if channels == 1 else (*SIZE, channels)
        numbers = RANDOM.integers(1, (1 << bits) - 1, shape, endpoint=True)
        data = imagecodecs.avif_encode(
            numbers.astype(np.uint8 if bits == 8 else np.uint16),
            level=100,
            speed=10,
            bitspersample=bits,
        )
        refused = None if bits == 8 or with_libraries else f"AVIF with {bits} bits"
        check(data, numbers, bits, refused, tmp_path)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_depths_of_jpeg_xl(bits: int, with_libraries: bool, tmp_path: Path) -> None:
    for channels in (1, 2, 3, 4):
        shape = SIZE if channels == 1 else (*SIZE, channels)
        numbers = RANDOM.integers(1, (1 << bits) - 1, shape, endpoint=True)
        data = imagecodecs.jpegxl_encode(
            numbers.astype(np.uint8 if bits == 8 else np.uint16), lossless=True, bitspersample=bits
        )
        check(data, numbers, bits, None if with_libraries else "JPEG XL", tmp_path)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_depths_of_heif(
    bits: int, with_libraries: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import pillow_heif as heif

    monkeypatch.setattr(heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    numbers = RANDOM.integers(1, (1 << bits) - 1, (*SIZE, 3), endpoint=True)
    stored = numbers.astype(np.uint8) if bits == 8 else (numbers << (16 - bits)).astype(np.uint16)
    mode = "RGB" if bits == 8 else "RGB;16"
    file = io.BytesIO()
    image = heif.from_bytes(mode=mode, size=SIZE[::-1], data=stored.tobytes())
    image.save(file, quality=-1, chroma=444, matrix_coefficients=0)
    check(file.getvalue(), numbers, bits, None if with_libraries else "HEIC", tmp_path)


@pytest.mark.parametrize(
    ("encode", "word"),
    [
        (lambda a: imagecodecs.jpeg_encode(a.astype(np.uint16) * 16, bitspersample=12), "12 bits"),
        (lambda a: imagecodecs.jpegls_encode(a), "JPEG-LS"),
        (
            lambda a: imagecodecs.ljpeg_encode(a[..., 0].astype(np.uint16), bitspersample=12),
            "12 bits",
        ),
        (lambda a: imagecodecs.jpegxr_encode(a), "JPEG XR"),
    ],
)
def test_other_jpegs_are_refused_by_name(
    encode: Callable[[Array], bytes | bytearray], word: str
) -> None:
    found = read(encode(numbers_of("uint8", 3)))
    assert isinstance(found, str)
    assert word in found
    assert "damaged" not in found


def test_lossless_jpeg_of_8_bits_is_exact() -> None:
    numbers = numbers_of("uint8", 3)
    assert np.array_equal(read(imagecodecs.jpeg_encode(numbers, lossless=True)), numbers)
