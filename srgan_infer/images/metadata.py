"""What an image file says about its pixels: EXIF, profile, resolution, texts, timing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, BinaryIO, cast

from PIL import ExifTags, Image, PngImagePlugin

from srgan_infer.images import blocks, exif, xmp
from srgan_infer.images.blocks import Color, Density, FileBlocks, PngText
from srgan_infer.images.exif import Value
from srgan_infer.images.jxl import read_jxl_header

COLOR_SPACES = {1: b"GRAY", 3: b"RGB "}

HOLDS_MORE = "The file holds more than the image, which is not carried over:"

# Of what has more pixels to the inch, the pixels count the thing that is shown, not paper: no
# scanner goes beyond. So the number grows with the image.
FINEST_PRINT = 12_800

# Where EXIF counts pixels; patched by Metadata.resized, turned by _upright_exif.
EXIF_WIDTH = ((exif.MAIN, 256), (exif.EXIF, 40962))
EXIF_HEIGHT = ((exif.MAIN, 257), (exif.EXIF, 40963))
# A subject's place, as (x, y), (x, y, diameter) or (x, y, width, height).
EXIF_SUBJECT = ((exif.EXIF, 37396), (exif.EXIF, 41492), (exif.MAIN, 37396), (exif.MAIN, 41492))
# Pixels per length of the sensor: across, down.
EXIF_FOCAL_PLANE = tuple(((where, 41486), (where, 41487)) for where in (exif.EXIF, exif.MAIN))
EXIF_DENSITY = ((exif.MAIN, 282), (exif.MAIN, 283))
ORIENTATION, DENSITY_UNIT, COLOR_SPACE, DESCRIPTION = 274, 296, 40961, 270

# Of a main directory outside of TIFF: what describes the old file and must go.
EXIF_STALE = {tag: what for tag, what in blocks.STALE_TAGS.items()} | {
    33723: "",
    34675: "",
    700: "",
}
# Photoshop's resources that describe the old file; without a word, what lies elsewhere too.
RESOURCES_STALE = {
    **dict.fromkeys((1033, 1036), "Photoshop's thumbnail"),
    **dict.fromkeys((1032, 1050), "Photoshop's guides and slices"),
    **dict.fromkeys((1024, 1026, 1065, 1069, 1072, 1077, 1080, 1088), "Photoshop's layers"),
    **dict.fromkeys((1005, 1028, 1039, 1058, 1059, 1060), ""),
}
IPTC_RESOURCE = 1028
PATHS = {1025, *range(2000, 2998)}

UNITS = {
    **{"nm": Fraction(1, 10**9), "nanometer": Fraction(1, 10**9), "mm": Fraction(1, 1000)},
    **dict.fromkeys(("um", "micron", "µm", "μm", "\\u00B5m"), Fraction(1, 10**6)),
    **{"cm": Fraction(1, 100), "m": Fraction(1), "inch": blocks.INCH, "in": blocks.INCH},
}


@dataclass(frozen=True)
class Metadata:
    """Everything beside the pixels that is carried from one file to the next.

    Parameters
    ----------
    size
        (W, H) of the upright image that it belongs to; (0, 0) if that is not known.
    exif
        A TIFF structure (no ``Exif`` prefix) as it was, but upright and without its
        thumbnail; empty if there is none.
    icc
        The colour profile that fits the image's channels; empty means sRGB.
    xmp
        The XMP packet, its extension joined to it; empty if there is none.
    iptc
        IPTC-IIM records.
    photoshop
        Photoshop's image resources other than IPTC.
    density
        Pixels per length, or the shape of a pixel. Kept as it is (an image with more
        pixels prints larger), unless it is that of a microscope.
    comment
        The comment of a JPEG, GIF or JPEG 2000 file.
    text
        Text chunks of a PNG file.
    color
        Colour signalling: cICP in PNG, nclx in AVIF.
    mastering, light
        mDCV and cLLI, as in PNG: the screen that an HDR image was made on, and how
        bright it is.
    gamma, chromaticity, srgb
        The PNG chunks gAMA, cHRM (eight numbers) and sRGB (rendering intent).
    ground
        Entries of a TIFF that say where the image lies on the ground, little-endian.
    loop
        How often an animation plays, 0 for ever; None where the file is silent
        (it then plays once).
    durations
        Milliseconds of each frame of an animation.
    lost
        What could not be brought to another size, in words.
    """

    size: tuple[int, int] = (0, 0)
    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    photoshop: bytes = b""
    density: Density | None = None
    comment: bytes = b""
    text: tuple[PngText, ...] = ()
    color: Color | None = None
    mastering: bytes = b""
    light: bytes = b""
    gamma: float | None = None
    chromaticity: tuple[float, ...] = ()
    srgb: int | None = None
    ground: tuple[tuple[int, Value], ...] = ()
    loop: int | None = None
    durations: tuple[float, ...] = field(default=())
    lost: tuple[str, ...] = ()

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Horizontal and vertical pixels per inch, or None."""
        if self.density is None or not self.density.unit:
            return None
        x, y = self.density.per(blocks.INCH)
        return float(x), float(y)

    def resized(self, size: tuple[int, int]) -> Metadata:
        """The same for the image brought to ``size`` (W, H): all that counts pixels is scaled."""
        old = self.size if all(self.size) else size
        x, y = Fraction(size[0], old[0]), Fraction(size[1], old[1])
        density = self.density
        if density is not None and density.physical:
            density = replace(density, x=density.x * x, y=density.y * y)
        block, lost = _resized_exif(self.exif, size, x, y, density)
        ground, lost_ground = _resized_ground(self.ground, x, y)
        return replace(
            self,
            size=size,
            exif=block,
            xmp=xmp.resized(self.xmp, old, size, physical=bool(density and density.physical)),
            density=density,
            ground=ground,
            lost=tuple(dict.fromkeys((*self.lost, *lost, *lost_ground))),
        )

    def stripped(self) -> Metadata:
        """Only what the image needs to look the same: colours, shape and timing."""
        return Metadata(
            size=self.size,
            icc=self.icc,
            density=self.density,
            color=self.color,
            mastering=self.mastering,
            light=self.light,
            gamma=self.gamma,
            chromaticity=self.chromaticity,
            srgb=self.srgb,
            loop=self.loop,
            durations=self.durations,
        )

    def noted(self, agent: str, parameters: str, when: str) -> Metadata:
        """The same with an entry in the history that XMP keeps.

        Parameters
        ----------
        agent
            The program, with its version.
        parameters
            How the image was upscaled.
        when
            The time, as in ISO 8601.
        """
        packet = xmp.noted(self.xmp, "upscaled", agent, parameters, when)
        if packet is None:
            return replace(self, lost=(*self.lost, "the note (the XMP of the file is damaged)"))
        return replace(self, xmp=packet)

    def pillow_info(self) -> dict[str, Any]:
        """The same under the names that Pillow uses in ``Image.info``."""
        info: dict[str, Any] = {
            "exif": exif.PREFIX + self.exif if self.exif else b"",
            "icc_profile": self.icc,
            "xmp": self.xmp,
            "dpi": self.dpi,
            "comment": self.comment,
        }
        return {key: value for key, value in info.items() if value}


def read_metadata(
    name: str,
    stream: BinaryIO,
    *,
    size: tuple[int, int],
    orientation: int = 1,
    channels: int = 3,
    converted: bool = False,
    icc: bytes = b"",
) -> tuple[Metadata, tuple[str, ...]]:
    """Collect the metadata of a file, and sentences on what is not carried over.

    Parameters
    ----------
    name
        Pillow's name of the format.
    stream
        The file; can seek.
    size
        (W, H) as stored; upright of HEIF and JPEG XL.
    orientation
        That is undone when the pixels are read, 1 to 8; found here for HEIF and JPEG XL.
    channels
        1 or 3 colour channels of what the pixels become; a profile for another
        colour space is dropped.
    converted
        Whether the colours are converted to sRGB, so that the profile has been used.
    icc
        The profile, where only a decoder finds it.
    """
    found = blocks.read_blocks(name, stream)
    if name in ("HEIF", "JXL"):  # turned by their decoders
        heif = name == "HEIF"
        orientation = (
            blocks.heif_orientation(stream) if heif else read_jxl_header(stream).orientation
        )
        size = size[::-1] if orientation > 4 else size
    stale: list[str] = []
    damaged = [*found.damaged]
    width, height = size

    def turn(x: float, y: float) -> tuple[float, float]:
        return xmp.turned(x, y, width - 1, height - 1, orientation)

    packet, gone, broken = _joined_xmp(found)
    stale += gone
    damaged += broken
    if packet:
        packet = xmp.upright(packet, orientation, size, turn)
    block = _upright_exif(found.exif, orientation, turn, converted, stale, damaged)
    iptc, resources = _resources(found, orientation, stale)
    density = found.density or _exif_density(block)
    density, block, gone = _described(found, block, density)
    stale += gone
    if density is not None and density.unit:
        physical = density.physical or max(density.per(blocks.INCH)) > FINEST_PRINT
        density = replace(density, physical=physical)
    if density is not None and orientation > 4:
        density = replace(density, x=density.y, y=density.x)
    ground = found.ground
    if orientation > 1 and any(tag in GROUND_SCALED for tag, _ in ground):
        ground = ()
        stale.append("where the image lies on the ground (it was turned)")
    profile = found.icc or icc
    fits = profile[16:20] == COLOR_SPACES[channels] and not converted
    metadata = Metadata(
        size=(height, width) if orientation > 4 else size,
        exif=block,
        icc=profile if fits else b"",
        xmp=packet,
        iptc=iptc,
        photoshop=resources,
        density=density,
        comment=found.comment,
        text=found.text,
        color=None if found.color is None or found.color.usual else found.color,
        mastering=found.mastering,
        light=found.light,
        gamma=found.gamma,
        chromaticity=found.chromaticity,
        srgb=found.srgb,
        ground=ground,
    )
    sentences = []
    if found.parts:
        sentences.append(f"{HOLDS_MORE} {_listed(found.parts)}.")
    if stale := [one for one in stale if one and one not in found.parts]:
        sentences.append(f"What describes the old file is left out: {_listed(stale)}.")
    if found.others:
        sentences.append(f"Not carried over: {_listed(found.others)}.")
    if damaged:
        sentences.append(f"Damaged, and left out: {_listed(damaged)}.")
    if profile and not fits and not converted:
        sentences.append("The colour profile is not for these channels, and is left out.")
    return metadata, tuple(sentences)


def metadata_in_memory(image: Image.Image, channels: int, converted: bool) -> Metadata:
    """The metadata of a Pillow image as it lies in memory, which is not turned.

    Parameters
    ----------
    channels, converted
        As for :func:`read_metadata`.
    """
    info = image.info
    icc = info.get("icc_profile") or b""
    packet = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    packet = packet.encode() if isinstance(packet, str) else bytes(packet)
    comment = info.get("comment", b"")
    stale: list[str] = []
    block = _upright_exif(_exif_in_memory(image), 0, lambda x, y: (x, y), converted, stale, [])
    return Metadata(
        size=image.size,
        exif=block,
        icc=icc if icc[16:20] == COLOR_SPACES[channels] and not converted else b"",
        xmp=xmp.without_stale(xmp.utf8(packet))[0],
        density=_pillow_density(info.get("dpi")),
        comment=comment.encode() if isinstance(comment, str) else bytes(comment),
        loop=info.get("loop"),
    )


def _exif_in_memory(image: Image.Image) -> bytes:
    """The EXIF block as it was read, or as Pillow writes it where the caller changed it."""
    info = image.info
    raw = info.get("exif") or b""
    raw = raw.tobytes() if isinstance(raw, Image.Exif) else bytes(raw)
    try:
        now = image.getexif()
        before = Image.Exif()
        if raw:
            before.load(raw)
        # Pillow adds an orientation that only XMP states.
        added = {ORIENTATION} if "xmp" in info and ORIENTATION not in before else set()
        if raw and _entries(now, added) == _entries(before, added):
            return raw.removeprefix(exif.PREFIX)
        own = Image.Exif()
        own.endian = "<"
        for tag, value in now.items():
            if tag in blocks.ALLOWED | {ORIENTATION} - added:
                pointed = tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
                own[tag] = dict(now.get_ifd(tag)) if pointed else value
        return own.tobytes().removeprefix(exif.PREFIX) if len(own) else b""
    except Exception:  # whatever a damaged EXIF block makes Pillow raise
        return b""


def _entries(data: Image.Exif, but: set[int]) -> list[str]:
    """All that an EXIF object holds but some tags, in a form that can be compared."""
    pointers = {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
    return [
        repr(sorted((tag, str(value)) for tag, value in one.items() if tag not in pointers | but))
        for one in (data, *(data.get_ifd(tag) for tag in sorted(pointers)))
    ]


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image that Pillow opened, 1 (upright) to 8."""
    if image.format in ("HEIF", "JXL"):  # which are turned when they are decoded
        return 1
    try:
        if isinstance(image, PngImagePlugin.PngImageFile) and image.tile:
            return _png_orientation(image)
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # whatever a damaged EXIF block makes Pillow raise
        return 1
    return value if value in range(1, 9) else 1


def _png_orientation(image: PngImagePlugin.PngImageFile) -> int:
    """The orientation of a PNG file, which Pillow would decode in search of it."""
    assert image.fp is not None
    place = image.fp.tell()
    found = blocks.read_blocks("PNG", cast(BinaryIO, image.fp))
    image.fp.seek(place)
    with suppress(exif.DamagedError):
        values = exif.Block(found.exif).numbers(exif.MAIN, ORIENTATION)
        if len(values) == 1 and values[0] in range(1, 9):
            return int(values[0])
    return xmp.orientation(xmp.utf8(found.xmp))


def _listed(words: Any) -> str:
    return ", ".join(dict.fromkeys(words))


def _joined_xmp(found: FileBlocks) -> tuple[bytes, list[str], list[str]]:
    """The packet with its extension, what was stale in it, and what is damaged."""
    packet = xmp.utf8(found.xmp)
    broken = []
    if found.extension:
        whole = xmp.merged(packet, xmp.utf8(found.extension))
        if whole is None:
            broken.append("the extended XMP")
        else:
            packet = whole
    packet, gone = xmp.without_stale(packet)
    return packet, list(gone), broken


def _upright_exif(
    data: bytes,
    orientation: int,
    turn: xmp.Turn,
    converted: bool,
    stale: list[str],
    damaged: list[str],
) -> bytes:
    """An EXIF block for the upright image, without what describes the old file.

    Parameters
    ----------
    orientation
        That is undone; 0 to leave what the block says.
    """
    if not data:
        return b""
    try:
        block = exif.Block(data)
    except exif.DamagedError:
        damaged.append("the EXIF data")
        return b""
    block.drop_thumbnail()
    for tag in block.astray:
        parent = next(parent for parent, one in exif.POINTERS.values() if one == tag)
        block.remove(parent, tag)
        damaged.append(exif.tag_name(tag))
    gone = [tag for tag in block.tags(exif.MAIN) if tag in EXIF_STALE]
    if gone:
        block.remove(exif.MAIN, *gone)
        stale += [EXIF_STALE[tag] for tag in gone]
    turned = orientation and ORIENTATION in block.tags(exif.MAIN)
    if turned and not block.put(exif.MAIN, ORIENTATION, [1]):
        block.remove(exif.MAIN, ORIENTATION)
    if converted and COLOR_SPACE in block.tags(exif.EXIF):
        block.put(exif.EXIF, COLOR_SPACE, [1])
    if orientation > 1:
        for where in EXIF_SUBJECT:
            values = [float(value) for value in block.numbers(*where)]
            if values:
                block.put(*where, xmp.turned_subject(values, turn, orientation > 4))
    if orientation > 4:
        for across, down in (*EXIF_FOCAL_PLANE, EXIF_DENSITY):
            one, other = block.numbers(*across), block.numbers(*down)
            if one and other:
                block.put(*across, other)
                block.put(*down, one)
    return _checked(block.data(), damaged) if block.tags(exif.MAIN) else b""


def _checked(data: bytes, damaged: list[str]) -> bytes:
    """A block that can still be read; nothing if its parts lay over each other."""
    try:
        exif.Block(data)
    except exif.DamagedError:
        damaged.append("the EXIF data")
        return b""
    return data


def _resized_exif(
    data: bytes, size: tuple[int, int], x: Fraction, y: Fraction, density: Density | None
) -> tuple[bytes, list[str]]:
    """An EXIF block with everything that counts pixels brought to another size."""
    if not data:
        return b"", []
    block = exif.Block(data)
    lost: list[str] = []

    def put(where: tuple[str, int], values: Sequence[int | float | Fraction]) -> None:
        if where[1] in block.tags(where[0]) and not block.put(*where, values):
            block.remove(*where)
            lost.append(exif.tag_name(where[1]))

    for places, length in ((EXIF_WIDTH, size[0]), (EXIF_HEIGHT, size[1])):
        for where in places:
            put(where, [length])
    if x != 1 or y != 1:
        for where in EXIF_SUBJECT:
            values = [float(value) for value in block.numbers(*where)]
            put(where, xmp.scaled_subject(values, float(x), float(y)))
        # Both are read before one is written: they may share their bytes.
        focal = {
            where: [value * factor for value in block.numbers(*where)]
            for across, down in EXIF_FOCAL_PLANE
            for where, factor in ((across, x), (down, y))
        }
        for where, scaled in focal.items():
            put(where, scaled)
    if density is not None and density.physical:
        unit = block.numbers(exif.MAIN, DENSITY_UNIT)[:1]
        units = {2: blocks.INCH, 3: blocks.CENTIMETRE}
        metres = units.get(int(unit[0]) if unit else 2, blocks.INCH)
        for where, value in zip(EXIF_DENSITY, density.per(metres), strict=True):
            put(where, [value])
    damaged: list[str] = []
    return _checked(block.data(), damaged), lost + damaged


# Entries of a GeoTIFF that count pixels: pixel size, tie points, transformation, and
# the coefficients of a rational function (RPC).
PIXEL_SCALE, TIE_POINTS, TRANSFORMATION = 33550, 33922, 34264
GEO_KEYS, RATIONAL_FUNCTION = 34735, 50844
GROUND_SCALED = (PIXEL_SCALE, TIE_POINTS, TRANSFORMATION, RATIONAL_FUNCTION)


def _resized_ground(
    ground: tuple[tuple[int, Value], ...], x: Fraction, y: Fraction
) -> tuple[tuple[tuple[int, Value], ...], list[str]]:
    """Where an image lies on the ground when it is brought to another size."""
    if not ground or x == y == 1:
        return ground, []
    tags = dict(ground)
    keys = exif.numbers(tags[GEO_KEYS], "<") if GEO_KEYS in tags else []
    # Key 1025 says whether coordinates count the corners of pixels (1) or their middles (2).
    middles = any(keys[at] == 1025 and keys[at + 3] == 2 for at in range(4, len(keys) - 3, 4))
    changes: dict[int, Callable[[list[float]], list[float] | None]] = {
        PIXEL_SCALE: lambda v: [v[0] / float(x), v[1] / float(y), *v[2:]] if len(v) >= 2 else None,
        TIE_POINTS: lambda v: _resized_ties(v, float(x), float(y), middles),
        TRANSFORMATION: lambda v: _resized_matrix(v, float(x), float(y), middles),
        RATIONAL_FUNCTION: lambda v: _resized_function(v, float(x), float(y)),
    }
    lost = []
    for tag, change in changes.items():
        if tag not in tags:
            continue
        kind, count, _ = tags[tag]
        before = [float(value) for value in exif.numbers(tags[tag], "<")]
        after = change(before)
        packed = exif.pack(kind, after, "<") if after else None
        if packed is None:
            del tags[tag]
            lost.append(exif.tag_name(tag))
        else:
            tags[tag] = (kind, count, packed)
    return tuple(sorted(tags.items())), lost


def _middle(place: float, factor: float, middles: bool) -> float:
    """A pixel coordinate after scaling, counted from corners or from the middles of pixels."""
    return (place + 0.5) * factor - 0.5 if middles else place * factor


def _resized_ties(values: list[float], x: float, y: float, middles: bool) -> list[float] | None:
    if not values or len(values) % 6:
        return None
    result = []
    for at in range(0, len(values), 6):
        column, row, *rest = values[at : at + 6]
        result += [_middle(column, x, middles), _middle(row, y, middles), *rest]
    return result


def _resized_matrix(v: list[float], x: float, y: float, middles: bool) -> list[float] | None:
    if len(v) != 16:
        return None
    result = list(v)
    for row in range(0, 12, 4):
        across, down = v[row], v[row + 1]
        result[row], result[row + 1] = across / x, down / y
        if middles:
            result[row + 3] += across * (0.5 / x - 0.5) + down * (0.5 / y - 0.5)
    return result


def _resized_function(v: list[float], x: float, y: float) -> list[float] | None:
    """RPC: offsets count the middles of pixels; lines are down, samples across."""
    if len(v) < 92:
        return None
    result = list(v)
    result[2], result[3] = _middle(v[2], y, True), _middle(v[3], x, True)
    result[7], result[8] = v[7] * y, v[8] * x
    return result


def _resources(found: FileBlocks, orientation: int, stale: list[str]) -> tuple[bytes, bytes]:
    """IPTC, and Photoshop's resources that still hold."""
    iptc, kept = found.iptc, []
    for number, name, data in blocks.resource_list(found.photoshop):
        if number == IPTC_RESOURCE:
            iptc = iptc or data
        if number in PATHS and orientation > 1:
            stale.append("Photoshop's paths (the image was turned)")
        elif number in RESOURCES_STALE:
            stale.append(RESOURCES_STALE[number])
        else:
            kept.append((number, name, data))
    return iptc, blocks.encode_resources(kept)


def _exif_density(data: bytes) -> Density | None:
    """The density that EXIF states; 72 to the inch is what it has to state when it knows none."""
    if not data:
        return None
    block = exif.Block(data)
    across, down = (block.numbers(*where) for where in EXIF_DENSITY)
    unit = block.numbers(exif.MAIN, DENSITY_UNIT) or [2]
    units = {2: blocks.INCH, 3: blocks.CENTIMETRE}
    if len(across) != 1 or len(down) != 1 or unit[0] not in units:
        return None
    return blocks.density(across[0], down[0], units[int(unit[0])])


def _pillow_density(value: Any) -> Density | None:
    try:
        return blocks.density(float(value[0]), float(value[1]), blocks.INCH)
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return None


def _described(
    found: FileBlocks, data: bytes, density: Density | None
) -> tuple[Density | None, bytes, list[str]]:
    """Descriptions that microscopes and scientific programs write, read and dropped if need be."""
    if not data:
        return density, data, []
    block = exif.Block(data)
    text = block.value(exif.MAIN, DESCRIPTION).rstrip(b"\0").decode("utf-8", "replace")
    if text.startswith("ImageJ="):
        density = _imagej_density(text, density, found)
        counts = re.findall(r"^(?:images|channels|slices|frames)=(\d+)", text, re.M)
        what = "ImageJ's description of a stack" if any(int(one) > 1 for one in counts) else ""
    elif "<OME" in text[:2000]:
        density = density or _ome_density(text)
        what = "the OME description"
    else:
        shaped = re.match(r'\{"shape": |shape=\(', text)
        what = "a description of the array's shape" if shaped else ""
    if what:
        block.remove(exif.MAIN, DESCRIPTION)
        data = block.data() if block.tags(exif.MAIN) else b""
    return density, data, [what] if what else []


def _imagej_density(text: str, density: Density | None, found: FileBlocks) -> Density | None:
    """ImageJ states pixels per a unit that only its description names."""
    unit = re.search(r"^unit=(.+)$", text, re.M)
    metres = UNITS.get(unit[1].strip()) if unit else None
    if metres is None or found.resolution is None:
        return density
    across, down = found.resolution
    own = blocks.density(across, down, metres)
    return replace(own, physical=True) if own else density


def _ome_density(text: str) -> Density | None:
    sizes = []
    for axis in "XY":
        size = re.search(rf'PhysicalSize{axis}="([^"]+)"', text)
        unit = re.search(rf'PhysicalSize{axis}Unit="([^"]+)"', text)
        metres = UNITS.get(unit[1] if unit else "µm")
        try:
            length = float(size[1]) if size else 0.0
        except ValueError:
            return None
        if metres is None or not length > 0 or length == float("inf"):
            return None
        sizes.append(1 / (Fraction(length) * metres))
    own = blocks.density(sizes[0], sizes[1], blocks.METRE)
    return replace(own, physical=True) if own else None


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
