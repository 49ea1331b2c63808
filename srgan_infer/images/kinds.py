"""Which image formats are read, and how a file of any other kind is called.

Pillow has decoders for some forty formats. One of them runs a program (PostScript), others ask
the system or stand in for what is not there, and many are met by nobody. A file goes to those in
``READ`` only, whatever its name says.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass

from srgan_infer.errors import ImageError

# Pillow's name of each format that it may decode for us, with why it may.
READ = {
    "PNG": "every type is compared with another decoder; 16 bits are kept",
    "JPEG": "8 bits, as all cameras and browsers write it; other kinds are refused by name",
    "MPO": "a JPEG with more images behind it, as phones write them; the first one is taken",
    "WEBP": "decoded by libwebp itself",
    "GIF": "frames are put together as browsers do",
    "TIFF": "layouts are read here, only the compression is Pillow's",
    "AVIF": "8 bits by libavif; more only with imagecodecs",
    "JPEG2000": "8 bits, and grey of any depth; more only with imagecodecs",
    "BMP": "uncompressed or run lengths; its header is checked here",
    "DIB": "a BMP without its first 14 bytes",
    "PPM": "numbers in rows; 16 bits are read here",
    "TGA": "rows of bytes, in use for games",
    "ICO": "the largest image, a PNG or a BMP; sizes are checked here",
    "CUR": "an ICO with a hot spot",
    "ICNS": "the largest icon, a PNG or JPEG 2000",
    "PCX": "rows of bytes, of old scans",
    "PSD": "8 bits, the merged image; without one it is refused",
    "DDS": "textures of games, in the kinds that Pillow knows",
    "QOI": "two pages of specification",
}

# Formats that another package adds to Pillow: its name, and the endings of file names.
PLUGINS = {
    "HEIF": ("pillow_heif", (".heic", ".heif", ".hif")),
    "JXL": ("pillow_jxl", (".jxl",)),
}
INSTALL = "pip install 'srgan-infer[formats]' to have it read, or convert it to PNG or JPEG"

RAW = "a camera raw file ({}); develop it first"
OTHER = "{}, which is not read; convert it to PNG or JPEG"
VIDEO = "a video ({}), not an image; take its frames out first"


@dataclass(frozen=True)
class Mark:
    """Bytes by which a kind of file is known, and what it is then said to be."""

    start: int
    marks: tuple[bytes, ...]
    kind: str


BEGINNINGS = (
    Mark(0, (b"%!PS", b"\xc5\xd0\xd3\xc6"), "PostScript, a program and no image; convert it first"),
    Mark(0, (b"%PDF",), "a PDF document; export its pages as PNG first"),
    Mark(8, (b"CR\x02",), RAW.format("CR2")),
    Mark(0, (b"FUJIFILMCCD-RAW",), RAW.format("RAF")),
    Mark(0, (b"IIU\0",), RAW.format("RW2")),
    Mark(0, (b"IIRO", b"IIRS", b"MMOR"), RAW.format("ORF")),
    Mark(0, (b"FOVb",), RAW.format("X3F")),
    Mark(0, (b"\0MRM",), RAW.format("MRW")),
    Mark(4, (b"ftypcrx ",), RAW.format("CR3")),
    Mark(0, (b"v/1\x01",), OTHER.format("OpenEXR")),
    Mark(0, (b"#?RADIANCE", b"#?RGBE"), OTHER.format("Radiance HDR")),
    Mark(0, (b"PF\n", b"PF\r"), OTHER.format("PFM with colour")),
    Mark(0, (b"P7\n",), OTHER.format("PAM")),
    Mark(0, (b"II\xbc\x01",), OTHER.format("JPEG XR")),
    Mark(0, (b"8BPS\0\x02",), OTHER.format("PSB (large Photoshop document)")),
    Mark(0, (b"gimp xcf",), OTHER.format("XCF (GIMP)")),
    Mark(0, (b"AT&TFORM",), OTHER.format("DjVu")),
    Mark(0, (b"\x8aMNG",), OTHER.format("MNG")),
    Mark(0, (b"\x8bJNG",), OTHER.format("JNG")),
    Mark(0, (b"FLIF",), OTHER.format("FLIF")),
    Mark(
        12, (b"CgBI",), "a PNG made for an iPhone's programs (CgBI); turn it into a plain one first"
    ),
    Mark(0, (b"BPG\xfb",), OTHER.format("BPG")),
    Mark(0, (b"\xd7\xcd\xc6\x9a",), OTHER.format("WMF")),
    Mark(40, (b" EMF",), OTHER.format("EMF")),
    Mark(128, (b"DICM",), OTHER.format("DICOM")),
    Mark(0, (b"SIMPLE  =",), OTHER.format("FITS")),
    Mark(0, (b"\x89HDF\r\n",), OTHER.format("HDF5")),
    Mark(0, (b"\x01\xda\0\x01", b"\x01\xda\x01\x01"), OTHER.format("SGI")),
    Mark(0, (b"\x59\xa6\x6a\x95",), OTHER.format("Sun raster")),
    Mark(0, (b"/* XPM */",), OTHER.format("XPM")),
    Mark(0, (b"\xabKTX",), OTHER.format("KTX")),
    Mark(0, (b"\x1aE\xdf\xa3",), VIDEO.format("Matroska or WebM")),
    Mark(8, (b"AVI LIST",), VIDEO.format("AVI")),
    Mark(4, (b"ftypisom", b"ftypiso2", b"ftypmp4", b"ftypM4V", b"ftypavc1"), VIDEO.format("MP4")),
    Mark(4, (b"ftypqt  ", b"moov", b"mdat"), VIDEO.format("QuickTime")),
    Mark(0, (b"PK\x03\x04",), "a ZIP archive, not an image; unpack it first"),
    Mark(0, (b"\x1f\x8b",), "gzip data, not an image; unpack it first"),
    Mark(
        0,
        (b"version https://git-lfs",),
        "a pointer of Git LFS, not the image; fetch it with git lfs pull",
    ),
)
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs")

# What begins like this is one of READ, should Pillow not make sense of it.
MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
    b"8BPS": "PSD",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"icns": "ICNS",
    b"\0\0\x01\0": "ICO",
    b"\0\0\0\x0cjP  ": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
}


def kind_of(head: bytes) -> str:
    """The format that a file begins like, or ``""``.

    Parameters
    ----------
    head
        Its first 1000 bytes or so.

    Raises
    ------
    ImageError
        If it is of a known kind that is not read; the sentence names it.
    """
    if not head:
        raise ImageError("it is empty.")
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, _box_end(head), 4))}
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if brands & set(HEIF_BRANDS):
            return _of_plugin("HEIF", "HEIC")
    if head[:2] == b"\xff\x0a" or head[4:12] == b"JXL \r\n\x87\n":
        return _of_plugin("JXL", "JPEG XL")
    for mark in BEGINNINGS:
        if head[mark.start :].startswith(mark.marks):
            raise ImageError(f"it is {mark.kind}.")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1000].lower()
    if re.match(rb"<svg|<\?xml.*<svg|<!--.*<svg|<!doctype svg", text, re.DOTALL):
        raise ImageError("it is an SVG drawing; draw it as PNG in the size wanted.")
    if text.startswith((b"<!doctype html", b"<html")):
        raise ImageError("it is a web page, not an image; save the image itself.")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")


def _box_end(head: bytes) -> int:
    return min(int.from_bytes(head[:4], "big"), len(head))


def _of_plugin(name: str, called: str) -> str:
    if not is_installed(name):
        raise ImageError(f"it is {called}; {INSTALL}.")
    return name


def is_installed(name: str) -> bool:
    """Whether the package that reads a format of ``PLUGINS`` is there."""
    return importlib.util.find_spec(PLUGINS[name][0]) is not None
