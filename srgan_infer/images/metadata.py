"""What an image file says about its pixels: EXIF, profile, resolution, texts, timing."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

EXIF_PREFIX = b"Exif\x00\x00"
COLOR_SPACES = {1: b"GRAY", 3: b"RGB "}

# Tags that describe how the bytes of a TIFF lie in its file, not what is shown.
# 700 (XMP) and 34675 (ICC) have fields of their own.
STRUCTURE = {
    *(254, 255, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284),
    *(288, 289, 290, 291, 292, 293, 297, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325),
    *(330, 332, 333, 334, 336, 337, 338, 339, 340, 341, 342, 347, 512, 513, 514, 515, 517),
    *(518, 519, 520, 521, 529, 530, 531, 532, 700, 34675),
}
SUB_DIRECTORIES = {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
RESOLUTION = {ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit}


@dataclass(frozen=True)
class PngText:
    """One text chunk of a PNG file.

    Parameters
    ----------
    key, value
        The keyword and its text.
    language, translated
        Of an international chunk; else empty.
    """

    key: str
    value: str
    language: str = ""
    translated: str = ""


@dataclass(frozen=True)
class Metadata:
    """Everything beside the pixels that is carried from one file to the next.

    Parameters
    ----------
    exif
        A TIFF structure (no ``Exif`` prefix, little-endian), the orientation already reset and
        the embedded thumbnail dropped; empty if there is none.
    icc
        The colour profile that fits the image's channels; empty means sRGB.
    xmp
        The XMP packet; empty if there is none.
    dpi
        Horizontal and vertical pixels per inch, kept as they are (an image
        with more pixels prints larger), or None.
    comment
        The comment of a JPEG or GIF file.
    text
        Text chunks of a PNG file.
    gamma, chromaticity, srgb
        The PNG chunks gAMA, cHRM (eight numbers) and sRGB (rendering intent).
    loop
        How often an animation plays, 0 for ever; None where the file is silent
        (it then plays once).
    durations
        Milliseconds of each frame of an animation.
    """

    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    comment: bytes = b""
    text: tuple[PngText, ...] = ()
    gamma: float | None = None
    chromaticity: tuple[float, ...] = ()
    srgb: int | None = None
    loop: int | None = None
    durations: tuple[float, ...] = field(default=())

    def resized(self, size: tuple[int, int]) -> Metadata:
        """The same with the image sizes inside EXIF and XMP set to (width, height)."""
        return replace(
            self, exif=_exif_with_size(self.exif, size), xmp=_xmp_with_size(self.xmp, size)
        )

    def pillow_info(self) -> dict[str, Any]:
        """The same under the names that Pillow uses in ``Image.info``."""
        info: dict[str, Any] = {
            "exif": EXIF_PREFIX + self.exif if self.exif else b"",
            "icc_profile": self.icc,
            "xmp": self.xmp,
            "dpi": self.dpi,
            "comment": self.comment,
        }
        return {key: value for key, value in info.items() if value}


def read_metadata(
    image: Image.Image, channels: int, reset_orientation: bool
) -> tuple[Metadata, tuple[str, ...]]:
    """Collect the metadata of an opened Pillow image, and sentences on what is unreadable.

    Parameters
    ----------
    image
        An image whose ``info`` is filled (load a PNG file whose texts follow
        the pixels first).
    channels
        1 or 3 colour channels of what the pixels become; a profile for another
        colour space is dropped.
    reset_orientation
        Whether the orientation is being applied to the pixels.
    """
    info = image.info
    warnings: tuple[str, ...] = ()
    try:
        exif = _read_exif(image, reset_orientation)
    except Exception:  # whatever a damaged EXIF block makes Pillow raise
        exif, warnings = b"", ("The EXIF data is damaged and is left out.",)
    icc = info.get("icc_profile") or b""
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    comment = info.get("comment", b"")
    gamma, srgb = info.get("gamma"), info.get("srgb")
    metadata = Metadata(
        exif=exif,
        icc=icc if icc[16:20] == COLOR_SPACES[channels] else b"",
        xmp=_xmp_upright(xmp) if reset_orientation else xmp,
        dpi=_read_dpi(info.get("dpi")),
        comment=comment.encode() if isinstance(comment, str) else bytes(comment),
        text=_read_text(image),
        gamma=gamma if isinstance(gamma, float) and gamma > 0 else None,
        chromaticity=tuple(info.get("chromaticity", ())),
        srgb=srgb if isinstance(srgb, int) else None,
        loop=info.get("loop"),
    )
    return metadata, warnings


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8."""
    try:
        value = read_exif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever a damaged EXIF block makes Pillow raise
        return 1
    return value if value in range(1, 9) else 1


def read_exif(image: Image.Image) -> Image.Exif:
    """The EXIF of an image, without decoding a PNG file in search of it."""
    if isinstance(image, PngImagePlugin.PngImageFile) and image.tile and "exif" not in image.info:
        return Image.Exif()
    return image.getexif()


def _read_exif(image: Image.Image, reset_orientation: bool) -> bytes:
    exif = read_exif(image)
    own = Image.Exif()
    own.endian = "<"
    for tag, value in exif.items():
        if tag not in STRUCTURE:
            own[tag] = dict(exif.get_ifd(tag)) if tag in SUB_DIRECTORIES else value
    details = own.get(ExifTags.IFD.Exif, {})
    if ExifTags.IFD.Interop in details:
        details[ExifTags.IFD.Interop] = exif.get_ifd(ExifTags.IFD.Interop)
    turned = own.get(ExifTags.Base.Orientation, 1) != 1
    if reset_orientation and turned:
        own[ExifTags.Base.Orientation], turned = 1, False
    if not set(own) - {256, 257} - RESOLUTION - {ExifTags.Base.Orientation} and not turned:
        return b""
    return own.tobytes().removeprefix(EXIF_PREFIX)


def _exif_with_size(data: bytes, size: tuple[int, int]) -> bytes:
    if not data:
        return data
    exif = Image.Exif()
    exif.load(EXIF_PREFIX + data)
    details = exif.get_ifd(ExifTags.IFD.Exif)
    exif.get_ifd(ExifTags.IFD.GPSInfo)
    names = (
        (exif, ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength),
        (details, ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight),
    )
    for tags, *keys in names:
        for key, value in zip(keys, size, strict=True):
            if key in tags:
                tags[key] = value
    exif.endian = "<"
    return exif.tobytes().removeprefix(EXIF_PREFIX)


def _xmp_upright(xmp: bytes) -> bytes:
    return re.sub(rb"(<tiff:Orientation>|tiff:Orientation=[\"'])[2-8]", rb"\g<1>1", xmp)


def _xmp_with_size(xmp: bytes, size: tuple[int, int]) -> bytes:
    for names, value in (
        (rb"tiff:ImageWidth|exif:PixelXDimension", size[0]),
        (rb"tiff:ImageLength|exif:PixelYDimension", size[1]),
    ):
        pattern = rb"(<(?:" + names + rb")>|\b(?:" + names + rb")=[\"'])\d+"
        xmp = re.sub(pattern, rb"\g<1>%d" % value, xmp)
    return xmp


def _read_dpi(value: Any) -> tuple[float, float] | None:
    try:
        x, y = float(value[0]), float(value[1])
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(v) and v > 0 for v in (x, y)) else None


def _read_text(image: Image.Image) -> tuple[PngText, ...]:
    if not isinstance(image, PngImagePlugin.PngImageFile):
        return ()
    return tuple(
        PngText(key, str(value), getattr(value, "lang", "") or "", getattr(value, "tkey", "") or "")
        for key, value in image.info.items()
        if isinstance(key, str)
        and isinstance(value, str)
        and key != "XML:com.adobe.xmp"
        and not key.lower().startswith("raw profile type")
    )


# Sum of the 64 luma steps in Annex K of ITU-T T.81, which libjpeg scales by its quality.
ANNEX_K_SUM = 3688


def estimated_quality(image: Image.Image) -> int | None:
    """The quality at which libjpeg would quantise luma as coarsely as an opened file does.

    Parameters
    ----------
    image
        A file opened by Pillow; its pixels are not read.

    Returns
    -------
    int or None
        1 to 100, too high below 10, where steps end at 255; ``None`` without JPEG
        quantisation tables.
    """
    tables = getattr(image, "quantization", None)
    if not tables:
        return None
    percent: float = 100 * sum(tables[min(tables)]) / ANNEX_K_SUM
    quality = 5000 / percent if percent > 100 else (200 - percent) / 2
    return min(max(round(quality), 1), 100)
