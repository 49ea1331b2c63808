"""The errors a user can meet. Each message is one sentence that says what to do."""

from __future__ import annotations


class UpscaleError(Exception):
    """Base of everything that srgan_infer raises on purpose."""


class ImageError(UpscaleError, ValueError):
    """An image cannot be read, understood or written."""


class WeightsError(UpscaleError):
    """A model cannot be found, fetched, verified or understood."""


class OutOfMemoryError(UpscaleError, MemoryError):
    """No tile is small enough for the memory there is."""


class ImageWarning(UserWarning):
    """Something of an image cannot be kept; the result is usable."""
