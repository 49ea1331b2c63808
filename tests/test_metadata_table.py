"""docs/metadata.md says what each format keeps: measured here, and written by running this file."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from srgan_infer.images import blocks, exif, keeping
from srgan_infer.images.formats import FORMATS, Format
from srgan_infer.images.keeping import fit
from srgan_infer.images.metadata import Metadata
from srgan_infer.images.write import create

PAGE = Path(__file__).parents[1] / "docs" / "metadata.md"
BEGIN, END = "<!-- written by tests/test_metadata_table.py -->\n", "<!-- end -->\n"

TIFF_ENTRY: exif.Value = (12, 3, struct.pack("<3d", 10, 10, 0))
MAKE: exif.Value = (2, 6, b"Maker\0")
PROFILE = struct.pack(">I", 132) + bytes(8) + b"    RGB XYZ " + bytes(108)[:108]

# One kind at a time: its name, the metadata, and what is to be found in the file.
KINDS: dict[str, Metadata] = {
    "EXIF": Metadata(exif=exif.encode_block({271: MAKE})),
    "profile": Metadata(icc=PROFILE),
    "XMP": Metadata(xmp=b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"),
    "IPTC": Metadata(iptc=b"\x1c\x02\x19\x00\x05alpha"),
    "Photoshop settings": Metadata(photoshop=blocks.encode_resources([(1034, b"\0\0", b"\1")])),
    "resolution": Metadata(density=blocks.Density(Fraction(300), Fraction(300), blocks.INCH)),
    "pixel shape": Metadata(density=blocks.Density(Fraction(4), Fraction(3), Fraction(0))),
    "comment": Metadata(comment=b"a remark"),
    "PNG texts": Metadata(text=(blocks.png_text("parameters", "a castle"),)),
    "colour signalling": Metadata(color=blocks.Color(12, 13)),
    "HDR light levels": Metadata(light=struct.pack(">II", 10**7, 10**6)),
    "gamma": Metadata(gamma=1.0),
    "GeoTIFF": Metadata(ground=((33550, TIFF_ENTRY),)),
}


def written(kind: Format, metadata: Metadata) -> blocks.FileBlocks:
    out = io.BytesIO()
    with create(out, format=kind.name, size=(8, 6), channels=3, metadata=metadata) as writer:
        writer.write(np.zeros((6, 8, 3), np.uint8))
    return blocks.read_blocks(kind.name, out)


def cell(kind: Format, name: str) -> str:
    """How a format holds one kind of metadata, read from a file that holds it."""
    metadata = replace(KINDS[name], size=(8, 6))
    found, nothing = written(kind, metadata), written(kind, Metadata(size=(8, 6)))
    held = [one for one in vars(found) if getattr(found, one) != getattr(nothing, one)]
    own = [one for one in vars(metadata) if getattr(metadata, one) != getattr(Metadata(), one)]
    if not held:
        return "–"
    words = {"exif": "in EXIF", "text": "as text", "photoshop": "yes"}
    return "yes" if set(held) & set(own) else words[held[0]]


def table() -> str:
    formats = [kind for kind in FORMATS if kind.writable]
    lines = ["| | " + " | ".join(kind.name for kind in formats) + " |"]
    lines.append("|---|" + "---|" * len(formats))
    for name in KINDS:
        lines.append(f"| {name} | " + " | ".join(cell(kind, name) for kind in formats) + " |")
    loops = {kind.name: keeping.KEEPS[kind.name] for kind in formats}
    shown = [
        "–" if not kind.animated else "yes" if loops[kind.name].loop is not None else "delays"
        for kind in formats
    ]
    lines.append("| delays and loops | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("kind", [one for one in FORMATS if one.writable], ids=lambda one: one.name)
@pytest.mark.parametrize("name", KINDS)
def test_what_is_not_kept_is_said_and_what_is_kept_is_not(name: str, kind: Format) -> None:
    _, sentences = fit(kind.name, replace(KINDS[name], size=(8, 6)))
    hard_to_find = kind.name == "JPEG2000" and name == "EXIF"
    assert bool(sentences) == (cell(kind, name) == "–" or hard_to_find)


def test_the_page_has_the_table() -> None:
    if not all(kind.writable for kind in FORMATS):
        pytest.skip("this Pillow does not write every format")
    page = PAGE.read_text(encoding="utf-8")
    assert page[page.index(BEGIN) + len(BEGIN) : page.index(END)] == table()


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    text = re.sub(f"{BEGIN}.*{END}", lambda _: BEGIN + table() + END, text, flags=re.S)
    PAGE.write_text(text, encoding="utf-8")
