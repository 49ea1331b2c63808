"""Images to batches: found, split, decoded, cropped, downscaled.

A batch is a function of the seed and the step alone, so a run that is resumed,
or shared between processes, sees the crops that an undisturbed one sees.

Originals are reduced on the fly; pairs bring their low-resolution images, and
perhaps what a teacher network makes of those, in files of the same relative names.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
    shard_degradation,
    to_device,
)
from srgan_training.errors import TrainingError

log = logging.getLogger("srgan_training")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
# A crop cannot be reduced below the size at which it still fits most images.
REDUCTIONS = 8
# Streams of random numbers in a step.
CROPS, SHIFT = 0, 1


def find_images(folders: Sequence[str | Path], limit: int = 0) -> list[Path]:
    """All image files below the folders, sorted by name; the first ``limit`` of them."""
    found = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise TrainingError(f"{folder}: no such folder; give one that holds images.")
        found += [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
    found.sort()
    return found[:limit] if limit else found


@dataclass(frozen=True)
class Source:
    """An original to train on; of a pair also what belongs to it.

    Attributes
    ----------
    high
        The original, which is the target.
    low
        Its low-resolution image; None where it is made from the original.
    teacher
        What a teacher network makes of the low-resolution image, a second target.
    """

    high: Path
    low: Path | None = None
    teacher: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The original alone, or low-resolution image, original and, if any, teacher's."""
        paired = (self.low, self.high, self.teacher) if self.low else (self.high,)
        return [path for path in paired if path is not None]


def find_sources(config: DataConfig) -> list[Source]:
    """The images of a run.

    Raises
    ------
    TrainingError
        If a folder is missing, or a file of a pair is.
    """
    if not config.low:
        return [Source(path) for path in find_images(config.folders, config.limit)]
    sources = []
    teachers = config.teacher or ("",) * len(config.low)
    for folder, low, teacher in zip(config.folders, config.low, teachers, strict=True):
        lows = by_relative_name(low)
        taught = by_relative_name(teacher) if teacher else {}
        for name, high in by_relative_name(folder).items():
            for place, known in ((low, lows), (teacher, taught)):
                if place and name not in known:
                    raise TrainingError(
                        f"{Path(place, name)} is missing; {high} needs its counterpart."
                    )
            sources.append(Source(high, lows[name], taught.get(name)))
    sources.sort(key=lambda source: source.high)
    return sources[: config.limit] if config.limit else sources


def by_relative_name(folder: str | Path) -> dict[str, Path]:
    """The images below a folder by their relative names without suffix."""
    found = find_images([folder])
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def split(
    sources: Sequence[Source], validation: float, seed: int
) -> tuple[list[Source], list[Source]]:
    """Training and validation images, by a hash of seed and file name.

    An image's place among the others depends on its own name alone, so adding
    images moves few of the rest to the other side, and an image that is there
    in several sizes is on one side in all of them.
    """

    def rank(source: Source) -> bytes:
        name = f"{seed}/{source.high.parent.name}/{source.high.stem}"
        return hashlib.sha256(name.encode()).digest()

    ranks = sorted({rank(source) for source in sources})
    held_back = set(ranks[: round(len(ranks) * validation)])
    ordered = sorted(sources, key=lambda source: source.high)
    return (
        [source for source in ordered if rank(source) not in held_back],
        [source for source in ordered if rank(source) in held_back],
    )


def decode(path: Path) -> np.ndarray:
    """H×W×3 uint8, RGB."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def complaint(
    source: Source, sizes: Sequence[tuple[int, int]], smallest: int, scale: int
) -> str | None:
    """Why an image of these heights and widths, by ``source.files``, is skipped, if it is.

    ``smallest`` counts pixels of the first file.
    """
    if min(sizes[0]) < smallest:
        return f"{source.files[0]}: skipped, it is smaller than a crop of {smallest} pixels."
    for path, size in zip(source.files[1:], sizes[1:], strict=True):
        if size != (scale * sizes[0][0], scale * sizes[0][1]):
            return f"{path}: skipped, it is not {scale} times as large as {source.files[0]}."
    return None


def decode_all(
    sources: Sequence[Source], smallest: int, scale: int
) -> tuple[list[Source], list[list[np.ndarray]], list[str]]:
    """Decode images in threads.

    Returns
    -------
    sources, images, skipped
        What can be cropped, the images of each one's ``files``, and a sentence for
        each other one: unreadable, or with an edge shorter than ``smallest`` pixels.
    """

    def attempt(source: Source) -> list[np.ndarray] | str:
        images = []
        for path in source.files:
            try:
                images.append(decode(path))
            except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
                return f"{path}: skipped, it cannot be read ({error})."
        sizes = [image.shape[:2] for image in images]
        return complaint(source, sizes, smallest, scale) or images

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(attempt, sources))
    kept = [(s, r) for s, r in zip(sources, results, strict=True) if not isinstance(r, str)]
    skipped = [r for r in results if isinstance(r, str)]
    return [s for s, _ in kept], [r for _, r in kept], skipped


def sizes_of(
    sources: Sequence[Source], smallest: int, scale: int
) -> tuple[list[Source], Tensor, list[str]]:
    """`decode_all` by headers only: sources, their areas, and a sentence for each skipped one."""
    kept, areas, skipped = [], [], []
    for source in sources:
        sizes = []
        try:
            for path in source.files:
                with Image.open(path) as image:
                    sizes.append((image.height, image.width))
        except (OSError, SyntaxError, ValueError) as error:
            skipped.append(f"{path}: skipped, it cannot be read ({error}).")
            continue
        if sentence := complaint(source, sizes, smallest, scale):
            skipped.append(sentence)
            continue
        kept.append(source)
        areas.append(sizes[0][0] * sizes[0][1])
    return kept, torch.tensor(areas, dtype=torch.double), skipped


def smallest_edge(config: DataConfig, crop: int, scale: int) -> int:
    """The edge that the first of a source's files needs for a crop of low-resolution pixels."""
    return crop if config.low else crop * scale


@dataclass(frozen=True)
class Draw:
    """The random choices of one step's crops: which, where, how.

    Attributes
    ----------
    image
        N image numbers.
    place
        N×2 top and left as parts of the room there is, in [0, 1).
    side
        Edge of the crop in the first of a source's files, pixels: before it is
        reduced, or of a pair's low-resolution image.
    turns
        N numbers 0…7: bit 0 mirrors, bit 1 flips, bit 2 transposes.
    degradation
        Of the low-resolution side.
    """

    image: Tensor
    place: Tensor
    side: int
    turns: Tensor
    degradation: Degradation


def step_rng(seed: int, step: int, stream: int) -> torch.Generator:
    """Random numbers of one step for one purpose: of one stream, a shift would follow the crop."""
    return torch.Generator().manual_seed((2 * (seed * 1_000_003 + step) + stream) % 2**63)


def draw(config: DataConfig, scale: int, areas: Tensor, batch: int, seed: int, step: int) -> Draw:
    """Draw a step's crops; images by area, so that every pixel is as likely."""
    rng = step_rng(seed, step, CROPS)
    image = torch.multinomial(areas, batch, replacement=True, generator=rng)
    place = torch.rand(batch, 2, generator=rng)
    turns = torch.randint(8 if config.flips else 1, (batch,), generator=rng)
    # A few sizes only, so that compiled kernels and cached plans are met again.
    level = int(torch.randint(REDUCTIONS + 1, (), generator=rng)) / REDUCTIONS
    reduction = 1 - level * (1 - config.min_scale)
    return Draw(
        image=image,
        place=place,
        side=config.crop if config.low else round(config.crop * scale / reduction),
        turns=turns,
        degradation=draw_degradation(config, batch, rng),
    )


def shard(drawn: Draw, rank: int, processes: int) -> Draw:
    """One process's part of a step's crops."""
    mine = slice(rank, None, processes)
    return Draw(
        drawn.image[mine],
        drawn.place[mine],
        drawn.side,
        drawn.turns[mine],
        shard_degradation(drawn.degradation, mine, rank),
    )


class ResidentImages:
    """Decoded images in one uint8 tensor on the device; crops are gathered there.

    Parameters
    ----------
    images
        H×W×3 uint8 each, every edge at least as long as a crop.
    device
        Where they stay.
    times
        How many times larger they are than the files that crops are drawn in.
    """

    def __init__(self, images: Sequence[np.ndarray], device: torch.device, times: int = 1) -> None:
        sizes = torch.tensor([image.shape[:2] for image in images])
        self.times = times
        self.areas = sizes.prod(1).double()
        self.sizes = sizes.to(device)
        ends = sizes.prod(1).cumsum(0)
        self.starts = (ends - sizes.prod(1)).to(device)
        self.pixels = torch.empty(int(ends[-1]), 3, dtype=torch.uint8, device=device)
        start = 0
        for image in images:
            flat = torch.from_numpy(image.reshape(-1, 3).copy())
            self.pixels[start : start + len(flat)] = flat.to(device)
            start += len(flat)

    def crops(self, drawn: Draw) -> Tensor:
        """N×3×side×side uint8, the side ``times`` that drawn; edges are repeated where it ends."""
        device = self.pixels.device
        chosen = to_device(drawn.image, device)
        sizes = self.sizes[chosen]
        side = drawn.side
        # An image shorter than the side is read with its last rows repeated.
        room = (sizes // self.times - side).clamp(min=0)
        corner = (to_device(drawn.place, device) * (room + 1)).long() * self.times
        at = torch.arange(side * self.times, device=device)
        rows = torch.minimum(corner[:, :1] + at, sizes[:, :1] - 1)
        columns = torch.minimum(corner[:, 1:] + at, sizes[:, 1:] - 1)
        index = rows[:, :, None] * sizes[:, 1, None, None] + columns[:, None, :]
        return self.pixels[index + self.starts[chosen, None, None]].permute(0, 3, 1, 2)


class CropFiles(Dataset[list[Tensor]]):
    """Crops read from files, for sets that do not fit in memory.

    An item is (number, top, left, side) of a draw; its value a crop of each of the
    source's files, those behind the first ``scale`` times as large.
    """

    def __init__(self, sources: Sequence[Source], scale: int) -> None:
        self.sources, self.scale = list(sources), scale

    def __getitem__(self, item: tuple[int, float, float, int]) -> list[Tensor]:
        number, *place, side = item
        crops = []
        for order, path in enumerate(self.sources[number].files):
            times = self.scale if order else 1
            image = decode(path)
            short = [max(0, side * times - edge) for edge in image.shape[:2]]
            image = np.pad(image, [(0, short[0]), (0, short[1]), (0, 0)], mode="edge")
            top, left = (
                int(part * (edge // times - side + 1)) * times
                for part, edge in zip(place, image.shape, strict=False)
            )
            window = image[top : top + side * times, left : left + side * times]
            crops.append(torch.from_numpy(np.ascontiguousarray(window.transpose(2, 0, 1))))
        return crops


class StepItems:
    """Batch sampler: the file crops of each step, in order."""

    def __init__(self, draws: Iterator[Draw]) -> None:
        self.draws = draws

    def __iter__(self) -> Iterator[list[tuple[int, float, float, int]]]:
        for drawn in self.draws:
            yield [
                (int(number), float(top), float(left), drawn.side)
                for number, (top, left) in zip(drawn.image, drawn.place, strict=True)
            ]


class Batch(NamedTuple):
    """N crops, float32 RGB in [0, 1].

    Attributes
    ----------
    low
        N×3×crop×crop.
    high
        N×3×(scale·crop)×(scale·crop), of the originals.
    teacher
        As ``high``, what a teacher made of the low-resolution images; None without one.
    """

    low: Tensor
    high: Tensor
    teacher: Tensor | None = None


def finish_batch(crops: Sequence[Tensor], drawn: Draw, config: DataConfig, scale: int) -> Batch:
    """Reduce, turn, downscale and degrade crops on their device.

    Parameters
    ----------
    crops
        N×3×side×side uint8 of originals; or of low-resolution images, and
        ``scale`` times as large of originals and perhaps of the teacher's.
    """
    edge = config.crop * scale
    layers = [crop.float() / 255 for crop in crops]
    if not config.low and layers[0].shape[-1] != edge:
        layers = [resize(layers[0], edge, edge).clamp(0, 1)]
    turns = to_device(drawn.turns, layers[0].device)
    layers = [turned(layer, turns) for layer in layers]
    if not config.low:
        layers.insert(0, downscale(layers[0], scale))
    layers[0] = degrade(layers[1], layers[0], drawn.degradation)
    return Batch(*(layer.contiguous(memory_format=torch.channels_last) for layer in layers))


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Mirror, flip and transpose square images, each by its own number 0…7."""
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
    resident: list[ResidentImages] | None  # by the place in a source's files
    sources: list[Source]

    def draws(self, first: int) -> Iterator[Draw]:
        """This process's draws from a step on, without end."""
        step = first
        while True:
            drawn = draw(self.config, self.scale, self.areas, self.batch, self.seed, step)
            yield shard(drawn, self.rank, self.processes)
            step += 1

    def batches(self, first: int) -> Iterator[Batch]:
        """The batches from a step on, without end."""
        if self.resident is not None:
            for drawn in self.draws(first):
                crops = [images.crops(drawn) for images in self.resident]
                yield finish_batch(crops, drawn, self.config, self.scale)
            return
        loader: DataLoader[list[Tensor]] = DataLoader(
            CropFiles(self.sources, self.scale),
            batch_sampler=StepItems(self.draws(first)),
            num_workers=min(self.config.workers, processors()),
            pin_memory=self.device.type == "cuda",
        )
        for crops, drawn in zip(loader, self.draws(first), strict=False):
            crops = [crop.to(self.device, non_blocking=True) for crop in crops]
            yield finish_batch(crops, drawn, self.config, self.scale)


def validation_crops(
    images: Sequence[Sequence[np.ndarray]], config: DataConfig, scale: int, seed: int
) -> Batch:
    """The middle of each held-back image, downscaled and degraded once.

    Parameters
    ----------
    images
        Of each source's files, as from `decode_all`.
    """
    edge = config.validation_crop if config.low else config.validation_crop * scale
    layers = []
    for order in range(len(images[0])):
        times = scale if order else 1
        cut = []
        for files in images[: config.validation_crops]:
            top, left = ((room - edge) // 2 * times for room in files[0].shape[:2])
            window = files[order][top : top + edge * times, left : left + edge * times]
            cut.append(window.transpose(2, 0, 1))
        layers.append(torch.from_numpy(np.stack(cut)).float() / 255)
    if not config.low:
        layers.insert(0, downscale(layers[0], scale))
    how = draw_degradation(config, len(layers[0]), torch.Generator().manual_seed(seed))
    layers[0] = degrade(layers[1], layers[0], how)
    return Batch(*layers)


def open_data(
    config: TrainConfig, rank: int, processes: int, device: torch.device
) -> tuple[TrainingSet, Batch]:
    """Find, split and decode the images; name those that are skipped.

    Returns
    -------
    training_set, held_back
        The batches, and the validation crops (none without validation).
    """
    scale, data = config.generator.scale, config.data
    training, held = split(find_sources(data), data.validation, config.seed)
    smallest = smallest_edge(data, data.validation_crop, scale)
    _, images, skipped = decode_all(held, smallest, scale)
    none = torch.empty(0, 3, 0, 0)
    held_back = validation_crops(images, data, scale, config.seed) if images else Batch(none, none)
    smallest = smallest_edge(data, data.crop, scale)
    resident = None
    if data.resident:
        training, images, more = decode_all(training, smallest, scale)
        areas = torch.tensor([i[0].shape[0] * i[0].shape[1] for i in images], dtype=torch.double)
    else:
        training, areas, more = sizes_of(training, smallest, scale)
    if rank == 0:
        for sentence in skipped + more:
            log.warning("%s", sentence)
    if not training:
        raise TrainingError(
            f"no image to train on in {', '.join(data.folders) or 'no folder'}: "
            f"give folders of images of at least {smallest} pixels on each edge."
        )
    if data.resident:
        resident = [
            ResidentImages([files[order] for files in images], device, scale if order else 1)
            for order in range(len(images[0]))
        ]
    log.info("%d images to train on, %d validation crops", len(training), len(held_back.low))
    training_set = TrainingSet(
        config=data,
        scale=scale,
        seed=config.seed,
        batch=config.batch,
        rank=rank,
        processes=processes,
        device=device,
        areas=areas,
        resident=resident,
        sources=training,
    )
    return training_set, held_back
