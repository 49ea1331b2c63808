"""Metadata goes through untouched: bytes, types, offsets; what cannot is named."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from srgan_infer.images import blocks, exif
from srgan_infer.images.blocks import read_blocks
from srgan_infer.images.formats import FORMATS, check_output
from srgan_infer.images.metadata import Metadata, read_metadata
from srgan_infer.images.png import write_chunk
from srgan_infer.images.read import SourceImage, open_file
from srgan_infer.images.write import create

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
