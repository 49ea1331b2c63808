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
            return text.replace('begin="\ufeff"', 'begin="\ufeff"').encode()
    return packet.removeprefix(b"\xef\xbb\xbf").rstrip(b"\0")


def orientation(packet: bytes) -> int:
    """The orientation that the packet states, 1 to 8; 1 if it states none."""
    for match in _finditer(packet, TIFF, "Orientation"):
        value = match["value"].strip()
        if value in (b"2", b"3", b"4", b"5", b"6", b"7", b"8"):
            return int(value)
    return 1


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
    packet = _replaced(packet, TIFF, "Orientation", lambda value: b"1")
    if orientation == 1:
        return packet
    quarter = orientation > 4

    def turned_list(values: list[float]) -> list[float]:
        return turned_subject(values, turn, quarter)

    for name in ("SubjectLocation", "SubjectArea"):
        packet = _with_list(packet, EXIF, name, turned_list)
    return _regions_upright(packet, orientation, size)


def turned_subject(values: list[float], turn: Turn, quarter: bool) -> list[float]:
    """A subject's place (x, y), (x, y, diameter) or (x, y, width, height), turned upright."""
    if len(values) < 2:
        return values
    rest = values[2:]
    return [*turn(values[0], values[1]), *(rest[::-1] if quarter else rest)]


def scaled_subject(values: list[float], x: float, y: float) -> list[float]:
    """A subject's place, scaled by ``x`` and ``y``; its diameter by their mean."""
    factors = (x, y, (x + y) / 2) if len(values) == 3 else (x, y, x, y)
    return [value * factor for value, factor in zip(values, factors, strict=False)]


def resized(packet: bytes, old: tuple[int, int], new: tuple[int, int]) -> bytes:
    """The same with all that counts pixels set for another size.

    Parameters
    ----------
    old, new
        (W, H).
    """
    x, y = new[0] / old[0], new[1] / old[1]
    for names, length, factor in ((ALONG_X, new[0], x), (ALONG_Y, new[1], y)):
        for space, keys in names.items():
            for key in keys:
                if space == PANORAMA:
                    packet = _replaced(packet, space, key, _times(factor))
                else:
                    packet = _replaced(packet, space, key, _always(b"%d" % length))
    for name in ("SubjectLocation", "SubjectArea"):
        packet = _with_list(packet, EXIF, name, lambda values: scaled_subject(values, x, y))
    packet = _replaced(packet, EXIF, "FocalPlaneXResolution", _times(x))
    packet = _replaced(packet, EXIF, "FocalPlaneYResolution", _times(y))
    packet = _regions_resized(packet, x, y)
    return packet


def without_stale(packet: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Take out what describes the old file, and say what that was."""
    gone = []
    for space, prefix, keys, what in STALE:
        names = b"|".join(_prefixes(packet, space, prefix))
        inner = b"|".join(key.encode() for key in keys) if keys else rb"[\w.-]+"
        shorter = packet
        # An element closes before an equal one opens inside it: none of these nest.
        full = rb"(?:%s):(?:%s)" % (names, inner)
        shorter = re.sub(
            rb"\s*<(" + full + rb")(?:\s[^<>]*)?(?:/>|(?<!/)>.*?</\1\s*>)", b"", shorter, flags=re.S
        )
        shorter = re.sub(rb"\s+" + full + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')", b"", shorter)
        if shorter == packet:
            continue
        if keys is None:
            shorter = re.sub(rb"\s+xmlns:(?:%s)\s*=\s*(?:\"[^\"]*\"|'[^']*')" % names, b"", shorter)
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
    rdf = b"|".join(_prefixes(packet, RDF, "rdf"))
    media = b"|".join(_prefixes(packet, MEDIA, "xmpMM"))
    history = re.search(rb"<((?:%s):History)\b[^<>]*>.*?</\1\s*>" % media, packet, re.S)
    if history:
        inside = history.group()
        end = re.search(rb"<((?:%s):Seq)\b[^<>]*?/>" % rdf, inside)
        if end:
            name = end.group(1)
            longer = inside[: end.start()] + b"<" + name + b">" + entry + b"</" + name + b">"
            longer += inside[end.end() :]
        else:
            closing = list(re.finditer(rb"</(?:%s):Seq\s*>" % rdf, inside))
            if not closing:
                return None
            at = closing[-1].start()
            longer = inside[:at] + entry + inside[at:]
        return packet[: history.start()] + longer + packet[history.end() :]
    block = b'<rdf:Description xmlns:rdf="%s" rdf:about="" xmlns:xmpMM="%s">' % (
        RDF.encode(),
        MEDIA.encode(),
    )
    block += b"<xmpMM:History><rdf:Seq>" + entry + b"</rdf:Seq></xmpMM:History></rdf:Description>"
    return _before_end(packet, block)


def merged(packet: bytes, extension: bytes) -> bytes | None:
    """A packet with its extension in it; None if one of them cannot be understood.

    Parameters
    ----------
    packet
        As in a JPEG file, which points to its extension.
    extension
        The joined extension.
    """
    rdf = b"|".join(_prefixes(extension, RDF, "rdf"))
    body = re.search(rb"<(?:%s):RDF\b([^<>]*)>(.*)</(?:%s):RDF\s*>" % (rdf, rdf), extension, re.S)
    if not body:
        return None
    packet = _without(packet, NOTE, "HasExtendedXMP")
    spaces = re.findall(rb"\sxmlns:[\w.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*')", body[1])
    around = re.search(rb"<\w+:xmpmeta\b([^<>]*)>", extension)
    if around:
        spaces += re.findall(rb"\sxmlns:[\w.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*')", around[1])
    own = b"|".join(_prefixes(packet, RDF, "rdf"))
    start = re.search(rb"<(?:%s):RDF\b[^<>]*(?<!/)>" % own, packet)
    if not start:
        return None
    names = re.findall(rb"xmlns:[^\s<>]+", start.group())
    known = {space.split(b"=")[0].strip() for space in names}
    # Descriptions bring their own names along, but those of the elements around them are lost.
    added = b"".join(space for space in spaces if space.split(b"=")[0].strip() not in known)
    at = start.end() - 1
    return _before_end(packet[:at] + added + packet[at:], body[2].strip())


def compact(packet: bytes) -> bytes:
    """The same without the spaces that leave room for editing in place."""
    return re.sub(rb"\s{32,}(?=<\?xpacket end)", b"\n", packet)


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
    found = list(_properties(packet))
    rdf = _prefixes(packet, RDF, "rdf")[0]
    pointer = b'<%s:Description %s:about="" xmlns:xmpNote="%s" xmpNote:HasExtendedXMP="%s"/>' % (
        rdf, rdf, NOTE.encode(), b"0" * 32,
    )  # fmt: skip
    length = len(packet) + len(pointer)
    moved: list[tuple[int, int, bytes]] = []
    for start, end, description in sorted(found, key=lambda one: one[0] - one[1]):
        if length <= SEGMENT_LIMIT:
            break
        moved.append((start, end, description))
        length -= end - start
    if length > SEGMENT_LIMIT or not moved:
        return None
    moved.sort()
    spaces = b"".join(dict.fromkeys(_declared_outside(packet)))
    close = b"</%s:Description>" % rdf
    body = b"".join(head + packet[start:end] + close for start, end, head in moved)
    extension = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><%s:RDF%s>%s</%s:RDF></x:xmpmeta>' % (
        rdf, spaces, body, rdf,
    )  # fmt: skip
    digest = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper().encode()
    for start, end, _ in reversed(moved):
        packet = packet[:start] + packet[end:]
    main = _before_end(packet, pointer.replace(b"0" * 32, digest))
    return None if main is None else (main, digest, extension)


def extended_digest(packet: bytes) -> bytes:
    """The digest of the extension that a packet points to; empty if there is none."""
    for match in _finditer(packet, NOTE, "HasExtendedXMP"):
        return bytes(match["value"].strip())
    return b""


def _properties(packet: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Elements right inside of descriptions: start, end and a start tag for their description."""
    rdf = {prefix + b":Description" for prefix in _prefixes(packet, RDF, "rdf")}
    path: list[tuple[bytes, int, bytes]] = []
    for tag in re.finditer(rb"<!--.*?-->|<\?.*?\?>|<(/?)([\w:.-]+)([^<>]*?)(/?)>", packet, re.S):
        name = tag[2]
        if name is None:
            continue
        if tag[1]:
            if not path or path[-1][0] != name:
                return
            _, start, _ = path.pop()
        elif tag[4]:
            start = tag.start()
        else:
            path.append((name, tag.start(), tag.group()))
            continue
        if len(path) >= 2 and path[-1][0] in rdf and path[-2][0].endswith(b":RDF"):
            yield start, tag.end(), _bare(path[-1][2])


def _bare(start_tag: bytes) -> bytes:
    """A description's start tag without the properties that are its attributes."""
    spaces = b"".join(re.findall(rb"\s+xmlns:[\w.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*')", start_tag))
    about = re.search(rb"\s+[\w.-]+:about\s*=\s*(?:\"[^\"]*\"|'[^']*')", start_tag)
    name = re.match(rb"<[\w:.-]+", start_tag)
    assert name is not None
    return name.group() + (about.group() if about else b"") + spaces + b">"


def _declared_outside(packet: bytes) -> list[bytes]:
    """Names declared by the elements around the descriptions."""
    return [
        space
        for head in re.findall(rb"<[\w.-]+:(?:xmpmeta|RDF)\b([^<>]*)>", packet)
        for space in re.findall(rb"\s+xmlns:[\w.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*')", head)
        if not space.strip().startswith(b"xmlns:x=")
    ]


def _before_end(packet: bytes, block: bytes) -> bytes | None:
    """Put a description behind the others."""
    rdf = b"|".join(_prefixes(packet, RDF, "rdf"))
    ends = list(re.finditer(rb"</(?:%s):RDF\s*>" % rdf, packet))
    if ends:
        return packet[: ends[-1].start()] + block + packet[ends[-1].start() :]
    empty = re.search(rb"<((?:%s):RDF)\b([^<>]*)/>" % rdf, packet)
    if not empty:
        return None
    whole = b"<" + empty[1] + empty[2] + b">" + block + b"</" + empty[1] + b">"
    return packet[: empty.start()] + whole + packet[empty.end() :]


def _prefixes(packet: bytes, space: str, usual: str) -> list[bytes]:
    """Prefixes that stand for a namespace in this packet; the usual one if none is declared."""
    pattern = rb"xmlns:([\w.-]+)\s*=\s*[\"']" + re.escape(space.encode()) + rb"[\"']"
    found = [re.escape(one) for one in re.findall(pattern, packet)]
    return list(dict.fromkeys(found)) or [re.escape(usual.encode())]


def _pattern(packet: bytes, space: str, name: str) -> bytes:
    names = b"|".join(_prefixes(packet, space, PREFIXES[space]))
    key = rb"(?:%s):%s" % (names, re.escape(name.encode()))
    return (
        rb"(?P<head><" + key + rb"(?:\s[^<>]*)?(?<!/)>|\s" + key + rb"\s*=\s*[\"'])"
        rb"(?P<value>[^<>\"']*)(?=[<\"'])"
    )


def _finditer(packet: bytes, space: str, name: str) -> Iterator[re.Match[bytes]]:
    return re.finditer(_pattern(packet, space, name), packet)


def _replaced(
    packet: bytes, space: str, name: str, change: Callable[[bytes], bytes | None]
) -> bytes:
    """Change the value of a simple property, written as an element or an attribute."""

    def put(match: re.Match[bytes]) -> bytes:
        value = match["value"].strip()
        new = change(value) if value else None
        return match.group() if new is None else match["head"] + new

    return re.sub(_pattern(packet, space, name), put, packet)


def _without(packet: bytes, space: str, name: str) -> bytes:
    names = b"|".join(_prefixes(packet, space, PREFIXES[space]))
    key = rb"(?:%s):%s" % (names, re.escape(name.encode()))
    packet = re.sub(rb"\s*<(" + key + rb")(?:\s[^<>]*)?(?<!/)>[^<>]*</\1\s*>", b"", packet)
    return re.sub(rb"\s+" + key + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')", b"", packet)


def _always(new: bytes) -> Callable[[bytes], bytes | None]:
    return lambda _: new


def _times(factor: float) -> Callable[[bytes], bytes | None]:
    """Multiplies a number (``640``, ``1.5`` or ``300/1``), and keeps the way it is written."""

    def change(value: bytes) -> bytes | None:
        up, slash, down = value.partition(b"/")
        try:
            number = float(up) * factor
        except ValueError:
            return None
        return _written(number, up) + slash + down

    return change


def _written(number: float, like: bytes) -> bytes:
    whole = b"." not in like and b"e" not in like.lower()
    return b"%d" % round(number) if whole else repr(number).encode()


def _with_list(
    packet: bytes, space: str, name: str, change: Callable[[list[float]], list[float]]
) -> bytes:
    """Change the numbers of an ordered list."""
    names = b"|".join(_prefixes(packet, space, PREFIXES[space]))
    key = rb"(?:%s):%s" % (names, re.escape(name.encode()))
    item = rb"(<[\w.-]+:li(?:\s[^<>]*)?>)\s*([-+.\d]+)\s*(?=<)"

    def put(match: re.Match[bytes]) -> bytes:
        inside = match.group()
        values = [float(value) for _, value in re.findall(item, inside)]
        new = iter(change(values))
        return re.sub(item, lambda one: one[1] + _written(next(new), one[2]), inside)

    return re.sub(rb"<(" + key + rb")(?:\s[^<>]*)?(?<!/)>.*?</\1\s*>", put, packet, flags=re.S)


def _spans(packet: bytes, space: str, name: str) -> bytes:
    """A pattern for a structure: an element, with what is inside of it."""
    names = b"|".join(_prefixes(packet, space, PREFIXES[space]))
    key = rb"(?:%s):%s" % (names, re.escape(name.encode()))
    return rb"<(" + key + rb")(?=[\s/>])(?:[^<>]*/>|[^<>]*>.*?</\1\s*>)"


def _changed(packet: bytes, space: str, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """Change each structure of a name; ``packet`` declares the prefixes."""
    pattern = _spans(packet, space, name)
    # A piece has no declarations of its own, so the packet's go in front while it is changed.
    heads = b"".join(
        b'xmlns:%s="%s" ' % (prefix.replace(b"\\", b""), space_.encode())
        for space_ in PREFIXES
        for prefix in _prefixes(packet, space_, PREFIXES[space_])
    )
    mark = b"\0" + heads + b"\0"
    return re.sub(
        pattern, lambda one: change(mark + one.group()).removeprefix(mark), packet, flags=re.S
    )


def _first(piece: bytes, space: str, name: str) -> bytes:
    for match in _finditer(piece, space, name):
        return bytes(match["value"].strip())
    return b""


def _regions_resized(packet: bytes, x: float, y: float) -> bytes:
    def dimensions(piece: bytes) -> bytes:
        if _first(piece, DIMENSIONS, "unit") not in (b"", b"pixel"):
            return piece
        piece = _replaced(piece, DIMENSIONS, "w", _times(x))
        return _replaced(piece, DIMENSIONS, "h", _times(y))

    def area(piece: bytes) -> bytes:
        if _first(piece, AREA, "unit") != b"pixel":
            return piece
        for key, factor in (("x", x), ("y", y), ("w", x), ("h", y), ("d", (x + y) / 2)):
            piece = _replaced(piece, AREA, key, _times(factor))
        return piece

    def boundary(piece: bytes) -> bytes:
        if _first(piece, IPTC, "rbUnit") != b"pixel":
            return piece
        for key, factor in (("rbX", x), ("rbY", y), ("rbW", x), ("rbH", y), ("rbRx", x)):
            piece = _replaced(piece, IPTC, key, _times(factor))
        return piece

    packet = _changed(packet, REGIONS, "AppliedToDimensions", dimensions)
    packet = _changed(packet, REGIONS, "Area", area)
    return _changed(packet, IPTC, "RegionBoundary", boundary)


def _regions_upright(packet: bytes, orientation: int, size: tuple[int, int]) -> bytes:
    """Turn the regions, which the guidelines count in the picture as it was stored.

    Programs that count them in the upright picture show it by the dimensions they wrote.
    """
    quarter = orientation > 4
    dimensions = _dimensions(packet)
    if quarter and size[0] != size[1] and dimensions == (size[1], size[0]):
        return packet

    def put(piece: bytes, space: str, keys: tuple[str, str], values: tuple[bytes, bytes]) -> bytes:
        for key, value in zip(keys, values, strict=True):
            piece = _replaced(piece, space, key, _always(value))
        return piece

    def swapped(piece: bytes, space: str) -> bytes:
        values = _first(piece, space, "h"), _first(piece, space, "w")
        return put(piece, space, ("w", "h"), values) if quarter and all(values) else piece

    def area(piece: bytes) -> bytes:
        piece = swapped(piece, AREA)
        try:
            x, y = float(_first(piece, AREA, "x")), float(_first(piece, AREA, "y"))
        except ValueError:
            return piece
        pixels = _first(piece, AREA, "unit") == b"pixel"
        width, height = size if pixels else (1, 1)
        x, y = turned(x, y, width, height, orientation)
        written = tuple((f"{value:.10g}").encode() for value in (x, y))
        return put(piece, AREA, ("x", "y"), (written[0], written[1]))

    packet = _changed(
        packet, REGIONS, "AppliedToDimensions", lambda piece: swapped(piece, DIMENSIONS)
    )
    return _changed(packet, REGIONS, "Area", area)


def _dimensions(packet: bytes) -> tuple[float, float] | None:
    found: list[tuple[float, float]] = []

    def look(piece: bytes) -> bytes:
        try:
            width, height = (float(_first(piece, DIMENSIONS, key)) for key in ("w", "h"))
        except ValueError:
            return piece
        found.append((width, height))
        return piece

    _changed(packet, REGIONS, "AppliedToDimensions", look)
    return found[0] if found else None


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
