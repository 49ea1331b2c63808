"""Animations written frame by frame, so that their frames are never all in memory.

Pillow takes all frames of a GIF or an APNG before it writes the first. Here each frame is
encoded as an image of its own, and what the format puts around frames is written between
them. WebP and AVIF are encoded by Pillow from frames that wait in a temporary file.

Source: the PNG specification, third edition, sections 11.3.6 and 4.9 (APNG); the GIF89a
specification.
"""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from srgan_infer.images.embed import gif_shape, gif_xmp
from srgan_infer.images.encoder_output import EncoderOutput, Finish
from srgan_infer.images.metadata import Metadata
from srgan_infer.images.palette import Frame, indexed
from srgan_infer.images.png import SIGNATURE, PngWriter, write_chunk
from srgan_infer.images.rows import Blocks

Array = npt.NDArray[Any]
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

# APNG: what becomes of a frame when the next one comes, and how it is put on the last.
LEAVE, REPLACE = 0, 0
# GIF: frames without transparency may lie on the last one, any other needs it cleared.
KEEP, CLEAR = 1, 2
EXTENSION, IMAGE, TRAILER, CONTROL = 0x21, 0x2C, 0x3B, 0xF9
LOCAL_TABLE = 0x80


class ApngSink:
    """Frames into an APNG file; of each only the part that differs from the one before.

    Parameters
    ----------
    stream
        Open for writing; need not seek.
    size
        (W, H).
    channels
        1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    dtype
        uint8 or uint16.
    metadata
        Goes in front of the pixels; its ``durations`` and ``loop`` are the timing.
    n_frames
        How many there will be.
    """

    def __init__(
        self,
        stream: BinaryIO,
        size: tuple[int, int],
        channels: int,
        dtype: np.dtype[Any],
        metadata: Metadata,
        n_frames: int,
    ) -> None:
        self._stream = stream
        self._size = size
        self._channels = channels
        self._dtype = dtype
        self._metadata = metadata
        self._n_frames = n_frames
        self._frames = Blocks(size[1])
        self._last: Array | None = None
        self._done = 0
        self._sequence = 0

    def write(self, rows: Array) -> None:
        """Take the next (h, W, channels) rows; after H of them the next frame begins."""
        for frame in self._frames.push(rows.copy()):
            self._add(frame)

    def finish(self) -> None:
        """Write the end."""
        write_chunk(self._stream, b"IEND", b"")

    def close(self) -> None:
        """Drop the frame before."""
        self._last = None

    def _add(self, frame: Array) -> None:
        top, bottom, left, right = (
            (0, frame.shape[0], 0, frame.shape[1])
            if self._last is None
            else changed(self._last, frame)
        )
        encoded = io.BytesIO()
        first = self._last is None
        writer = PngWriter(
            encoded,
            (right - left, bottom - top),
            self._channels,
            self._dtype,
            self._metadata if first else Metadata(),
        )
        try:
            writer.write(frame[top:bottom, left:right])
            writer.finish()
        finally:
            writer.close()
        control = struct.pack(
            ">IIIIHHBB",
            right - left,
            bottom - top,
            left,
            top,
            *_fraction(_duration(self._metadata, self._done)),
            LEAVE,
            REPLACE,
        )
        if first:
            self._stream.write(SIGNATURE)
        told = False
        for kind, data in _chunks(encoded.getvalue()):
            if kind == b"IDAT" and not told:
                if first:
                    plays = 1 if self._metadata.loop is None else self._metadata.loop
                    write_chunk(self._stream, b"acTL", struct.pack(">II", self._n_frames, plays))
                write_chunk(self._stream, b"fcTL", self._number() + control)
                told = True
            if kind == b"IDAT" and not first:
                write_chunk(self._stream, b"fdAT", self._number() + data)
            elif kind == b"IDAT" or (first and kind != b"IEND"):
                write_chunk(self._stream, kind, data)
        self._last = frame
        self._done += 1

    def _number(self) -> bytes:
        """The next number of a control or data chunk, which count together."""
        self._sequence += 1
        return struct.pack(">I", self._sequence - 1)


class GifSink:
    """Frames into a GIF file, each with a palette of its own.

    Parameters
    ----------
    stream
        Open for writing; need not seek.
    size
        (W, H).
    channels
        1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    metadata
        All that a GIF file has a place for is written.
    """

    def __init__(
        self, stream: BinaryIO, size: tuple[int, int], channels: int, metadata: Metadata
    ) -> None:
        self._stream = stream
        self._size = size
        self._mode = MODES[channels]
        self._metadata = metadata
        self._frames = Blocks(size[1])
        self._last: Frame | None = None
        self._done = 0

    def write(self, rows: Array) -> None:
        """Take the next (h, W, channels) uint8 rows; after H of them the next frame begins."""
        for frame in self._frames.push(rows.copy()):
            self._add(frame)

    def finish(self) -> None:
        """Write the end."""
        self._stream.write(bytes([TRAILER]))

    def close(self) -> None:
        """Nothing is held."""

    def _add(self, frame: Array) -> None:
        if not self._done:
            shape = gif_shape(self._metadata.density) or 0
            self._stream.write(b"GIF89a" + struct.pack("<HHBBB", *self._size, 0x70, 0, shape))
            if self._metadata.loop is not None:
                data = b"\x03\x01" + struct.pack("<H", self._metadata.loop) + b"\x00"
                self._stream.write(bytes([EXTENSION, 0xFF, 11]) + b"NETSCAPE2.0" + data)
            if self._metadata.comment:
                self._stream.write(bytes([EXTENSION, 0xFE]))
                comment = self._metadata.comment
                for start in range(0, len(comment), 255):
                    part = comment[start : start + 255]
                    self._stream.write(bytes([len(part)]) + part)
                self._stream.write(b"\x00")
            self._stream.write(gif_xmp(self._metadata))
        self._last = indexed(frame, self._last)
        transparent, palette, descriptor, data = _gif_parts(_encoded_gif(self._last.image))
        delay = min(round(_duration(self._metadata, self._done) / 10), 65535)
        disposal = CLEAR if "A" in self._mode else KEEP
        flags = disposal << 2 | (transparent is not None)
        control = struct.pack("<BHBB", flags, delay, transparent or 0, 0)
        self._stream.write(bytes([EXTENSION, CONTROL, 4]) + control)
        self._stream.write(bytes([IMAGE]) + descriptor + palette + data)
        self._done += 1


class SpooledSink:
    """Frames into a temporary file, from which Pillow encodes them at the end.

    Parameters
    ----------
    stream
        Open for writing.
    name
        Pillow's name of the format.
    size
        (W, H).
    channels
        1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    n_frames
        How many there will be.
    options
        What Pillow's encoder is told.
    finish
        Makes the final file of what the encoder wrote, or None.
    """

    def __init__(
        self,
        stream: BinaryIO,
        name: str,
        size: tuple[int, int],
        channels: int,
        n_frames: int,
        options: dict[str, Any],
        finish: Finish | None,
    ) -> None:
        self._stream = stream
        self._name = name
        self._options = options
        self._finish = finish
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._frames = SpooledFrames(self._file, MODES[channels], size, n_frames)

    def write(self, rows: Array) -> None:
        """Take the next (h, W, channels) uint8 rows; after H of them the next frame begins."""
        self._file.write(np.ascontiguousarray(rows).data)

    def finish(self) -> None:
        """Encode."""
        with EncoderOutput(self._stream, self._finish) as output:
            self._frames.save(cast(BinaryIO, output), self._name, save_all=True, **self._options)

    def close(self) -> None:
        """Drop the temporary file."""
        self._file.close()


class SpooledFrames(Image.Image):
    """A Pillow image whose frames lie in a file, one after the other; one is in memory.

    Parameters
    ----------
    file
        Holds the pixels, row by row.
    mode, size
        Pillow's mode, and (W, H), of every frame.
    n_frames
        How many there are.
    """

    def __init__(self, file: Any, mode: str, size: tuple[int, int], n_frames: int) -> None:
        super().__init__()
        self._mode = mode
        self._size = size
        self.n_frames = n_frames
        self.is_animated = n_frames > 1
        self._file = file
        self._frame = -1

    def seek(self, frame: int) -> None:
        """Read another frame."""
        if not 0 <= frame < self.n_frames:
            raise EOFError(f"there is no frame {frame}")
        if frame == self._frame:
            return
        length = self._size[0] * self._size[1] * len(self._mode)
        self._file.seek(frame * length)
        data = self._file.read(length)
        if len(data) != length:
            raise OSError("the temporary file with the frames was cut short")
        self.im = Image.frombytes(self._mode, self._size, data).im
        self._frame = frame

    def tell(self) -> int:
        """The number of the frame."""
        return max(self._frame, 0)

    def load(self) -> Any:
        """Read the first frame if none has been read."""
        if self._frame < 0:
            self.seek(0)
        return super().load()


def changed(before: Array, after: Array) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what differs in two (H, W, C) frames; at least a pixel."""
    rows = np.flatnonzero((before != after).any(axis=(1, 2)))
    if not rows.size:
        return 0, 1, 0, 1
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero((before[top:bottom] != after[top:bottom]).any(axis=(0, 2)))
    return top, bottom, int(columns[0]), int(columns[-1]) + 1


def _duration(metadata: Metadata, frame: int) -> float:
    """Milliseconds of a frame."""
    return metadata.durations[frame] if metadata.durations else 100


def _fraction(milliseconds: float) -> tuple[int, int]:
    """Seconds as two numbers of 16 bits."""
    value = round(milliseconds)
    return (value, 1000) if value <= 65535 else (min(round(value / 10), 65535), 100)


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of the chunks of a PNG file."""
    place = len(SIGNATURE)
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        yield png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        place += 12 + length


def _encoded_gif(frame: Image.Image) -> bytes:
    """A frame as a GIF file of its own, by Pillow."""
    # The number for pixels that are not there is always told: without it some readers take
    # what is cleared for opaque.
    output = io.BytesIO()
    frame.save(output, "GIF", optimize=False)
    return output.getvalue()


def _gif_parts(gif: bytes) -> tuple[int | None, bytes, bytes, bytes]:
    """Transparent index or None, colour table, image descriptor and data of a one-frame GIF.

    The descriptor says that the colour table belongs to the image.
    """
    flags = gif[10]
    place, palette, size = 13, b"", 0
    if flags & LOCAL_TABLE:
        size = flags & 7
        palette = gif[place : place + (6 << size)]
        place += len(palette)
    transparent = None
    while gif[place] == EXTENSION:
        if gif[place + 1] == CONTROL and gif[place + 3] & 1:
            transparent = gif[place + 6]
        place = _behind_blocks(gif, place + 2)
    descriptor, own = gif[place + 1 : place + 9], gif[place + 9]
    place += 10
    if own & LOCAL_TABLE:
        size = own & 7
        palette = gif[place : place + (6 << size)]
        place += len(palette)
    interlaced = own & 0x40
    data = gif[place : _behind_blocks(gif, place + 1)]
    return transparent, palette, descriptor + bytes([LOCAL_TABLE | interlaced | size]), data


def _behind_blocks(gif: bytes, place: int) -> int:
    """Where a run of data blocks ends."""
    while gif[place]:
        place += gif[place] + 1
    return place + 1
