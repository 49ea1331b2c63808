"""Pictures to arrays and back: files, Pillow images, modes, depths, profiles.

Reading gives the pixels as rows on demand, so that a large picture is held
once, in the form its decoder left it in.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import (
    Image,
    ImageCms,
    ImageFile,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
)

from .alpha import fill_transparent, upscale_alpha
from .deep import deep_channels, is_cut, read_deep
from .errors import PictureError
from .headers import check_header, text_follows_pixels
from .jpeg import estimated_quality
from .metadata import Metadata, orientation, read_metadata
from .rows import RowSource
from .spool import SpooledRows
from .writer import Writer, check_output, create

__all__ = [
    "Metadata",
    "Picture",
    "PictureFile",
    "RowSource",
    "Writer",
    "check_output",
    "create",
    "from_pil",
    "open_file",
    "to_pil",
    "upscale_alpha",
]

Array = npt.NDArray[Any]
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
# No format packs more than this into a byte (1-bit PNG behind deflate's limit
# of 1032:1); formats that can (WebP, JPEG 2000) fit their largest picture here.
PIXELS_PER_BYTE = 8 * 1032
PIXELS_ALWAYS = 16384 * 16384
# Larger stills wait in a temporary file for their turn.
SPOOL_PIXELS = 2_000_000


@dataclass(frozen=True)
class Picture:
    """One decoded still picture.

    Parameters
    ----------
    color
        (H, W, 1 | 3); uint8, uint16, or float32 in [0, 1].
    alpha
        (H, W) of the same dtype, or None. Where it is 0 the colour is that of
        the nearest visible pixels.
    """

    color: RowSource
    alpha: Array | None


@dataclass(frozen=True)
class PictureFile:
    """A picture file whose header has been read; see :func:`open_file`.

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
        Sentences for the user on what cannot be kept.
    jpeg_quality
        Estimated from the quantisation tables, 1 to 100; None of other formats.
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
    _file: Path | BinaryIO
    _first: int = 0

    def frames(self) -> Iterator[Picture]:
        """Decode frame after frame; a still picture has one.

        Raises
        ------
        PictureError
            If the pixels are damaged or cut short.
        """
        if self.n_frames == 1:
            yield self._still()
            return
        with _opened(self._file) as image:
            for index in range(self._first, self._first + self.n_frames):
                with _one_sentence(self._file):
                    image.seek(index)
                    picture = self._decode(image)
                yield picture

    def _still(self) -> Picture:
        with _opened(self._file) as image, _one_sentence(self._file):
            picture = self._decode(image)
            large = self.size[0] * self.size[1] >= SPOOL_PIXELS
            if large and isinstance(picture.color, PilRows):
                # Without room for temporary files, the memory has to do.
                with suppress(OSError):
                    return Picture(SpooledRows(picture.color), None)
            return picture

    def _decode(self, image: ImageFile.ImageFile) -> Picture:
        if deep_channels(image) is not None:
            turn = orientation(image)
            with _opened(self._file) as again, _any_size(image):
                pixels = read_deep(image, again)
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                turn = 1  # Pillow has turned it
            return _picture(_upright(pixels, turn))
        key = _transparent_key(image)
        turn = _load(image)
        channels, dtype, decode = _conversion(image, key)
        rows = PilRows(image, turn, channels, dtype, decode)
        if channels == self.channels:
            return _picture(rows)
        # A frame of an animation may be of another mode than the first.
        same = image.convert({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[self.channels])
        return _picture(PilRows(same, turn, *_conversion(same, None)))


@dataclass(frozen=True)
class PilRows:
    """Rows of a loaded Pillow image, converted and turned upright as they are asked for.

    Parameters
    ----------
    image
        A loaded image, in any mode.
    turn
        The EXIF orientation to undo.
    channels
        Of each row: 1 to 4, alpha last.
    dtype
        Of each row.
    decode
        From a crop of ``image`` to its (h, w, channels) array.
    """

    image: Image.Image
    turn: int
    channels: int
    dtype: np.dtype[Any]
    decode: Callable[[Image.Image], Array]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, channels), upright."""
        width, height = self.image.size
        return (width, height, self.channels) if self.turn > 4 else (height, width, self.channels)

    def __getitem__(self, rows: slice) -> Array:
        top, bottom, _ = rows.indices(self.shape[0])
        width, height = self.image.size
        box = {
            1: (0, top, width, bottom),
            2: (0, top, width, bottom),
            3: (0, height - bottom, width, height - top),
            4: (0, height - bottom, width, height - top),
            5: (top, 0, bottom, height),
            6: (top, 0, bottom, height),
            7: (width - bottom, 0, width - top, height),
            8: (width - bottom, 0, width - top, height),
        }[self.turn]
        return _upright(self.decode(self.image.crop(box)), self.turn)


@dataclass(frozen=True)
class Channels:
    """Some channels of a row source."""

    rows: RowSource
    first: int
    last: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, last - first)."""
        return (self.rows.shape[0], self.rows.shape[1], self.last - self.first)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the whole."""
        return self.rows.dtype

    def __getitem__(self, rows: slice) -> Array:
        return np.ascontiguousarray(self.rows[rows][..., self.first : self.last])


def open_file(file: str | Path | BinaryIO) -> PictureFile:
    """Read a picture's header; the pixels follow with :meth:`PictureFile.frames`.

    There is no limit on the number of pixels beyond what the file can hold:
    look at ``size`` first where files come from strangers.

    Parameters
    ----------
    file
        A path, or a binary file object (read from its start; one that cannot
        seek is read into memory).

    Raises
    ------
    PictureError
        If there is no such file, or it is not a picture, or a damaged one.
    """
    if isinstance(file, (str, os.PathLike)):
        source: Path | BinaryIO = Path(file)
    elif file.seekable():
        source = file
    else:
        source = io.BytesIO(file.read())
    with _opened(source) as image, _one_sentence(source):
        return _describe(image, source)


def _describe(image: ImageFile.ImageFile, source: Path | BinaryIO) -> PictureFile:
    name = image.format or "unknown"
    with _stream(source) as stream:
        check_header(name, stream)
        late_text = name == "PNG" and text_follows_pixels(stream)
    width, height = image.size
    if width < 1 or height < 1:
        raise PictureError(f"{_name(source)} has no pixels: its header says {width}×{height}.")
    if width * height > PIXELS_ALWAYS + PIXELS_PER_BYTE * _length(source):
        raise PictureError(
            f"{_name(source)} is damaged: its header claims {width}×{height} pixels, "
            "more than the file can hold."
        )
    warnings: list[str] = []
    frames = getattr(image, "n_frames", 1)
    first = 1 if frames > 1 and image.info.get("default_image") else 0
    animated = name in ANIMATED and frames - first > 1
    if frames > 1 and name == "TIFF":
        warnings.append(
            f"Only the first of the {frames} pages is read; split the file for the rest."
        )
    deep = deep_channels(image)
    if deep is not None:
        channels, dtype = deep, np.dtype(np.uint16)
    else:
        channels, dtype, _ = _conversion(image, _transparent_key(image))
        if is_cut(image):
            warnings.append("More than 8 bits a channel are cut to 8: Pillow cannot read them.")
    if image.mode == "CMYK" and image.info.get("icc_profile") and not _cmyk_transform(image):
        warnings.append("The CMYK profile cannot be used: the colours are converted without it.")
    if animated and name == "GIF":
        channels = 4  # later frames may be transparent where the first is not
    if late_text:
        _load(image)
    metadata, damaged = read_metadata(image, 1 if channels < 3 else 3, reset_orientation=True)
    if image.mode == "CMYK" or image.mode == "LAB":
        metadata = replace(metadata, icc=b"")
    if animated:
        metadata = replace(metadata, durations=_durations(image, first))
    turned = orientation(image) > 4 and not isinstance(image, TiffImagePlugin.TiffImageFile)
    return PictureFile(
        format=name,
        mode=image.mode,
        size=(height, width) if turned else (width, height),
        channels=channels,
        dtype=dtype,
        metadata=metadata,
        n_frames=frames - first if animated else 1,
        warnings=(*warnings, *damaged),
        jpeg_quality=estimated_quality(image),
        _file=source,
        _first=first if animated else 0,
    )


def _durations(image: ImageFile.ImageFile, first: int) -> tuple[float, ...]:
    durations = []
    for index in range(first, getattr(image, "n_frames", 1)):
        image.seek(index)
        if image.format in ("WEBP", "AVIF"):  # which tell when they decode
            image.load()
        durations.append(float(image.info.get("duration", 0)))
    return tuple(durations)


def from_pil(image: Image.Image) -> tuple[Picture, Metadata]:
    """Take a Pillow image as it lies in memory (its current frame, not turned).

    Parameters
    ----------
    image
        Any mode but those of raw planes; ``"F"`` holds 0 to 255 as everywhere
        in Pillow, ``"I"`` 0 to 65535.

    Raises
    ------
    PictureError
        If its pixels cannot be decoded or its values are out of range.
    """
    with _one_sentence("The picture"):
        key = _transparent_key(image)
        _load(image)
        channels, dtype, decode = _conversion(image, key, bytes_as_float=True)
        metadata, _ = read_metadata(image, 1 if channels < 3 else 3, reset_orientation=False)
        if image.mode in ("CMYK", "LAB"):
            metadata = replace(metadata, icc=b"")
        return _picture(PilRows(image, 1, channels, dtype, decode)), metadata


def to_pil(pixels: Array, like_mode: str, metadata: Metadata) -> Image.Image:
    """Make a Pillow image of the kind that was given.

    Parameters
    ----------
    pixels
        (H, W, 1 to 4) uint8, uint16 or float32 as :func:`from_pil` gave them,
        alpha last.
    like_mode
        Mode of the image that came in. ``"1"`` becomes ``"L"``, palettes and
        CMYK become RGB(A); every other mode is kept.
    metadata
        Goes into ``info``, where Pillow looks for it.

    Raises
    ------
    PictureError
        If Pillow has no mode for the pixels (16-bit colour).
    """
    if pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if like_mode == "F":
        image = Image.fromarray(pixels * np.float32(255))
    elif like_mode == "I":
        image = Image.fromarray(pixels.astype(np.int32))
    elif pixels.dtype == np.uint8 or (pixels.dtype == np.uint16 and pixels.ndim == 2):
        image = Image.fromarray(np.ascontiguousarray(pixels))
    else:
        raise PictureError("Pillow holds no 16-bit colour; pass a NumPy array instead.")
    if like_mode in ("La", "RGBa", "YCbCr", "HSV"):
        image = image.convert(like_mode)
    elif like_mode == "LAB":
        image = ImageCms.profileToProfile(image, _SRGB, _LAB, outputMode="LAB") or image
    metadata = metadata.resized(image.size)
    image.info.update(metadata.pillow_info())
    return image


_SRGB = ImageCms.createProfile("sRGB")
_LAB = ImageCms.createProfile("LAB")


def _conversion(
    image: Image.Image, key: Any, bytes_as_float: bool = False
) -> tuple[int, np.dtype[Any], Callable[[Image.Image], Array]]:
    """Channels and dtype of an image's pixels, and how a crop of it becomes an array."""
    mode = image.mode
    byte = np.dtype(np.uint8)
    if mode.startswith("I;16"):
        return _grey16(image, key)
    if mode == "I":
        return 1, np.dtype(np.uint16), _from_int
    if mode == "F":
        return 1, np.dtype(np.float32), _from_float255 if bytes_as_float else _from_float
    if mode in ("1", "L") and key is not None:
        return 2, byte, lambda crop: _with_key(np.asarray(crop.convert("L"))[..., None], key)
    if mode == "RGB" and key is not None:
        return 4, byte, lambda crop: _with_key(np.asarray(crop), key)
    if mode in ("1", "L"):
        return 1, byte, lambda crop: np.asarray(crop.convert("L"))[..., None]
    if mode in ("LA", "La"):
        return 2, byte, lambda crop: np.asarray(crop.convert("LA"))
    if mode in ("CMYK", "LAB"):
        return 3, byte, _through_profile(image)
    target = "RGBA" if image.has_transparency_data else "RGB"
    return len(target), byte, lambda crop: np.asarray(crop.convert(target))


def _grey16(
    image: Image.Image, key: Any
) -> tuple[int, np.dtype[Any], Callable[[Image.Image], Array]]:
    """16-bit grey; Pillow neither widens 12 bits nor inverts a TIFF whose white is 0."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    twelve = tags.get(258, (16,))[0] == 12
    inverted = tags.get(262) == 0

    def decode(crop: Image.Image) -> Array:
        pixels: Array = np.asarray(crop).astype(np.uint16)[..., None]
        if twelve:
            pixels = pixels << 4 | pixels >> 8
        if inverted:
            pixels = 65535 - pixels
        return pixels if key is None else _with_key(pixels, key)

    return 1 if key is None else 2, np.dtype(np.uint16), decode


def _from_int(crop: Image.Image) -> Array:
    pixels = np.asarray(crop)
    if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
        raise PictureError("its 32-bit values leave the range 0 to 65535; scale them first.")
    return pixels.astype(np.uint16)[..., None]


def _from_float(crop: Image.Image) -> Array:
    pixels = np.asarray(crop)[..., None]
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # false for NaN too
        raise PictureError("its float values leave the range 0 to 1; scale them first.")
    return pixels


def _from_float255(crop: Image.Image) -> Array:
    pixels = np.asarray(crop)[..., None]
    if not (pixels.min() >= 0 and pixels.max() <= 255):  # false for NaN too
        raise PictureError("its float values leave the range 0 to 255; scale them first.")
    return pixels / np.float32(255)


def _transparent_key(image: Image.Image) -> Any:
    """The transparent value or colour, on the scale of the pixels; call before loading.

    Pillow widens the pixels of a PNG file to 8 bits, or cuts them, but not this.
    """
    key = image.info.get("transparency")
    if key is None or not isinstance(image, PngImagePlugin.PngImageFile) or not image.tile:
        return key
    rawmode = str(image.tile[0].args)
    if rawmode == "RGB;16B":
        return tuple(value >> 8 for value in key)
    return key * {"L;2": 85, "L;4": 17}.get(rawmode, 1) if isinstance(key, int) else key


def _with_key(pixels: Array, key: Any) -> Array:
    visible = (pixels != np.asarray(key, pixels.dtype)).any(axis=2, keepdims=True)
    opaque = np.iinfo(pixels.dtype).max
    return np.concatenate([pixels, visible * pixels.dtype.type(opaque)], axis=2)


def _through_profile(image: Image.Image) -> Callable[[Image.Image], Array]:
    """CMYK and LAB to sRGB; CMYK without a profile by Pillow's formula."""
    transform = _cmyk_transform(image) if image.mode == "CMYK" else _transform(_LAB, "LAB")
    if transform is None:
        return lambda crop: np.asarray(crop.convert("RGB"))
    return lambda crop: np.asarray(ImageCms.applyTransform(crop, transform))


def _cmyk_transform(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """By the image's own profile; None if there is none that can be used."""
    icc = image.info.get("icc_profile") or b""
    if icc[16:20] != b"CMYK":
        return None
    try:
        return _transform(ImageCms.ImageCmsProfile(io.BytesIO(icc)), "CMYK")
    except (OSError, ImageCms.PyCMSError):
        return None


def _transform(profile: Any, mode: str) -> ImageCms.ImageCmsTransform:
    """To sRGB, relative colorimetric with black point compensation, as is usual for viewing."""
    return ImageCms.buildTransform(
        profile,
        _SRGB,
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _picture(rows: RowSource) -> Picture:
    """Split alpha off, and give the hidden pixels the colour of visible ones."""
    height, _, channels = rows.shape
    if channels in (1, 3):
        return Picture(rows, None)
    alpha = np.empty(rows.shape[:2], rows.dtype)
    for top in range(0, height, 256):
        alpha[top : top + 256] = rows[top : top + 256][..., -1]
    color = Channels(rows, 0, channels - 1)
    if alpha.all():
        return Picture(color, alpha)
    return Picture(fill_transparent(color[0:height], alpha), alpha)


def _upright(pixels: Array, turn: int) -> Array:
    """Undo an EXIF orientation of an (H, W, C) array; the result may be written to."""
    if turn > 4:
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.require(pixels, requirements=["C", "W"])


def _load(image: Image.Image) -> int:
    """Decode, and return the orientation that is left to undo."""
    with _any_size(image):
        image.load()
    return orientation(image)


_size_lock = threading.Lock()
_size_users = 0
_size_limit: int | None = None


@contextmanager
def _any_size(image: Image.Image | None) -> Iterator[None]:
    """Lift Pillow's limit on pixels, which is global, for as short as can be."""
    global _size_users, _size_limit
    if image is not None and image.width * image.height <= (Image.MAX_IMAGE_PIXELS or 0):
        yield
        return
    with _size_lock:
        if not _size_users:
            _size_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _size_users += 1
    try:
        yield
    finally:
        with _size_lock:
            _size_users -= 1
            if not _size_users:
                Image.MAX_IMAGE_PIXELS = _size_limit


@contextmanager
def _stream(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, Path):
        with source.open("rb") as stream:
            yield stream
    else:
        source.seek(0)
        yield source


@contextmanager
def _opened(source: Path | BinaryIO) -> Iterator[ImageFile.ImageFile]:
    with ExitStack() as stack:
        with _one_sentence(source):
            if isinstance(source, Path) and source.is_dir():
                raise PictureError(f"{source} is a folder, not a picture.")
            stream = stack.enter_context(_stream(source))
            with _any_size(None):
                image = Image.open(stream)
        yield image


def _name(source: Any) -> str:
    if isinstance(source, Path):
        return str(source)
    return source if isinstance(source, str) else getattr(source, "name", None) or "The picture"


def _length(source: Path | BinaryIO) -> int:
    return source.stat().st_size if isinstance(source, Path) else source.seek(0, os.SEEK_END)


@contextmanager
def _one_sentence(source: Any) -> Iterator[None]:
    """Turn whatever a decoder raises for a bad file into a ``PictureError``."""
    name = _name(source)
    try:
        yield
    except PictureError as error:
        text = str(error)
        if text.startswith(name):
            raise
        raise PictureError(f"{name} cannot be used: {text}") from error
    except FileNotFoundError as error:
        raise PictureError(f"{name} does not exist.") from error
    except PermissionError as error:
        raise PictureError(f"{name} may not be read: permission denied.") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is damaged or not a picture that Pillow can read.") from error
    except MemoryError as error:
        raise PictureError(f"{name} is too large for the memory of this machine.") from error
    except Exception as error:  # decoders raise anything for damaged data
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise PictureError(f"{name} is damaged or cannot be read by Pillow: {reason}.") from error
