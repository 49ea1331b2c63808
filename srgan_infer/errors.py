"""The errors a user can meet. Each message is one sentence that says what to do."""

from __future__ import annotations

import re

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
