"""Images four times larger: tiled SRGAN super-resolution with pretrained weights.

>>> from srgan_infer import SuperResolver
>>> sr = SuperResolver.from_pretrained()
>>> big = sr(image)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srgan_infer.errors import (
    ImageError,
    ImageWarning,
    OutOfMemoryError,
    UpscaleError,
    WeightsError,
)
from srgan_infer.version import __version__

if TYPE_CHECKING:
    from srgan_infer.engine.plan import Plan
    from srgan_infer.resolver import FilePlan, FileResult, SuperResolver

__all__ = [
    "FilePlan",
    "FileResult",
    "ImageError",
    "ImageWarning",
    "OutOfMemoryError",
    "Plan",
    "SuperResolver",
    "UpscaleError",
    "WeightsError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import the resolver, and torch with it, when something of it is first asked for."""
    if name in ("FilePlan", "FileResult", "Plan", "SuperResolver"):
        from srgan_infer import resolver

        return getattr(resolver, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
