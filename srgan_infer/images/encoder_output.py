"""Where Pillow's encoders write to."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

Finish = Callable[[BinaryIO], Iterable[bytes]]
# What is kept of a file for a stream that cannot seek; the rest goes to a temporary file.
SPOOL_BYTES = 32 << 20


class EncoderOutput(io.RawIOBase):
    """Stands between an encoder of Pillow's and the stream that its file goes to.

    Some encoders try a write that failed again and again (JPEG 2000), and none can be
    interrupted. Here every write succeeds; what failed first is raised when the block ends.

    Parameters
    ----------
    stream
        Open for writing; one that cannot seek gets the file at the end.
    finish
        Makes the bytes of the final file from what the encoder has written; None if that
        is the file.
    """

    def __init__(self, stream: BinaryIO, finish: Finish | None = None) -> None:
        self._stream = stream
        self._finish = finish
        self._file: Any = stream
        if finish is not None or not stream.seekable():
            self._file = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115
        self._failure: BaseException | None = None

    def writable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def write(self, data: Any) -> int:
        """Take the bytes, in any case."""
        size = len(memoryview(data).cast("B"))
        if self._failure is None:
            try:
                self._file.write(data)
            except BaseException as error:  # KeyboardInterrupt too: an encoder would go on
                self._failure = error
        return size

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place, in any case."""
        try:
            return int(self._file.seek(offset, whence) or self._file.tell())
        except BaseException as error:
            self._failure = self._failure or error
            return offset

    def fileno(self) -> int:
        """Of the temporary file, if there is one.

        An encoder that writes there itself, such as that of JPEG, does not hold up the
        other threads of the program meanwhile.
        """
        if self._file is self._stream:
            raise io.UnsupportedOperation("fileno")
        return int(self._file.fileno())

    def flush(self) -> None:
        """Hand on what waits, in any case."""
        try:
            if not self.closed:
                self._file.flush()
        except BaseException as error:
            self._failure = self._failure or error

    def tell(self) -> int:
        """The place."""
        return int(self._file.tell())

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if self._failure is not None:
                raise self._failure
            if error is None and self._file is not self._stream:
                self._file.seek(0)
                if self._finish is None:
                    shutil.copyfileobj(self._file, self._stream, 1 << 20)
                else:
                    self._stream.writelines(self._finish(self._file))
        finally:
            if self._file is not self._stream:
                self._file.close()
            self.close()
