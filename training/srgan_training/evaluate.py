"""Score models on pictures: ``python -m srgan_training.evaluate MODEL… --data FOLDER``.

Every picture goes through :class:`srgan_infer.SuperResolver`, as a user's
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
from srgan_infer.errors import UpscaleError
from srgan_training import metrics, scores, sheets, tables
from srgan_training.config import TrainConfig, from_dict
from srgan_training.data import SUFFIXES, DataError, find_pictures, split
from srgan_training.degrade import downscale
from srgan_training.features import FeatureNetwork, feature_distance, load_features
from srgan_training.scores import BICUBIC, GRIDS, HEADS, ORIGINAL, Evaluation, Scores

GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")


class EvaluationError(Exception):
    """There is nothing to evaluate; the message says what to do."""


@dataclass(frozen=True)
class Pair:
    """A picture to enlarge and what the result should be."""

    collection: str
    name: str
    low: Image.Image
    high: Image.Image


Files = dict[str, list[tuple[Path, "Path | None"]]]  # set → (original, low-resolution file)


def find_pairs(folder: Path, scale: int) -> Files:
    """The sets in a folder.

    A set is the folder, or one in it, with ``HR/`` and, for originals cut to a
    multiple of the scale, ``LRx4/`` with pictures of the same names; or with
    originals and nothing else.

    Raises
    ------
    EvaluationError
        If there is no picture, or a low-resolution one is missing.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: no such folder; give one with pictures.")
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
                raise EvaluationError(f"{low} is missing; remove {lows} to have it made from HR.")
            pairs.append((high, low))
        if pairs:
            found[place.resolve().name] = pairs
    if not found:
        raise EvaluationError(f"{folder} holds no pictures, neither in HR/ nor directly.")
    return found


def held_back(run: Path, limit: int) -> Files:
    """The pictures that a training run kept for validation, at most ``limit``.

    Raises
    ------
    EvaluationError
        If the run's pictures are no longer there.
    """
    config = from_dict(TrainConfig, json.loads((run / "config.json").read_text()))
    paths = find_pictures(config.data.folders, config.data.limit)
    _, kept = split(paths, config.data.validation, config.seed)
    if not kept:
        raise EvaluationError(f"{run} held no pictures back; give pictures with --data.")
    return {"held back": [(path, None) for path in kept[:limit]]}


def open_pair(
    collection: str, high_file: Path, low_file: Path | None, scale: int, jpeg_quality: int | None
) -> Pair:
    """Read an original and its low-resolution picture, or make the latter by antialiased bicubic.

    Raises
    ------
    EvaluationError
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
            raise EvaluationError(
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


def to_image(picture: Tensor) -> Image.Image:
    """The inverse of :func:`to_tensor` (always RGB)."""
    levels = metrics.to_levels(picture)[0].permute(1, 2, 0).byte()
    return Image.fromarray(levels.cpu().numpy())


@torch.no_grad()
def score(
    result: Image.Image, pair: Pair, network: FeatureNetwork | None, device: torch.device
) -> Scores:
    """Compare an enlarged picture with its original."""
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
        colour_shift=metrics.colour_shift(x, low).abs().max().item(),
        energy={name: float(grid.energy) for name, grid in grids.items()},
        line={name: float(grid.line) for name, grid in grids.items()},
    )


def common_scale(models: Mapping[str, SuperResolver]) -> int:
    """The models' magnification; an `EvaluationError` if they differ."""
    scales = {model.scale for model in models.values()}
    if len(scales) != 1:
        raise EvaluationError("only models of one scale can be compared; leave the others out.")
    return scales.pop()


def evaluate(
    models: Mapping[str, SuperResolver],
    files: Files,
    *,
    network: FeatureNetwork | None = None,
    jpeg_quality: int | None = None,
    seen: Callable[[Pair, dict[str, Image.Image]], None] | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score models, and bicubic, on every picture of a folder's sets.

    Parameters
    ----------
    models
        Name → model; all of one scale.
    files
        From :func:`find_pairs` or :func:`held_back`.
    network
        For the feature distance; without it there is none.
    jpeg_quality
        Compress the low-resolution pictures first.
    seen
        Called with each pair and its enlargements, in the order bicubic, models.
    progress
        Show a progress bar on standard error.

    Raises
    ------
    EvaluationError
        If there is nothing to evaluate.
    """
    scale = common_scale(models)
    device = next(iter(models.values())).device
    if network is not None:
        network = network.to(device)
    found: dict[str, dict[str, dict[str, Scores]]] = {name: {} for name in files}
    listed = [(name, *pair) for name, pairs in files.items() for pair in pairs]
    for name, high_file, low_file in tqdm(listed, unit="picture", disable=not progress):
        pair = open_pair(name, high_file, low_file, scale, jpeg_quality)
        results = {BICUBIC: pair.low.resize(pair.high.size, Image.Resampling.BICUBIC)}
        results |= {
            model: Image.fromarray(upscale(np.array(pair.low))) for model, upscale in models.items()
        }
        found[name][pair.name] = {
            version: score(result, pair, network, device)
            for version, result in {**results, ORIGINAL: pair.high}.items()
        }
        if seen is not None:
            seen(pair, results)
    digests = {name: model.sha256 for name, model in models.items()}
    return Evaluation(scale, jpeg_quality, digests, found)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m srgan_training.evaluate", description=__doc__.splitlines()[0]
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="bundled name, folder or Hub id")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="FOLDER", help="folder of sets or pictures")
    source.add_argument(
        "--held-back", type=Path, metavar="RUN", help="pictures that a training run held back"
    )
    parser.add_argument(
        "--limit", type=int, default=50, help="of --held-back pictures (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="write evaluation.md and evaluation.json here")
    parser.add_argument("--sheets", action="store_true", help="also comparison sheets, needs --out")
    parser.add_argument("--pictures", action="store_true", help="also the results, needs --out")
    parser.add_argument(
        "--features", metavar="FILE", help='feature network: a safetensors file, or "vgg19"'
    )
    parser.add_argument("--jpeg", type=int, metavar="QUALITY", help="compress the inputs first")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args(arguments)
    if (options.sheets or options.pictures) and options.out is None:
        parser.error("--sheets and --pictures need --out")

    def seen(pair: Pair, results: dict[str, Image.Image]) -> None:
        name = pair.name if pair.name.endswith(".png") else f"{pair.name}.png"
        if options.sheets:
            sheet = sheets.sheet(pair.low, results, pair.high)
            _save(sheet, options.out / "sheets" / pair.collection / name)
        if options.pictures:
            for version, picture in results.items():
                _save(picture, options.out / "pictures" / version / pair.collection / name)

    try:
        network = load_features(options.features, HEADS) if options.features else None
        models = load_models(options.models, options.device, options.dtype)
        if options.data is not None:
            files = find_pairs(options.data, common_scale(models))
        else:
            files = held_back(options.held_back, options.limit)
        evaluation = evaluate(
            models,
            files,
            network=network,
            jpeg_quality=options.jpeg,
            seen=seen,
            progress=True,
        )
    except (EvaluationError, DataError, UpscaleError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    text = tables.to_markdown(evaluation)
    sys.stdout.write(text)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "evaluation.md").write_text(text, encoding="utf-8")
        (options.out / "evaluation.json").write_text(scores.to_json(evaluation), encoding="utf-8")
    return 0


def _save(picture: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)


if __name__ == "__main__":
    sys.exit(main())
