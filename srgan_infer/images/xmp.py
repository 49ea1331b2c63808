"""XMP packets: RDF in XML, changed in their text so that the rest stays as it was written.

Source: XMP specification parts 1 to 3 (ISO 16684-1); MWG guidelines 2.0 (regions);
Google's Photo Sphere (GPano) and Adobe's gain map (hdrgm) schemas.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from xml.sax.saxutils import quoteattr

Turn = Callable[[float, float], tuple[float, float]]
# What stands for each namespace in one packet: a pattern of prefixes.
Spaces = dict[str, bytes]

TIFF = "http://ns.adobe.com/tiff/1.0/"
EXIF = "http://ns.adobe.com/exif/1.0/"
PANORAMA = "http://ns.google.com/photos/1.0/panorama/"
REGIONS = "http://www.metadataworkinggroup.com/schemas/regions/"
DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
AREA = "http://ns.adobe.com/xmp/sType/Area#"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
XMP = "http://ns.adobe.com/xap/1.0/"
NOTE = "http://ns.adobe.com/xmp/note/"
MEDIA = "http://ns.adobe.com/xap/1.0/mm/"
EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
PREFIXES = {
    TIFF: "tiff",
    EXIF: "exif",
    PANORAMA: "GPano",
    REGIONS: "mwg-rs",
    DIMENSIONS: "stDim",
    AREA: "stArea",
    IPTC: "Iptc4xmpExt",
    XMP: "xmp",
    NOTE: "xmpNote",
    MEDIA: "xmpMM",
    EVENT: "stEvt",
    RDF: "rdf",
}

# What scales with the width, and what with the height.
ALONG_X = {
    TIFF: ("ImageWidth",),
    EXIF: ("PixelXDimension",),
    PANORAMA: (
        *("FullPanoWidthPixels", "CroppedAreaImageWidthPixels", "CroppedAreaLeftPixels"),
        *("LargestValidInteriorRectLeft", "LargestValidInteriorRectWidth"),
    ),
}
ALONG_Y = {
    TIFF: ("ImageLength",),
    EXIF: ("PixelYDimension",),
    PANORAMA: (
        *("FullPanoHeightPixels", "CroppedAreaImageHeightPixels", "CroppedAreaTopPixels"),
        *("LargestValidInteriorRectTop", "LargestValidInteriorRectHeight"),
    ),
}

# What describes the old file, and what people call it. A name of None is all of them.
STALE: tuple[tuple[str, str, tuple[str, ...] | None, str], ...] = (
    ("http://ns.adobe.com/hdr-gain-map/1.0/", "hdrgm", None, "gain map"),
    ("http://ns.apple.com/HDRGainMap/1.0/", "HDRGainMap", None, "gain map"),
    ("http://ns.apple.com/pixeldatainfo/1.0/", "apdi", None, "gain map"),
    ("http://ns.google.com/photos/1.0/container/", "Container", None, "gain map or motion part"),
    ("http://ns.google.com/photos/1.0/container/item/", "Item", None, "gain map or motion part"),
    (
        "http://ns.google.com/photos/1.0/camera/",
        "GCamera",
        (
            *("MicroVideo", "MicroVideoVersion", "MicroVideoOffset"),
            *("MicroVideoPresentationTimestampUs", "MotionPhoto", "MotionPhotoVersion"),
            "MotionPhotoPresentationTimestampUs",
        ),
        "motion part",
    ),
    ("http://ns.oplus.com/photos/1.0/camera/", "OpCamera", None, "motion part"),
    ("http://ns.google.com/photos/1.0/depthmap/", "GDepth", None, "depth map"),
    ("http://ns.google.com/photos/1.0/image/", "GImage", None, "second view"),
    ("http://ns.google.com/photos/dd/1.0/device/", "Device", None, "depth map"),
    ("http://ns.xiaomi.com/photos/1.0/camera/", "MiCamera", None, "depth map"),
    (XMP, "xmp", ("Thumbnails",), "thumbnails in XMP"),
)

QUOTED = rb"(?:\"[^\"]*\"|'[^']*')"

# More than this is made to be slow: prefixes of one namespace, elements inside each other.
MOST_PREFIXES, DEEPEST = 8, 100

# In a JPEG file: what one segment holds behind the name of its kind.
SEGMENT_LIMIT = 65502
EXTENSION_LIMIT = 65400


def utf8(packet: bytes) -> bytes:
    """The packet in UTF-8, whatever its encoding; without a byte order mark."""
    for mark, encoding in (
        (b"\xff\xfe\0\0", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
        (b"<\0\0\0", "utf-32-le"),
        (b"\0\0\0<", "utf-32-be"),
        (b"<\0", "utf-16-le"),
        (b"\0<", "utf-16-be"),
    ):
        if packet.startswith(mark):
            text = packet.decode(encoding, "replace").lstrip("\ufeff")
            text = re.sub(r"(<\?xml[^>]*encoding=[\"'])[^\"']*", r"\g<1>UTF-8", text)
            return text.encode()
    return packet.removeprefix(b"\xef\xbb\xbf").rstrip(b"\0")


def orientation(packet: bytes) -> int:
    """The orientation that the packet states, 1 to 8; 1 if it states none."""
    value = _first(packet, _spaces(packet), TIFF, "Orientation")
    return int(value) if value in (b"2", b"3", b"4", b"5", b"6", b"7", b"8") else 1


def upright(packet: bytes, orientation: int, size: tuple[int, int], turn: Turn) -> bytes:
    """The same for a picture that was turned upright.

    Parameters
    ----------
    orientation
        That was undone, 1 to 8.
    size
        (W, H) before.
    turn
        From a pixel's place before to its place after.
    """
    spaces = _spaces(packet)
    packet = _replaced(packet, spaces, TIFF, "Orientation", _always(b"1"))
    if orientation == 1:
        return packet
    quarter = orientation > 4

    def turned_list(values: list[float]) -> list[float]:
        return turned_subject(values, turn, quarter)

    for name in ("SubjectLocation", "SubjectArea"):
        packet = _with_list(packet, spaces, EXIF, name, turned_list)
    return _regions_upright(packet, spaces, orientation, size)


def turned_subject(values: list[float], turn: Turn, quarter: bool) -> list[float]:
    """A subject's place (x, y), (x, y, diameter) or (x, y, width, height), turned upright."""
    if len(values) < 2:
        return values
    rest = values[2:]
    return [*turn(values[0], values[1]), *(rest[::-1] if quarter else rest)]


def scaled_subject(values: list[float], x: float, y: float) -> list[float]:
    """A subject's place, scaled by ``x`` and ``y``; its diameter by their mean."""
    factors = (x, y, (x + y) / 2) if len(values) == 3 else (x, y, x, y)
    scaled = [value * factor for value, factor in zip(values, factors, strict=False)]
    return scaled + values[4:]


def resized(
    packet: bytes, old: tuple[int, int], new: tuple[int, int], physical: bool = False
) -> bytes:
    """The same with all that counts pixels set for another size.

    Parameters
    ----------
    old, new
        (W, H).
    physical
        Whether the resolution counts the thing that is shown, and so grows too.
    """
    if not packet:
        return b""
    spaces = _spaces(packet)
    x, y = new[0] / old[0], new[1] / old[1]
    for names, length, factor in ((ALONG_X, new[0], x), (ALONG_Y, new[1], y)):
        for space, keys in names.items():
            change = _times(factor) if space == PANORAMA else _always(b"%d" % length)
            for key in keys:
                packet = _replaced(packet, spaces, space, key, change)

    def scaled_list(values: list[float]) -> list[float]:
        return scaled_subject(values, x, y)

    for name in ("SubjectLocation", "SubjectArea"):
        packet = _with_list(packet, spaces, EXIF, name, scaled_list)
    packet = _replaced(packet, spaces, EXIF, "FocalPlaneXResolution", _times(x))
    packet = _replaced(packet, spaces, EXIF, "FocalPlaneYResolution", _times(y))
    if physical:
        packet = _replaced(packet, spaces, TIFF, "XResolution", _times(x))
        packet = _replaced(packet, spaces, TIFF, "YResolution", _times(y))
    return _regions_resized(packet, spaces, x, y)


def without_stale(packet: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Take out what describes the old file, and say what that was."""
    spaces = _spaces(packet)
    gone = []
    for space, prefix, keys, what in STALE:
        names = spaces.get(space, re.escape(prefix.encode()))
        if not any(name.replace(b"\\", b"") + b":" in packet for name in names.split(b"|")):
            continue
        inner = b"|".join(key.encode() for key in keys) if keys else rb"[\w.-]+"
        full = rb"(?:%s):(?:%s)" % (names, inner)
        shorter = _put(packet, full, lambda element: b"")
        shorter = re.sub(rb"(?<=\s)" + full + rb"\s*=\s*" + QUOTED, b"", shorter)
        if shorter == packet:
            continue
        if keys is None:
            shorter = re.sub(rb"(?<=\s)xmlns:(?:%s)\s*=\s*" % names + QUOTED, b"", shorter)
        packet = shorter
        gone.append(what)
    return packet, tuple(dict.fromkeys(gone))


def noted(packet: bytes, action: str, agent: str, parameters: str, when: str) -> bytes | None:
    """Add an entry to the packet's history; None if the packet has no RDF to put it in.

    Parameters
    ----------
    packet
        May be empty.
    action, agent, parameters, when
        Of the entry: what was done, by which program, how, and the time (ISO 8601).
    """
    facts = {"action": action, "when": when, "softwareAgent": agent, "parameters": parameters}
    attributes = " ".join(f"stEvt:{key}={quoteattr(value)}" for key, value in facts.items())
    entry = f'<rdf:li xmlns:rdf="{RDF}" xmlns:stEvt="{EVENT}" {attributes}/>'.encode()
    if not packet.strip():
        packet = (
            b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
            b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="' + RDF.encode() + b'">'
            b'</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
        )
    spaces = _spaces(packet)
    history = next(_elements(packet, rb"(?:%s):History" % spaces[MEDIA]), None)
    if history is None:
        block = f'<rdf:Description xmlns:rdf="{RDF}" rdf:about="" xmlns:xmpMM="{MEDIA}">'.encode()
        block += b"<xmpMM:History><rdf:Seq>" + entry + b"</rdf:Seq></xmpMM:History>"
        return _before_end(packet, spaces, block + b"</rdf:Description>")
    start, end = history
    longer = _before_close(packet[start:end], rb"(?:%s):Seq" % spaces[RDF], entry)
    return None if longer is None else packet[:start] + longer + packet[end:]


def merged(packet: bytes, extension: bytes) -> bytes | None:
    """A packet with its extension in it; None if one of them cannot be understood.

    Parameters
    ----------
    packet
        As in a JPEG file, which points to its extension.
    extension
        The joined extension.
    """
    name = rb"(?:%s):RDF" % _spaces(extension)[RDF]
    opening = re.search(rb"<" + name + rb"\b([^<>]*)(?<!/)>", extension)
    closings = list(re.finditer(rb"</" + name + rb"\s*>", extension))
    if not opening or not closings or closings[-1].start() < opening.end():
        return None
    body = extension[opening.end() : closings[-1].start()].strip()
    packet = _without(packet, _spaces(packet), NOTE, "HasExtendedXMP")
    spaces = _spaces(packet)
    start = re.search(rb"<(?:%s):RDF\b[^<>]*(?<!/)>" % spaces[RDF], packet)
    if not start:
        return None
    # Descriptions bring their own names along, but those of the elements around them are lost.
    known = set(re.findall(rb"(?<=\s)xmlns:[\w.-]+", start.group()))
    added = [one for one in _declared_outside(extension) if one.split(b"=")[0].strip() not in known]
    at = start.end() - 1
    return _before_end(packet[:at] + b"".join(added) + packet[at:], spaces, body)


def compact(packet: bytes) -> bytes:
    """The same without the spaces that leave room for editing in place."""
    end = packet.rfind(b"<?xpacket end")
    return packet if end < 0 else packet[:end].rstrip() + b"\n" + packet[end:]


def split(packet: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Divide a packet that is too long for one segment of a JPEG file.

    The largest properties go into the extension, until the rest fits.

    Returns
    -------
    tuple or None
        The packet that stays, its extension's digest and the extension; None if the
        packet cannot be understood.
    """
    packet = compact(packet)
    spaces = _spaces(packet)
    pointer = (
        f'<rdf:Description xmlns:rdf="{RDF}" rdf:about="" xmlns:xmpNote="{NOTE}" '
        f'xmpNote:HasExtendedXMP="{"0" * 32}"/>'
    ).encode()
    length = len(packet) + len(pointer)
    moved: list[tuple[int, int, bytes]] = []
    for one in sorted(_properties(packet, spaces), key=lambda one: one[0] - one[1]):
        if length <= SEGMENT_LIMIT:
            break
        moved.append(one)
        length -= one[1] - one[0]
    if length > SEGMENT_LIMIT or not moved:
        return None
    moved.sort()
    body = b"".join(
        start_tag + packet[start:end] + end_tag(start_tag) for start, end, start_tag in moved
    )
    extension = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="%s"%s>%s</rdf:RDF></x:xmpmeta>'
        % (
            RDF.encode(),
            b"".join(
                one
                for one in _declared_outside(packet)
                if not one.strip().startswith(b"xmlns:rdf=")
            ),
            body,
        )
    )
    digest = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper().encode()
    pieces, at = [], 0
    for start, end, _ in moved:
        pieces.append(packet[at:start])
        at = end
    main = _before_end(b"".join([*pieces, packet[at:]]), spaces, pointer.replace(b"0" * 32, digest))
    return None if main is None else (main, digest, extension)


def end_tag(start_tag: bytes) -> bytes:
    """The tag that closes an element."""
    return b"</" + re.split(rb"[\s>]", start_tag[1:], maxsplit=1)[0] + b">"


def extended_digest(packet: bytes) -> bytes:
    """The digest of the extension that a packet points to; empty if there is none."""
    return _first(packet, _spaces(packet), NOTE, "HasExtendedXMP")


def _properties(packet: bytes, spaces: Spaces) -> Iterator[tuple[int, int, bytes]]:
    """Elements right inside of descriptions: start, end and a start tag for their description."""
    description = re.compile(rb"(?:%s):Description" % spaces[RDF])
    path: list[tuple[bytes, int, int]] = []
    for start, end in _tags(packet):
        if packet[start + 1 : start + 2] == b"/":
            if not path or path[-1][0] != packet[start + 2 : end - 1].strip():
                return
            _, start, _ = path.pop()
        elif packet[end - 2 : end - 1] != b"/":
            name = re.split(rb"[\s>]", packet[start + 1 : end], maxsplit=1)[0]
            path.append((name, start, end))
            if len(path) > DEEPEST:
                return
            continue
        if len(path) < 2 or not path[-2][0].endswith(b":RDF"):
            continue
        if description.fullmatch(path[-1][0]):
            yield start, end, _bare(packet[path[-1][1] : path[-1][2]])


def _tags(packet: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each tag that is neither a comment nor an instruction."""
    at = 0
    while (start := packet.find(b"<", at)) >= 0:
        closing = b">"
        for opening, other in ((b"<!--", b"-->"), (b"<![CDATA[", b"]]>"), (b"<?", b"?>")):
            if packet.startswith(opening, start):
                closing = other
        end = packet.find(closing, start)
        if end < 0:
            return
        at = end + len(closing)
        if closing == b">":
            yield start, at


def _bare(start_tag: bytes) -> bytes:
    """A description's start tag without the properties that are its attributes."""
    name = re.split(rb"[\s>]", start_tag[1:], maxsplit=1)[0]
    kept = re.findall(rb"\s(?:xmlns:[\w.-]+|[\w.-]+:about)\s*=\s*" + QUOTED, start_tag)
    return b"<" + name + b"".join(kept) + b">"


def _declared_outside(packet: bytes) -> list[bytes]:
    """Names declared by the elements around the descriptions."""
    return [
        space
        for head in re.findall(rb"<[\w.-]+:(?:xmpmeta|RDF)\b([^<>]*)>", packet)
        for space in re.findall(rb"\sxmlns:[\w.-]+\s*=\s*" + QUOTED, head)
        if not space.strip().startswith(b"xmlns:x=")
    ]


def _before_end(packet: bytes, spaces: Spaces, block: bytes) -> bytes | None:
    """Put a description behind the others."""
    return _before_close(packet, rb"(?:%s):RDF" % spaces[RDF], block)


def _before_close(packet: bytes, name: bytes, block: bytes) -> bytes | None:
    """Put something at the end of the last element of a name; None if there is none."""
    ends = list(re.finditer(rb"</" + name + rb"\s*>", packet))
    if ends:
        return packet[: ends[-1].start()] + block + packet[ends[-1].start() :]
    empty = re.search(rb"<(" + name + rb")\b([^<>]*)/>", packet)
    if not empty:
        return None
    whole = b"<" + empty[1] + empty[2] + b">" + block + b"</" + empty[1] + b">"
    return packet[: empty.start()] + whole + packet[empty.end() :]


def _spaces(packet: bytes) -> Spaces:
    """Prefixes by namespace, as this packet declares them; the usual ones for the others."""
    found: dict[str, list[bytes]] = {}
    for prefix, uri in re.findall(rb"xmlns:([\w.-]+)\s*=\s*[\"']([^\"'<>]*)[\"']", packet):
        same = found.setdefault(uri.decode("latin-1"), [])
        if prefix not in same and len(same) < MOST_PREFIXES:
            same.append(prefix)
    usual = {space: [prefix.encode()] for space, prefix in PREFIXES.items()}
    return {
        space: b"|".join(map(re.escape, prefixes)) for space, prefixes in (usual | found).items()
    }


def _elements(packet: bytes, name: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each element whose name matches a pattern; none of these nest."""
    opened: re.Match[bytes] | None = None
    for tag in re.finditer(rb"<(/?)(" + name + rb")(?=[\s/>])[^<>]*>", packet):
        if opened is not None:
            if tag[1] and tag[2] == opened[2]:
                yield opened.start(), tag.end()
                opened = None
        elif not tag[1]:
            if tag.group().endswith(b"/>"):
                yield tag.span()
            else:
                opened = tag


def _put(packet: bytes, name: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change each element whose name matches a pattern."""
    pieces, at = [], 0
    for start, end in _elements(packet, name):
        pieces += [packet[at:start], change(packet[start:end])]
        at = end
    return b"".join([*pieces, packet[at:]]) if pieces else packet


def _name(spaces: Spaces, space: str, name: str) -> bytes:
    return rb"(?:%s):%s" % (spaces[space], re.escape(name.encode()))


def _pattern(spaces: Spaces, space: str, name: str) -> bytes:
    key = _name(spaces, space, name)
    return (
        rb"(?P<head><" + key + rb"(?:\s[^<>]*)?(?<!/)>|\s" + key + rb"\s*=\s*[\"'])"
        rb"(?P<value>[^<>\"']*)(?=[<\"'])"
    )


def _first(piece: bytes, spaces: Spaces, space: str, name: str) -> bytes:
    """The value of a simple property; empty if it is not there."""
    if name.encode() not in piece:
        return b""
    match = re.search(_pattern(spaces, space, name), piece)
    return match["value"].strip() if match else b""


def _replaced(
    piece: bytes,
    spaces: Spaces,
    space: str,
    name: str,
    change: Callable[[bytes], bytes | None],
) -> bytes:
    """Change the value of a simple property, written as an element or an attribute."""
    if name.encode() not in piece:
        return piece

    def put(match: re.Match[bytes]) -> bytes:
        value = match["value"].strip()
        new = change(value) if value else None
        return match.group() if new is None else match["head"] + new

    return re.sub(_pattern(spaces, space, name), put, piece)


def _without(packet: bytes, spaces: Spaces, space: str, name: str) -> bytes:
    """Take a property out, written as an element or an attribute."""
    key = _name(spaces, space, name)
    packet = _put(packet, key, lambda element: b"")
    return re.sub(rb"(?<=\s)" + key + rb"\s*=\s*" + QUOTED, b"", packet)


def _always(new: bytes) -> Callable[[bytes], bytes | None]:
    return lambda _: new


def _times(factor: float) -> Callable[[bytes], bytes | None]:
    """Multiplies a number (``640``, ``1.5`` or ``300/1``), and keeps the way it is written."""

    def change(value: bytes) -> bytes | None:
        up, slash, down = value.partition(b"/")
        number = _number(up)
        return None if number is None else _written(number * factor, up) + slash + down

    return change


def _number(text: bytes) -> float | None:
    """A number that is plainly written; None for any other text."""
    return float(text) if re.fullmatch(rb"[-+]?\d{1,15}(?:\.\d{0,15})?", text) else None


def _written(number: float, like: bytes) -> bytes:
    return repr(number).encode() if b"." in like else b"%d" % round(number)


def _with_list(
    packet: bytes,
    spaces: Spaces,
    space: str,
    name: str,
    change: Callable[[list[float]], list[float]],
) -> bytes:
    """Change the numbers of an ordered list."""
    if name.encode() not in packet:
        return packet
    item = rb"(<[\w.-]+:li(?:\s[^<>]*)?>)\s*([^\s<>]+)\s*(?=<)"

    def put(element: bytes) -> bytes:
        values = [_number(value) for _, value in re.findall(item, element)]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return element
        new = iter(change(known))
        return re.sub(item, lambda one: one[1] + _written(next(new), one[2]), element)

    return _put(packet, _name(spaces, space, name), put)


def _regions_resized(packet: bytes, spaces: Spaces, x: float, y: float) -> bytes:
    def scaled(piece: bytes, space: str, keys: dict[str, float]) -> bytes:
        for key, factor in keys.items():
            piece = _replaced(piece, spaces, space, key, _times(factor))
        return piece

    def dimensions(piece: bytes) -> bytes:
        pixels = _first(piece, spaces, DIMENSIONS, "unit") in (b"", b"pixel")
        return scaled(piece, DIMENSIONS, {"w": x, "h": y}) if pixels else piece

    def area(piece: bytes) -> bytes:
        pixels = _first(piece, spaces, AREA, "unit") == b"pixel"
        keys = {"x": x, "y": y, "w": x, "h": y, "d": (x + y) / 2}
        return scaled(piece, AREA, keys) if pixels else piece

    def boundary(piece: bytes) -> bytes:
        pixels = _first(piece, spaces, IPTC, "rbUnit") == b"pixel"
        keys = {"rbX": x, "rbY": y, "rbW": x, "rbH": y, "rbRx": x}
        return scaled(piece, IPTC, keys) if pixels else piece

    packet = _put(packet, _name(spaces, REGIONS, "AppliedToDimensions"), dimensions)
    packet = _put(packet, _name(spaces, REGIONS, "Area"), area)
    return _put(packet, _name(spaces, IPTC, "RegionBoundary"), boundary)


def _regions_upright(
    packet: bytes, spaces: Spaces, orientation: int, size: tuple[int, int]
) -> bytes:
    """Turn the regions, which the guidelines count in the picture as it was stored.

    Programs that count them in the upright picture show it by the dimensions they wrote.
    """
    quarter = orientation > 4
    name = _name(spaces, REGIONS, "AppliedToDimensions")
    for start, end in _elements(packet, name):
        piece = packet[start:end]
        stated = [_number(_first(piece, spaces, DIMENSIONS, key)) for key in ("w", "h")]
        if quarter and size[0] != size[1] and stated == [size[1], size[0]]:
            return packet

    def put(piece: bytes, space: str, values: dict[str, bytes]) -> bytes:
        for key, value in values.items():
            piece = _replaced(piece, spaces, space, key, _always(value))
        return piece

    def swapped(piece: bytes, space: str) -> bytes:
        width, height = (_first(piece, spaces, space, key) for key in ("w", "h"))
        if quarter and width and height:
            return put(piece, space, {"w": height, "h": width})
        return piece

    def area(piece: bytes) -> bytes:
        piece = swapped(piece, AREA)
        x, y = (_number(_first(piece, spaces, AREA, key)) for key in ("x", "y"))
        if x is None or y is None:
            return piece
        pixels = _first(piece, spaces, AREA, "unit") == b"pixel"
        width, height = size if pixels else (1, 1)
        x, y = turned(x, y, width, height, orientation)
        return put(piece, AREA, {"x": f"{x:.10g}".encode(), "y": f"{y:.10g}".encode()})

    packet = _put(packet, name, lambda piece: swapped(piece, DIMENSIONS))
    return _put(packet, _name(spaces, REGIONS, "Area"), area)


def turned(
    x: float, y: float, width: float, height: float, orientation: int
) -> tuple[float, float]:
    """Where a point of a ``width``×``height`` picture lies when that is turned upright."""
    return {
        1: (x, y),
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }[orientation]
