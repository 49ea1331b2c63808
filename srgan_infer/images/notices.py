"""What Pillow warns of while it reads: gathered for the user, not shown as Python code."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

_lock = threading.Lock()
_gathering = threading.local()
_users = 0
_filters = warnings.catch_warnings()


@contextmanager
def gathered() -> Iterator[list[str]]:
    """The list fills with what Pillow warns of, in this thread, until the block ends.

    Warning filters belong to the whole process: they are changed when the first thread comes
    and put back when the last one leaves, and only for what Pillow says.
    """
    global _users, _filters
    lines: list[str] = []
    with _lock:
        if not _users:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("always", module=r"PIL\b")
            warnings.showwarning = _to_its_thread(warnings.showwarning)
        _users += 1
    outer = getattr(_gathering, "lines", None)
    _gathering.lines = lines
    try:
        yield lines
    finally:
        _gathering.lines = outer
        with _lock:
            _users -= 1
            if not _users:
                _filters.__exit__(None, None, None)


def _to_its_thread(show: Any) -> Any:
    def dispatch(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        lines = getattr(_gathering, "lines", None)
        if lines is None or f"{os.sep}PIL{os.sep}" not in filename:
            show(message, category, filename, lineno, file, line)
        elif not issubclass(category, Image.DecompressionBombWarning):  # we have our own limit
            lines.append(str(message))

    return dispatch


def sentences(lines: list[str]) -> tuple[str, ...]:
    """One sentence for each kind of line; they differ in numbers only."""
    kinds: dict[str, list[str]] = {}
    for line in lines:
        kinds.setdefault(re.sub(r"\d+", "0", line), []).append(" ".join(line.split()).rstrip("."))
    return tuple(
        f"Pillow says: {same[0]}{f' (and {len(same) - 1} more like it)' if same[1:] else ''}."
        for same in kinds.values()
    )
