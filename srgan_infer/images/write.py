"""Rows into a file that is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from srgan_infer.errors import ImageError
from srgan_infer.files import NewFile, new_file
from srgan_infer.images.alpha import on_white
from srgan_infer.images.formats import (
    Content,
    Format,
    PagedSink,
    Sink,
    check_output,
    choose_format,
)
from srgan_infer.images.keeping import fit
from srgan_infer.images.metadata import Metadata

Array = npt.NDArray[Any]


class Writer:
    """Rows into one file, top to bottom, frame after frame or page after page.

    Attributes
    ----------
    warnings
        Sentences on what the format does not keep, of several pages of the first.
    moved
        A sentence on where the file is, if it is not where it was to be.
    path
        Where the file is, once it is complete; None for a file object.
    """

    def __init__(
        self,
        sink: Sink,
        kind: Format,
        content: Content,
        channels: int,
        name: str,
        warnings: tuple[str, ...],
    ) -> None:
        self.warnings = warnings
        self.moved: tuple[str, ...] = ()
        self.path: Path | None = None
        self._sink = sink
        self._kind = kind
        self._content = content
        self._channels = channels
        self._pages = 1
        self._rows = 0
        self._name = name

    def write(self, rows: Array) -> None:
        """Take the next rows; after H of them the next frame begins.

        Parameters
        ----------
        rows
            (h, W, channels) of the dtype that was announced.

        Raises
        ------
        ImageError
            If they cannot be written, such as to a full disk.
        """
        content = self._content
        if rows.ndim != 3 or rows.shape[1:] != (content.size[0], self._channels):
            raise ValueError(
                f"rows must be (h, {content.size[0]}, {self._channels}), not {rows.shape}."
            )
        if content.channels < self._channels:
            rows = on_white(rows)
        elif content.channels > self._channels:
            rows = rows[..., [0, 0, 0, 1]]
        with _writing(self._name):
            self._sink.write(_as_dtype(rows, content.dtype))
        self._rows += rows.shape[0]

    def next_page(
        self, size: tuple[int, int], channels: int, dtype: npt.DTypeLike, metadata: Metadata
    ) -> None:
        """Begin the next page, once all rows of the last one are written.

        Parameters
        ----------
        size, channels, dtype, metadata
            As of :func:`create`.

        Raises
        ------
        ImageError
            If the last page cannot be written, such as to a full disk.
        """
        self._check_rows()
        if not isinstance(self._sink, PagedSink) or self._pages == self._content.n_pages:
            raise ValueError(f"{self._content.n_pages} pages were announced.")
        page = _content(self._kind, size, channels, dtype, metadata)
        self._content = replace(page, n_pages=self._content.n_pages)
        self._channels = channels
        self._rows = 0
        self._pages += 1
        with _writing(self._name):
            self._sink.next_page(size, page.channels, page.dtype, page.metadata)

    def finish(self) -> None:
        """Write what is left."""
        self._check_rows()
        if self._pages != self._content.n_pages:
            raise ValueError(f"{self._pages} of {self._content.n_pages} pages were written.")
        with _writing(self._name):
            self._sink.finish()

    def _check_rows(self) -> None:
        total = self._content.size[1] * self._content.n_frames
        if self._rows != total:
            raise ValueError(f"{self._rows} of {total} rows were written.")

    def write_all(self, bands: Iterable[Array]) -> None:
        """Take rows band by band."""
        for rows in bands:
            self.write(rows)


@contextmanager
def create(
    file: str | Path | BinaryIO,
    *,
    format: str | None = None,
    size: tuple[int, int],
    channels: int,
    dtype: npt.DTypeLike = np.uint8,
    metadata: Metadata | None = None,
    n_frames: int = 1,
    n_pages: int = 1,
    most_bytes: int | None = None,
    quality: int | None = None,
    overwrite: bool = True,
) -> Iterator[Writer]:
    """Write an image, whole or not at all.

    The rows go into a temporary file beside the target, which replaces the
    target when the ``with`` block ends. If the block is left by an exception,
    the temporary file is removed and the old file stays.

    Parameters
    ----------
    file
        A path (a symbolic link is followed) or a binary file object, which
        need not seek.
    format
        Name or suffix of a format; by default the path's suffix decides.
    size
        (W, H) of the image.
    channels
        1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    dtype
        uint8, uint16 or float32 (in [0, 1]) of the rows.
    metadata
        What is carried over; sizes in it are set to ``size``.
    n_frames
        Frames of an animation.
    n_pages
        Pages, of which this is the first, with the others by :meth:`Writer.next_page`.
    most_bytes
        The sum of :func:`~srgan_infer.images.tiff.page_bytes` of several pages.
    quality
        1 to 100 for JPEG (default 95), WebP (95; 100 is lossless) and AVIF
        (90); other formats are lossless and have none.
    overwrite
        Whether a file of that name is replaced; else the new one goes beside it, to
        ``name-1.suffix`` or the next number that is free, and a warning says so.

    Raises
    ------
    ImageError
        If the format is unknown, cannot hold the image, or the file cannot
        be written.
    """
    warnings = check_output(
        file,
        format=format,
        size=size,
        channels=channels,
        dtype=dtype,
        n_frames=n_frames,
        quality=quality,
        metadata=metadata,
    )
    kind = choose_format(file, format)
    content = replace(
        _content(kind, size, channels, dtype, metadata or Metadata(), n_frames),
        quality=quality,
        n_pages=n_pages,
        most_bytes=most_bytes,
    )
    name, new, stream = "The output", None, file
    with ExitStack() as stack:
        if isinstance(file, (str, os.PathLike)):
            name, new = str(file), stack.enter_context(_target(file, overwrite))
            wanted, stream = new.path, new.stream
        assert not isinstance(stream, (str, Path))
        sink = kind.encode(stream, kind, content)
        try:
            writer = Writer(sink, kind, content, channels, name, warnings)
            yield writer
            writer.finish()
        finally:
            sink.close()
    if new is not None:
        writer.path = Path(name)
        if new.path != wanted:
            writer.path = new.path
            writer.moved = (f"{name} is there and stays: the result is {new.path.name}.",)


def _content(
    kind: Format,
    size: tuple[int, int],
    channels: int,
    dtype: npt.DTypeLike,
    metadata: Metadata,
    n_frames: int = 1,
) -> Content:
    """An image in the form that a format holds."""
    metadata, _ = fit(kind.name, metadata.resized(size), n_frames)
    stored = kind.dtype_for(dtype)
    return Content(size, kind.channels_for(channels, stored), stored, metadata, n_frames, None)


def _as_dtype(rows: Array, dtype: np.dtype[Any]) -> Array:
    """Between uint8, uint16 and float32 in [0, 1]; rounded."""
    if rows.dtype == np.uint16 and dtype == np.uint8:
        rows = ((rows.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif rows.dtype == np.float32 and dtype != np.float32:
        rows = np.rint(np.clip(rows, 0, 1) * np.iinfo(dtype).max).astype(dtype)
    if rows.dtype == dtype:
        return rows
    raise ValueError(f"rows are {rows.dtype}, which does not fit {dtype}.")


@contextmanager
def _target(file: str | Path, overwrite: bool) -> Iterator[NewFile]:
    """The file that takes the place of ``file`` if all goes well, or the pipe that it is."""
    with ExitStack() as stack:
        with _writing(str(file)):
            path = Path(os.path.realpath(file))
            regular = path.is_file() or path.is_dir() or not path.exists()
            new = stack.enter_context(new_file(path, overwrite) if regular else _device(path))
        yield new
        with _writing(str(file)):
            stack.close()


@contextmanager
def _device(path: Path) -> Iterator[NewFile]:
    stream = path.open("wb")
    try:
        yield NewFile(stream, path)
        stream.close()
    except BaseException:
        with suppress(OSError):  # closing flushes, and may fail once more
            stream.close()
        raise


@contextmanager
def _writing(name: str) -> Iterator[None]:
    """Name the file when the system refuses to write it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageError(f"{name} cannot be written: {reason}.") from error
