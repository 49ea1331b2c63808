"""Jobs for long lists of images: one after the other, and nothing is kept in memory.

:func:`srgan_infer.cli.jobs.plan` looks at all names before anything is done. Here there may
be millions, so whatever is wrong with one shows when it is its turn, and fails it alone.
"""

from __future__ import annotations

import glob
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from srgan_infer.cli.jobs import (
    STREAM,
    SUFFIX,
    Job,
    Shard,
    UsageError,
    check_extension,
    identity,
    is_image,
    matches,
    named,
    no_image,
    passed_over,
    wanted_folder,
    wanted_format,
)
from srgan_infer.cli.manifest import Records, as_key, temporary_database
from srgan_infer.errors import UpscaleError
from srgan_infer.images.formats import READ, WRITTEN
from srgan_infer.images.read import refuse_address
from srgan_infer.stores import Place, Remote, is_remote, place
from srgan_infer.video import is_video

# A source, and its name inside the folder that was named; or a name that leads nowhere.
Entry = tuple[Place, Path] | Job


@dataclass(frozen=True)
class Lists:
    """Where the names of the images come from.

    Attributes
    ----------
    names
        Files, folders, patterns and addresses.
    file
        A file with one name a line, ``"-"`` for standard input.
    root
        What the names in that file are relative to, and their results too.
    recursive
        Whether folders are searched to their ends.
    """

    names: Sequence[str] = ()
    file: str | None = None
    root: str | None = None
    recursive: bool = False


def plan_lazily(
    lists: Lists,
    output: str | None = None,
    *,
    format: str | None = None,
    suffix: str | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    shard: Shard | None = None,
    records: Records | None = None,
    retry_failed: bool = False,
) -> Iterator[Job]:
    """Decide what is read and where each result goes, when it is asked for the next job.

    Parameters
    ----------
    lists
        The names.
    output
        As of :func:`srgan_infer.cli.jobs.plan`, or an address.
    format, suffix, overwrite, skip_existing
        Likewise.
    shard
        Take only the images of this part.
    records
        What a manifest says of earlier runs. With ``skip_existing``, a result that was
        recorded is done again if it has another size now.
    retry_failed
        Take only the images that failed last by ``records``.

    Raises
    ------
    UsageError
        If the options cannot be meant; at once, not with the first job.
    """
    wanted = wanted_format(format)
    _check_names(lists, output)
    folder: Place | None = None
    target: Place | None = None
    if output is not None and _names_file(output, lists):
        if suffix is not None:
            raise UsageError(f"--suffix does not go with the output file {output}; leave one out.")
        check_extension(output, wanted)
        target = place(output)
    elif output is not None:
        folder = place(output) if is_remote(output) else wanted_folder(output)
    put_to = target or folder
    if isinstance(put_to, Remote) and not put_to.writable:
        raise UsageError(f"Results cannot be put to {output}; give a folder, s3:// or gs://.")

    def jobs() -> Iterator[Job]:
        taken = Taken()
        for entry in _entries(lists, folder):
            if isinstance(entry, Job):
                yield entry
                continue
            source, inner = entry
            if shard is not None and inner not in shard:
                continue
            if target is None:
                job = named(source, inner, folder, wanted, suffix)
            else:
                job = Job(str(source), source, target, inner=inner)
            record = None if records is None else records[job.name]
            if retry_failed and (record is None or record.status != "failed"):
                continue
            if job.problem:
                yield job
                continue
            if _is_result(source, SUFFIX if suffix is None else suffix):
                yield replace(job, skipped="It is the result of another input.")
                continue
            checked = taken.check(job)
            if checked is None:
                continue
            if checked.problem is None and checked.skipped is None:
                believed = record is not None and record.output == str(job.target)
                size = record.bytes if believed and record is not None else None
                checked = _existing(checked, overwrite, skip_existing, size)
            yield checked

    return jobs()


class Taken:
    """Which results this run has promised, and to which sources."""

    def __init__(self) -> None:
        self._table = temporary_database()
        self._table.execute("create table taken (target text primary key, source, name)")

    def check(self, job: Job) -> Job | None:
        """The job, with its problem if its result is another's; ``None`` if it was there."""
        assert job.source is not None
        assert job.target is not None
        source, target = as_key(identity(job.source)), as_key(identity(job.target))
        if source == target:
            reason = f"The result would replace the source {job.target}; give another output."
            return replace(job, problem=reason)
        if self._find(source):
            return replace(job, skipped="It is the result of another input.")
        if found := self._find(target):
            if found[0] == source:
                return None
            reason = f"{found[1]} and {job.name} would both become {job.target}; do them apart."
            return replace(job, problem=reason)
        row = (target, source, as_key(job.name))
        self._table.execute("insert into taken values (?, ?, ?)", row)
        return job

    def _find(self, target: str) -> tuple[str, str] | None:
        row = self._table.execute(
            "select source, name from taken where target = ?", (target,)
        ).fetchone()
        return None if row is None else (row[0], json.loads(row[1]))


def _check_names(lists: Lists, output: str | None) -> None:
    if STREAM in lists.names or output == STREAM:
        raise UsageError(
            "Standard streams (-) go with no list, manifest or address; give files and folders."
        )
    if lists.root is not None and lists.file is None:
        raise UsageError("--root is what the names of --from-file are relative to; give both.")
    for name in (*lists.names, *filter(None, (output, lists.root))):
        try:
            place(name)
        except ValueError as error:
            raise UsageError(str(error)) from None
    if lists.file not in (None, STREAM):
        with _lines(lists.file):  # which fails here if it cannot be opened
            pass
    remote = any(map(is_remote, (*lists.names, lists.root or "")))
    if remote and output is None:
        raise UsageError("Results are not put beside addresses; give -o FOLDER.")


def _names_file(output: str, lists: Lists) -> bool:
    """Whether an output names a file rather than a folder."""
    if output.endswith(("/", os.sep)) or os.path.isdir(output):
        return False
    if place(output).suffix.lower() not in WRITTEN and not is_video(output):
        return False
    single = lists.file is None and len(lists.names) == 1
    if not single or os.path.isdir(lists.names[0]) or glob.has_magic(lists.names[0]):
        raise UsageError(f"A list of images cannot go to the one file {output}; give a folder.")
    return True


def _entries(lists: Lists, output: Place | None) -> Iterator[Entry]:
    """Whatever the names lead to, in the order in which it is found."""
    for name in lists.names:
        yield from _named_entries(name, lists.recursive, output)
    if lists.file is None:
        return
    root = None if lists.root is None else place(lists.root)
    with _lines(lists.file) as lines:
        for line in lines:
            name = os.fsdecode(line).removesuffix("\n").removesuffix("\r")
            if not name:
                continue
            try:
                source, inner = _in_list(name, root)
            except (ValueError, UpscaleError) as error:
                yield Job(name, problem=str(error))
                continue
            if isinstance(source, Path) and os.path.isdir(source):
                yield from _walk(source, inner, lists.recursive, output)
            elif isinstance(source, Remote) and output is None:
                yield Job(name, problem="Results are not put beside addresses; give -o FOLDER.")
            else:
                yield source, inner


@contextmanager
def _lines(file: str | None) -> Iterator[BinaryIO]:
    if file == STREAM:
        yield sys.stdin.buffer
        return
    try:
        opened = open(str(file), "rb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"--from-file: {file} cannot be read: {error.strerror}.") from None
    with opened:
        yield opened


def _in_list(name: str, root: Place | None) -> tuple[Place, Path]:
    """What a name in a list means, and its name inside the root."""
    path = place(name)
    if isinstance(path, Remote):
        base = f"{root}".rstrip("/") + "/"
        inside = isinstance(root, Remote) and path.url.startswith(base)
        return path, _inner(path.url[len(base) :] if inside else path.name)
    refuse_address(name)
    if not path.is_absolute():
        return (path if root is None else root / path), _inner(name)
    if isinstance(root, Path) and path.is_relative_to(root.absolute()):
        return path, _inner(str(path.relative_to(root.absolute())))
    return path, Path(path.name)


def _inner(name: str) -> Path:
    """A name below a folder, whatever it says: no result leaves the output folder."""
    path = Path(os.path.normpath(name))
    if path.is_absolute() or path.drive or ".." in path.parts or not path.name:
        return Path(path.name or "image")
    return path


def _named_entries(name: str, recursive: bool, output: Place | None) -> Iterator[Entry]:
    found = place(name)
    try:
        if isinstance(found, Path):
            refuse_address(name)
    except UpscaleError as error:
        yield Job(name, problem=str(error))
        return
    if isinstance(found, Remote):
        if is_image(found) or not found.writable:
            yield found, _inner(found.name)
        else:
            yield from _walk_remote(found, recursive, output)
    elif os.path.isdir(found):
        yield from _walk(found, Path(), recursive, output)
    elif os.path.lexists(name) or not glob.has_magic(name):
        yield found, Path(found.name)
    else:
        none = True
        problems: list[Job] = []
        local = output if isinstance(output, Path) else None
        others: Counter[str] = Counter()
        for one in matches(name, recursive, local, problems, others):
            none = False
            yield one.path, one.inner
        yield from problems
        if others:
            yield passed_over(name, others)
        if none and not problems:
            yield Job(name, problem="No image matches this pattern.")


def _walk(folder: Path, inner: Path, recursive: bool, output: Place | None) -> Iterator[Entry]:
    """Images in a folder by their extension; the output folder is not entered."""
    none = True
    others: Counter[str] = Counter()
    for entry in _files(folder, recursive, output, others):
        none = False
        yield entry if isinstance(entry, Job) else (entry, inner / entry.relative_to(folder))
    yield from _left(str(folder), none, recursive, others)


def _files(
    folder: Path, recursive: bool, output: Place | None, others: Counter[str]
) -> Iterator[Path | Job]:
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = folder / entry.name
                if entry.name.startswith("."):
                    continue
                try:
                    if is_image(path) and entry.is_file():
                        yield path
                    elif entry.is_dir(follow_symlinks=False):
                        folders += [path] if recursive else []
                    elif entry.is_file():
                        others[path.suffix.lower()] += 1
                except OSError as error:  # such as a symbolic link to itself
                    yield Job(str(path), problem=f"{error.strerror}.")
    except OSError as error:
        yield Job(str(folder), problem=f"It cannot be listed: {error.strerror}.")
    for path in folders:
        if not (isinstance(output, Path) and identity(path) == identity(output)):
            yield from _files(path, recursive, output, others)


def _left(folder: str, none: bool, recursive: bool, others: Counter[str]) -> Iterator[Job]:
    """What is told of a folder at its end: that it has no image, or what was not taken."""
    if none:
        yield no_image(folder, recursive, others)
    elif others:
        yield passed_over(folder, others)


def _walk_remote(folder: Remote, recursive: bool, output: Place | None) -> Iterator[Entry]:
    base = folder.url.rstrip("/") + "/"
    avoided = f"{output}".rstrip("/") + "/" if isinstance(output, Remote) else None
    none = True
    others: Counter[str] = Counter()
    try:
        for one in folder.walk(recursive):
            name = one.url.removeprefix(base)
            if any(part.startswith(".") for part in name.split("/")):
                continue
            if avoided is not None and avoided != base and one.url.startswith(avoided):
                continue
            if not is_image(one):
                others[one.suffix.lower()] += 1
                continue
            none = False
            yield one, _inner(name)
    except UpscaleError as error:
        yield Job(str(folder), problem=str(error))
        return
    yield from _left(str(folder), none, recursive, others)


def _is_result(source: Place, suffix: str) -> bool:
    """Whether an earlier run wrote this file beside its source."""
    stem = source.stem.removesuffix(suffix)
    if isinstance(source, Remote) or stem in ("", source.stem):
        return False
    return any(
        os.path.lexists(source.with_name(stem + form))
        for extension in READ
        for form in (extension, extension.upper())
    )


def _existing(job: Job, overwrite: bool, skip_existing: bool, recorded: int | None) -> Job:
    """What becomes of a job whose result may be there already."""
    if overwrite and isinstance(job.target, Remote):
        return job
    assert job.target is not None
    try:
        size = _size(job.target)
    except IsADirectoryError:
        return replace(job, problem=f"{job.target} is a folder; give the result another name.")
    except UpscaleError as error:
        return replace(job, problem=str(error))
    if size is None or overwrite:
        return job
    if not skip_existing:
        return replace(
            job,
            problem=f"{job.target} exists already: --overwrite replaces it, "
            "--skip-existing leaves it.",
        )
    if recorded is not None and recorded != size:
        return replace(job, replaces=True)
    return replace(job, skipped="The result exists.")


def _size(target: Place) -> int | None:
    if isinstance(target, Remote):
        return target.size()
    if os.path.isdir(target):
        raise IsADirectoryError(str(target))
    try:
        return target.stat().st_size
    except OSError:
        return 0 if os.path.lexists(target) else None
