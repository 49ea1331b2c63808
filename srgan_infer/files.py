"""A file that is whole or not there, and never in the place of one that it may not replace."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

# What a file system says that cannot flush a file to the disk; others mean that it is not there.
REFUSED = {
    getattr(errno, name, errno.EINVAL)
    for name in ("EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EPERM", "EACCES", "EROFS")
}
# Not under the umask: the bits that others never get while a private file is written.
OWNER_ONLY = 0o600
PART = re.compile(r"\.srgan-infer\.(?P<host>[\w-]+)\.(?P<process>\d+)\.[0-9a-f]+\.part")


@dataclass
class NewFile:
    """A file that is being written; see :func:`new_file`.

    Attributes
    ----------
    stream
        Open for reading and writing.
    path
        Where the file is once the block has ended.
    """

    stream: BinaryIO
    path: Path


@contextmanager
def new_file(path: str | os.PathLike[str], overwrite: bool = True) -> Iterator[NewFile]:
    """Write a file, whole or not at all.

    What is written goes into a temporary file beside the target, which takes the
    target's place when the ``with`` block ends. If the block is left by an exception,
    the temporary file is removed and the old file stays. Temporary files of processes
    of this host that were killed are removed first.

    Parameters
    ----------
    path
        A symbolic link is followed.
    overwrite
        Whether a file of that name is replaced. If not, or if the system does not let
        it be replaced, the new one goes beside it, to ``name-1.suffix`` or the next
        number that is free, also where the old one appeared in the meantime.

    Raises
    ------
    OSError
        If the file cannot be written, before the block is entered where that can be known.
    """
    target = Path(os.path.realpath(path))
    private = _status(target) is not None
    remove_left_over(str(target.parent))
    temporary = target.with_name(
        f".srgan-infer.{_host()}.{os.getpid()}.{secrets.token_hex(8)}.part"
    )
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
    # A file that is new is made as any other, so that the umask decides who may read it.
    descriptor = os.open(temporary, flags, OWNER_ONLY if private else 0o666)
    stream = os.fdopen(descriptor, "w+b")
    try:
        _lock(stream)
        new = NewFile(stream, target)
        yield new
        stream.flush()
        try:
            os.fsync(stream.fileno())
        except OSError as error:
            if error.errno not in REFUSED:
                raise
        stream.close()
        _take_permissions(temporary, target)
        new.path = _move(temporary, target, overwrite)
    except BaseException:
        with suppress(OSError):  # closing flushes, and may fail once more
            stream.close()
        with suppress(OSError):
            temporary.unlink()
        raise


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, whole or not at all, in the place of an older one; see :func:`new_file`."""
    with new_file(path) as new:
        new.stream.write(data)


def free_room(path: str | os.PathLike[str]) -> int:
    """Bytes that are free where a file or folder is or would be."""
    place = Path(os.path.realpath(path))
    while not os.path.isdir(place) and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return 2**62  # then the writing will tell


@functools.lru_cache  # once for each folder that a process writes to
def remove_left_over(folder: str) -> None:
    """Remove temporary files in a folder whose process, one of this host, is gone."""
    with suppress(OSError):
        for name in os.listdir(folder):
            part = PART.fullmatch(name)
            if part and part["host"] == _host() and _is_gone(int(part["process"])):
                with suppress(OSError):
                    _remove_unused(os.path.join(folder, name))


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "_", platform.node())[:64] or "unknown"


def _is_gone(process: int) -> bool:
    if os.name == "nt":  # where this signal would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _lock(stream: BinaryIO) -> None:
    """Show other machines of this name, such as containers, that the file is in use."""
    if fcntl is not None:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_unused(path: str) -> None:
    """Remove a temporary file; an OSError if it is in use."""
    if fcntl is not None:
        with open(path, "r+b") as stream:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.unlink(path)


def _status(path: Path) -> os.stat_result | None:
    """What is at a place to be written to: a file or nothing, otherwise an OSError."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return status


def _take_permissions(temporary: Path, target: Path) -> None:
    """Give a file the group and mode of the one it replaces, as far as the system lets us."""
    with suppress(OSError):
        old = _status(target)
        if old is None:
            return
        mode = old.st_mode & 0o777
        if hasattr(os, "chown") and old.st_gid != temporary.stat().st_gid:
            try:
                os.chown(temporary, -1, old.st_gid)
            except OSError:
                mode &= ~0o070  # another group gets no rights that were not meant for it
        os.chmod(temporary, mode)


def _move(temporary: Path, target: Path, overwrite: bool) -> Path:
    """Put a complete file in its place, or beside one that stays."""
    refused: OSError | None = None
    if overwrite:
        try:
            os.replace(temporary, target)
            return target
        except OSError as error:  # such as a file that is open, on Windows
            refused = error
    for number in itertools.count(1 if overwrite else 0):
        name = f"{target.stem}-{number}{target.suffix}" if number else target.name
        try:
            _move_to_new(temporary, target.with_name(name))
            return target.with_name(name)
        except FileExistsError:
            continue
        except OSError as error:
            raise refused or error from None
    raise AssertionError("the numbers are endless")


def _move_to_new(temporary: Path, target: Path) -> None:
    """Move a file to a name that must not exist."""
    if os.name == "nt":
        os.rename(temporary, target)  # never replaces there
        return
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # no hard links on this file system: look as late as can be
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        os.replace(temporary, target)
    else:
        os.unlink(temporary)
