"""What each output format keeps of the metadata, and what it has no room for."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, fields, replace
from typing import Any

from srgan_infer.errors import ImageError
from srgan_infer.images import blocks, embed, exif, xmp
from srgan_infer.images.metadata import Metadata

# What people call the fields of Metadata.
WORDS = {
    "exif": "EXIF",
    "icc": "the colour profile",
    "xmp": "XMP",
    "iptc": "IPTC",
    "photoshop": "Photoshop's settings",
    "density": "the resolution",
    "comment": "the comment",
    "text": "PNG texts",
    "color": "colour signalling",
    "mastering": "HDR light levels",
    "light": "HDR light levels",
    "gamma": "the gamma value",
    "chromaticity": "the primaries",
    "ground": "GeoTIFF tags",
}
# What a file that says nothing is taken for: sRGB's gamma and primaries.
USUAL_GAMMA = 1 / 2.2
USUAL_POINTS = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)


@dataclass(frozen=True)
class Keeping:
    """What one format keeps.

    Parameters
    ----------
    fields
        Of :class:`Metadata`.
    shape
        Whether it can say that pixels are not square without saying how large they are.
    exif, comment, icc
        The most bytes of each.
    delay
        The longest delay of a frame in milliseconds.
    step
        What delays are multiples of, in milliseconds.
    loop
        The largest number of loops; None if it cannot say how often it plays.
    """

    fields: frozenset[str]
    shape: bool = False
    exif: int = 2**31
    comment: int = 2**31
    icc: int = 2**31
    delay: int = 2**31
    step: int = 1
    loop: int | None = None


KEEPS = {
    "PNG": Keeping(frozenset(WORDS) - {"ground"}, shape=True, delay=65535, loop=2**32 - 1),
    "JPEG": Keeping(
        frozenset({"exif", "icc", "xmp", "iptc", "photoshop", "density", "comment"}),
        shape=True,
        exif=embed.EXIF_LIMIT,
        comment=embed.COMMENT_LIMIT,
        icc=embed.PROFILE_LIMIT,
    ),
    "WEBP": Keeping(frozenset({"exif", "icc", "xmp"}), delay=2**24 - 1, loop=65535),
    "TIFF": Keeping(
        frozenset({"exif", "icc", "xmp", "iptc", "photoshop", "density", "ground"}), shape=True
    ),
    "AVIF": Keeping(frozenset({"exif", "icc", "xmp", "color"})),
    "BMP": Keeping(frozenset({"density"})),
    "GIF": Keeping(frozenset({"xmp", "comment"}), shape=True, delay=655350, step=10, loop=65535),
    "JPEG2000": Keeping(
        frozenset({"exif", "icc", "xmp", "iptc", "density", "comment"}), comment=65531
    ),
    "PPM": Keeping(frozenset()),
    "TGA": Keeping(frozenset()),
}


def fit(name: str, metadata: Metadata, n_frames: int = 1) -> tuple[Metadata, tuple[str, ...]]:
    """What a file of a format will hold, and sentences on what it will not.

    Parameters
    ----------
    name
        Of the format.
    metadata
        Already brought to the size of the result.
    n_frames
        More than 1 for an animation.

    Raises
    ------
    ImageError
        If the colours would be taken for others: an HDR image where the format
        cannot say so.
    """
    keeping = KEEPS[name]
    _refuse_hdr(name, keeping, metadata)
    sentences: list[str] = []
    if metadata.lost:
        sentences.append(
            f"Left out, since it cannot be changed as it must be: {', '.join(metadata.lost)}."
        )
    if name in ("WEBP", "AVIF"):
        metadata = _with_density_in_exif(metadata)
    metadata, lost = _kept(name, keeping, metadata)
    if lost:
        sentences.append(f"{name} is written without {', '.join(lost)}.")
    for shorten in (_fit_exif, _fit_tiff, _fit_xmp, _fit_lengths, _fit_density):
        metadata, sentence = shorten(name, keeping, metadata)
        sentences += [sentence] if sentence else []
    if name == "JPEG2000" and metadata.exif:
        sentences.append("JPEG2000 has no standard place for EXIF: few programs will find it.")
    if n_frames > 1:
        metadata, more = _fit_timing(name, keeping, metadata)
        sentences += more
    return metadata, tuple(sentences)


def _refuse_hdr(name: str, keeping: Keeping, metadata: Metadata) -> None:
    color = metadata.color
    if color is None or not color.hdr:
        return
    curve = {16: "PQ", 18: "HLG"}[color.transfer]
    if "color" not in keeping.fields and not metadata.icc:
        raise ImageError(
            f"the image is HDR ({curve}), which {name} cannot say, so its tones would be wrong; "
            "choose PNG or AVIF."
        )
    if name == "AVIF" and not color.full_range:
        raise ImageError(f"the image is HDR ({curve}) of narrow range; choose PNG.")


def _with_density_in_exif(metadata: Metadata) -> Metadata:
    """EXIF is the only place for a resolution in a format without one of its own."""
    density = metadata.density
    numbers = embed.tiff_density(density)
    if metadata.exif or numbers is None or not _means_something("density", metadata):
        return metadata
    unit, across, down = numbers
    tree: exif.Tree = {
        282: (exif.RATIONAL, 1, struct.pack("<II", *across)),
        283: (exif.RATIONAL, 1, struct.pack("<II", *down)),
        296: (exif.SHORT, 1, struct.pack("<H", unit)),
    }
    return replace(metadata, exif=exif.encode_block(tree))


def _kept(name: str, keeping: Keeping, metadata: Metadata) -> tuple[Metadata, list[str]]:
    """Without the fields that a format has no place for, and what people call them."""
    empty = Metadata()
    lost: list[str] = []
    gone: dict[str, Any] = {}
    for one in fields(metadata):
        value = getattr(metadata, one.name)
        if one.name not in WORDS or not value or one.name in keeping.fields:
            continue
        if isinstance(value, blocks.Density) and not value.unit and keeping.shape:
            continue
        gone[one.name] = getattr(empty, one.name)
        if _means_something(one.name, metadata):
            lost.append(WORDS[one.name])
    if "srgb" not in gone and name != "PNG":
        gone["srgb"] = None
    if metadata.density and not metadata.density.unit and not keeping.shape:
        gone["density"] = None
        lost.append("the shape of the pixels")
    if name == "AVIF" and metadata.color and metadata.icc:
        # There the profile would stand above the signalling; in PNG it is the other way round.
        gone["icc"] = b""
        lost.append("the colour profile beside colour signalling")
    return replace(metadata, **gone), list(dict.fromkeys(lost))


def _means_something(name: str, metadata: Metadata) -> bool:
    """Whether an image is taken for another without a field."""
    if name in ("gamma", "chromaticity"):
        if metadata.icc or metadata.color or metadata.srgb is not None:
            return False  # which stand above it
        if name == "gamma":
            return abs((metadata.gamma or 0) - USUAL_GAMMA) > 0.001
        points = zip(metadata.chromaticity, USUAL_POINTS, strict=False)
        return any(abs(one - usual) > 0.001 for one, usual in points)
    if name == "density":
        density = metadata.density
        if density is None or not density.unit:
            return False  # named as the shape of the pixels
        # What EXIF says too is not lost with it; 72 and 96 are what programs write unasked.
        stated = bool(metadata.exif) and bool(exif.Block(metadata.exif).numbers(exif.MAIN, 282))
        return not stated and [round(one) for one in metadata.dpi or ()] not in ([72, 72], [96, 96])
    return True


def _fit_exif(name: str, keeping: Keeping, metadata: Metadata) -> tuple[Metadata, str]:
    if len(metadata.exif) <= keeping.exif:
        return metadata, ""
    block, gone = exif.shortened(metadata.exif, keeping.exif)
    what = (
        f", so it is laid out anew without {exif.tag_names(gone)}"
        if gone
        else ", so it is laid out anew"
    )
    sentence = f"{name} holds at most {keeping.exif} bytes of EXIF{what}."
    return replace(metadata, exif=block), sentence


def _fit_tiff(name: str, keeping: Keeping, metadata: Metadata) -> tuple[Metadata, str]:
    if name != "TIFF" or not metadata.exif:
        return metadata, ""
    tree, lost = embed.tiff_tree(metadata)
    sentences = []
    if lost:
        names = exif.tag_names(lost)
        sentences.append(f"EXIF entries that have no place in TIFF are left out: {names}.")
    details = tree.get(34665)
    if isinstance(details, dict) and len(details.get(exif.MAKER_NOTE, (0, 0, b""))[2]) > 4:
        sentences.append(
            "The camera maker's notes are copied as they are: where they point to places in the "
            "old file, these are no longer right."
        )
    return metadata, " ".join(sentences)


def _fit_xmp(name: str, keeping: Keeping, metadata: Metadata) -> tuple[Metadata, str]:
    if name != "JPEG" or len(metadata.xmp) <= xmp.SEGMENT_LIMIT:
        return metadata, ""
    packet = xmp.compact(metadata.xmp)
    if len(packet) > xmp.SEGMENT_LIMIT and xmp.split(packet) is None:
        return replace(metadata, xmp=b""), "The XMP is too long for JPEG, and is left out."
    return replace(metadata, xmp=packet), ""


def _fit_lengths(name: str, keeping: Keeping, metadata: Metadata) -> tuple[Metadata, str]:
    gone: dict[str, bytes] = {}
    for field in ("comment", "icc"):
        if len(getattr(metadata, field)) > getattr(keeping, field):
            gone[field] = b""
    if not gone:
        return metadata, ""
    what = ", ".join(WORDS[field] for field in gone)
    return replace(metadata, **gone), f"Too long for {name}, and left out: {what}."  # type: ignore[arg-type]


def _fit_density(name: str, keeping: Keeping, metadata: Metadata) -> tuple[Metadata, str]:
    density = metadata.density
    if density is None:
        return metadata, ""
    fits: dict[str, Any] = {
        "PNG": embed.phys,
        "BMP": embed.phys,
        "GIF": embed.gif_shape,
        "JPEG": embed.jfif_density,
        "JPEG2000": embed.jp2_density,
        "TIFF": embed.tiff_density,
    }
    if fits[name](density) is not None:
        return metadata, ""
    across = float(density.x if not density.unit else density.per(blocks.INCH)[0])
    sentence = f"{name} cannot hold a resolution of {across:.6g} dpi: left out."
    return replace(metadata, density=None), sentence


def _fit_timing(name: str, keeping: Keeping, metadata: Metadata) -> tuple[Metadata, list[str]]:
    sentences = []
    delays, loop = metadata.durations, metadata.loop
    fitting = tuple(_delay(value, keeping) for value in delays)
    if any(math.isfinite(value) and value > keeping.delay for value in delays):
        longest = f"{keeping.delay / 1000:g} s"
        sentences.append(f"{name} shows a frame for at most {longest}: longer delays are cut.")
    pairs = zip(fitting, delays, strict=True)
    if any(abs(new - old) >= 1 and old <= keeping.delay for new, old in pairs):
        sentences.append(f"{name} counts delays in steps of {keeping.step} ms: they are rounded.")
    if keeping.loop is None:
        if loop != 0:
            sentences.append(f"{name} cannot say how often an animation plays.")
            loop = 0
    elif loop is not None and not 0 <= loop <= keeping.loop:
        sentences.append(f"{name} cannot hold {loop} loops: it plays for ever.")
        loop = 0
    return replace(metadata, durations=fitting, loop=loop), sentences


def _delay(value: float, keeping: Keeping) -> float:
    if not math.isfinite(value):
        return 0.0
    return float(min(max(round(value / keeping.step), 0) * keeping.step, keeping.delay))
