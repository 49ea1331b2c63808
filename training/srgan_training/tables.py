"""An evaluation as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from srgan_training.scores import GRIDS, HEADS, Evaluation, summarise, versions


def table(head: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int] = (0,)) -> str:
    """A Markdown table; columns but those of text are right-aligned."""
    rule = ["---" if column in text else "---:" for column in range(len(head))]
    lines = [head, rule, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def accuracy_table(evaluation: Evaluation) -> str:
    """PSNR / SSIM, a column for each set."""
    rows = []
    for version in versions(evaluation):
        means = [summarise(pictures, version) for pictures in evaluation.scores.values()]
        rows.append([version, *(f"{mean.psnr:.2f} / {mean.ssim:.4f}" for mean in means)])
    return table(["", *evaluation.scores], rows)


def feature_table(evaluation: Evaluation) -> str:
    """Mean feature distance, a column for each set; empty without a feature network."""
    rows = []
    for version in versions(evaluation):
        means = [summarise(p, version).feature_distance for p in evaluation.scores.values()]
        if None in means:
            return ""
        rows.append([version, *(f"{mean:.4f}" for mean in means)])
    return table(["", *evaluation.scores], rows)


def artefact_table(evaluation: Evaluation) -> str:
    """Energy at the periods of grids, what stands out of it, and colour shift."""
    rows = []
    for name, pictures in evaluation.scores.items():
        for version in versions(evaluation):
            mean = summarise(pictures, version)
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


def picture_tables(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """For each set: its name, and PSNR / SSIM of every picture."""
    for name, pictures in evaluation.scores.items():
        rows = [
            [
                picture,
                *(f"{scores[v].psnr:.2f} / {scores[v].ssim:.4f}" for v in versions(evaluation)),
            ]
            for picture, scores in pictures.items()
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
        "PSNR (dB) / SSIM on BT.601 luma of 8-bit pictures, 4 pixels cut from each border; "
        "SSIM with a Gaussian 11×11 window, σ 1.5, valid windows only. "
        "Bicubic is Pillow's.\n",
        accuracy_table(evaluation),
    ]
    if features := feature_table(evaluation):
        parts += [
            "## Feature distance\n",
            "Squared distance of VGG-19 features relative to the original's, mean of "
            f"{', '.join(HEADS)}; lower is closer.\n",
            features,
        ]
    parts += [
        "## Artefacts\n",
        "Energy: of the luma spectrum at a period of 2 or 4 pixels along x or y, relative to the "
        "originals'. Line: by how much more that period stands out of its neighbours than in the "
        "originals, in the same unit; a regular grid is a large positive number. Colour: largest "
        "difference of mean colour from the low-resolution picture, in levels of 255.\n",
        artefact_table(evaluation),
        "## Pictures\n",
    ]
    for name, pictures in picture_tables(evaluation):
        parts += [f"### {name}\n", pictures]
    parts += ["## Weights (SHA-256)\n", digests(evaluation)]
    return "\n".join(parts)
