"""The scores of an evaluation, their means over a set, and their JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean

from srgan_infer.version import __version__
from srgan_training import metrics

BICUBIC, ORIGINAL = "bicubic", "original"
HEADS = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
GRIDS = {
    f"{axis}{period}": (period, axis) for period in metrics.GRID_PERIODS for axis in ("x", "y")
}


@dataclass(frozen=True)
class Scores:
    """One enlarged image against its original.

    Attributes
    ----------
    psnr, ssim
        On luma, 4 pixels cut from each border; dB, and at most 1.
    feature_distance
        Layer → squared distance of features relative to the original's; empty
        without a feature network.
    judge_distance
        The same by the network that training never sees, mean of its stages; None without it.
    colour_shift
        Largest channel difference of the mean colours of result and input, levels.
    energy, line
        Grid (``"x2"``: period 2 along x, …) → spectral energy there and what of
        it stands out, squared levels (`metrics.GridEnergy`); empty for images
        of less than 64 pixels.
    """

    psnr: float
    ssim: float
    feature_distance: dict[str, float]
    judge_distance: float | None
    colour_shift: float
    energy: dict[str, float]
    line: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """All scores of one run.

    Attributes
    ----------
    scale
        Magnification.
    jpeg_quality
        Quality at which the low-resolution images were compressed, or None.
    models
        Name → SHA-256 of its weights.
    scores
        Set → image → ``"bicubic"``, each model, ``"original"`` → scores.
        The original's are there for its energy and line.
    features
        What the feature network is called; None without one.
    version
        Of srgan_infer.
    """

    scale: int
    jpeg_quality: int | None
    models: dict[str, str]
    scores: dict[str, dict[str, dict[str, Scores]]]
    features: str | None = None
    version: str = __version__


@dataclass(frozen=True)
class Summary:
    """Means over a set.

    Attributes
    ----------
    psnr, ssim
        dB, and at most 1.
    feature_distance, judge_distance
        Means; None without the network.
    colour_shift
        The largest of the set, levels.
    energy
        Grid → the set's energy over the originals' energy.
    line
        Grid → by how much more the period stands out than in the originals, as
        a part of the originals' energy there.
    """

    psnr: float
    ssim: float
    feature_distance: float | None
    judge_distance: float | None
    colour_shift: float
    energy: dict[str, float]
    line: dict[str, float]


def summarise(images: Mapping[str, Mapping[str, Scores]], version: str) -> Summary:
    """Means of one version over a set's images."""
    ours = [scores[version] for scores in images.values()]
    originals = [scores[ORIGINAL] for scores in images.values()]
    distances = [fmean(s.feature_distance.values()) for s in ours if s.feature_distance]
    judged = [s.judge_distance for s in ours if s.judge_distance is not None]
    energy, line = {}, {}
    for grid in GRIDS:
        both = [(s, o) for s, o in zip(ours, originals, strict=True) if grid in s.energy]
        whole = sum(o.energy[grid] for _, o in both)
        if whole > 0:
            energy[grid] = sum(s.energy[grid] for s, _ in both) / whole
            line[grid] = sum(s.line[grid] - o.line[grid] for s, o in both) / whole
    return Summary(
        psnr=fmean(s.psnr for s in ours),
        ssim=fmean(s.ssim for s in ours),
        feature_distance=fmean(distances) if distances else None,
        judge_distance=fmean(judged) if judged else None,
        colour_shift=max(s.colour_shift for s in ours),
        energy=energy,
        line=line,
    )


def versions(evaluation: Evaluation) -> list[str]:
    """What is compared with the original, in the order of the tables."""
    return [BICUBIC, *evaluation.models]


def to_json(evaluation: Evaluation) -> str:
    """All scores and the means of each set, as JSON."""
    means = {
        name: {version: asdict(summarise(images, version)) for version in versions(evaluation)}
        for name, images in evaluation.scores.items()
    }
    return json.dumps({**asdict(evaluation), "means": means}, indent=1) + "\n"
