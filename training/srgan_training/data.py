"""Pictures to batches: found, split, decoded, cropped, downscaled.

A batch is a function of the seed and the step alone, so a run that is resumed,
or shared between processes, sees the crops that an undisturbed one sees.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from srgan_infer.threads import processors
from srgan_training.config import DataConfig, TrainConfig
from srgan_training.degrade import (
    Degradation,
    degrade,
    downscale,
    draw_degradation,
    resize,
    sent,
)

log = logging.getLogger("srgan_training")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
# A crop cannot be reduced below the size at which it still fits most pictures.
REDUCTIONS = 8


class DataError(Exception):
    """The folder holds nothing to train on; the message says what to do."""


def find_pictures(folders: Sequence[str | Path], limit: int = 0) -> list[Path]:
    """All picture files below the folders, sorted by name; the first ``limit`` of them."""
    found = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; give one that holds pictures.")
        found += [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
    found.sort()
    return found[:limit] if limit else found


def split(paths: Sequence[Path], validation: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Training and validation pictures, by a hash of seed and file name.

    A picture's place among the others depends on its own name alone, so adding
    pictures moves few of the rest to the other side.
    """

    def rank(path: Path) -> bytes:
        return hashlib.sha256(f"{seed}/{path.parent.name}/{path.name}".encode()).digest()

    ranked = sorted(paths, key=rank)
    held_back = round(len(ranked) * validation)
    return sorted(ranked[held_back:]), sorted(ranked[:held_back])


def decode(path: Path) -> np.ndarray:
    """H×W×3 uint8, RGB."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def decode_all(
    paths: Sequence[Path], smallest: int
) -> tuple[list[Path], list[np.ndarray], list[str]]:
    """Decode pictures in threads.

    Returns
    -------
    paths, pictures, skipped
        The pictures that can be cropped, and a sentence for each other file:
        unreadable, or with an edge shorter than ``smallest`` pixels.
    """

    def attempt(path: Path) -> np.ndarray | str:
        try:
            picture = decode(path)
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
            return f"{path}: skipped, it cannot be read ({error})."
        if min(picture.shape[:2]) < smallest:
            return f"{path}: skipped, it is smaller than a crop of {smallest} pixels."
        return picture

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(attempt, paths))
    kept = [(p, r) for p, r in zip(paths, results, strict=True) if not isinstance(r, str)]
    skipped = [r for r in results if isinstance(r, str)]
    return [p for p, _ in kept], [r for _, r in kept], skipped


@dataclass(frozen=True)
class Draw:
    """The random choices of one step's crops: which, where, how.

    Attributes
    ----------
    picture
        N picture numbers.
    place
        N×2 top and left as parts of the room there is, in [0, 1).
    side
        Edge of the crop before it is reduced, high-resolution pixels.
    turns
        N numbers 0…7: bit 0 mirrors, bit 1 flips, bit 2 transposes.
    degradation
        Of the low-resolution side.
    """

    picture: Tensor
    place: Tensor
    side: int
    turns: Tensor
    degradation: Degradation


def draw(config: DataConfig, scale: int, areas: Tensor, batch: int, seed: int, step: int) -> Draw:
    """Draw a step's crops; pictures by area, so that every pixel is as likely."""
    rng = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    picture = torch.multinomial(areas, batch, replacement=True, generator=rng)
    place = torch.rand(batch, 2, generator=rng)
    turns = torch.randint(8 if config.flips else 1, (batch,), generator=rng)
    # A few sizes only, so that compiled kernels and cached plans are met again.
    level = int(torch.randint(REDUCTIONS + 1, (), generator=rng)) / REDUCTIONS
    reduction = 1 - level * (1 - config.smallest_reduction)
    return Draw(
        picture=picture,
        place=place,
        side=round(config.crop * scale / reduction),
        turns=turns,
        degradation=draw_degradation(config, batch, rng),
    )


def share(drawn: Draw, rank: int, processes: int) -> Draw:
    """One process's part of a step's crops."""
    mine = slice(rank, None, processes)
    how = drawn.degradation
    return Draw(
        drawn.picture[mine],
        drawn.place[mine],
        drawn.side,
        drawn.turns[mine],
        Degradation(how.blur[mine], how.noise[mine], how.quality[mine], how.seed + rank),
    )


class ResidentPictures:
    """Decoded pictures in one uint8 tensor on the device; crops are gathered there.

    Parameters
    ----------
    pictures
        H×W×3 uint8 each, every edge at least as long as a crop.
    device
        Where they stay.
    """

    def __init__(self, pictures: Sequence[np.ndarray], device: torch.device) -> None:
        sizes = torch.tensor([picture.shape[:2] for picture in pictures])
        self.areas = sizes.prod(1).double()
        self.sizes = sizes.to(device)
        ends = sizes.prod(1).cumsum(0)
        self.starts = (ends - sizes.prod(1)).to(device)
        self.pixels = torch.empty(int(ends[-1]), 3, dtype=torch.uint8, device=device)
        start = 0
        for picture in pictures:
            flat = torch.from_numpy(picture.reshape(-1, 3).copy())
            self.pixels[start : start + len(flat)] = flat.to(device)
            start += len(flat)

    def crops(self, drawn: Draw) -> Tensor:
        """N×3×side×side uint8; a side longer than a picture is cut to the shortest there is."""
        device = self.pixels.device
        chosen = sent(drawn.picture, device)
        sizes = self.sizes[chosen]
        side = drawn.side
        # A picture shorter than the side is read with its last rows repeated.
        room = (sizes - side).clamp(min=0)
        corner = (sent(drawn.place, device) * (room + 1)).long()
        at = torch.arange(side, device=device)
        rows = torch.minimum(corner[:, :1] + at, sizes[:, :1] - 1)
        columns = torch.minimum(corner[:, 1:] + at, sizes[:, 1:] - 1)
        index = rows[:, :, None] * sizes[:, 1, None, None] + columns[:, None, :]
        return self.pixels[index + self.starts[chosen, None, None]].permute(0, 3, 1, 2)


class CropFiles(Dataset[Tensor]):
    """Crops read from files, for sets that do not fit in memory: item = (path, place, side)."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __getitem__(self, item: tuple[int, float, float, int]) -> Tensor:
        number, top, left, side = item
        picture = decode(self.paths[number])
        picture = np.pad(
            picture,
            [(0, max(0, side - picture.shape[0])), (0, max(0, side - picture.shape[1])), (0, 0)],
            mode="edge",
        )
        y = int(top * (picture.shape[0] - side + 1))
        x = int(left * (picture.shape[1] - side + 1))
        crop = np.ascontiguousarray(picture[y : y + side, x : x + side].transpose(2, 0, 1))
        return torch.from_numpy(crop)


class StepItems:
    """Batch sampler: the file crops of each step, in order."""

    def __init__(self, draws: Iterator[Draw]) -> None:
        self.draws = draws

    def __iter__(self) -> Iterator[list[tuple[int, float, float, int]]]:
        for drawn in self.draws:
            yield [
                (int(number), float(top), float(left), drawn.side)
                for number, (top, left) in zip(drawn.picture, drawn.place, strict=True)
            ]


def finish_batch(
    crops: Tensor, drawn: Draw, config: DataConfig, scale: int
) -> tuple[Tensor, Tensor]:
    """Reduce, turn, downscale and degrade crops on their device.

    Parameters
    ----------
    crops
        N×3×side×side uint8.

    Returns
    -------
    low, high
        N×3×crop×crop and N×3×(scale·crop)×(scale·crop) float32, RGB in [0, 1].
    """
    high = crops.float() / 255
    edge = config.crop * scale
    if high.shape[-1] != edge:
        high = resize(high, edge, edge).clamp(0, 1)
    high = turned(high, sent(drawn.turns, high.device))
    low = degrade(downscale(high, scale), drawn.degradation)
    layout = torch.channels_last
    return low.contiguous(memory_format=layout), high.contiguous(memory_format=layout)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Mirror, flip and transpose square pictures, each by its own number 0…7."""
    bit = turns[:, None, None, None]
    x = torch.where((bit & 1).bool(), x.flip(-1), x)
    x = torch.where((bit & 2).bool(), x.flip(-2), x)
    return torch.where((bit & 4).bool(), x.transpose(-1, -2), x)


@dataclass(frozen=True)
class TrainingSet:
    """The batches of a run, for one process of several."""

    config: DataConfig
    scale: int
    seed: int
    batch: int
    rank: int
    processes: int
    device: torch.device
    areas: Tensor
    resident: ResidentPictures | None
    paths: list[Path]

    def draws(self, first: int) -> Iterator[Draw]:
        """This process's draws from a step on, without end."""
        step = first
        while True:
            drawn = draw(self.config, self.scale, self.areas, self.batch, self.seed, step)
            yield share(drawn, self.rank, self.processes)
            step += 1

    def batches(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Low- and high-resolution batches from a step on, without end."""
        if self.resident is not None:
            for drawn in self.draws(first):
                yield finish_batch(self.resident.crops(drawn), drawn, self.config, self.scale)
            return
        loader: DataLoader[Tensor] = DataLoader(
            CropFiles(self.paths),
            batch_sampler=StepItems(self.draws(first)),
            num_workers=min(self.config.workers, processors()),
            pin_memory=self.device.type == "cuda",
        )
        for crops, drawn in zip(loader, self.draws(first), strict=False):
            crops = crops.to(self.device, non_blocking=True)
            yield finish_batch(crops, drawn, self.config, self.scale)


def validation_crops(
    pictures: Sequence[np.ndarray], config: DataConfig, scale: int, seed: int
) -> tuple[Tensor, Tensor]:
    """The middle of each held-back picture, downscaled and degraded once.

    Returns
    -------
    low, high
        As of `finish_batch`, with ``validation_crop`` for the edge.
    """
    edge = config.validation_crop * scale
    cut = []
    for picture in pictures[: config.validation_crops]:
        top, left = (picture.shape[0] - edge) // 2, (picture.shape[1] - edge) // 2
        cut.append(picture[top : top + edge, left : left + edge].transpose(2, 0, 1))
    high = torch.from_numpy(np.stack(cut)).float() / 255
    how = draw_degradation(config, len(high), torch.Generator().manual_seed(seed))
    return degrade(downscale(high, scale), how), high


def open_data(
    config: TrainConfig, rank: int, processes: int, device: torch.device
) -> tuple[TrainingSet, Tensor, Tensor]:
    """Find, split and decode the pictures; name those that are skipped.

    Returns
    -------
    training_set, low, high
        The batches, and the validation crops (empty without validation).
    """
    scale = config.generator.scale
    paths = find_pictures(config.data.folders, config.data.limit)
    training, held_back = split(paths, config.data.validation, config.seed)
    _, pictures, skipped = decode_all(held_back, config.data.validation_crop * scale)
    low = high = torch.empty(0, 3, 0, 0)
    if pictures:
        low, high = validation_crops(pictures, config.data, scale, config.seed)
    resident = None
    if config.data.resident:
        training, pictures, more = decode_all(training, config.data.crop * scale)
        areas = torch.tensor([p.shape[0] * p.shape[1] for p in pictures], dtype=torch.double)
    else:
        training, areas, more = sizes_of(training, config.data.crop * scale)
    if rank == 0:
        for sentence in skipped + more:
            log.warning("%s", sentence)
    if not training:
        raise DataError(
            f"no picture to train on in {', '.join(config.data.folders) or 'no folder'}: "
            f"give folders of pictures of at least {config.data.crop * scale} pixels on each edge."
        )
    if config.data.resident:
        resident = ResidentPictures(pictures, device)
    log.info("%d pictures to train on, %d validation crops", len(training), len(low))
    training_set = TrainingSet(
        config=config.data,
        scale=scale,
        seed=config.seed,
        batch=config.batch,
        rank=rank,
        processes=processes,
        device=device,
        areas=areas,
        resident=resident,
        paths=training,
    )
    return training_set, low, high


def sizes_of(paths: Sequence[Path], smallest: int) -> tuple[list[Path], Tensor, list[str]]:
    """`decode_all` by headers only: paths, their areas, and a sentence for each skipped file."""
    kept, areas, skipped = [], [], []
    for path in paths:
        try:
            with Image.open(path) as image:
                width, height = image.size
        except (OSError, SyntaxError, ValueError) as error:
            skipped.append(f"{path}: skipped, it cannot be read ({error}).")
            continue
        if min(width, height) < smallest:
            skipped.append(f"{path}: skipped, it is smaller than a crop of {smallest} pixels.")
            continue
        kept.append(path)
        areas.append(width * height)
    return kept, torch.tensor(areas, dtype=torch.double), skipped
