"""Score models on images.

Every image goes through :class:`srgan_infer.SuperResolver`, as a user's
would; Pillow's bicubic enlargement is scored beside the models.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from srgan_infer import SuperResolver
from srgan_training import metrics, scores, sheets, tables
from srgan_training.config import of_checkpoint
from srgan_training.data import SUFFIXES, find_sources, split
from srgan_training.degrade import downscale
from srgan_training.errors import TrainingError
from srgan_training.features import FeatureNetwork, feature_distance, load_features
from srgan_training.judge import JUDGE, Judge, load_judge
from srgan_training.scores import BICUBIC, GRIDS, HEADS, ORIGINAL, Evaluation, Scores

GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")


@dataclass(frozen=True)
class Pair:
    """An image to enlarge and what the result should be."""

    collection: str
    name: str
    low: Image.Image
    high: Image.Image


Files = dict[str, list[tuple[Path, "Path | None"]]]  # set → (original, low-resolution file)


def find_pairs(folder: Path, scale: int) -> Files:
    """The sets in a folder.

    A set is the folder, or one in it, with ``HR/`` and, for originals cut to a
    multiple of the scale, ``LRx4/`` with images of the same names; or with
    originals and nothing else.

    Raises
    ------
    TrainingError
        If there is no image, or a low-resolution one is missing.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder; give one with images.")
    places = [folder]
    if not (folder / "HR").is_dir():
        places += sorted(path for path in folder.iterdir() if path.is_dir())
    found: Files = {}
    for place in places:
        originals = place / "HR" if (place / "HR").is_dir() else place
        lows = place / f"LRx{scale}"
        pairs: list[tuple[Path, Path | None]] = []
        for high in sorted(originals.iterdir()):
            if high.suffix.lower() not in SUFFIXES or not high.is_file():
                continue
            low = lows / high.name if lows.is_dir() else None
            if low is not None and not low.is_file():
                raise TrainingError(f"{low} is missing; remove {lows} to have it made from HR.")
            pairs.append((high, low))
        if pairs:
            found[place.resolve().name] = pairs
    if not found:
        raise TrainingError(f"{folder} holds no images, neither in HR/ nor directly.")
    return found


def held_back(run: Path, limit: int) -> Files:
    """The images that a training run kept for validation, at most ``limit``.

    Raises
    ------
    TrainingError
        If the run's images are no longer there.
    """
    config = of_checkpoint(json.loads((run / "config.json").read_text()))
    _, kept = split(find_sources(config.data), config.data.validation, config.seed)
    if not kept:
        raise TrainingError(f"{run} held no images back; give images with --data.")
    return {"held back": [(source.high, source.low) for source in kept[:limit]]}


def open_pair(
    collection: str, high_file: Path, low_file: Path | None, scale: int, jpeg_quality: int | None
) -> Pair:
    """Read an original and its low-resolution image, or make the latter by antialiased bicubic.

    Raises
    ------
    TrainingError
        If the sizes do not match.
    """
    high = _read(high_file)
    width, height = high.size
    if low_file is None:
        high = high.crop((0, 0, width // scale * scale, height // scale * scale))
        low = to_image(downscale(to_tensor(high), scale)).convert(high.mode)
    else:
        low = _read(low_file).convert(high.mode)
        if (low.width * scale, low.height * scale) != high.size:
            raise TrainingError(
                f"{low_file} is {low.width}×{low.height}, which is not a {scale}th of "
                f"{width}×{height}; remove its folder to have it made from HR."
            )
    if jpeg_quality is not None:
        stream = io.BytesIO()
        low.save(stream, "JPEG", quality=jpeg_quality)
        low = _read(stream)
    return Pair(collection, high_file.name, low, high)


def _read(file: Path | io.BytesIO) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("L" if image.mode in GREY_MODES else "RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """1×3×H×W float32 in [0, 1]; grey as three equal channels."""
    levels = torch.from_numpy(np.array(image.convert("RGB")))
    return levels.permute(2, 0, 1)[None].float() / 255


def to_image(image: Tensor) -> Image.Image:
    """The inverse of :func:`to_tensor` (always RGB)."""
    levels = metrics.to_levels(image)[0].permute(1, 2, 0).byte()
    return Image.fromarray(levels.cpu().numpy())


@torch.no_grad()
def score(
    result: Image.Image,
    pair: Pair,
    network: FeatureNetwork | None,
    judge: Judge | None,
    device: torch.device,
) -> Scores:
    """Compare an enlarged image with its original."""
    x, target, low = (to_tensor(i).to(device) for i in (result, pair.high, pair.low))
    distances = feature_distance(network, x, target) if network is not None else {}
    grids = {
        name: metrics.grid_energy(x, period, axis)
        for name, (period, axis) in GRIDS.items()
        if (x.shape[-1] if axis == "x" else x.shape[-2]) >= 64
    }
    return Scores(
        psnr=metrics.psnr(x, target).item(),
        ssim=metrics.ssim(x, target).item(),
        feature_distance={layer: float(value) for layer, value in distances.items()},
        judge_distance=judge.distance(x, target).item() if judge is not None else None,
        colour_shift=metrics.colour_shift(x, low).abs().max().item(),
        energy={name: float(grid.energy) for name, grid in grids.items()},
        line={name: float(grid.line) for name, grid in grids.items()},
    )


def common_scale(models: Mapping[str, SuperResolver]) -> int:
    """The models' magnification; an `TrainingError` if they differ."""
    scales = {model.scale for model in models.values()}
    if len(scales) != 1:
        raise TrainingError("only models of one scale can be compared; leave the others out.")
    return scales.pop()


def evaluate(
    models: Mapping[str, SuperResolver],
    files: Files,
    *,
    network: FeatureNetwork | None = None,
    judge: Judge | None = None,
    jpeg_quality: int | None = None,
    seen: Callable[[Pair, dict[str, Image.Image]], None] | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score models, and bicubic, on every image of a folder's sets.

    Parameters
    ----------
    models
        Name → model; all of one scale.
    files
        From :func:`find_pairs` or :func:`held_back`.
    network
        For the feature distance; without it there is none.
    judge
        For a second distance, by a network that training never sees.
    jpeg_quality
        Compress the low-resolution images first.
    seen
        Called with each pair and its enlargements, in the order bicubic, models.
    progress
        Show a progress bar on standard error.

    Raises
    ------
    TrainingError
        If there is nothing to evaluate.
    """
    scale = common_scale(models)
    device = next(iter(models.values())).device
    if network is not None:
        network = network.to(device)
    if judge is not None:
        judge = judge.to(device)
    found: dict[str, dict[str, dict[str, Scores]]] = {name: {} for name in files}
    listed = [(name, *pair) for name, pairs in files.items() for pair in pairs]
    for name, high_file, low_file in tqdm(listed, unit="image", disable=not progress):
        pair = open_pair(name, high_file, low_file, scale, jpeg_quality)
        results = {BICUBIC: pair.low.resize(pair.high.size, Image.Resampling.BICUBIC)}
        results |= {
            model: Image.fromarray(upscale(np.array(pair.low))) for model, upscale in models.items()
        }
        found[name][pair.name] = {
            version: score(result, pair, network, judge, device)
            for version, result in {**results, ORIGINAL: pair.high}.items()
        }
        if seen is not None:
            seen(pair, results)
    digests = {name: model.sha256 for name, model in models.items()}
    title = network.title if network is not None else None
    return Evaluation(scale, jpeg_quality, digests, found, title)


def load_models(
    names: Sequence[str], device: str = "auto", dtype: str = "auto"
) -> dict[str, SuperResolver]:
    """Load models under short names: a folder's last part, where that is unambiguous."""
    short = [Path(name).name for name in names]
    return {
        brief if short.count(brief) == 1 else name: SuperResolver.from_pretrained(
            name, device=device, dtype=dtype
        )
        for name, brief in zip(names, short, strict=True)
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="bundled name, folder or Hub id")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="FOLDER", help="folder of sets or images")
    source.add_argument(
        "--held-back", type=Path, metavar="RUN", help="images that a training run held back"
    )
    parser.add_argument(
        "--limit", type=int, default=50, help="of --held-back images (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="write evaluation.md and evaluation.json here")
    parser.add_argument("--sheets", action="store_true", help="also comparison sheets, needs --out")
    parser.add_argument("--images", action="store_true", help="also the results, needs --out")
    parser.add_argument(
        "--features", metavar="FILE", help='feature network: a safetensors file, or "vgg19"'
    )
    parser.add_argument("--judge", action="store_true", help=f"a second distance, by {JUDGE}")
    parser.add_argument("--jpeg", type=int, metavar="QUALITY", help="compress the inputs first")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")


def command(options: argparse.Namespace) -> int:
    """Evaluate; returns the exit status."""
    if (options.sheets or options.images) and options.out is None:
        raise TrainingError("--sheets and --images need --out.")

    def seen(pair: Pair, results: dict[str, Image.Image]) -> None:
        name = pair.name if pair.name.endswith(".png") else f"{pair.name}.png"
        if options.sheets:
            sheet = sheets.sheet(pair.low, results, pair.high)
            _save(sheet, options.out / "sheets" / pair.collection / name)
        if options.images:
            for version, image in results.items():
                _save(image, options.out / "images" / version / pair.collection / name)

    models = load_models(options.models, options.device, options.dtype)
    if options.data is not None:
        files = find_pairs(options.data, common_scale(models))
    else:
        files = held_back(options.held_back, options.limit)
    evaluation = evaluate(
        models,
        files,
        network=load_features(options.features, HEADS) if options.features else None,
        judge=load_judge(JUDGE) if options.judge else None,
        jpeg_quality=options.jpeg,
        seen=seen,
        progress=True,
    )
    text = tables.to_markdown(evaluation)
    sys.stdout.write(text)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "evaluation.md").write_text(text, encoding="utf-8")
        (options.out / "evaluation.json").write_text(scores.to_json(evaluation), encoding="utf-8")
    return 0


def _save(image: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
