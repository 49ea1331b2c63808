"""From the names on a command line to pairs of source and target, all checked beforehand."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from srgan_infer.errors import ImageError
from srgan_infer.images.formats import FALLBACK, READ, WRITTEN, Format, choose_format
from srgan_infer.images.kinds import PLUGINS, is_installed
from srgan_infer.images.read import refuse_address
from srgan_infer.stores import Place, Remote
from srgan_infer.video import is_video

STREAM = "-"
SUFFIX = "_upscaled"
# A JPEG with a second view behind it.
SAME_AS = {".mpo": ".jpg"}


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
    replaces
        Whether the result takes the place of a file that is there.
    inner
        The image's name inside the folder that was named; ``None`` for standard input.
    not_taken
        Of a folder or a pattern: how many files in it are no images, by their extension.
    """

    name: str
    source: Place | None = None
    target: Place | None = None
    problem: str | None = None
    skipped: str | None = None
    replaces: bool = False
    inner: Path | None = None
    not_taken: Mapping[str, int] = field(default_factory=dict, compare=False)

    @property
    def is_video(self) -> bool:
        """Whether the result is a video, or the source."""
        return any(file is not None and is_video(file.name) for file in (self.source, self.target))


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


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of all images, by their names alone.

    The name that counts is the one inside the folder that was named, without its
    extension: a list may grow and each image stays in its shard, on every machine, and
    two images whose results would have one name are in the same.
    """

    index: int
    count: int

    def __contains__(self, inner: Path) -> bool:
        name = inner.with_suffix("").as_posix().encode(errors="surrogatepass")
        digest = hashlib.blake2b(name, digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index


def plan(
    names: Sequence[str],
    output: str | None = None,
    *,
    recursive: bool = False,
    format: str | None = None,
    suffix: str | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    shard: Shard | None = None,
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
    shard
        Take only the images of this part; those of the others are looked at too, so
        that all parts refuse the same.

    Raises
    ------
    UsageError
        If names contradict each other, two results would have one name, a
        result would replace a source, or results exist already.
    """
    wanted = wanted_format(format)
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
    if output is None or not is_file(output, names):
        if STREAM in names:
            raise UsageError(f"What comes from standard input needs a file name, not {output}.")
        folder = None if output is None else wanted_folder(output)
        found, earlier = _without_results(found, SUFFIX if suffix is None else suffix)
        jobs = [named(one.path, one.inner, folder, wanted, suffix) for one in found]
        problems += earlier
    else:
        if suffix is not None:
            raise UsageError(f"--suffix does not go with the output file {output}; leave one out.")
        if len(found) > 1:
            raise UsageError(
                f"{len(found)} images cannot go to the one file {output}; give a folder."
            )
        check_extension(output, wanted)
        jobs = [Job(str(one.path), one.path, Path(output), inner=one.inner) for one in found]
        if STREAM in names:
            jobs = [Job(STREAM, None, Path(output))]
    _check_targets(jobs)
    if shard is not None:
        jobs = [job for job in jobs if job.inner is None or job.inner in shard]
    return _handle_existing(jobs, overwrite, skip_existing) + problems


def wanted_format(name: str | None) -> Format | None:
    """The format that was asked for by name."""
    try:
        return None if name is None else choose_format(Path(), name)
    except ImageError as error:
        raise UsageError(f"--format: {error}") from None


def check_extension(output: str, wanted: Format | None) -> None:
    """Refuse a file name that says no format, or another than was asked for."""
    if is_video(output):
        if wanted is not None:
            raise UsageError(f"--format {wanted.name} is for images, and {output} is a video.")
    elif wanted is None:
        try:
            choose_format(output, None)
        except ImageError as error:
            raise UsageError(f"{output}: {error}") from None
    elif WRITTEN.get(Path(output).suffix.lower()) not in (None, wanted):
        raise UsageError(f"{output} contradicts --format {wanted.name}; change one of the two.")


def is_file(output: str, names: Sequence[str]) -> bool:
    """Whether an output names a file rather than a folder."""
    if os.path.isdir(output) or output.endswith(("/", os.sep)) or not Path(output).suffix:
        return False
    if Path(output).suffix.lower() in WRITTEN or is_video(output):
        return True
    return len(names) == 1 and not os.path.isdir(names[0])


def wanted_folder(output: str) -> Path:
    """An output that has to be a folder."""
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
            others: Counter[str] = Counter()
            inside = list(_walk(path, path, recursive, output, problems, others))
            found += inside
            if not inside and len(problems) == before:
                problems.append(no_image(name, recursive, others))
            elif others:
                problems.append(passed_over(name, others))
        elif os.path.lexists(name) or not glob.has_magic(name):
            found.append(Found(path, Path(path.name), listed=False))
        else:
            before = len(problems)
            others = Counter()
            inside = list(matches(name, recursive, output, problems, others))
            found += inside
            if others:
                problems.append(passed_over(name, others))
            if not inside and len(problems) == before:
                problems.append(Job(name, problem="No image matches this pattern."))
    unique: dict[str, Found] = {}
    for one in found:
        unique.setdefault(identity(one.path), one)
    return list(unique.values()), problems


def no_image(name: str, recursive: bool, others: Counter[str]) -> Job:
    """What becomes of a folder without images."""
    deeper = "" if recursive else "; subfolders need --recursive"
    problem = f"There is no image in this folder{deeper}."
    if others:
        problem += f" {_counted(others)}"
    return Job(name, problem=problem, not_taken=others)


def passed_over(name: str, others: Counter[str]) -> Job:
    """What is told of the files in a folder that are not taken."""
    return Job(name, skipped=_counted(others), not_taken=others)


def _counted(others: Counter[str]) -> str:
    kinds = ", ".join(f"{suffix or 'no extension'} ({n})" for suffix, n in others.most_common())
    missing = [
        suffix
        for name, (_, suffixes) in PLUGINS.items()
        if not is_installed(name)
        for suffix in suffixes
        if suffix in others
    ]
    advice = f" pip install 'srgan-infer[formats]' reads {', '.join(missing)}." if missing else ""
    count = sum(others.values())
    return f"{count} file{'s' * (count > 1)} passed over: {kinds}.{advice}"


def _walk(
    folder: Path,
    base: Path,
    recursive: bool,
    output: Path | None,
    problems: list[Job],
    others: Counter[str],
) -> Iterator[Found]:
    """Images in a folder, by their extension and in the order of their names.

    The output folder is not entered, so that results do not become sources. What cannot
    be looked at goes to the problems; other files are counted by their extension.
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
                if is_image(path) and entry.is_file():
                    yield Found(path, path.relative_to(base), listed=True)
                elif entry.is_dir(follow_symlinks=False):
                    deeper += [path] if recursive else []
                elif entry.is_file():
                    others[path.suffix.lower()] += 1
            except OSError as error:  # such as a symbolic link to itself
                problems.append(Job(str(path), problem=f"{error.strerror}."))
        waiting += [
            path for path in reversed(deeper) if not output or identity(path) != identity(output)
        ]


def matches(
    pattern: str,
    recursive: bool,
    output: Path | None,
    problems: list[Job],
    others: Counter[str],
) -> Iterator[Found]:
    """What a pattern matches, where the shell did not look."""
    parts = Path(pattern).parts
    base = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    ending = Path(pattern).suffix
    exact = bool(ending) and not glob.has_magic(ending)
    own = None if output is None else identity(output)
    for name in sorted(glob.glob(pattern, recursive=True)):
        path = Path(name)
        if own and own != identity(base) and own in map(identity, path.parents):
            continue
        if os.path.isdir(path):
            if recursive:
                yield from _walk(path, base, True, output, problems, others)
        elif exact or is_image(path):
            yield Found(path, path.relative_to(base), listed=True)
        else:
            others[path.suffix.lower()] += 1


def is_image(path: Place) -> bool:
    """Whether the extension is that of an image."""
    return path.suffix.lower() in READ


def _without_results(found: list[Found], suffix: str) -> tuple[list[Found], list[Job]]:
    """Tell sources from what an earlier run wrote beside them.

    A result has the stem of a source with the suffix behind it. One that was
    named itself is reported as skipped, one in a folder is passed over.
    """
    stems = {identity(one.path.with_suffix("")) for one in found}
    kept: list[Found] = []
    skipped: list[Job] = []
    for one in found:
        stem = one.path.stem.removesuffix(suffix)
        if stem in ("", one.path.stem) or identity(one.path.with_name(stem)) not in stems:
            kept.append(one)
        elif not one.listed:
            skipped.append(Job(str(one.path), skipped="It is the result of another input."))
    return kept, skipped


def named(
    source: Place, inner: Path, folder: Place | None, wanted: Format | None, suffix: str | None
) -> Job:
    """A job whose target the command names itself."""
    extension = source.suffix
    if is_video(extension) and wanted is not None:
        problem = f"--format {wanted.name} is for images, and this is a video; leave it out."
        return Job(str(source), problem=problem)
    own = WRITTEN.get(extension.lower())
    if wanted is None and own is None and not is_video(extension):
        extension = SAME_AS.get(extension.lower(), FALLBACK)
    elif wanted is not None and own != wanted:
        extension = wanted.suffixes[0]
    place = source.parent if folder is None else folder / inner.parent
    if suffix is None:
        suffix = SUFFIX if identity(place) == identity(source.parent) else ""
    target = place / f"{source.stem}{suffix}{extension}"
    return Job(str(source), source, target, inner=inner)


def _check_targets(jobs: list[Job]) -> None:
    """Refuse two results with one name, and results in the place of sources."""
    sources = {identity(job.source) for job in jobs if job.source}
    taken: dict[str, Job] = {}
    for job in jobs:
        if job.target is None:
            continue
        place = identity(job.target)
        if place in sources:
            raise UsageError(
                f"The result of {job.name} would replace the source {job.target}; "
                "give another output or --suffix."
            )
        if place in taken:
            raise UsageError(
                f"{taken[place].name} and {job.name} would both become {job.target}; "
                "do them apart or leave --format out."
            )
        taken[place] = job


def _handle_existing(jobs: list[Job], overwrite: bool, skip_existing: bool) -> list[Job]:
    there = [job for job in jobs if job.target is not None and os.path.lexists(str(job.target))]
    for job in there:
        if os.path.isdir(str(job.target)):
            raise UsageError(f"{job.target} is a folder; give the result another name.")
    if not there or overwrite:
        return jobs
    if skip_existing:
        kept = set(there)
        reason = "The result exists."
        return [replace(job, skipped=reason) if job in kept else job for job in jobs]
    many = len(there) > 1
    more = f" and {len(there) - 1} more results exist" if many else " exists"
    raise UsageError(
        f"{there[0].target}{more} already: --overwrite replaces {'them' if many else 'it'}, "
        f"--skip-existing leaves {'them' if many else 'it'}."
    )


def identity(path: Place) -> str:
    """Two paths with one identity are one file."""
    if isinstance(path, Remote):
        return path.url
    return os.path.normcase(os.path.realpath(path))
