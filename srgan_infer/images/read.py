"""An image file: opened, described, and its frames as rows of pixels.

Reading gives the pixels as rows on demand, so that a large image is held
once, in the form its decoder left it in.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from srgan_infer.errors import ImageError
from srgan_infer.images import apng, jpeg, tiff_rows
from srgan_infer.images.alpha import split_alpha
from srgan_infer.images.apng import Animation, read_animation
from srgan_infer.images.bit_depth import WideDecoder, wide_decoder
from srgan_infer.images.blocks import without_texts
from srgan_infer.images.icon import open_icon
from srgan_infer.images.integrity import (
    check_header,
    check_pixels,
    end_of,
)
from srgan_infer.images.jxl import jpeg_inside, read_jxl_header
from srgan_infer.images.kinds import READ, kind_of
from srgan_infer.images.metadata import (
    HOLDS_MORE,
    Metadata,
    estimated_quality,
    orientation,
    read_metadata,
)
from srgan_infer.images.notices import gathered, sentences
from srgan_infer.images.pages import PageFile, Pages, find_pages, one_page
from srgan_infer.images.pillow import (
    PilRows,
    any_size,
    cmyk_image,
    cmyk_transform,
    conversion,
    file_name,
    in_8_bits,
    load,
    one_sentence,
    transparent_key,
    upright,
)
from srgan_infer.images.rows import DecodedImage, RowSource, hold
from srgan_infer.images.sixteen_bit import read_sixteen_bit, sixteen_bit_channels
from srgan_infer.images.tiff_rows import Layout, TiffRows
from srgan_infer.images.timing import read_timing

ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")

# No format packs more than this into a byte (1-bit PNG behind deflate's limit
# of 1032:1); formats that can (WebP, JPEG 2000) fit their largest image here.
PIXELS_PER_BYTE = 8 * 1032
PIXELS_ALWAYS = 16384 * 16384

# What Pillow sets Image.MAX_IMAGE_PIXELS to.
PILLOWS_LIMIT = 89478485
KEEP, REFUSE = "keep", "refuse"
HEAD = 1024

ImageFile = str | os.PathLike[str] | BinaryIO | bytes | bytearray | memoryview
Source = Path | BinaryIO | PageFile


@dataclass(frozen=True)
class SourceImage:
    """An image file whose header has been read; see :func:`open_file`.

    Parameters
    ----------
    format
        Pillow's name of the format, such as ``"JPEG"``.
    mode
        Pillow's mode of the file's pixels, before any conversion.
    size
        (W, H), upright.
    channels
        Of the result: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    dtype
        Of the result: uint8, uint16 or float32.
    metadata
        What is carried over to the result.
    n_frames
        More than 1 for an animation.
    warnings
        Sentences for the user on what cannot be kept. Those that are only known when the
        pixels are decoded come with the frames.
    jpeg_quality
        Estimated from the quantisation tables, 1 to 100; None of other formats.
    lossless
        Whether a WebP file is one of those without loss.
    """

    format: str
    mode: str
    size: tuple[int, int]
    channels: int
    dtype: np.dtype[Any]
    metadata: Metadata
    n_frames: int
    warnings: tuple[str, ...]
    jpeg_quality: int | None
    lossless: bool
    _file: Source
    _apng: Animation | None = None
    _damaged: str = REFUSE
    _wide: WideDecoder | None = None
    _layout: Layout | None = None
    _pages: Pages | None = None

    @property
    def n_pages(self) -> int:
        """More than 1 for a TIFF file of several pages, of which this is the first."""
        return 1 if self._pages is None else len(self._pages.pages)

    def pages(self, max_pixels: int | None = None) -> Iterator[SourceImage]:
        """Open page after page; what has one page is given as it is.

        Parameters
        ----------
        max_pixels
            Refuse more pixels than this, over all pages.

        Raises
        ------
        ImageError
            If a page cannot be read, or there are too many pixels.
        """
        if self._pages is None:
            yield self
            return
        assert isinstance(self._file, PageFile)
        file = self._file.file
        pixels = sum(page.pixels for page in self._pages.pages)
        if max_pixels is not None and pixels > max_pixels:
            with one_sentence(file):
                raise ImageError(
                    f"it has {pixels} pixels in {self.n_pages} pages, which is more than the "
                    f"{max_pixels} that max_pixels allows."
                )
        for number in range(self.n_pages):
            source = _page_file(file, self._pages, number)
            with one_sentence(source), gathered() as lines:
                page = _describe_page(source, None)
                warnings = (*page.warnings, *sentences(lines))
                if number == self.n_pages - 1:
                    warnings += self._pages.warnings
            yield replace(page, warnings=warnings)

    def frames(self) -> Iterator[DecodedImage]:
        """Decode frame after frame; a still image has one.

        Raises
        ------
        ImageError
            If the pixels are damaged or cut short.
        """
        with one_sentence(self._file), _stream(self._file) as stream:
            check_pixels(self.format, stream)
        if self.n_frames == 1:
            yield self._still()
            return
        if self._apng is not None:
            yield from self._apng_frames(self._apng)
            return
        with _opened(self._file) as image:
            for index in range(self.n_frames):
                with one_sentence(self._file), gathered() as lines:
                    image.seek(index)
                    decoded = self._decode(image)
                yield replace(decoded, warnings=sentences(lines))

    def _apng_frames(self, animation: Animation) -> Iterator[DecodedImage]:
        with _opened(self._file) as image:
            turn = orientation(image)
        with _stream(self._file) as stream:
            pixels = apng.frames(stream, animation)
            for _ in range(self.n_frames):
                with one_sentence(self._file), gathered() as lines:
                    decoded = split_alpha(upright(next(pixels), turn))
                yield replace(decoded, warnings=sentences(lines))

    def _still(self) -> DecodedImage:
        with one_sentence(self._file), gathered() as lines, ExitStack() as stack:
            if self._layout is not None:
                rows = self._tiff_rows(stack.enter_context(_stream(self._file)))
                decoded = split_alpha(hold(rows))
            else:
                decoded = self._decode_still(stack.enter_context(_opened(self._file)))
            return replace(decoded, warnings=(*decoded.warnings, *sentences(lines)))

    def _decode_still(self, image: Image.Image) -> DecodedImage:
        try:
            decoded = self._decode(image)
        except OSError as error:
            if self.format != "JPEG" or "truncated" not in str(error):
                raise
            decoded = self._cut_jpeg()
        if isinstance(decoded.color, PilRows):
            return replace(decoded, color=hold(decoded.color))
        return decoded

    def _tiff_rows(self, stream: BinaryIO) -> RowSource:
        layout = self._layout
        assert layout is not None
        rows = TiffRows(stream, layout)
        if layout.photometric == tiff_rows.CMYK:
            pixels = rows[0 : rows.shape[0]]
            inks = cmyk_image(pixels[..., :4], layout.profile)
            if layout.alpha is None:
                return PilRows(inks, layout.orientation, *conversion(inks, None))
            alpha = pixels[..., 4:] if pixels.dtype == np.uint8 else in_8_bits(pixels[..., 4:])
            colors = conversion(inks, None)[2](inks)
            return upright(np.concatenate([colors, alpha], axis=2), layout.orientation)
        if layout.orientation == 1:
            return rows
        return upright(rows[0 : rows.shape[0]], layout.orientation)

    def _cut_jpeg(self) -> DecodedImage:
        """A JPEG without its end: whole if only the end marker is missing, else if asked for."""
        with _stream(self._file) as stream:
            data = stream.read()
        end = jpeg.extent(data)
        copies = []
        for copy in jpeg.closed(data, end):
            image = Image.open(io.BytesIO(copy), formats=("JPEG",))
            image.load()
            copies.append(image)
        first, *others = (np.asarray(image) for image in copies)
        same = np.ones(first.shape[0], bool)
        for other in others:
            same &= (first == other).reshape(len(first), -1).all(axis=1)
        if same.all() and end.refined:
            sentence = "It lacks its end marker; all pixels are there."
        elif self._damaged == KEEP:
            rows = int(np.argmin(same)) if not same.all() else len(first)
            sentence = f"It is cut short: of {len(first)} rows about {rows} are there."
        else:
            raise ImageError(
                "it is cut short; upscale what is there with damaged='keep' (--damaged keep)."
            )
        decoded = self._decode(copies[0])
        return replace(decoded, warnings=(sentence,))

    def _decode(self, image: Image.Image) -> DecodedImage:
        turn = orientation(image)
        if self._wide is not None:
            with _stream(self._file) as stream, any_size(image):
                pixels = self._wide.decode(image, stream)
            if pixels.shape[2] != self.channels:
                raise ImageError(f"it has {pixels.shape[2]} channels, not {self.channels}.")
            return split_alpha(upright(pixels, turn))
        if sixteen_bit_channels(image) is not None:
            with _opened(self._file) as again, any_size(image):
                pixels = read_sixteen_bit(image, again)
            if pixels.shape[2] > self.channels:  # what the header did not say comes too late
                pixels = pixels[..., : self.channels]
            return split_alpha(upright(pixels, turn))
        key = transparent_key(image)
        turn = load(image)
        if self.n_frames > 1 and image.size != self.size and turn < 5:
            image = image.crop((0, 0, *self.size))  # a frame beyond the screen, as browsers do
        warnings: tuple[str, ...] = ()
        if self.format == "TGA":
            with _stream(self._file) as stream:
                warnings = _make_opaque(image, stream)
        channels, dtype, decode = conversion(image, key)
        rows = PilRows(image, turn, channels, dtype, decode)
        if channels == self.channels:
            return replace(split_alpha(rows), warnings=warnings)
        # A frame of an animation may be of another mode than the first.
        same = image.convert({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[self.channels])
        if self.channels in (1, 3):  # what the header did not say comes too late
            same.info.pop("transparency", None)
        return split_alpha(PilRows(same, turn, *conversion(same, None)))


def _make_opaque(image: Image.Image, stream: BinaryIO) -> tuple[str, ...]:
    """Make a TGA image opaque that would be empty, and whose header says nothing of transparency.

    Programs that write none fill its place with zeros.
    """
    stream.seek(17)
    if image.mode not in ("LA", "RGBA") or stream.read(1)[0] & 15:
        return ()
    if image.getchannel("A").getextrema() != (0, 0):
        return ()
    image.putalpha(255)
    return ("It is opaque, as its header says; its fourth channel is 0 throughout.",)


def refuse_address(name: str) -> None:
    """Refuse what names a file on another machine.

    Raises
    ------
    ImageError
        If the name begins as an address does.
    """
    if re.match(r"(https?|ftp|data):", name, re.IGNORECASE):
        kind = "holds its data itself" if name[:5].lower() == "data:" else "is a web address"
        advice = (
            "decode it and pass the bytes"
            if name[:5].lower() == "data:"
            else ("download it first, or pass the bytes that your program has fetched")
        )
        raise ImageError(f"{name[:200]} {kind}, and nothing is fetched from the web; {advice}.")


def open_file(
    file: ImageFile,
    *,
    max_pixels: int | None = None,
    damaged: str = REFUSE,
) -> SourceImage:
    """Read an image's header; the pixels follow with :meth:`SourceImage.frames`.

    Opening decodes nothing (but JPEG XL, whose size is looked at first).

    Parameters
    ----------
    file
        A path, a binary file object (read from its start), or the bytes of a file. What cannot
        seek, such as a pipe, is read into memory, once.
    max_pixels
        Refuse more pixels than this, over all frames; ``None`` allows any number.
    damaged
        ``"keep"`` takes what there is of a JPEG that is cut short; ``"refuse"`` does not.

    Raises
    ------
    ImageError
        If there is no such file, or it is not an image, a damaged one, or too large.
    """
    if damaged not in (KEEP, REFUSE):
        raise ValueError(f"damaged must be {KEEP!r} or {REFUSE!r}, not {damaged!r}.")
    check_limit(max_pixels)
    with one_sentence(file):
        source = _source(file)
    with one_sentence(source), _stream(source) as stream, gathered() as lines:
        head = stream.read(HEAD)
        kind = kind_of(head)
        check_header(kind, stream)
        if kind == "TIFF":
            opened = _describe_tiff(source, stream, max_pixels)
        else:
            if kind == "JXL":
                _check_size(read_jxl_header(stream).size, 1, stream, max_pixels)
                if (inside := jpeg_inside(stream)) is not None:
                    named = _Named(inside, file_name(source))
                    return open_file(named, max_pixels=max_pixels, damaged=damaged)
            with _opened(source) as image:
                opened = _describe(image, source, stream, max_pixels)
        told = any(one.startswith(HOLDS_MORE) for one in opened.warnings)
        more = () if told else _more_follows(opened.format, source, stream)
        warnings = (*opened.warnings, *more, *sentences(lines))
        return replace(opened, warnings=warnings, _damaged=damaged)


def check_limit(max_pixels: int | None) -> None:
    """Raise ``ValueError`` if a limit on pixels means nothing."""
    if max_pixels is not None and max_pixels < 1:
        raise ValueError(f"max_pixels must be a positive number or None, not {max_pixels}.")


def limit_of_files(max_pixels: int | None) -> int | None:
    """The limit that holds for files: the one given, or that of the program we are part of.

    Such a program may have set ``PIL.Image.MAX_IMAGE_PIXELS`` to other than Pillow's own.
    """
    if max_pixels is None and Image.MAX_IMAGE_PIXELS != PILLOWS_LIMIT:
        return Image.MAX_IMAGE_PIXELS
    return max_pixels


def _describe(
    image: Image.Image, source: Source, stream: BinaryIO, max_pixels: int | None
) -> SourceImage:
    name = "JPEG" if image.format == "MPO" else image.format or "unknown"
    timing = read_timing(name, stream)
    frames = min(getattr(image, "n_frames", 1), max(len(timing.durations), 1))
    animation = read_animation(stream) if name == "PNG" and frames > 1 else None
    frames = frames if animation is None else len(animation.parts)
    animated = name in ANIMATED and frames > 1
    screen = max(image.size[0], timing.screen[0]), max(image.size[1], timing.screen[1])
    _check_size(screen, frames if animated else 1, stream, max_pixels)
    warnings: list[str] = []
    if not timing.ended:
        warnings.append("It lacks its end marker; frames may be missing.")
    wider = wide_decoder(name, image, stream)
    wide = sixteen_bit_channels(image)
    if wider is not None:
        channels, dtype = wider.channels, wider.dtype
    elif wide is not None:
        channels, dtype = wide, np.dtype(np.uint16)
    elif animated and animation is not None:
        channels, dtype = animation.channels, animation.dtype
    else:
        channels, dtype, _ = conversion(image, transparent_key(image))
    if image.mode == "CMYK" and image.info.get("icc_profile") and not cmyk_transform(image):
        warnings.append("The CMYK profile cannot be used: the colours are converted without it.")
    if animated and name == "GIF":
        channels = 4  # later frames may be transparent where the first is not
    by_pillow = name == "TIFF"  # which Pillow turns when it decodes them
    turn = orientation(image)
    metadata, lost = read_metadata(
        name,
        stream,
        size=image.size[::-1] if turn > 4 and by_pillow else image.size,
        orientation=turn,
        channels=1 if channels < 3 else 3,
        converted=image.mode in ("CMYK", "LAB"),
        icc=image.info.get("icc_profile") or b"",
    )
    if animated:
        metadata = replace(metadata, durations=timing.durations[:frames], loop=timing.loop)
    turned = turn > 4 and not by_pillow
    return SourceImage(
        format=name,
        mode=image.mode,
        size=image.size[::-1] if turned else image.size,
        channels=channels,
        dtype=dtype,
        metadata=metadata,
        n_frames=frames if animated else 1,
        warnings=(*warnings, *lost),
        jpeg_quality=estimated_quality(image),
        lossless=timing.lossless,
        _file=source,
        _apng=animation if animated else None,
        _wide=wider,
    )


def _describe_tiff(
    source: Path | BinaryIO, stream: BinaryIO, max_pixels: int | None
) -> SourceImage:
    """The first page that is no thumbnail, and where the others lie."""
    pages = find_pages(stream)
    if not pages.pages:
        return _describe_page(source, max_pixels)
    page = _describe_page(_page_file(source, pages, 0), max_pixels)
    count = len(pages.pages)
    if count == 1:
        return replace(page, warnings=(*page.warnings, *pages.warnings))
    first = f"Only the first of the {count} pages is taken; all go from TIFF file to TIFF file."
    return replace(page, warnings=(first, *page.warnings), _pages=pages)


def _page_file(source: Path | BinaryIO, pages: Pages, number: int) -> PageFile:
    name = file_name(source)
    if len(pages.pages) > 1:
        name = f"{name}, page {number + 1},"
    return PageFile(source, pages.pages[number], name)


def _describe_page(source: Source, max_pixels: int | None) -> SourceImage:
    """One page, in a layout of ours or in one of Pillow's."""
    with _stream(source) as stream:
        layout = tiff_rows.read_layout(tiff_rows.read_directory(stream), stream)
        if layout is None:
            with _opened(source) as image:
                return _describe(image, source, stream, max_pixels)
        return _describe_layout(layout, source, stream, max_pixels)


def _describe_layout(
    layout: Layout, source: Source, stream: BinaryIO, max_pixels: int | None
) -> SourceImage:
    _check_size(layout.size, 1, stream, max_pixels)
    warnings = []
    channels = layout.channels - (layout.photometric == tiff_rows.CMYK)
    metadata, lost = read_metadata(
        "TIFF",
        stream,
        size=layout.size,
        orientation=layout.orientation,
        channels=1 if channels < 3 else 3,
        converted=layout.photometric == tiff_rows.CMYK,
    )
    if layout.photometric == tiff_rows.CMYK:
        inks = cmyk_image(np.zeros((1, 1, 4), np.uint8), layout.profile)
        if layout.profile and not cmyk_transform(inks):
            warnings.append(
                "The CMYK profile cannot be used: the colours are converted without it."
            )
    return SourceImage(
        format="TIFF",
        mode=_tiff_mode(layout),
        size=layout.size[::-1] if layout.orientation > 4 else layout.size,
        channels=channels,
        dtype=np.dtype(np.uint8) if layout.photometric == tiff_rows.CMYK else layout.dtype,
        metadata=metadata,
        n_frames=1,
        warnings=(*warnings, *layout.warnings, *lost),
        jpeg_quality=None,
        lossless=False,
        _file=source,
        _layout=layout,
    )


def _tiff_mode(layout: Layout) -> str:
    if layout.photometric == tiff_rows.CMYK:
        return "CMYK"
    if layout.channels == 1 and layout.dtype != np.uint8:
        return "F" if layout.dtype == np.float32 else "I;16"
    return ("L", "LA", "RGB", "RGBA")[layout.channels - 1]


def _check_size(
    size: tuple[int, int], frames: int, stream: BinaryIO, max_pixels: int | None
) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"it has no pixels: its header says {width}×{height}.")
    pixels = width * height * frames
    if max_pixels is not None and pixels > max_pixels:
        times = f" in {frames} frames" if frames > 1 else ""
        raise ImageError(
            f"it has {width}×{height} pixels{times}, which is more than the {max_pixels} "
            "that max_pixels allows."
        )
    if width * height > PIXELS_ALWAYS + PIXELS_PER_BYTE * stream.seek(0, os.SEEK_END):
        raise ImageError(
            f"it is damaged: its header claims {width}×{height} pixels, more than the file can "
            "hold."
        )


def _more_follows(name: str, source: Source, stream: BinaryIO) -> tuple[str, ...]:
    """What comes from a pipe may be several images, one behind the other.

    Files that have a name of their own hold one, and are not read to their end.
    """
    if isinstance(source, Path):
        return ()
    end = end_of(name, stream)
    if end is None:
        return ()
    stream.seek(end)
    rest = stream.read(HEAD)
    if rest[4:8] != b"ftyp":  # which comes behind zeros
        rest = rest.lstrip(b"\0\r\n ")
    try:
        more = kind_of(rest) if rest else ""
    except ImageError:
        return ()
    if not more and not (name == "PPM" and rest[:1] == b"P"):
        return ()
    return (f"Another image ({more or name}) follows the first one; it is not read.",)


def _source(file: ImageFile) -> Path | BinaryIO:
    """A path or a stream that can be read as often as need be."""
    if isinstance(file, (str, os.PathLike)):
        refuse_address(os.fspath(file))
        path = Path(file)
        if path.is_dir():
            raise ImageError(f"{path} is a folder, not an image.")
        if path.is_file() or not path.exists():
            return path
        # A pipe or a device gives its bytes once.
        with path.open("rb") as stream:
            return _Named(stream.read(), str(path))
    if isinstance(file, (bytes, bytearray, memoryview)):
        return io.BytesIO(file)
    if not hasattr(file, "read"):
        return io.BytesIO(_buffer(file))
    if isinstance(file, io.TextIOBase):
        raise ImageError("it is opened as text; open it with mode 'rb'.")
    # Temporary files of Python 3.10 that begin in memory do not say that they can seek.
    if hasattr(file, "seekable") and file.seekable():
        return file
    if not hasattr(file, "seekable"):
        file.seek(0)
    return _Named(file.read(), getattr(file, "name", None))


def _buffer(file: Any) -> memoryview:
    """The bytes of an array or the like."""
    try:
        view = memoryview(file)
    except TypeError:
        raise ImageError(
            f"a file is a path, bytes or a binary file object, not {type(file).__name__}."
        ) from None
    if view.itemsize != 1 or view.ndim != 1:
        raise ImageError("an array of pixels is no file; call the resolver with it.")
    return view


class _Named(io.BytesIO):
    """Bytes of a file that messages call by its name."""

    def __init__(self, data: bytes, name: Any) -> None:
        super().__init__(data)
        self.name = name


@contextmanager
def _stream(source: Source) -> Iterator[BinaryIO]:
    if isinstance(source, PageFile):
        with _stream(source.file) as stream:
            yield one_page(stream, source.page)
    elif isinstance(source, Path):
        with source.open("rb") as stream:
            yield stream
    else:
        source.seek(0)
        yield source


@contextmanager
def _opened(source: Source) -> Iterator[Image.Image]:
    """The file as Pillow opens it, by one of the formats that may."""
    with ExitStack() as stack:
        with one_sentence(source), gathered():
            image = _open(stack.enter_context(_stream(source)))
        yield image


def _open(stream: BinaryIO) -> Image.Image:
    kind = kind_of(stream.read(HEAD))
    Image.init()
    try:
        try:
            return _open_as(kind, stream)
        except Image.DecompressionBombError:
            with any_size(None):
                return _open_as(kind, stream)
    except UnidentifiedImageError as error:
        if not kind:
            raise
        raise ImageError(
            f"it begins like a {kind} file, but is damaged or of a kind that Pillow cannot read."
        ) from error


def _open_as(kind: str, stream: BinaryIO) -> Image.Image:
    stream.seek(0)
    if kind == "ICO":
        return open_icon(stream)
    if kind == "HEIF":
        import pillow_heif

        return cast(Image.Image, cast(Any, pillow_heif).HeifImageFile(stream))
    if kind == "JXL":
        from pillow_jxl import JpegXLImagePlugin

        return cast(Image.Image, JpegXLImagePlugin.JXLImageFile(stream))
    formats = (kind,) if kind else tuple(name for name in READ if name in Image.OPEN)
    return Image.open(without_texts(stream), formats=formats)
