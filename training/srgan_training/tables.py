"""An evaluation as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from srgan_training.judge import JUDGE
from srgan_training.scores import BICUBIC, GRIDS, HEADS, Evaluation, summarise, versions


def table(head: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int] = (0,)) -> str:
    """A Markdown table; columns but those of text are right-aligned."""
    rule = ["---" if column in text else "---:" for column in range(len(head))]
    lines = [head, rule, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def accuracy_table(evaluation: Evaluation) -> str:
    """PSNR / SSIM, a column for each set."""
    rows = []
    for version in versions(evaluation):
        means = [summarise(images, version) for images in evaluation.scores.values()]
        rows.append([version, *(f"{mean.psnr:.2f} / {mean.ssim:.4f}" for mean in means)])
    return table(["", *evaluation.scores], rows)


def distance_table(evaluation: Evaluation) -> str:
    """Mean distances by the feature network and by the judge; empty without either."""
    means = {
        version: [summarise(images, version) for images in evaluation.scores.values()]
        for version in versions(evaluation)
    }
    columns = {
        network: {
            version: [getattr(mean, f"{kind}_distance") for mean in means[version]]
            for version in means
        }
        for kind, network in (("feature", evaluation.features), ("judge", JUDGE))
        if network is not None
    }
    shown = {network: column for network, column in columns.items() if None not in column[BICUBIC]}
    if not shown:
        return ""
    head = ["", *(f"{name}, {network}" for network in shown for name in evaluation.scores)]
    rows = [
        [version, *(f"{value:.4f}" for column in shown.values() for value in column[version])]
        for version in means
    ]
    return table(head, rows)


def distances_explained(evaluation: Evaluation) -> str:
    """What the distances are, in a paragraph."""
    parts = []
    if evaluation.features is not None:
        parts.append(
            f"Squared distance of {evaluation.features} features relative to the original's, mean "
            f"of {', '.join(HEADS)}; models of stage 2 were trained with it."
        )
    parts.append(
        f"By {JUDGE}, which training never sees: the same, mean of the ends of its five stages."
    )
    return " ".join([*parts, "Lower is closer."]) + "\n"


def artefact_table(evaluation: Evaluation) -> str:
    """Energy at the periods of grids, what stands out of it, and colour shift."""
    rows = []
    for name, images in evaluation.scores.items():
        for version in versions(evaluation):
            mean = summarise(images, version)
            rows.append(
                [
                    f"{name}, {version}",
                    *(f"{mean.energy[g]:.3f}" if g in mean.energy else "" for g in GRIDS),
                    *(f"{mean.line[g]:+.3f}" if g in mean.line else "" for g in GRIDS),
                    f"{mean.colour_shift:.2f}",
                ]
            )
    head = ["", *(f"energy {g}" for g in GRIDS), *(f"line {g}" for g in GRIDS), "colour"]
    return table(head, rows)


def image_tables(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """For each set: its name, and PSNR / SSIM of every image."""
    for name, images in evaluation.scores.items():
        rows = [
            [
                image,
                *(f"{scores[v].psnr:.2f} / {scores[v].ssim:.4f}" for v in versions(evaluation)),
            ]
            for image, scores in images.items()
        ]
        yield name, table(["", *versions(evaluation)], rows)


def digests(evaluation: Evaluation) -> str:
    """The models and the SHA-256 of their weights, as a list."""
    return "".join(f"- {name}: `{digest}`\n" for name, digest in evaluation.models.items())


def to_markdown(evaluation: Evaluation) -> str:
    """The whole evaluation as a Markdown document."""
    quality = evaluation.jpeg_quality
    given = f", inputs saved as JPEG of quality {quality}" if quality is not None else ""
    parts = [
        f"# ×{evaluation.scale} evaluation{given}\n",
        "PSNR (dB) / SSIM on BT.601 luma of 8-bit images, 4 pixels cut from each border; "
        "SSIM with a Gaussian 11×11 window, σ 1.5, valid windows only. "
        "Bicubic is Pillow's.\n",
        accuracy_table(evaluation),
    ]
    if distances := distance_table(evaluation):
        parts += ["## Perceptual distance\n", distances_explained(evaluation), distances]
    parts += [
        "## Artefacts\n",
        "Energy: of the luma spectrum at a period of 2 or 4 pixels along x or y, relative to the "
        "originals'. Line: by how much more that period stands out of its neighbours than in the "
        "originals, in the same unit; a regular grid is a large positive number. Colour: largest "
        "difference of mean colour from the low-resolution image, in levels of 255.\n",
        artefact_table(evaluation),
        "## Images\n",
    ]
    for name, images in image_tables(evaluation):
        parts += [f"### {name}\n", images]
    parts += ["## Weights (SHA-256)\n", digests(evaluation)]
    return "\n".join(parts)
