"""Fetch, check and unpack a training set."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pooch
from tqdm import tqdm

from srgan_training.errors import TrainingError

IMAGES = 10_000
TIMEOUT_S = 60


@dataclass(frozen=True)
class Archive:
    """A zip of images on a web server.

    Attributes
    ----------
    url
        Where it lies.
    md5
        Its MD5 as published, hexadecimal: against damage, not against malice.
    """

    url: str
    md5: str

    @property
    def name(self) -> str:
        """The file's name without its folder and ``.zip``."""
        return PurePosixPath(self.url).stem


COCO_TRAIN2014 = Archive(
    url="http://images.cocodataset.org/zips/train2014.zip", md5="0da8c0bd3d6becc4dcb32757491aca88"
)


def fetch(archive: Archive, folder: Path) -> Path:
    """The archive's zip in a folder, fetched if it is not there yet, and checked.

    Raises
    ------
    TrainingError
        If it cannot be had, or its MD5 differs.
    """
    try:
        file = pooch.retrieve(
            archive.url,
            known_hash=f"md5:{archive.md5}",
            path=folder,
            fname=f"{archive.name}.zip",
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT_S),
        )
    # requests' errors are OSErrors; ValueError is pooch's for a wrong checksum.
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{archive.url} could not be fetched ({reason}); try again.") from error
    return Path(file)


def unpack(file: Path, folder: Path, images: int | None) -> Path:
    """Write a zip's first images by name into one flat folder beside it.

    Those that are there already are kept. Returns the folder.
    """
    with zipfile.ZipFile(file) as bundle:
        names = sorted(name for name in bundle.namelist() if name.lower().endswith(".jpg"))[:images]
        target = folder / f"{file.stem}-{len(names)}"
        target.mkdir(parents=True, exist_ok=True)
        for name in tqdm(names, unit="image", desc=target.name, dynamic_ncols=True):
            image = target / PurePosixPath(name).name
            if image.is_file() and image.stat().st_size == bundle.getinfo(name).file_size:
                continue
            part = image.with_name(image.name + ".part")
            with bundle.open(name) as source, open(part, "wb") as stream:
                shutil.copyfileobj(source, stream)
            os.replace(part, image)
    return target


def prepare(archive: Archive, folder: Path, images: int | None = IMAGES) -> Path:
    """Fetch an archive and unpack its first images by name; all of them for None.

    Returns
    -------
    Path
        The folder of images, to be given to training.

    Raises
    ------
    TrainingError
        If the archive cannot be had or is damaged.
    """
    return unpack(fetch(archive, folder), folder, images)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("dataset", choices=["coco"], help="COCO train2014 (13.5 GB)")
    parser.add_argument("folder", type=Path, help="where the zip and the images go")
    parser.add_argument(
        "--images",
        type=int,
        default=IMAGES,
        metavar="N",
        help="how many to unpack, first by name (default: %(default)s, 0: all)",
    )


def command(options: argparse.Namespace) -> int:
    """Prepare a training set; returns the exit status."""
    if options.images < 0:
        raise TrainingError("--images must be 0 (all) or more.")
    target = prepare(COCO_TRAIN2014, options.folder, options.images or None)
    sys.stdout.write(f"{target}\n")
    return 0
