"""The errors a user can meet. Each message is one sentence that says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What moves a cursor, breaks a line, or turns the direction of writing around.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """A text on one line, control characters in it as escapes such as ``\\x1b``.

    Names of files may have any, and a terminal would obey them.
    """
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class UpscaleError(Exception):
    """Base of everything that srgan_infer raises on purpose."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ImageError(UpscaleError, ValueError):
    """An image cannot be read, understood or written."""


class WeightsError(UpscaleError):
    """A model cannot be found, fetched, verified or understood."""


class OutOfMemoryError(UpscaleError, MemoryError):
    """No tile is small enough for the memory there is."""


class ImageWarning(UserWarning):
    """Something of an image cannot be kept; the result is usable."""

    def __str__(self) -> str:
        return printable(super().__str__())


# How PyTorch, C++ and Python's threads say it; a MemoryError says it itself.
_OUT_OF_MEMORY = re.compile("allocate memory|bad_alloc|out of memory|can't start new thread", re.I)


@contextmanager
def in_words(
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Callable[[int, int], None] | None]:
    """Turn what the system raises in the midst of the work into errors of ours.

    Errors that have been put into words already and defects pass, and so does whatever the
    caller's progress function raises, as it is.

    Yields
    ------
    callable or None
        The progress function, to be called instead.
    """
    raised: list[BaseException] = []

    def called(done: int, total: int) -> None:
        assert progress is not None
        try:
            progress(done, total)
        except BaseException as error:
            raised.append(error)
            raise

    try:
        yield None if progress is None else called
    except (UpscaleError, BrokenPipeError):
        raise
    except (MemoryError, RuntimeError, OSError) as error:
        if any(error is one for one in raised):
            raise
        if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
            raise OutOfMemoryError(
                "memory ran out; give a smaller max_memory or tile, or end other programs."
            ) from error
        if isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename else ""
            raise ImageError(f"{where}{error.strerror or error}.") from error
        raise
