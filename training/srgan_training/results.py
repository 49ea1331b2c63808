"""Write docs/results.md.

Everything in the page that is a measurement of ours is measured by this
command; steps, minutes and hardware are read from the models' cards. The
numbers of others are as published.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from srgan_infer import SuperResolver, weights
from srgan_training import tables
from srgan_training.errors import TrainingError
from srgan_training.evaluate import evaluate, find_pairs, load_models
from srgan_training.features import FeatureNetwork, load_features
from srgan_training.judge import JUDGE, Judge, load_judge
from srgan_training.runs import card_facts
from srgan_training.scores import HEADS, Evaluation, summarise, to_json, versions

SETS = ("Set5", "Set14", "BSD100")
JPEG_SET = "Set14"
JPEG_QUALITIES = (50, 75)
# PSNR / SSIM as published, ×4, on luma; field by field as in the sources named.
PUBLISHED = (
    (
        "SRResNet, paper (arXiv 1609.04802; 350,000 images, 10⁶ steps)",
        ("32.05 / .9019", "28.49 / .8184", "27.58 / .7620"),
    ),
    (
        "SRResNet, sgrvinod tutorial (120,000 COCO images, 10⁶ steps)",
        ("31.93 / .902", "28.59 / .799", "27.59 / .756"),
    ),
    ("SRResNet, Lornatang", ("32.16 / .8938", "28.57 / .7815", "27.56 / .7367")),
    ("SRGAN, paper", ("29.40 / .8472", "26.02 / .7397", "25.16 / .6688")),
    ("SRGAN, sgrvinod tutorial", ("29.72 / .859", "26.51 / .729", "25.53 / .678")),
)
COCO10K = "SRGAN trained on 10,000 COCO images: 23.88 dB / .61 over the three sets as a whole."
COMMAND = "srgan-train results --data BENCHMARKS --features VGG --judge"


def accuracy(evaluation: Evaluation) -> str:
    """Ours above the published numbers."""
    collections = list(evaluation.scores)
    rows = []
    for version in versions(evaluation):
        means = [summarise(evaluation.scores[name], version) for name in collections]
        label = version if version == "bicubic" else f"**{version}, here**"
        rows.append([label, *(f"{mean.psnr:.2f} / {mean.ssim:.4f}" for mean in means)])
    for label, numbers in PUBLISHED:
        by_set = dict(zip(SETS, numbers, strict=True))
        rows.append([label, *(by_set.get(name, "") for name in collections)])
    return tables.table(["", *collections], rows)


def compressed(evaluations: Mapping[int, Evaluation]) -> str:
    """Feature distance with JPEG inputs, a column for each quality."""
    first = next(iter(evaluations.values()))
    rows = [
        [version]
        + [
            f"{summarise(e.scores[JPEG_SET], version).feature_distance:.4f}"
            for e in evaluations.values()
        ]
        for version in versions(first)
    ]
    return tables.table(["", *(f"JPEG quality {q}" for q in evaluations)], rows)


def training_facts(folders: Mapping[str, Path]) -> str:
    """Steps, minutes, seeds and hardware, from the cards."""
    rows = []
    for name, folder in folders.items():
        facts = card_facts(folder)
        for stage in facts.get("stages", []):
            rows.append(
                [
                    name,
                    stage["name"],
                    f"{stage['steps']:,}",
                    f"{stage['minutes']:.1f}",
                    *(str(stage[key]) for key in ("batch", "crop", "seed")),
                    f"{facts['images']:,}",
                    facts["hardware"],
                ]
            )
    head = ["model", "stage", "steps", "minutes", "batch", "crop", "seed", "images", "hardware"]
    return tables.table(head, rows, text=(0, 1, 8))


def page(
    evaluation: Evaluation, jpeg: Mapping[int, Evaluation], folders: Mapping[str, Path]
) -> str:
    """The whole of docs/results.md."""
    parts = [
        "# Results\n",
        f"Written by `{COMMAND}`; do not edit.\n",
        f"## Accuracy, ×{evaluation.scale}\n",
        "PSNR (dB) / SSIM on BT.601 luma of 8-bit images, 4 pixels cut from each border, inputs "
        "made by MATLAB's bicubic. SSIM differs between implementations: ours has a Gaussian "
        "11×11 window, σ 1.5, on luma, valid windows only; compare it with our bicubic. A GAN's "
        "PSNR is lower than its SRResNet's by design.\n",
        accuracy(evaluation),
        f"{COCO10K}\n",
    ]
    if distances := tables.distance_table(evaluation):
        parts += [
            "## Perceptual distance\n",
            tables.distances_explained(evaluation),
            distances,
        ]
    if jpeg:
        parts += [
            "## Compressed inputs\n",
            f"The same distance on {JPEG_SET} when the low-resolution images are saved as JPEG "
            "first.\n",
            compressed(jpeg),
        ]
    parts += [
        "## Artefacts\n",
        "Energy of the luma spectrum at periods of 2 and 4 pixels along x and y, relative to the "
        "originals'; how far that period stands out of its neighbours, in the same unit, beyond "
        "what it does in the originals (a regular grid is a large positive number); and the "
        "largest difference of an image's mean colour from its input's, in levels of 255.\n",
        tables.artefact_table(evaluation),
        "## How they were trained\n",
        training_facts(folders),
        "Recipes, data and its licences are in the models' cards.\n",
        "## Every image\n",
    ]
    for name, images in tables.image_tables(evaluation):
        parts += [f"<details><summary>{name}</summary>\n\n{images}\n</details>\n"]
    parts += ["## Weights (SHA-256)\n", tables.digests(evaluation)]
    return "\n".join(parts)


def measure(
    models: Mapping[str, SuperResolver],
    data: Path,
    network: FeatureNetwork | None,
    judge: Judge | None = None,
) -> tuple[Evaluation, dict[int, Evaluation]]:
    """Evaluate on the three sets, and on JPEG inputs where there is a feature network."""
    scale = next(iter(models.values())).scale
    found = find_pairs(data, scale)
    missing = [name for name in SETS if name not in found]
    if missing:
        raise TrainingError(f"{data} lacks {', '.join(missing)}; give the folder of all three.")
    files = {name: found[name] for name in SETS}
    evaluation = evaluate(models, files, network=network, judge=judge, progress=True)
    jpeg = {}
    if network is not None:
        one = {JPEG_SET: files[JPEG_SET]}
        for quality in JPEG_QUALITIES:
            jpeg[quality] = evaluate(
                models, one, network=network, jpeg_quality=quality, progress=True
            )
    return evaluation, jpeg


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--data", type=Path, required=True, help="folder of Set5, Set14, BSD100")
    parser.add_argument("--features", metavar="FILE", help='safetensors file, or "vgg19"')
    parser.add_argument("--judge", action="store_true", help=f"a second distance, by {JUDGE}")
    parser.add_argument("--models", nargs="+", help="default: the bundled ones")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--json", type=Path, help="the scores as well, for export --evaluation")


def command(options: argparse.Namespace) -> int:
    """Measure and write the page; returns the exit status."""
    network = load_features(options.features, HEADS) if options.features else None
    judge = load_judge(JUDGE) if options.judge else None
    names = options.models or sorted(weights.bundled(), key=lambda name: "resnet" not in name)
    models = load_models(names)
    folders = [weights.load(name).folder for name in names]
    evaluation, jpeg = measure(models, options.data, network, judge)
    cards = {name: f for name, f in zip(models, folders, strict=True) if f is not None}
    text = page(evaluation, jpeg, cards)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    if options.json is not None:
        options.json.write_text(to_json(evaluation), encoding="utf-8")
    sys.stdout.write(f"{options.out}\n")
    return 0
