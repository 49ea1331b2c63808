"""Fetch, check and unpack a training set: ``python -m srgan_training.prepare coco FOLDER``."""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

CHUNK = 1 << 20
TIMEOUT_S = 60
PICTURES = 10_000


class PrepareError(Exception):
    """A data set cannot be fetched or is not what it should be."""


@dataclass(frozen=True)
class Archive:
    """A zip of pictures on a web server.

    Attributes
    ----------
    url
        Where it lies.
    size
        Its length in bytes.
    md5
        Its MD5 as published, hexadecimal: against damage, not against malice.
    pictures
        How many pictures are in it.
    """

    url: str
    size: int
    md5: str
    pictures: int

    @property
    def name(self) -> str:
        """The file's name without its folder and ``.zip``."""
        return PurePosixPath(self.url).stem


COCO_TRAIN2014 = Archive(
    url="http://images.cocodataset.org/zips/train2014.zip",
    size=13_510_573_713,
    md5="0da8c0bd3d6becc4dcb32757491aca88",
    pictures=82_783,
)


def download(url: str, file: Path, size: int, *, attempts: int = 5, wait_s: float = 5) -> None:
    """Fetch a file; go on where an earlier attempt stopped.

    What has arrived is kept beside ``file`` under the same name with ``.part``
    behind it, across interruptions and across runs.

    Parameters
    ----------
    url, file
        From where, to where.
    size
        The length in bytes that the file must have.
    attempts
        Connections in a row that may bring nothing before it gives up.
    wait_s
        Seconds between a lost connection and the next.

    Raises
    ------
    PrepareError
        If the server refuses, has a file of another length, or brings nothing.
    """
    if file.is_file() and file.stat().st_size == size:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    if part.is_file() and part.stat().st_size > size:
        part.unlink()
    fruitless, reason = 0, "the connection was closed early"
    with tqdm(
        total=size, unit="B", unit_scale=True, unit_divisor=1024, desc=file.name, dynamic_ncols=True
    ) as progress:
        while True:
            before = part.stat().st_size if part.is_file() else 0
            progress.update(before - progress.n)
            if before == size:
                break
            if fruitless == attempts:
                raise PrepareError(
                    f"{url} could not be fetched ({reason}); run the command again to go on "
                    f"from the {before:,} of {size:,} bytes that are there."
                )
            try:
                _fetch(url, part, before, size, progress)
            except urllib.error.HTTPError as error:
                reason = f"HTTP status {error.code}"
                if error.code in (401, 403, 404, 410):
                    raise PrepareError(f"{url} is not to be had: {reason}.") from error
            except (OSError, http.client.HTTPException) as error:
                reason = str(error) or type(error).__name__
            after = part.stat().st_size if part.is_file() else 0
            if after != size:
                fruitless = 0 if after > before else fruitless + 1
                time.sleep(wait_s)
    os.replace(part, file)


def _fetch(url: str, part: Path, start: int, size: int, progress: tqdm[Any]) -> None:
    """Append what one connection brings of the bytes from ``start`` on to ``part``."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        if response.status == 206:
            span = response.headers.get("Content-Range", "")
            if span != f"bytes {start}-{size - 1}/{size}":
                raise PrepareError(f"{url} is not {size:,} bytes long: the server sends {span!r}.")
        else:
            length = response.headers.get("Content-Length")
            if length is not None and int(length) != size:
                raise PrepareError(f"{url} is {int(length):,} bytes long, not {size:,}.")
            progress.update(-start)  # the server knows no ranges: from the beginning
        with open(part, "ab" if response.status == 206 else "wb") as stream:
            while block := response.read(CHUNK):
                stream.write(block)
                progress.update(len(block))


def check(file: Path, archive: Archive) -> list[str]:
    """Compare length, MD5 and every entry's CRC-32 with what they should be.

    Returns
    -------
    list of str
        Names of the pictures in the zip, sorted.

    Raises
    ------
    PrepareError
        If anything differs; the message says to delete the file and run again.
    """
    remedy = f"delete {file} and run the command again."
    if file.stat().st_size != archive.size:
        raise PrepareError(f"{file} is not {archive.size:,} bytes long; {remedy}")
    digest = hashlib.md5(usedforsecurity=False)
    with open(file, "rb") as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    if digest.hexdigest() != archive.md5:
        raise PrepareError(f"{file} has a wrong checksum; {remedy}")
    with zipfile.ZipFile(file) as bundle:
        damaged = bundle.testzip()
        names = sorted(name for name in bundle.namelist() if name.lower().endswith(".jpg"))
    if damaged is not None:
        raise PrepareError(f"{damaged} in {file} is damaged; {remedy}")
    if len(names) != archive.pictures:
        raise PrepareError(
            f"{file} holds {len(names):,} pictures, not {archive.pictures:,}; {remedy}"
        )
    return names


def unpack(file: Path, names: Sequence[str], folder: Path) -> None:
    """Write entries of a zip into one flat folder; those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file) as bundle:
        for name in tqdm(names, unit="picture", desc=folder.name, dynamic_ncols=True):
            target = folder / PurePosixPath(name).name
            if target.is_file() and target.stat().st_size == bundle.getinfo(name).file_size:
                continue
            part = target.with_name(target.name + ".part")
            with bundle.open(name) as source, open(part, "wb") as stream:
                shutil.copyfileobj(source, stream, CHUNK)
            os.replace(part, target)


def prepare(archive: Archive, folder: Path, pictures: int | None = PICTURES) -> Path:
    """Fetch an archive, check it, and unpack its first pictures by name.

    Parameters
    ----------
    archive
        What to fetch.
    folder
        Where the zip and the folder of pictures go.
    pictures
        How many of the pictures, in the order of their names; None for all.

    Returns
    -------
    Path
        The folder of pictures, to be given to training.

    Raises
    ------
    PrepareError
        If the archive cannot be had or is damaged.
    """
    file = folder / f"{archive.name}.zip"
    download(archive.url, file, archive.size)
    names = check(file, archive)[:pictures]
    target = folder / f"{archive.name}-{len(names)}"
    unpack(file, names, target)
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m srgan_training.prepare", description=__doc__.splitlines()[0]
    )
    parser.add_argument("dataset", choices=["coco"], help="COCO train2014 (13.5 GB)")
    parser.add_argument("folder", type=Path, help="where the zip and the pictures go")
    parser.add_argument(
        "--pictures",
        type=int,
        default=PICTURES,
        metavar="N",
        help="how many to unpack, first by name (default: %(default)s, 0: all)",
    )
    options = parser.parse_args(arguments)
    if options.pictures < 0:
        parser.error("--pictures must be 0 (all) or more")
    try:
        target = prepare(COCO_TRAIN2014, options.folder, options.pictures or None)
    except PrepareError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
