"""HEIC and JPEG XL: turned once, and with their EXIF, XMP and profile."""

from __future__ import annotations

import importlib.util
import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms
from test_metadata import DETAILS, PLAIN, block, held, number, packet_with, through, tree_of

from srgan_infer import ImageError, ImageWarning, SuperResolver
from srgan_infer.cli.main import main
from srgan_infer.images import exif
from srgan_infer.images.blocks import read_blocks
from srgan_infer.images.pillow import upright
from srgan_infer.images.read import open_file

SIZE = (24, 16)
PACKET = packet_with("<dc:title>a title</dc:title><tiff:ImageWidth>24</tiff:ImageWidth>")
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TURNS = pytest.mark.parametrize("turn", range(1, 9))


def picture() -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    return np.dstack([x * 9, y * 12, (x + y) * 5]).astype(np.uint8)


def tree(turn: int) -> exif.Tree:
    """EXIF with a place in the image as it is stored."""
    return {**PLAIN, 274: number(3, turn), 34665: {**DETAILS, 37396: number(3, 3, 2, 4, 1)}}


def heic(turn: int) -> bytes:
    import pillow_heif

    file = io.BytesIO()
    image = Image.fromarray(picture())
    image.info["icc_profile"] = PROFILE
    pillow_heif.from_pillow(image).save(
        file,
        quality=-1,
        chroma=444,
        matrix_coefficients=0,
        exif=exif.PREFIX + block(tree(turn)),
        xmp=PACKET,
    )
    return file.getvalue()


def jpeg(turn: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture()).save(
        file,
        "JPEG",
        exif=exif.PREFIX + block(tree(turn)),
        xmp=PACKET,
        icc_profile=PROFILE,
        quality=95,
        subsampling=0,
    )
    return file.getvalue()


def jxl_of_jpeg(turn: int) -> bytes:
    """As the tool cjxl makes it: the JPEG can be had again, bit for bit."""
    return bytes(imagecodecs.jpegxl_encode_jpeg(jpeg(turn)))


def jxl_turned(turn: int) -> bytes:
    """The same without the box that lets the JPEG be had again: it says itself how to turn it."""
    data, kept, at = jxl_of_jpeg(turn), b"", 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + length if length else len(data)
        kept += b"" if data[at + 4 : at + 8] == b"jbrd" else data[at:end]
        at = end
    return kept


def jxl(compressed: bool) -> bytes:
    import pillow_jxl  # noqa: F401

    file = io.BytesIO()
    Image.fromarray(picture()).save(
        file,
        "JXL",
        lossless=True,
        exif=exif.PREFIX + block(tree(1)),
        xmp=PACKET,
        compress_metadata=compressed,
    )
    return file.getvalue()


MAKERS: Any = {"heic": (heic, 0), "jxl of jpeg": (jxl_of_jpeg, 3), "jxl turned": (jxl_turned, 3)}


@TURNS
@pytest.mark.parametrize("kind", MAKERS)
def test_it_is_turned_once(kind: str, turn: int) -> None:
    make, near = MAKERS[kind]
    file = open_file(make(turn))
    (image,) = file.frames()
    pixels = image.color[0 : image.color.shape[0]]
    right = upright(picture(), turn)
    assert file.size == right.shape[1::-1]
    assert pixels.shape == right.shape
    assert np.abs(pixels.astype(int) - right).max() <= near
    # The same values, places in the image turned with it.
    assert tree_of(file.metadata.exif) == tree_of(open_file(jpeg(turn)).metadata.exif)
    assert tree_of(file.metadata.exif)[274] == number(3, 1)


@pytest.mark.parametrize("format", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("kind", MAKERS)
def test_metadata_goes_on(kind: str, format: str) -> None:
    make, _ = MAKERS[kind]
    data, source, warned = through(make(6), format)
    found = held(data, format)
    kept = tree_of(found.exif)
    assert {tag: kept[tag] for tag in PLAIN if tag != 34665} == {
        tag: value for tag, value in PLAIN.items() if tag != 34665
    }
    assert kept.get(274, number(3, 1)) == number(3, 1)
    details = kept[34665]
    assert isinstance(details, dict)
    assert {tag: details[tag] for tag in DETAILS} == DETAILS
    assert b"a title" in found.xmp
    assert b">64<" in found.xmp  # the width of the image, which was turned and upscaled
    assert found.icc == source.metadata.icc != b""
    if kind != "jxl turned":  # which has no profile, but numbers for the same
        assert found.icc == PROFILE
    assert not warned or (format == "tif" and "maker's notes are copied" in warned[0])


@pytest.mark.parametrize("compressed", [False, True])
def test_metadata_of_jpeg_xl_may_be_compressed(
    compressed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jxl(compressed)
    file = open_file(data)
    assert tree_of(file.metadata.exif) == tree(1)
    assert b"a title" in file.metadata.xmp
    assert file.warnings == ()
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "imagecodecs" else find(name)
    )
    warned = open_file(data).warnings
    assert bool(warned) == compressed
    assert not compressed or "srgan-infer[formats]" in warned[0]


def test_damaged_metadata_of_jpeg_xl_is_named() -> None:
    data = bytearray(jxl(True))
    at = data.index(b"brobExif") + 8
    data[at : at + 40] = bytes(40)
    found = read_blocks("JXL", io.BytesIO(data))
    assert found.damaged == ("compressed metadata",)
    assert b"a title" in found.xmp


def test_a_jpeg_in_a_jpeg_xl_is_read_as_that_jpeg() -> None:
    inside, outside = open_file(jxl_of_jpeg(1)), open_file(jpeg(1))
    assert inside.jpeg_quality == outside.jpeg_quality == 95
    (one,), (other,) = inside.frames(), outside.frames()
    assert np.array_equal(one.color[0 : SIZE[1]], other.color[0 : SIZE[1]])
    with pytest.raises(ImageError, match="more than the 300 that max_pixels allows"):
        open_file(jxl_of_jpeg(1), max_pixels=300)


@pytest.mark.parametrize("turn", [1, 6])
def test_through_the_command(turn: int, model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.HEIC").write_bytes(heic(turn))
    (folder / "b.jxl").write_bytes(jxl_of_jpeg(turn))
    (folder / "c.jxl").write_bytes(jxl(False))
    out = tmp_path / "out"
    assert main([str(folder), "-o", str(out), "-q", "--model", str(model_folder)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "c.png"]
    for name in ("a.png", "b.png"):
        with Image.open(out / name) as image:
            width, height = SIZE[::-1] if turn == 6 else SIZE
            assert image.size == (4 * width, 4 * height)
            assert image.getexif().get(274, 1) == 1
            assert image.getexif()[271] == "Maker"


def test_a_pil_image_is_taken_as_its_plugin_gives_it(model_folder: Path) -> None:
    import pillow_heif

    opened: Any = pillow_heif.HeifImageFile
    sr = SuperResolver.from_pretrained(model_folder)
    with opened(io.BytesIO(heic(6))) as image:
        big = sr(image)
    assert big.size == (4 * SIZE[1], 4 * SIZE[0])
    assert big.getexif().get(274, 1) == 1
    file = io.BytesIO()
    deep = (picture().astype(np.uint16) << 8).tobytes()
    pillow_heif.from_bytes(mode="RGB;16", size=SIZE, data=deep).save(file, quality=-1)
    with pytest.warns(ImageWarning, match="HEIC with 10 bits"):
        sr(opened(file))
