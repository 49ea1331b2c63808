"""From the names on a command line to pairs of source and target, all checked beforehand."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from srgan_infer.errors import ImageError
from srgan_infer.images.formats import FORMATS, Format, choose_format
from srgan_infer.images.read import refuse_address

STREAM = "-"
SUFFIX = "_upscaled"
WRITTEN = {suffix: format for format in FORMATS for suffix in format.suffixes}

# Read too, but not written: their results become PNG.
READ_ONLY = (
    ".ico",
    ".cur",
    ".icns",
    ".pcx",
    ".psd",
    ".dds",
    ".qoi",
    ".apng",
    ".dib",
    ".pbm",
    ".pfm",
)
FALLBACK = ".png"


class UsageError(ValueError):
    """The command line asks for something that cannot be meant; one sentence."""


@dataclass(frozen=True)
class Job:
    """One image to do.

    Attributes
    ----------
    source
        The file to read; ``None`` for standard input, or where there is a problem.
    target
        The file to write; ``None`` for standard output, or where there is a problem.
    name
        How messages call the image.
    problem
        Why it cannot be done, if that is known already.
    skipped
        Why it need not be done.
    """

    name: str
    source: Path | None = None
    target: Path | None = None
    problem: str | None = None
    skipped: str | None = None


@dataclass(frozen=True)
class Found:
    """An image file that a name on the command line led to.

    Attributes
    ----------
    path
        The file.
    inner
        Its path inside the folder that was named: the place in a mirrored tree.
    listed
        Whether it was found by listing, not named itself.
    """

    path: Path
    inner: Path
    listed: bool


def plan(
    names: Sequence[str],
    output: str | None = None,
    *,
    recursive: bool = False,
    format: str | None = None,
    suffix: str | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
) -> list[Job]:
    """Decide what is read and where each result goes.

    Parameters
    ----------
    names
        Files, folders, patterns, or ``"-"``.
    output
        A file if one image was named and it has an extension, else a
        folder; ``"-"`` for standard output; ``None`` for beside the sources.
    recursive
        Whether folders are searched to their ends.
    format
        Name or extension of a format; if ``None``, by the output's extension or
        as the source (PNG where that cannot be written).
    suffix
        Put behind the stem of results that the command names. If ``None``:
        ``_upscaled`` for results beside their source, else nothing.
    overwrite, skip_existing
        Replace results that exist, or leave them.

    Raises
    ------
    UsageError
        If names contradict each other, two results would have one name, a
        result would replace a source, or results exist already.
    """
    wanted = _format(format)
    if STREAM in names:
        if len(names) > 1:
            raise UsageError("Standard input (-) goes with no other input; give it alone.")
        if output is None or output == STREAM:
            return [Job(STREAM)]
    outside = None if output in (None, STREAM) else Path(str(output))
    found, problems = _find([name for name in names if name != STREAM], recursive, outside)
    if output == STREAM:
        if len(found) + len(problems) != 1:
            raise UsageError(
                f"Only one image goes to standard output (-), not {len(found) + len(problems)}; "
                "give a folder."
            )
        return problems or [Job(str(found[0].path), found[0].path)]
    if output is None or not _is_file(output, names):
        if STREAM in names:
            raise UsageError(f"What comes from standard input needs a file name, not {output}.")
        folder = None if output is None else _folder(output)
        found, earlier = _without_results(found, SUFFIX if suffix is None else suffix)
        jobs = [_named(one, folder, wanted, suffix) for one in found]
        problems += earlier
    else:
        if suffix is not None:
            raise UsageError(f"--suffix does not go with the output file {output}; leave one out.")
        if len(found) > 1:
            raise UsageError(
                f"{len(found)} images cannot go to the one file {output}; give a folder."
            )
        _check_extension(output, wanted)
        jobs = [Job(str(one.path), one.path, Path(output)) for one in found]
        if STREAM in names:
            jobs = [Job(STREAM, None, Path(output))]
    _check_targets(jobs)
    return _handle_existing(jobs, overwrite, skip_existing) + problems


def _format(name: str | None) -> Format | None:
    try:
        return None if name is None else choose_format(Path(), name)
    except ImageError as error:
        raise UsageError(f"--format: {error}") from None


def _check_extension(output: str, wanted: Format | None) -> None:
    """Refuse a file name that says no format, or another than was asked for."""
    if wanted is None:
        try:
            choose_format(output, None)
        except ImageError as error:
            raise UsageError(f"{output}: {error}") from None
    elif WRITTEN.get(Path(output).suffix.lower()) not in (None, wanted):
        raise UsageError(f"{output} contradicts --format {wanted.name}; change one of the two.")


def _is_file(output: str, names: Sequence[str]) -> bool:
    """Whether an output names a file rather than a folder."""
    if os.path.isdir(output) or output.endswith(("/", os.sep)) or not Path(output).suffix:
        return False
    if Path(output).suffix.lower() in WRITTEN:
        return True
    return len(names) == 1 and not os.path.isdir(names[0])


def _folder(output: str) -> Path:
    if os.path.lexists(output) and not os.path.isdir(output):
        raise UsageError(f"{output} is a file, but a folder is needed; give another name.")
    return Path(output)


def _find(
    names: Sequence[str], recursive: bool, output: Path | None
) -> tuple[list[Found], list[Job]]:
    """All image files that the names lead to, each once, and the names that lead nowhere."""
    found: list[Found] = []
    problems: list[Job] = []
    for name in names:
        path = Path(name)
        try:
            refuse_address(name)
        except ImageError as error:
            problems.append(Job(name, problem=str(error)))
            continue
        if os.path.isdir(path):
            before = len(problems)
            inside = list(_walk(path, path, recursive, output, problems))
            found += inside
            if not inside and len(problems) == before:
                deeper = "" if recursive else "; subfolders need --recursive"
                problems.append(Job(name, problem=f"There is no image in this folder{deeper}."))
        elif os.path.lexists(name) or not glob.has_magic(name):
            found.append(Found(path, Path(path.name), listed=False))
        else:
            before = len(problems)
            matches = list(_match(name, recursive, output, problems))
            found += matches
            if not matches and len(problems) == before:
                problems.append(Job(name, problem="No image matches this pattern."))
    unique: dict[str, Found] = {}
    for one in found:
        unique.setdefault(_key(one.path), one)
    return list(unique.values()), problems


def _walk(
    folder: Path, base: Path, recursive: bool, output: Path | None, problems: list[Job]
) -> Iterator[Found]:
    """Images in a folder, by their extension and in the order of their names.

    The output folder is not entered, so that results do not become sources. What cannot
    be looked at goes to the problems.
    """
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        deeper = []
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            problems.append(Job(str(here), problem=f"It cannot be listed: {error.strerror}."))
            continue
        for entry in entries:
            path = here / entry.name
            if entry.name.startswith("."):
                continue
            try:
                if _is_image(path) and entry.is_file():
                    yield Found(path, path.relative_to(base), listed=True)
                elif recursive and entry.is_dir(follow_symlinks=False):
                    deeper.append(path)
            except OSError as error:  # such as a symbolic link to itself
                problems.append(Job(str(path), problem=f"{error.strerror}."))
        waiting += [path for path in reversed(deeper) if not output or _key(path) != _key(output)]


def _match(
    pattern: str, recursive: bool, output: Path | None, problems: list[Job]
) -> Iterator[Found]:
    """What a pattern matches, where the shell did not look."""
    parts = Path(pattern).parts
    base = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    ending = Path(pattern).suffix
    exact = bool(ending) and not glob.has_magic(ending)
    for name in sorted(glob.glob(pattern, recursive=True)):
        path = Path(name)
        if output and _key(output) in map(_key, path.parents) and _key(output) != _key(base):
            continue
        if os.path.isdir(path):
            if recursive:
                yield from _walk(path, base, True, output, problems)
        elif exact or _is_image(path):
            yield Found(path, path.relative_to(base), listed=True)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in WRITTEN or path.suffix.lower() in READ_ONLY


def _without_results(found: list[Found], suffix: str) -> tuple[list[Found], list[Job]]:
    """Tell sources from what an earlier run wrote beside them.

    A result has the stem of a source with the suffix behind it. One that was
    named itself is reported as skipped, one in a folder is passed over.
    """
    stems = {_key(one.path.with_suffix("")) for one in found}
    kept: list[Found] = []
    skipped: list[Job] = []
    for one in found:
        stem = one.path.stem.removesuffix(suffix)
        if stem in ("", one.path.stem) or _key(one.path.with_name(stem)) not in stems:
            kept.append(one)
        elif not one.listed:
            skipped.append(Job(str(one.path), skipped="It is the result of another input."))
    return kept, skipped


def _named(one: Found, folder: Path | None, wanted: Format | None, suffix: str | None) -> Job:
    """A job whose target the command names itself."""
    extension = one.path.suffix
    own = WRITTEN.get(extension.lower())
    if wanted is None and own is None:
        extension = FALLBACK
    elif wanted is not None and own != wanted:
        extension = wanted.suffixes[0]
    place = one.path.parent if folder is None else folder / one.inner.parent
    if suffix is None:
        suffix = SUFFIX if _key(place) == _key(one.path.parent) else ""
    target = place / f"{one.path.stem}{suffix}{extension}"
    return Job(str(one.path), one.path, target)


def _check_targets(jobs: list[Job]) -> None:
    """Refuse two results with one name, and results in the place of sources."""
    sources = {_key(job.source) for job in jobs if job.source}
    taken: dict[str, Job] = {}
    for job in jobs:
        if job.target is None:
            continue
        key = _key(job.target)
        if key in sources:
            raise UsageError(
                f"The result of {job.name} would replace the source {job.target}; "
                "give another output or --suffix."
            )
        if key in taken:
            raise UsageError(
                f"{taken[key].name} and {job.name} would both become {job.target}; "
                "do them apart or leave --format out."
            )
        taken[key] = job


def _handle_existing(jobs: list[Job], overwrite: bool, skip_existing: bool) -> list[Job]:
    there = [job for job in jobs if job.target is not None and os.path.lexists(job.target)]
    for job in there:
        if os.path.isdir(str(job.target)):
            raise UsageError(f"{job.target} is a folder; give the result another name.")
    if not there or overwrite:
        return jobs
    if skip_existing:
        reason = "The result exists."
        return [replace(job, skipped=reason) if job in there else job for job in jobs]
    many = len(there) > 1
    more = f" and {len(there) - 1} more results exist" if many else " exists"
    raise UsageError(
        f"{there[0].target}{more} already: --overwrite replaces {'them' if many else 'it'}, "
        f"--skip-existing leaves {'them' if many else 'it'}."
    )


def _key(path: Path) -> str:
    """Two paths with one key are one file."""
    return os.path.normcase(os.path.realpath(path))
