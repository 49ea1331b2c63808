"""Make pairs to train on: originals, their low resolution, and what a teacher makes of it.

``OUT/high``, ``OUT/low`` and, with a teacher, ``OUT/teacher`` get files of the same
names: the reduction, then the name within the data folder. What is there is kept, so
that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from srgan_infer.engine.devices import multiplies_bfloat16
from srgan_training.config import DataConfig, load_config
from srgan_training.data import decode, find_images
from srgan_training.degrade import degrade, downscale, draw_degradation, quantised, resize
from srgan_training.errors import TrainingError

Teacher = Callable[[Tensor], Tensor]  # N×3×H×W in [0, 1] → N×3×(scale·H)×(scale·W)
PAIRS_RECORD = "pairs.json"
BATCH_PIXELS = 1 << 15  # low-resolution pixels that a teacher is given at once


@dataclass(frozen=True)
class Pair:
    """One pair to be made.

    Attributes
    ----------
    original
        The image file.
    reduction
        It is reduced to this part of its size first.
    name
        Of the results, relative to ``high``, ``low`` and ``teacher``.
    """

    original: Path
    reduction: float
    name: Path


def list_pairs(folders: Sequence[Path], reductions: Sequence[float]) -> list[Pair]:
    """All pairs of the folders' images, one reduction after the other.

    Raises
    ------
    TrainingError
        If a folder is missing, or two images would get one name.
    """
    pairs = [
        Pair(path, reduction, Path(f"{reduction:g}", *named(path, folder).parts))
        for reduction in reductions
        for folder in folders
        for path in find_images([folder])
    ]
    seen: dict[Path, Path] = {}
    for pair in pairs:
        if pair.name in seen:
            raise TrainingError(f"{pair.original} and {seen[pair.name]} have one name; rename one.")
        seen[pair.name] = pair.original
    return pairs


def named(path: Path, folder: Path) -> Path:
    """An image's name below its data folder, with that folder's own name, as PNG."""
    return Path(folder.resolve().name, path.relative_to(folder)).with_suffix(".png")


def reduced(image: np.ndarray, reduction: float, scale: int) -> Tensor:
    """H×W×3 uint8 as 1×3×h×w in [0, 1]; h and w are multiples of the scale."""
    high = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    height, width = (round(edge * reduction) for edge in high.shape[-2:])
    if reduction != 1:
        high = quantised(resize(high, height, width))
    return high[..., : height // scale * scale, : width // scale * scale]


def make_pairs(
    pairs: Sequence[Pair],
    out: Path,
    *,
    scale: int = 4,
    data: DataConfig | None = None,
    seed: int = 0,
    teacher: Teacher | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> int:
    """Write the pairs that are not there yet.

    Parameters
    ----------
    pairs
        From `list_pairs`.
    out
        Receives ``high``, ``low`` and ``teacher``, PNG files.
    scale
        Of the pairs; the teacher has to have the same.
    data
        Degrades the low-resolution images as these settings say. The teacher sees
        the clean ones.
    seed
        Of the degradation.
    teacher
        Its results are a second target.

    Returns
    -------
    int
        How many were made.
    """
    kinds = ["low", "high", *(["teacher"] if teacher else [])]
    todo = [p for p in pairs if not all((out / kind / p.name).is_file() for kind in kinds)]
    for group in tqdm(list(grouped(todo, scale)), unit="batch", disable=not progress):
        highs = [reduced(decode(pair.original), pair.reduction, scale) for pair in group]
        high = torch.cat(highs).to(device)
        clean = downscale(high, scale)
        results = {"high": high, "low": clean}
        if data is not None:
            each = zip(group, torch.split(high, 1), torch.split(clean, 1), strict=True)
            results["low"] = torch.cat([degraded(*one, data, seed) for one in each])
        if teacher is not None:
            results["teacher"] = teacher(clean)
            if results["teacher"].shape != high.shape:
                raise TrainingError(f"the teacher does not magnify {scale} times; take another.")
        for kind in kinds:
            for pair, image in zip(group, results[kind], strict=True):
                write(image, out / kind / pair.name)
    return len(todo)


def degraded(pair: Pair, high: Tensor, low: Tensor, data: DataConfig, seed: int) -> Tensor:
    """A pair's low-resolution image, degraded by the seed and its name alone; 1×3×H×W."""
    digest = hashlib.sha256(f"{seed}/{pair.name.as_posix()}".encode()).digest()
    rng = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return degrade(high, low, draw_degradation(data, 1, rng))


def grouped(pairs: Sequence[Pair], scale: int) -> Iterator[list[Pair]]:
    """Neighbours of one size, as many as a teacher takes at once."""
    group: list[Pair] = []
    size: tuple[float, ...] = ()
    for pair in pairs:
        with Image.open(pair.original) as image:
            this = (*image.size, pair.reduction)
        pixels = this[0] * this[1] * pair.reduction**2 / scale**2
        if group and (this != size or (len(group) + 1) * pixels > BATCH_PIXELS):
            yield group
            group = []
        group, size = [*group, pair], this
    if group:
        yield group


def write(image: Tensor, file: Path) -> None:
    """3×H×W in [0, 1] as PNG, atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    levels = (quantised(image) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    part = file.with_suffix(".part")
    Image.fromarray(levels).save(part, "PNG")
    os.replace(part, file)


def load_teacher(file: Path, device: torch.device | str = "cpu") -> Teacher:
    """A super-resolution network of any architecture that spandrel knows.

    It computes in bfloat16 where the device multiplies it.

    Raises
    ------
    TrainingError
        If spandrel is not installed, or does not know the file.
    """
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except ImportError as error:
        raise TrainingError(
            "a teacher needs spandrel: pip install 'srgan-training[teacher]'."
        ) from error
    try:
        loaded: Any = ModelLoader(device=torch.device(device)).load_from_file(file)
    except Exception as error:  # spandrel raises what the file's format makes it raise
        raise TrainingError(f"{file} is no network that spandrel knows ({error}).") from error
    if not isinstance(loaded, ImageModelDescriptor):
        raise TrainingError(f"{file} is no network from image to image.")
    cuda = torch.device(device).type == "cuda"
    half = torch.cuda.is_bf16_supported() if cuda else multiplies_bfloat16()
    model = loaded.model.eval()

    def teach(low: Tensor) -> Tensor:
        context: Any = contextlib.nullcontext()
        if half:
            context = torch.autocast(torch.device(device).type, torch.bfloat16)
        with torch.inference_mode(), context:
            result: Tensor = model(low)
        return result.float().clamp(0, 1)

    return teach


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("out", type=Path, help="where high, low and teacher go")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of images")
    parser.add_argument(
        "--reduce",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="PART",
        help="reduce the originals to these parts of their size first (default: 1)",
    )
    parser.add_argument("--degrade", type=Path, metavar="CONFIG", help="with its [data] settings")
    parser.add_argument("--teacher", type=Path, metavar="FILE", help="a network for spandrel")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the degradation")


def command(options: argparse.Namespace) -> int:
    """Make pairs; returns the exit status."""
    if not all(0 < reduction <= 1 for reduction in options.reduce):
        raise TrainingError("--reduce takes parts of the size, above 0 and up to 1.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options.out.mkdir(parents=True, exist_ok=True)
    record = {
        "teacher": options.teacher.name if options.teacher else "",
        "reduce": options.reduce,
        "degrade": options.degrade.name if options.degrade else "",
        "scale": options.scale,
    }
    (options.out / PAIRS_RECORD).write_text(json.dumps(record, indent=2) + "\n")
    made = make_pairs(
        list_pairs(options.data, options.reduce),
        options.out,
        scale=options.scale,
        data=load_config(options.degrade).data if options.degrade else None,
        seed=options.seed,
        teacher=load_teacher(options.teacher, device) if options.teacher else None,
        device=device,
        progress=True,
    )
    sys.stdout.write(f"{made} pairs made in {options.out}\n")
    return 0
