"""The standard streams, which may be closed, full or gone, and what libraries write there."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from srgan_infer.errors import ImageWarning

# As many lines of one library as help somebody.
MOST_LINES = 5


class Forgiving:
    """A text stream that takes everything; what cannot be written is dropped.

    Parameters
    ----------
    stream
        Where to write to; None for nowhere.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if that can be."""
        with suppress(OSError, ValueError):  # full, gone; closed
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if that can be."""
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether somebody looks on."""
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Make standard output and error such that the work can be done whatever they are."""
    _occupy_closed()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names may be no valid text
    before = sys.stdout, sys.stderr
    sys.stderr = cast(TextIO, Forgiving(sys.stderr))
    with contextlib.ExitStack() as stack:
        if sys.stdout is None:
            sys.stdout = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


def give_up_standard_output() -> None:
    """Have what is left for standard output go nowhere, also when the program ends."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _occupy_closed() -> None:
    """Keep a file that is opened later from becoming a standard stream that was closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)


@contextmanager
def foreign_lines() -> Iterator[Callable[[], tuple[str, ...]]]:
    """Collect what libraries say on standard error, and Python's warnings.

    Yields
    ------
    callable
        What was said since the last call, as sentences, each once.
    """
    said: list[str] = []

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        said.append(str(message))

    with warnings.catch_warnings(), _captured_errors(said) as read:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ImageWarning)  # they are in the results too
        warnings.showwarning = show

        def drain() -> tuple[str, ...]:
            read()
            lines = list(dict.fromkeys(" ".join(line.split()) for line in said if line.strip()))
            said.clear()
            more = len(lines) - MOST_LINES
            kept = [f"A library says: {line}" for line in lines[:MOST_LINES]]
            return (*kept, *([f"And {more} more such lines."] if more > 0 else []))

        yield drain


@contextmanager
def _captured_errors(said: list[str]) -> Iterator[Callable[[], None]]:
    """Have file descriptor 2 lead to a file; ``sys.stderr`` goes where it went."""
    try:
        same = sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):
        same = False
    if not same:  # whoever put another stream there wants to see it all
        yield lambda: None
        return
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        real = os.dup(2)
        before = sys.stderr
        encoding, at = before.encoding, 0

        def read() -> None:
            nonlocal at
            file.seek(at)
            data = file.read()
            at += len(data)
            said.extend(data.decode(errors="backslashreplace").splitlines())

        stream = open(  # noqa: SIM115
            real, "w", encoding=encoding, errors="backslashreplace", buffering=1
        )
        sys.stderr = cast(TextIO, Forgiving(stream))
        os.dup2(file.fileno(), 2)
        crashes = not faulthandler.is_enabled()
        if crashes:  # whose last words must not go into the file
            faulthandler.enable(real)
        try:
            yield read
        finally:
            if crashes:
                faulthandler.disable()
            os.dup2(real, 2)
            sys.stderr = before
            with suppress(OSError):  # closing flushes
                stream.close()
