"""The record of a long run: one line an image, appended, which a later run believes."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Record:
    """What a manifest says last about an image.

    Attributes
    ----------
    status
        ``"done"`` or ``"failed"``.
    output
        Name of the result; ``None`` if there was to be none.
    bytes
        Its size when it was written; ``None`` if it was not.
    """

    status: str
    output: str | None
    bytes: int | None


class Manifest:
    """A file of JSON lines that several processes may append to at once.

    Nothing that was written is ever changed. A line is one write; one that a kill or a
    full disk cut short costs no other line, since the next begins on a line of its own and
    readers pass over what is no JSON object.

    Parameters
    ----------
    path
        The file, which need not exist.

    Raises
    ------
    OSError
        If it can be neither opened nor made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b", buffering=0)

    def add(self, line: dict[str, Any]) -> None:
        """Append one line; an OSError if not all of it could be written."""
        data = json.dumps(line).encode() + b"\n"
        with self._alone():
            end = self._file.seek(0, os.SEEK_END)
            if end:
                self._file.seek(end - 1)
                if self._file.read(1) != b"\n":
                    data = b"\n" + data
            written = self._file.write(data)
        if written != len(data):
            raise OSError(f"{self.path}: only a part of a line could be written.")

    def close(self) -> None:
        """Write no more."""
        self._file.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other writers from coming between the look at the end and the line."""
        locked = False
        if fcntl is not None:
            with suppress(OSError):  # not every file system has locks
                fcntl.flock(self._file.fileno(), fcntl.LOCK_EX)
                locked = True
        try:
            yield
        finally:
            if locked:
                fcntl.flock(self._file.fileno(), fcntl.LOCK_UN)


class Records:
    """The last line about each image of a manifest, kept on disk: there may be millions."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._table = temporary_database()
        self._table.execute("create table last (input text primary key, status, output, bytes)")
        with suppress(FileNotFoundError), open(path, "rb") as file:
            self._table.executemany(
                "insert or replace into last values (?, ?, ?, ?)", filter(None, map(_row, file))
            )

    def __getitem__(self, name: str) -> Record | None:
        """What is recorded of an input; ``None`` if nothing is."""
        row = self._table.execute(
            "select status, output, bytes from last where input = ?", (as_key(name),)
        ).fetchone()
        return None if row is None else Record(row[0], row[1] and json.loads(row[1]), row[2])


def temporary_database() -> sqlite3.Connection:
    """An empty database that takes little memory, however much is put into it."""
    # An empty name is a file of its own that goes with the connection.
    database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    database.execute("begin")  # for ever: nothing is ever to be read by anybody else
    return database


def _row(line: bytes) -> tuple[str, str, str | None, int | None] | None:
    """Input, status, output and size; ``None`` for a torn line or one of another kind."""
    try:
        facts = json.loads(line)
        name, status, output = facts["input"], facts["status"], facts["output"]
        size = facts.get("output_bytes")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if (
        status in ("done", "failed")
        and isinstance(name, str)
        and isinstance(output, str | None)
        and isinstance(size, int | None)
    ):
        return as_key(name), status, output and as_key(output), size
    return None


def as_key(name: str) -> str:
    """A name for a database, which takes valid text only; names need not be that."""
    return json.dumps(name)
