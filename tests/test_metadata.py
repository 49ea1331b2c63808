"""Metadata goes through untouched: bytes, types, offsets; what cannot is named."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from srgan_infer import ImageWarning, SuperResolver, __version__
from srgan_infer.cli.main import main
from srgan_infer.errors import ImageError
from srgan_infer.images import blocks, exif, xmp
from srgan_infer.images.blocks import png_text, read_blocks
from srgan_infer.images.formats import FORMATS, check_output
from srgan_infer.images.metadata import Metadata, orientation, read_metadata
from srgan_infer.images.png import write_chunk
from srgan_infer.images.read import SourceImage, open_file
from srgan_infer.images.write import create

pytestmark = pytest.mark.filterwarnings("ignore::srgan_infer.ImageWarning")

SIZE = (16, 12)
WRITABLE = [kind.suffixes[0][1:] for kind in FORMATS if kind.writable]


def image(size: tuple[int, int] = SIZE) -> Image.Image:
    y, x = np.mgrid[: size[1], : size[0]]
    planes = [x * 11 % 256, y * 13 % 256, (x + y) * 6 % 256]
    return Image.fromarray(np.dstack(planes).astype(np.uint8))


def saved(format: str, size: tuple[int, int] = SIZE, **options: Any) -> bytes:
    file = io.BytesIO()
    image(size).save(file, format, **options)
    return file.getvalue()


def block(tree: exif.Tree, order: str = "<") -> bytes:
    return exif.encode_block(tree, order)


def number(kind: int, *values: float | Fraction, order: str = "<") -> exif.Value:
    data = exif.pack(kind, values, order)
    assert data is not None
    return kind, len(values), data


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    data = saved("JPEG", quality=95)
    parts = [
        b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content
        for marker, content in segments
    ]
    return data[:20] + b"".join(parts) + data[20:]


def png_with(*chunks: tuple[bytes, bytes], data: bytes | None = None) -> bytes:
    data = data or saved("PNG")
    file = io.BytesIO()
    for kind, content in chunks:
        write_chunk(file, kind, content)
    return data[:33] + file.getvalue() + data[33:]


def tiff_with(tree: exif.Tree, order: str = "<", size: tuple[int, int] = SIZE) -> bytes:
    pixels = np.asarray(image(size)).tobytes()
    own: exif.Tree = {
        256: number(4, size[0], order=order),
        257: number(4, size[1], order=order),
        258: number(3, 8, 8, 8, order=order),
        259: number(3, 1, order=order),
        262: number(3, 2, order=order),
        273: number(4, 8, order=order),
        277: number(3, 3, order=order),
        278: number(4, size[1], order=order),
        279: number(4, len(pixels), order=order),
        **tree,
    }
    mark = b"II" if order == "<" else b"MM"
    place = 8 + len(pixels)
    head = mark + struct.pack(order + "HI", 42, place)
    return head + pixels + exif.encode_directory(own, place, False, order)


def through(data: bytes, format: str, times: int = 4) -> tuple[bytes, SourceImage, tuple[str, ...]]:
    """A file read, brought to ``times`` its size (without a network), and written."""
    source = open_file(io.BytesIO(data))
    size = (source.size[0] * times, source.size[1] * times)
    out = io.BytesIO()
    with create(
        out,
        format=format,
        size=size,
        channels=source.channels,
        dtype=source.dtype,
        metadata=source.metadata,
    ) as writer:
        writer.write(np.zeros((size[1], size[0], source.channels), source.dtype))
    warned = check_output(
        "",
        format=format,
        size=size,
        channels=source.channels,
        dtype=source.dtype,
        metadata=source.metadata,
    )
    assert writer.warnings == warned
    return out.getvalue(), source, (*source.warnings, *warned)


NAMES = {"jpg": "JPEG", "tif": "TIFF", "png": "PNG", "webp": "WEBP", "avif": "AVIF"}
NAMES |= {"jp2": "JPEG2000", "gif": "GIF", "bmp": "BMP", "ppm": "PPM", "tga": "TGA"}


def held(data: bytes, format: str) -> blocks.FileBlocks:
    return read_blocks(NAMES[format], io.BytesIO(data))


def tree_of(data: bytes) -> exif.Tree:
    """All entries of an EXIF block, little-endian."""
    return exif.read_tree(exif.Structure(data), "<")[0]


MAKER = b"Maker\0" + bytes(range(200))
DETAILS: exif.Tree = {
    33434: number(5, Fraction(1, 60)),
    37377: number(10, Fraction(-966578, 100000)),
    37121: (7, 4, b"\1\2\3\0"),
    37500: (7, len(MAKER), MAKER),
    37510: (7, 8 + 8, b"UNICODE\0" + "a: b".encode("utf-16-be")),
    42036: (129, 9, b"Objektiv" + b"\0"),
    40965: {1: (2, 4, b"R98\0"), 2: (7, 4, b"0100")},
}
PLAIN: exif.Tree = {
    270: (2, 29, "© 2024 Zoë Müller 山".encode() + b"\0" * 3),
    271: (2, 6, b"Maker\0"),
    34665: DETAILS,
    34853: {1: (2, 2, b"N\0"), 2: number(5, 51, 30, Fraction(1, 3))},
}
PLAIN[270] = (2, len("© 2024 Zoë Müller 山".encode()) + 1, "© 2024 Zoë Müller 山".encode() + b"\0")


def in_order(tree: exif.Tree, order: str) -> exif.Tree:
    if order == "<":
        return tree
    return {
        tag: in_order(value, order) if isinstance(value, dict) else exif.swapped(value)
        for tag, value in tree.items()
    }


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("format", ["jpg", "png", "webp", "avif", "jp2"])
def test_an_exif_block_keeps_its_bytes(format: str, order: str) -> None:
    if format not in WRITABLE:
        pytest.skip(f"this Pillow writes no {format}")
    source = block(in_order(PLAIN, order), order)
    # Something of the maker's that only it knows the place of.
    source += b"preview of the maker" * 9
    data, _, warned = through(jpeg_with((0xE1, exif.PREFIX + source)), format)
    assert held(data, format).exif == source
    assert [one for one in warned if "JPEG2000" not in one] == []


@pytest.mark.parametrize("order", ["<", ">"])
def test_entries_go_into_tiff_and_back_type_by_type(order: str) -> None:
    source = block(in_order(PLAIN, order), order)
    tiff, _, _ = through(jpeg_with((0xE1, exif.PREFIX + source)), "tif")
    assert {tag: tree_of(held(tiff, "tif").exif)[tag] for tag in PLAIN} == PLAIN
    again, _, warned = through(tiff, "jpg")
    assert {tag: tree_of(held(again, "jpg").exif)[tag] for tag in PLAIN} == PLAIN
    assert not [one for one in warned if "left out" in one]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("format", ["jpg", "tif", "png"])
def test_entries_of_a_tiff_file_are_copied_raw(format: str, order: str) -> None:
    data, _, _ = through(tiff_with(in_order(PLAIN, order), order), format)
    kept = held(data, format).exif
    assert {tag: tree_of(kept)[tag] for tag in PLAIN} == PLAIN
    if format != "tif":
        assert kept[:2] == (b"II" if order == "<" else b"MM")


def test_unknown_types_stay_in_place_and_are_named_when_they_cannot_go_on() -> None:
    tree: exif.Tree = {**PLAIN, 34665: {**DETAILS, 50000: (99, 1, b"abcd")}}
    source = block(tree)
    data, _, _ = through(jpeg_with((0xE1, exif.PREFIX + source)), "png")
    assert held(data, "png").exif == source
    _, _, warned = through(jpeg_with((0xE1, exif.PREFIX + source)), "tif")
    assert any("50000" in one for one in warned)


@pytest.mark.parametrize("tag", [34665, 34853])
@pytest.mark.parametrize("format", ["tif", "jpg"])
def test_pointers_that_lead_back_are_survived_and_named(tag: int, format: str) -> None:
    looping = tiff_with({271: (2, 6, b"Maker\0"), tag: number(4, 0)})
    place = struct.unpack_from("<I", looping, 4)[0]
    at = looping.rfind(struct.pack("<HHII", tag, 4, 1, 0))
    looping = looping[: at + 8] + struct.pack("<I", place) + looping[at + 12 :]
    data, _, warned = through(looping, format)
    assert tree_of(held(data, format).exif)[271] == (2, 6, b"Maker\0")
    assert any(exif.tag_name(tag) in one for one in warned)


def thumbnailed(order: str) -> tuple[bytes, bytes]:
    """An EXIF block with a thumbnail at its end, and the thumbnail."""
    picture = saved("JPEG", (8, 6))
    plain = block(in_order(PLAIN, order), order)
    code = order + "HHII"
    inner = struct.pack(order + "H", 3)
    inner += struct.pack(order + "HHIHH", 259, 3, 1, 6, 0)
    inner += struct.pack(code, 513, 4, 1, len(plain) + 2 + 36 + 4)
    inner += struct.pack(code, 514, 4, 1, len(picture)) + bytes(4)
    (count,) = struct.unpack_from(order + "H", plain, 8)
    link = 10 + 12 * count
    plain = plain[:link] + struct.pack(order + "I", len(plain)) + plain[link + 4 :]
    return plain + inner + picture, picture


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("format", ["jpg", "png", "tif"])
def test_the_thumbnail_of_the_small_image_goes(format: str, order: str) -> None:
    source, picture = thumbnailed(order)
    data, _, _ = through(jpeg_with((0xE1, exif.PREFIX + source)), format)
    assert picture[20:200] not in data
    kept = tree_of(held(data, format).exif)
    assert {tag: kept[tag] for tag in PLAIN} == PLAIN
    assert exif.THUMBNAIL not in exif.Structure(held(data, format).exif).directories()[0]


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_counts_pixels_is_scaled_and_nothing_else_changes(order: str) -> None:
    details: exif.Tree = {
        **DETAILS,
        40962: number(3, 16),
        40963: number(4, 12),
        37396: number(3, 8, 6, 4, 2),
        41492: number(3, 8, 6),
        41486: number(5, Fraction(30000, 7)),
        41487: number(5, Fraction(4294967295, 4)),
        41488: number(3, 2),
    }
    tree: exif.Tree = {**PLAIN, 256: number(4, 16), 257: number(4, 12), 34665: details}
    source = block(in_order(tree, order), order)
    data, _, _ = through(jpeg_with((0xE1, exif.PREFIX + source)), "jpg")
    kept = held(data, "jpg").exif
    expected = {
        **details,
        40962: number(3, 64),
        40963: number(4, 48),
        37396: number(3, 32, 24, 16, 8),
        41492: number(3, 32, 24),
        41486: number(5, Fraction(120000, 7)),
        41487: number(5, 4294967295),
    }
    assert tree_of(kept)[34665] == expected
    assert (tree_of(kept)[256], tree_of(kept)[257]) == (number(4, 64), number(4, 48))
    assert len(kept) == len(source)


@pytest.mark.parametrize(
    ("turn", "area", "point"),
    [
        (1, (12, 8, 16, 4), (12, 8)),
        (3, (4 * 12, 4 * 9, 16, 4), (4 * 12, 4 * 9)),
        (6, (4 * 9, 4 * 3, 4, 16), (4 * 9, 4 * 3)),
        (8, (4 * 2, 4 * 12, 4, 16), (4 * 2, 4 * 12)),
    ],
)
def test_places_are_turned_with_the_image(turn: int, area: Any, point: Any) -> None:
    tree: exif.Tree = {
        274: number(3, turn),
        282: number(5, 300),
        283: number(5, 150),
        34665: {
            37396: number(3, 3, 2, 4, 1),
            41492: number(3, 3, 2),
            41486: number(5, 100),
            41487: number(5, 50),
        },
    }
    data, source, _ = through(jpeg_with((0xE1, exif.PREFIX + block(tree))), "jpg")
    kept = tree_of(held(data, "jpg").exif)
    inner = kept[34665]
    assert isinstance(inner, dict)
    assert kept[274] == number(3, 1)
    assert inner[37396] == number(3, *area)
    assert inner[41492] == number(3, *point)
    upright = (inner[41486], inner[41487]) == (number(5, 400), number(5, 200))
    assert upright == (turn < 5)
    assert (kept[282] == number(5, 300)) == (turn < 5)
    assert source.size == (SIZE if turn < 5 else SIZE[::-1])


def test_a_size_beyond_16_bits_gets_a_wider_type_in_place() -> None:
    source = block({34665: {40962: number(3, 20000), 40963: number(3, 12)}})
    kept = Metadata(size=(20000, 12), exif=source).resized((80000, 48)).exif
    assert tree_of(kept)[34665] == {40962: number(4, 80000), 40963: number(3, 48)}
    assert len(kept) == len(source)


def test_what_cannot_be_scaled_is_taken_out_and_named() -> None:
    tree: exif.Tree = {
        271: (2, 2, b"a\0"),
        34665: {37396: number(3, 19000, 5), 40963: number(3, 9)},
    }
    kept = Metadata(size=(20000, 12), exif=block(tree)).resized((80000, 48))
    assert tree_of(kept.exif) == {271: (2, 2, b"a\0"), 34665: {40963: number(3, 48)}}
    assert kept.lost == ("SubjectLocation",)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_bytes_make_exif_fail(data: st.DataObject) -> None:
    source = bytearray(block(in_order(PLAIN, ">"), ">"))
    for _ in range(data.draw(st.integers(1, 12))):
        source[data.draw(st.integers(8, len(source) - 1))] = data.draw(st.integers(0, 255))
    file = io.BytesIO(jpeg_with((0xE1, exif.PREFIX + bytes(source))))
    metadata, _ = read_metadata("JPEG", file, size=SIZE, orientation=6)
    for kind in FORMATS:
        if kind.writable:
            check_output("", format=kind.name, size=(48, 64), channels=3, metadata=metadata)


# --- texts and profiles


def test_png_texts_keep_their_kind_and_their_names_may_repeat() -> None:
    long = "x1y2z3" * 200_000
    texts = [
        (b"tEXt", b"prompt\0" + long.encode()),
        (b"tEXt", b"workflow\0{}"),
        (b"zTXt", b"Description\0\0" + zlib.compress(b"packed" * 300_000)),
        (b"iTXt", b"Title\0\0\0de\0Titel\0" + "Größe".encode()),
        (b"iTXt", b"Title\0\1\0\0\0" + zlib.compress("Größe".encode())),
        (b"tEXt", b"Comment\0one"),
        (b"tEXt", b"Comment\0two"),
    ]
    data, _, warned = through(png_with(*texts), "png")
    again = held(data, "png").text
    assert [(text.kind, text.data) for text in again] == texts
    assert [text.key for text in again[-2:]] == ["Comment", "Comment"]
    assert again[3].value == again[4].value == "Größe"
    assert warned == ()


def test_a_text_behind_the_pixels_comes_in_front_of_them() -> None:
    data = saved("PNG")
    late = io.BytesIO()
    write_chunk(late, b"tEXt", b"parameters\0a castle")
    data, _, _ = through(data[:-12] + late.getvalue() + data[-12:], "png")
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.info["parameters"] == "a castle"


def profile(length: int) -> bytes:
    data = bytes(12) + b"RGB XYZ " + np.random.default_rng(0).bytes(length - 24)
    return struct.pack(">I", length) + data


@pytest.mark.parametrize("format", ["png", "jpg", "tif", "webp"])
def test_a_profile_of_two_megabytes(format: str) -> None:
    icc = profile(2_000_000)
    source = png_with((b"iCCP", b"p\0\0" + zlib.compress(icc)))
    data, _, warned = through(source, format)
    assert held(data, format).icc == icc
    assert open_file(io.BytesIO(data)).metadata.icc == icc
    assert warned == ()


def test_what_does_not_fit_a_jpeg_is_known_beforehand() -> None:
    metadata = Metadata(
        size=(4, 4),
        exif=block({270: (2, 70_000, b"d" * 69_999 + b"\0"), 271: (2, 6, b"Maker\0")}),
        xmp=b"<x:xmpmeta>" + b"p" * 70_000 + b"</x:xmpmeta>",
        comment=b"c" * 70_000,
        icc=profile(17_000_000),
    )
    warned = check_output("a.jpg", size=(4, 4), channels=3, metadata=metadata)
    for word in ("ImageDescription", "XMP", "comment", "profile"):
        assert any(word in one for one in warned), word
    out = io.BytesIO()
    with create(out, format="jpg", size=(4, 4), channels=3, metadata=metadata) as writer:
        writer.write(np.zeros((4, 4, 3), np.uint8))
    assert tree_of(held(out.getvalue(), "jpg").exif) == {271: (2, 6, b"Maker\0")}


RDF = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    b'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:City="Bern">%s'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def test_long_xmp_goes_into_a_jpeg_with_an_extension_and_comes_back_whole() -> None:
    history = b"<photoshop:History>" + b"saved; " * 15_000 + b"</photoshop:History>"
    packet = RDF % (b"<dc:title>short</dc:title>" + history)
    data, _, warned = through(saved("WEBP", xmp=packet), "jpg")
    assert warned == ()
    found = held(data, "jpg")
    assert b"<dc:title>short</dc:title>" in found.xmp
    assert b'photoshop:City="Bern"' in found.xmp
    assert history not in found.xmp
    assert history in found.extension
    whole, _, _ = through(data, "png")
    joined = held(whole, "png").xmp
    assert history in joined
    assert b"HasExtendedXMP" not in joined
    for one in (found.xmp, found.extension, joined):
        ElementTree.fromstring(one)


def test_an_extension_that_is_not_whole_is_named() -> None:
    main = RDF % b""
    main = main.replace(
        b'photoshop:City="Bern"',
        b'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="'
        + b"A" * 32
        + b'"',
    )
    piece = blocks.EXTENSION_NAME + struct.pack(">32sII", b"A" * 32, 100, 50) + b"x" * 50
    _, _, warned = through(jpeg_with((0xE1, blocks.XMP_NAME + main), (0xE1, piece)), "png")
    assert any("extended XMP" in one for one in warned)


# --- XMP


def packet_with(body: str, attributes: str = "") -> bytes:
    spaces = " ".join(f'xmlns:{prefix}="{uri}"' for uri, prefix in xmp.PREFIXES.items())
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{xmp.RDF}">'
        f'<rdf:Description rdf:about="" {spaces.replace(f"""xmlns:rdf="{xmp.RDF}" """, "")} '
        f"{attributes}>{body}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


@pytest.mark.parametrize("written", ["element", "attribute"])
def test_sizes_in_xmp_are_scaled_however_they_are_written(written: str) -> None:
    values = {
        "tiff:ImageWidth": ("16", "64"),
        "tiff:ImageLength": ("12", "48"),
        "exif:PixelXDimension": ("16", "64"),
        "exif:PixelYDimension": ("12", "48"),
        "exif:FocalPlaneXResolution": ("300/7", "1200/7"),
        "GPano:FullPanoWidthPixels": ("1600", "6400"),
        "GPano:FullPanoHeightPixels": ("800", "3200"),
        "GPano:CroppedAreaLeftPixels": ("10", "40"),
        "GPano:CroppedAreaTopPixels": ("2.5", "10.0"),
        "GPano:InitialViewHeadingDegrees": ("90", "90"),
        "tiff:Orientation": ("1", "1"),
    }

    def made(index: int) -> bytes:
        if written == "element":
            return packet_with("".join(f"<{k}>{v[index]}</{k}>" for k, v in values.items()))
        return packet_with("", " ".join(f'{k}="{v[index]}"' for k, v in values.items()))

    data, _, _ = through(saved("WEBP", xmp=made(0)), "webp")
    assert held(data, "webp").xmp == made(1)


def test_prefixes_of_xmp_are_those_that_the_packet_declares() -> None:
    packet = packet_with("<tiff:ImageWidth>16</tiff:ImageWidth>").replace(b"tiff", b"t-1")
    packet = packet.replace(b"ns.adobe.com/t-1/", b"ns.adobe.com/tiff/")
    assert b"<t-1:ImageWidth>64</t-1:ImageWidth>" in xmp.resized(packet, (16, 12), (64, 48))


def region(x: str, y: str, w: str, h: str, width: str, height: str, unit: str, form: str) -> str:
    if form == "attributes":
        size = (
            f'<mwg-rs:AppliedToDimensions stDim:w="{width}" stDim:h="{height}" stDim:unit="pixel"/>'
        )
        area = (
            f'<mwg-rs:Area stArea:x="{x}" stArea:y="{y}" stArea:w="{w}" stArea:h="{h}" '
            f'stArea:unit="{unit}"/>'
        )
    else:
        size = (
            '<mwg-rs:AppliedToDimensions rdf:parseType="Resource">'
            f"<stDim:w>{width}</stDim:w><stDim:h>{height}</stDim:h><stDim:unit>pixel</stDim:unit>"
            "</mwg-rs:AppliedToDimensions>"
        )
        area = (
            '<mwg-rs:Area rdf:parseType="Resource">'
            f"<stArea:x>{x}</stArea:x><stArea:y>{y}</stArea:y><stArea:w>{w}</stArea:w>"
            f"<stArea:h>{h}</stArea:h><stArea:unit>{unit}</stArea:unit></mwg-rs:Area>"
        )
    return (
        f'<mwg-rs:Regions rdf:parseType="Resource">{size}<mwg-rs:RegionList><rdf:Bag><rdf:li '
        f'rdf:parseType="Resource">{area}<mwg-rs:Name>Zoe</mwg-rs:Name></rdf:li></rdf:Bag>'
        "</mwg-rs:RegionList></mwg-rs:Regions>"
        '<Iptc4xmpExt:Other stDim:w="5" stDim:h="6"/>'
    )


@pytest.mark.parametrize("form", ["attributes", "elements"])
def test_regions_of_faces_are_scaled(form: str) -> None:
    before = packet_with(region("0.25", "0.5", "0.1", "0.2", "16", "12", "normalized", form))
    after = packet_with(region("0.25", "0.5", "0.1", "0.2", "64", "48", "normalized", form))
    assert xmp.resized(before, (16, 12), (64, 48)) == after
    before = packet_with(region("4", "6", "2", "3", "16", "12", "pixel", form))
    after = packet_with(region("16", "24", "8", "12", "64", "48", "pixel", form))
    assert xmp.resized(before, (16, 12), (64, 48)) == after


@pytest.mark.parametrize("form", ["attributes", "elements"])
def test_regions_are_turned_unless_they_were_counted_upright(form: str) -> None:
    def turned(packet: bytes) -> bytes:
        return xmp.upright(packet, 6, (16, 12), lambda x, y: (11 - y, x))

    stored = packet_with(region("0.25", "0.5", "0.1", "0.2", "16", "12", "normalized", form))
    upright = packet_with(region("0.5", "0.25", "0.2", "0.1", "12", "16", "normalized", form))
    assert turned(stored) == upright
    assert turned(upright) == upright


def test_a_subject_in_xmp_is_turned_and_scaled() -> None:
    body = "<exif:SubjectArea><rdf:Seq>{}</rdf:Seq></exif:SubjectArea>"

    def made(*values: int) -> bytes:
        return packet_with(body.format("".join(f"<rdf:li>{value}</rdf:li>" for value in values)))

    upright = xmp.upright(made(3, 2, 4, 1), 6, (16, 12), lambda x, y: (11 - y, x))
    assert xmp.resized(upright, (12, 16), (48, 64)) == made(36, 12, 4, 16)


STALE = {
    "gain map": '<x hdrgm:Version="1.0" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"/>',
    "motion part": '<x GCamera:MotionPhoto="1" GCamera:ShotLogData="kept" '
    'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/"/>',
    "gain map or motion part": '<x xmlns:C="http://ns.google.com/photos/1.0/container/" '
    'xmlns:I="http://ns.google.com/photos/1.0/container/item/"><C:Directory><rdf:Seq><rdf:li '
    'rdf:parseType="Resource"><C:Item I:Semantic="GainMap" I:Length="9"/></rdf:li></rdf:Seq>'
    "</C:Directory></x>",
    "thumbnails in XMP": '<xmp:Thumbnails xmlns:xmp="http://ns.adobe.com/xap/1.0/"><rdf:Alt>'
    "<rdf:li>AAAA</rdf:li></rdf:Alt></xmp:Thumbnails>",
}


@pytest.mark.parametrize("what", STALE)
def test_xmp_no_longer_claims_what_is_gone(what: str) -> None:
    data, _, warned = through(saved("WEBP", xmp=packet_with(STALE[what])), "png")
    packet = held(data, "png").xmp
    ElementTree.fromstring(packet)
    for word in (b"hdrgm", b"MotionPhoto", b"Directory", b"Semantic", b"Thumbnails"):
        assert word not in packet
    assert (b"ShotLogData" in packet) == (what == "motion part")
    assert any(what in one for one in warned)


def test_xmp_in_utf_16_is_understood() -> None:
    text = packet_with("<tiff:ImageWidth>16</tiff:ImageWidth>").decode()
    data, _, _ = through(tiff_with({700: (1, 0, b"")} | _bytes(700, text.encode("utf-16"))), "png")
    assert b"<tiff:ImageWidth>64<" in held(data, "png").xmp


def _bytes(tag: int, data: bytes, kind: int = 1) -> exif.Tree:
    return {tag: (kind, len(data), data)}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_text_makes_xmp_fail(data: st.DataObject) -> None:
    whole = packet_with(
        region("4", "6", "2", "3", "16", "12", "pixel", "attributes")
        + "<exif:SubjectArea><rdf:Seq><rdf:li>3</rdf:li></rdf:Seq></exif:SubjectArea>"
        + STALE["gain map or motion part"],
        'tiff:ImageWidth="16" xmpNote:HasExtendedXMP="A"',
    )
    packet = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 10))):
        at = data.draw(st.integers(0, len(packet) - 1))
        packet[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=4))
    file = io.BytesIO(saved("WEBP", xmp=bytes(packet)))
    metadata, _ = read_metadata("WEBP", file, size=SIZE, orientation=6)
    check_output("a.jpg", size=(48, 64), channels=3, metadata=metadata.noted("a", "b", "c"))
    xmp.merged(bytes(packet), whole)
    xmp.merged(whole, bytes(packet))
    xmp.split(bytes(packet) * 40)


# --- IPTC, Photoshop, comments


IPTC = b"\x1c\x02\x19\x00\x05alpha" + b"\x1c\x02\x78\x00\x06T\xc3\xa9xt."


def resources(*more: tuple[int, bytes]) -> bytes:
    return blocks.encode_resources([(number, b"\0\0", data) for number, data in more])


def test_iptc_goes_from_jpeg_into_every_format_that_has_a_place() -> None:
    settings_ = resources((1028, IPTC), (1036, b"old thumbnail"), (1034, b"\1"), (1061, b"d" * 16))
    source = jpeg_with((0xED, blocks.PHOTOSHOP_NAME + settings_))
    for format in ("jpg", "png", "tif", "jp2"):
        data, _, warned = through(source, format)
        found = held(data, format)
        inner = blocks.resource_list(found.photoshop)
        numbers = {number: content for number, _, content in inner}
        assert (found.iptc or numbers[1028]) == IPTC
        assert b"old thumbnail" not in data
        assert any("thumbnail" in one for one in warned)
        if format != "jp2":
            assert (numbers[1034], numbers[1061]) == (b"\1", b"d" * 16)
    for format in ("webp", "bmp"):
        _, _, warned = through(source, format)
        assert any("IPTC" in one for one in warned)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 4, 7])
def test_iptc_of_a_tiff_file_whatever_its_type(kind: int, order: str) -> None:
    padded = IPTC + bytes(-len(IPTC) % 4)
    value: exif.Value = (kind, len(padded) // exif.SIZES[kind], padded)
    stored = exif.swapped(value)[2] if kind == 4 and order == ">" else padded
    data, _, _ = through(tiff_with({33723: (value[0], value[1], stored)}, order), "tif")
    assert held(data, "tif").iptc == padded


def test_profiles_that_older_programs_write_as_texts_are_understood() -> None:
    def as_text(name: str, data: bytes) -> tuple[bytes, bytes]:
        text = f"\n{name}\n{len(data):8}\n{data.hex()}\n".encode()
        return b"zTXt", f"Raw profile type {name}".encode() + b"\0\0" + zlib.compress(text)

    source = png_with(
        as_text("exif", exif.PREFIX + block(PLAIN)),
        as_text("xmp", packet_with("<tiff:ImageWidth>16</tiff:ImageWidth>")),
        as_text("iptc", resources((1028, IPTC))),
    )
    data, _, warned = through(source, "jpg")
    found = held(data, "jpg")
    assert found.exif == block(PLAIN)
    assert b"<tiff:ImageWidth>64<" in found.xmp
    assert IPTC in found.photoshop
    assert warned == ()


def test_comments_go_where_there_is_a_place() -> None:
    source = saved("JPEG", comment="Größe".encode())
    for format, place in (("jpg", "comment"), ("gif", "comment"), ("jp2", "comment")):
        data, _, warned = through(source, format)
        assert getattr(held(data, format), place) == "Größe".encode()
        assert not any("comment" in one for one in warned)
    data, _, _ = through(source, "png")
    assert held(data, "png").text == (png_text("Comment", "Größe"),)
    _, _, warned = through(source, "webp")
    assert any("comment" in one for one in warned)


def test_other_data_in_a_file_is_named() -> None:
    source = jpeg_with((0xEB, b"JP\0\1jumb" + bytes(20)), (0xE5, b"thermal"))
    _, _, warned = through(source, "jpg")
    assert any("C2PA" in one and "APP5" in one for one in warned)
    _, _, warned = through(png_with((b"caBX", b"jumb"), (b"sCAL", b"\1" + b"1\0" + b"1")), "png")
    assert any("C2PA" in one and "sCAL" in one for one in warned)
    broken = bytearray(png_with((b"tEXt", b"Title\0text")))
    broken[33 + 8 + 10 + 1] ^= 1
    _, _, warned = through(bytes(broken), "png")
    assert any("tEXt" in one for one in warned)


# --- resolution


@pytest.mark.parametrize("source", ["tif", "png", "jpg"])
@pytest.mark.parametrize("format", ["tif", "png", "jpg", "bmp", "jp2"])
def test_resolution_is_kept(source: str, format: str) -> None:
    data, _, _ = through(saved(NAMES[source], dpi=(300, 150)), format)
    density = held(data, format).density
    assert density is not None
    across, down = density.per(blocks.INCH)
    assert (float(across), float(down)) == pytest.approx((300, 150), abs=0.02)
    dpi = open_file(io.BytesIO(data)).metadata.dpi
    assert dpi == (300, 150) or format == "jp2"


@pytest.mark.parametrize("format", ["tif", "png", "jpg"])
def test_the_shape_of_pixels_is_kept(format: str) -> None:
    source = png_with((b"pHYs", struct.pack(">IIB", 4, 3, 0)))
    data, _, _ = through(source, format)
    density = held(data, format).density
    assert density is not None
    assert (density.x / density.y, density.unit) == (Fraction(4, 3), Fraction(0))
    _, _, warned = through(source, "bmp")
    assert any("shape" in one for one in warned)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_pixels_of_a_microscope_become_smaller(order: str) -> None:
    tree: exif.Tree = {
        282: number(5, 1_500_000, order=order),
        283: number(5, 1_500_000, order=order),
        296: number(3, 3, order=order),
    }
    for format in ("tif", "png", "jp2"):
        data, _, warned = through(tiff_with(tree, order), format)
        density = held(data, format).density
        assert density is not None
        assert density.per(blocks.CENTIMETRE)[0] == 6_000_000
        assert warned == ()
    _, _, warned = through(tiff_with(tree, order), "jpg")
    assert any("resolution" in one for one in warned)


def test_absurd_resolutions_cost_only_themselves() -> None:
    for value in (Fraction(1, 4294967295), Fraction(4294967295, 1)):
        tree: exif.Tree = {282: number(5, value), 283: number(5, value), 296: number(3, 2)}
        for format in ("tif", "png", "jpg", "bmp", "jp2"):
            through(tiff_with(tree), format)
    for up, down in ((0, 1), (1, 0), (0, 0)):
        pair = (5, 1, struct.pack("<II", up, down))
        for format in ("tif", "png", "jpg"):
            through(tiff_with({282: pair, 283: pair}), format)


def test_imagej_keeps_its_description_of_one_plane_and_loses_that_of_a_stack() -> None:
    text = b"ImageJ=1.53t\nunit=micron\nmin=0.0\nmax=255.0\n\0"
    tree: exif.Tree = {
        **_bytes(270, text, 2),
        282: number(5, Fraction(5, 2)),
        283: number(5, Fraction(5, 2)),
        296: number(3, 1),
    }
    data, _, warned = through(tiff_with(tree), "tif")
    entries = tree_of(data)
    assert entries[270] == tree[270]
    assert (entries[282], entries[296]) == (number(5, 10), number(3, 1))
    assert warned == ()
    data, _, _ = through(tiff_with(tree), "png")
    density = held(data, "png").density
    assert density is not None
    assert density.per(blocks.METRE)[0] == 10_000_000
    stack = text.replace(b"unit", b"images=9\nslices=9\nunit")
    data, _, warned = through(tiff_with({**tree, **_bytes(270, stack, 2)}), "tif")
    assert 270 not in tree_of(data)
    assert any("ImageJ" in one for one in warned)
    density = held(data, "tif").density
    assert density is not None
    assert density.per(Fraction(1, 10**6))[0] == 10


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (
            b'<OME><Pixels SizeX="16" PhysicalSizeX="0.5" PhysicalSizeY="0.5"/></OME>',
            "OME",
        ),
        (b'{"shape": [12, 16, 3]}', "shape"),
    ],
)
def test_descriptions_that_no_longer_fit_are_left_out(text: bytes, word: str) -> None:
    data, _, warned = through(tiff_with(_bytes(270, text + b"\0", 2)), "tif")
    assert 270 not in tree_of(data)
    assert any(word in one for one in warned)
    if word == "OME":
        density = held(data, "tif").density
        assert density is not None
        assert density.per(Fraction(1, 10**6))[0] == 8


# --- GeoTIFF and other tags of TIFF


def keys(raster: int) -> exif.Value:
    return number(3, 1, 1, 0, 2, 1025, 0, 1, raster, 3072, 0, 1, 32631)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("raster", [1, 2])
def test_an_image_covers_the_same_ground(order: str, raster: int) -> None:
    tree: exif.Tree = {
        33550: number(12, 10.0, 20.0, 0.0),
        33922: number(12, 2.0, 3.0, 0.0, 5e5, 4.6e6, 0.0),
        34264: number(12, 10, 1, 0, 5e5, 2, -20, 0, 4.6e6, 0, 0, 0, 0, 0, 0, 0, 1),
        34735: keys(raster),
        34737: (2, 4, b"WGS\0"),
        42113: (2, 2, b"0\0"),
    }
    data, _, warned = through(tiff_with(in_order(tree, order), order), "tif")
    kept = tree_of(data)
    assert warned == ()
    for tag in (34735, 34737, 42113):
        assert kept[tag] == tree[tag]
    numbers = {tag: exif.numbers(kept[tag], "<") for tag in (33550, 33922, 34264)}  # type: ignore[arg-type]
    assert numbers[33550] == [2.5, 5.0, 0.0]
    half = 0.0 if raster == 1 else 1.5
    matrix = exif.numbers(tree[34264], "<")  # type: ignore[arg-type]
    assert numbers[33922] == [8 + half, 12 + half, 0.0, 5e5, 4.6e6, 0.0]
    # A point of the old image and the same point of the new one lie on the same ground.
    m, n = (np.array(one, np.float64).reshape(4, 4) for one in (matrix, numbers[34264]))
    old, new = np.array([5.0, 7.0, 0, 1]), np.array([20 + half, 28 + half, 0, 1])
    assert m @ old == pytest.approx(n @ new)
    _, _, warned = through(tiff_with(in_order(tree, order), order), "png")
    assert any("GeoTIFF" in one for one in warned)


def test_the_coefficients_of_a_satellite_image_are_scaled() -> None:
    values = [0.1, 0.2, 99.5, 49.5, 45, 7, 300, 100, 50, 1, 2, 3] + [0.5] * 80
    data, _, _ = through(tiff_with({50844: number(12, *values)}), "tif")
    kept = exif.numbers(tree_of(data)[50844], "<")  # type: ignore[arg-type]
    assert kept[2:4] == [399.5, 199.5]
    assert kept[7:9] == [400, 200]
    assert kept[4:7] == values[4:7]
    assert kept[9:] == values[9:]


def test_tags_of_a_tiff_file_go_by_a_list_and_others_are_named() -> None:
    tree: exif.Tree = {
        271: (2, 6, b"Maker\0"),
        330: number(4, 8),
        **_bytes(37724, b"Adobe Photoshop Document Data Block\0" + bytes(300), 7),
        **_bytes(65000, b"a vendor's own", 7),
        50838: number(4, 12, 12),
    }
    for format in ("tif", "jpg", "png"):
        data, _, warned = through(tiff_with(tree), format)
        assert b"Document Data Block" not in data
        assert b"a vendor's own" not in data
        for word in ("Photoshop layers", "65000", "ImageJ", "reduced"):
            assert any(word in one for one in warned), (word, warned)


# --- colour


def test_colour_signalling_of_png_is_kept() -> None:
    mastering, light = bytes(range(24)), bytes(range(8))
    source = png_with((b"cICP", bytes([9, 16, 0, 1])), (b"mDCV", mastering), (b"cLLI", light))
    data, _, warned = through(source, "png")
    found = held(data, "png")
    assert found.color == blocks.Color(9, 16)
    assert (found.mastering, found.light) == (mastering, light)
    assert warned == ()


@pytest.mark.parametrize("color", [(9, 16), (9, 18), (12, 13), (1, 1)])
def test_colour_signalling_goes_between_png_and_avif(color: tuple[int, int]) -> None:
    if "avif" not in WRITABLE:
        pytest.skip("this Pillow writes no AVIF")
    data, _, warned = through(png_with((b"cICP", bytes([*color, 0, 1]))), "avif")
    assert held(data, "avif").color == blocks.Color(*color)
    assert warned == ()
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
    again, _, _ = through(data, "png")
    assert held(again, "png").color == blocks.Color(*color)


@pytest.mark.parametrize("format", ["jpg", "webp", "tif", "bmp", "gif", "jp2"])
def test_an_hdr_image_is_refused_where_it_would_be_taken_for_another(format: str) -> None:
    for transfer, word in ((16, "PQ"), (18, "HLG")):
        source = png_with((b"cICP", bytes([9, transfer, 0, 1])))
        with pytest.raises(ImageError, match=f"{word}.*choose PNG or AVIF"):
            through(source, format)


def test_colours_that_are_no_longer_said_are_named() -> None:
    _, _, warned = through(png_with((b"cICP", bytes([12, 13, 0, 1]))), "jpg")
    assert any("colour signalling" in one for one in warned)
    _, _, warned = through(png_with((b"gAMA", struct.pack(">I", 100000))), "jpg")
    assert any("gamma" in one for one in warned)
    usual = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    silent = png_with(
        (b"cICP", bytes([1, 13, 0, 1])),
        (b"gAMA", struct.pack(">I", 45455)),
        (b"cHRM", struct.pack(">8I", *usual)),
    )
    assert through(silent, "jpg")[2] == ()


def test_a_profile_for_other_channels_is_named() -> None:
    grey = bytes(12) + b"GRAYXYZ " + bytes(108)
    _, _, warned = through(saved("JPEG", icc_profile=struct.pack(">I", 132) + grey), "png")
    assert any("profile" in one for one in warned)


# --- phones


def test_the_second_image_of_a_phone_is_named() -> None:
    out = io.BytesIO()
    image().save(out, "MPO", save_all=True, append_images=[image((8, 6))])
    _, source, warned = through(out.getvalue(), "jpg")
    assert source.format == "JPEG"
    assert any("second view" in one for one in warned)


def test_a_phones_file_without_a_name_becomes_a_jpeg(
    resolver: SuperResolver, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    image().save(file, "MPO", save_all=True, append_images=[image((8, 6))])
    plan = resolver.plan_file(file.getvalue())
    assert plan.format == "JPEG"
    assert any("second view" in one for one in plan.warnings)
    piped, result = io.BytesIO(file.getvalue()), io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(piped)))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(result))
    assert main(["-", "-q", "--model", str(model_folder)]) == 0
    assert open_file(result).format == "JPEG"


class Pipe(io.BufferedReader):
    """What cannot go back."""

    def __init__(self, raw: Any) -> None:
        super().__init__(raw)

    def seekable(self) -> bool:
        return False


# --- delays and loops


def test_delays_and_loops_that_do_not_fit_are_known_beforehand() -> None:
    metadata = Metadata(size=(4, 4), durations=(33.0, 900_000.0), loop=70_000)
    cases = {
        "a.gif": ("steps of 10", "655.35", "70000"),
        "a.png": ("65.535",),
        "a.webp": ("70000",),
    }
    for name, words in cases.items():
        warned = check_output(name, size=(4, 4), channels=3, n_frames=2, metadata=metadata)
        for word in words:
            assert any(word in one for one in warned), (name, word, warned)
        out = io.BytesIO()
        with create(
            out, format=name[2:], size=(4, 4), channels=3, n_frames=2, metadata=metadata
        ) as writer:
            writer.write(np.zeros((4, 4, 3), np.uint8))
            writer.write(np.ones((4, 4, 3), np.uint8) * 255)
        assert open_file(out).n_frames == 2


# --- options


@pytest.fixture
def resolver(model_folder: Path) -> SuperResolver:
    return SuperResolver.from_pretrained(model_folder)


def rich() -> bytes:
    """A JPEG file with everything in it."""
    return jpeg_with(
        (0xE1, exif.PREFIX + block({**PLAIN, 282: number(5, 300), 283: number(5, 300)})),
        (0xE1, blocks.XMP_NAME + packet_with("<tiff:ImageWidth>16</tiff:ImageWidth>")),
        (0xED, blocks.PHOTOSHOP_NAME + resources((1028, IPTC))),
        (0xE2, blocks.ICC_NAME + b"\1\1" + profile(500)),
        (0xFE, b"a comment"),
    )


@pytest.mark.parametrize("format", ["jpg", "png", "tif", "webp"])
def test_stripped_files_keep_only_what_they_need_to_look_the_same(
    resolver: SuperResolver, format: str
) -> None:
    out = io.BytesIO()
    source = png_with((b"tEXt", b"parameters\0secret"), data=png_of(rich()))
    for data in (rich(), source):
        out = io.BytesIO()
        resolver.upscale_file(io.BytesIO(data), out, format=format, strip_metadata=True)
        for word in (b"Maker", "Zoë".encode(), b"alpha", b"secret", b"xmpmeta", b"a comment"):
            assert word not in out.getvalue()
        found = held(out.getvalue(), format)
        assert found.icc == profile(500)
        if format != "webp":
            assert open_file(out).metadata.dpi == (300, 300)


def png_of(data: bytes) -> bytes:
    return through(data, "png", 1)[0]


def test_stripped_images_keep_their_colours() -> None:
    metadata = Metadata(color=blocks.Color(9, 16), light=b"12345678", loop=3, durations=(1.0,))
    assert metadata.stripped() == metadata


@pytest.mark.parametrize("format", ["jpg", "png", "tif", "webp", "avif", "jp2"])
def test_a_note_says_which_model_upscaled(resolver: SuperResolver, format: str) -> None:
    if format not in WRITABLE:
        pytest.skip(f"this Pillow writes no {format}")
    for data in (rich(), saved("PNG")):
        out = io.BytesIO()
        resolver.upscale_file(io.BytesIO(data), out, format=format, note=True)
        packet = held(out.getvalue(), format).xmp
        ElementTree.fromstring(packet)
        for word in (b'"upscaled"', b"tiny-model", resolver.sha256.encode(), __version__.encode()):
            assert word in packet
        assert str(resolver.name).encode() not in packet  # where the model lies is private
    again = io.BytesIO()
    resolver.upscale_file(out, again, format=format, note=True)
    assert held(again.getvalue(), format).xmp.count(b'"upscaled"') == 2
    assert held(again.getvalue(), format).xmp.count(b"History>") == 2


def test_a_note_where_there_is_no_place_is_named_before_computing(resolver: SuperResolver) -> None:
    plan = resolver.plan_file(io.BytesIO(saved("PNG")), format="bmp", note=True)
    assert any("XMP" in one for one in plan.warnings)


def test_dates_are_kept_when_asked_for(resolver: SuperResolver, tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    source.write_bytes(saved("PNG"))
    os.utime(source, ns=(10**18, 1_234_567_890 * 10**9))
    resolver.upscale_file(source, target)
    assert target.stat().st_mtime_ns > 1_500_000_000 * 10**9
    resolver.upscale_file(source, target, keep_dates=True)
    assert target.stat().st_mtime_ns == 1_234_567_890 * 10**9


def test_the_plan_says_what_the_result_will_not_keep(resolver: SuperResolver) -> None:
    for format in ("bmp", "webp", "gif", "jp2"):
        plan = resolver.plan_file(io.BytesIO(rich()), format=format)
        result = resolver.upscale_file(io.BytesIO(rich()), io.BytesIO(), format=format)
        assert plan.warnings == result.warnings
        assert plan.warnings


def test_images_in_memory_keep_their_exif_and_what_their_owner_changed(
    resolver: SuperResolver, tmp_path: Path
) -> None:
    source = block(in_order(PLAIN, ">"), ">")
    with Image.open(io.BytesIO(jpeg_with((0xE1, exif.PREFIX + source)))) as opened:
        big = resolver(opened)
        assert big.info["exif"] == exif.PREFIX + source
        opened.getexif()[305] = "edited"
        assert resolver(opened).getexif()[305] == "edited"
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_with(PLAIN))
    with Image.open(path) as opened:
        assert resolver(opened).getexif()[271] == "Maker"


def test_the_command_has_the_same_options(model_folder: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "a.jpg", tmp_path / "b.jpg"
    source.write_bytes(rich())
    os.utime(source, ns=(10**18, 1_234_567_890 * 10**9))
    options = ["--strip-metadata", "--keep-dates", "--note", "-q", "--model", str(model_folder)]
    assert main([str(source), str(target), *options]) == 0
    found = held(target.read_bytes(), "jpg")
    assert (found.exif, found.comment) == (b"", b"")
    assert b'"upscaled"' in found.xmp
    assert target.stat().st_mtime_ns == 1_234_567_890 * 10**9


def test_a_dry_run_says_what_will_not_be_kept(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.jpg"
    source.write_bytes(rich())
    names = [str(source), str(tmp_path / "b.bmp"), "--model", str(model_folder)]
    assert main([*names, "--dry-run", "--json"]) == 0
    assert "EXIF" in capsys.readouterr().out
    assert main([*names, "--dry-run", "--json", "--strip-metadata"]) == 0
    assert "EXIF" not in capsys.readouterr().out


# --- how a file asks to be turned


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_turn_that_an_avif_file_asks_for(turn: int) -> None:
    if "avif" not in WRITABLE:
        pytest.skip("this Pillow writes no AVIF")
    exif_ = Image.Exif()
    exif_[274] = turn
    data = saved("AVIF", exif=exif_)
    assert blocks.heif_orientation(io.BytesIO(data)) == turn


def test_heif_which_its_decoder_turns_is_not_turned_twice() -> None:
    turned = Image.new("RGB", (8, 6))
    turned.getexif()[274] = 6
    assert orientation(turned) == 6
    turned.format = "HEIF"
    assert orientation(turned) == 1


def test_places_in_a_heif_file_are_turned_with_it() -> None:
    if "avif" not in WRITABLE:
        pytest.skip("this Pillow writes no AVIF")
    exif_ = Image.Exif()
    exif_[274] = 6
    exif_[34665] = {37396: (3, 2, 4, 1)}
    # Read as HEIF, whose structure is the same; the size is that of the turned image.
    data = io.BytesIO(saved("AVIF", exif=exif_))
    metadata, _ = read_metadata("HEIF", data, size=SIZE[::-1])
    details = tree_of(metadata.exif)[34665]
    assert isinstance(details, dict)
    assert exif.numbers(details[37396], "<") == [9, 3, 1, 4]  # type: ignore[arg-type]
    assert metadata.size == SIZE[::-1]


def test_a_phones_second_view_in_a_folder_becomes_a_jpeg(
    model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "b.mpo"):
        image().save(folder / name, "MPO", save_all=True, append_images=[image((8, 6))])
    out = tmp_path / "out"
    assert main([str(folder), "-o", str(out), "-q", "--model", str(model_folder)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "b.jpg"]
    for path in out.iterdir():
        with Image.open(path) as opened:
            assert opened.format == "JPEG"


def pages(*kinds: tuple[int, exif.Tree], size: tuple[int, int] = SIZE) -> bytes:
    """A TIFF file of several directories: their NewSubfileType and further entries."""
    data = bytearray(b"II*\0" + bytes(4))
    link = 4
    for kind, tree in kinds:
        pixels = np.asarray(image(size)).tobytes()
        place = len(data)
        data += pixels
        own: exif.Tree = {
            **{254: number(4, kind), 256: number(4, size[0]), 257: number(4, size[1])},
            **{258: number(3, 8, 8, 8), 259: number(3, 1), 262: number(3, 2)},
            **{273: number(4, place), 277: number(3, 3), 278: number(4, size[1])},
            279: number(4, len(pixels)),
            **tree,
        }
        struct.pack_into("<I", data, link, len(data))
        link = len(data) + 2 + 12 * len(own)
        data += exif.encode_directory(own, len(data))
    return bytes(data)


def test_thumbnails_pyramids_and_masks_of_a_tiff_file_are_no_pages() -> None:
    full: exif.Tree = {271: (2, 5, b"Full\0")}
    small: exif.Tree = {271: (2, 6, b"Small\0")}
    for kinds, trees in (
        ((0, 1, 1), (full, small, small)),
        ((1, 0, 4), (small, full, {})),
        ((0, 5, 1), (full, {}, small)),
    ):
        data = pages(*zip(kinds, trees, strict=True))
        source = open_file(io.BytesIO(data))
        assert not any("pages" in one for one in source.warnings)
        assert any("mask" in one for one in source.warnings) == (4 in kinds)
        assert tree_of(source.metadata.exif)[271] == (2, 5, b"Full\0")
    assert any(
        "2 pages" in one for one in open_file(io.BytesIO(pages((0, full), (2, full)))).warnings
    )


def test_values_that_share_their_bytes_are_scaled_once() -> None:
    source = bytearray(block({34665: {41486: number(5, 100), 41487: number(5, 100)}}))
    first, second = (source.index(struct.pack("<HHI", tag, 5, 1)) + 8 for tag in (41486, 41487))
    source[second : second + 4] = source[first : first + 4]
    kept = Metadata(size=SIZE, exif=bytes(source)).resized((64, 48)).exif
    assert tree_of(kept)[34665] == {41486: number(5, 400), 41487: number(5, 400)}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_bytes_make_a_file_fail_for_its_metadata(data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(["jpg", "png", "webp", "tif", "jp2", "avif", "gif"]))
    changed = bytearray(RICH.setdefault(format, through(rich(), format)[0]))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(changed) - 1, 1200)))
        changed[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    turn = data.draw(st.integers(1, 8))
    metadata, _ = read_metadata(NAMES[format], io.BytesIO(changed), size=SIZE, orientation=turn)
    for kind in FORMATS:
        with suppress(ImageError):  # changed into HDR
            check_output("", format=kind.name, size=(48, 64), channels=3, metadata=metadata)


RICH: dict[str, bytes] = {}


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (34682, "[Scan]\r\nPixelWidth=2e-09\r\nPixelHeight=2e-09\r\n"),
        (34118, "AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 2.000 nm\r\n"),
    ],
)
def test_the_pixel_size_of_an_electron_microscope_becomes_a_resolution(tag: int, text: str) -> None:
    data, _, warned = through(tiff_with(_bytes(tag, text.encode() + b"\0", 2)), "tif")
    density = held(data, "tif").density
    assert density is not None
    assert density.per(blocks.METRE) == (Fraction(2 * 10**9), Fraction(2 * 10**9))
    assert any(exif.tag_name(tag) in one for one in warned)


@pytest.mark.parametrize("frames", [1, 2])
def test_gif_keeps_xmp_its_comment_and_the_shape_of_pixels(frames: int) -> None:
    metadata = Metadata(
        size=(4, 4),
        xmp=packet_with(region("4", "6", "2", "3", "16", "12", "pixel", "attributes")),
        comment=b"c" * 700,
        density=blocks.Density(Fraction(4), Fraction(3), Fraction(0)),
        durations=(20.0, 30.0),
        loop=5,
    )
    out = io.BytesIO()
    with create(
        out, format="gif", size=(4, 4), channels=3, n_frames=frames, metadata=metadata
    ) as writer:
        for shade in range(frames):
            writer.write(np.full((4, 4, 3), 255 * shade, np.uint8))
    assert writer.warnings == ()
    found = held(out.getvalue(), "gif")
    assert (found.xmp, found.comment) == (metadata.xmp, metadata.comment)
    assert found.density is not None
    assert float(found.density.x / found.density.y) == pytest.approx(4 / 3, abs=0.02)
    with Image.open(io.BytesIO(out.getvalue())) as opened:
        assert getattr(opened, "n_frames", 1) == frames
        opened.load()


def test_a_pil_image_of_an_hdr_file_says_that_it_no_longer_is(
    resolver: SuperResolver, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_with((b"cICP", bytes([9, 16, 0, 1]))))
    with pytest.warns(ImageWarning, match="HDR"):
        resolver(path)


@pytest.mark.parametrize("head", [bytes(4), b"\0\0\0\6" + exif.PREFIX, b"", exif.PREFIX])
def test_exif_of_jpeg_xl_with_and_without_the_place_it_begins_at(head: bytes) -> None:
    content = head + block(PLAIN)
    data = struct.pack(">I4s", 12, b"JXL ") + b"\r\n\x87\n"
    data += struct.pack(">I4s", 8 + len(content), b"Exif") + content
    assert read_blocks("JXL", io.BytesIO(data)).exif == block(PLAIN)


def test_an_orientation_in_xmp_does_not_change_the_exif_of_an_image_in_memory(
    resolver: SuperResolver,
) -> None:
    source = block(in_order(PLAIN, ">"), ">")
    packet = packet_with("", 'tiff:Orientation="6"')
    file = jpeg_with((0xE1, exif.PREFIX + source), (0xE1, blocks.XMP_NAME + packet))
    with Image.open(io.BytesIO(file)) as opened:
        assert resolver(opened).info["exif"] == exif.PREFIX + source
        opened.getexif().get_ifd(34665)[33434] = 0.5
        details = resolver(opened).getexif().get_ifd(34665)
        assert details[33434] == 0.5
