"""Model cards: YAML front matter and Markdown, written from the runs that made a model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from srgan_training.config import TrainConfig
from srgan_training.judge import JUDGE
from srgan_training.runs import Folder, Stage
from srgan_training.tables import table

DATA_TITLE = "Training data"
LIMITS = """\
Trained for ×{scale} on images reduced by antialiased bicubic{degraded}. Blur, noise or \
compression of other kinds are enlarged with the rest. {invents}Not meant for evidence: faces, \
text and licence plates below a few pixels a stroke cannot be recovered. Patterns of single \
pixels, such as dithering, pixel art, screentones and letters 8 pixels high, change their shape."""


def results_table(means: Mapping[str, Mapping[str, Mapping[str, Any]]], network: str | None) -> str:
    """PSNR / SSIM and distances of bicubic and of the model, two rows for each set.

    Parameters
    ----------
    network
        What the feature network is called.
    """
    columns = {"feature_distance": network, "judge_distance": JUDGE}
    first = next(iter(means.values()))["bicubic"]
    shown = {key: title for key, title in columns.items() if first[key] is not None}
    rows = [
        [
            f"{collection}, {title}",
            f"{of[version]['psnr']:.2f} / {of[version]['ssim']:.4f}",
            *(f"{of[version][key]:.4f}" for key in shown),
        ]
        for collection, of in means.items()
        for version, title in (("bicubic", "bicubic"), ("model", "this model"))
    ]
    head = ["", "PSNR / SSIM", *(f"{title} distance" for title in shown.values())]
    return table(head, rows)


def make_card(
    name: str,
    stages: Sequence[Stage],
    *,
    parameters: int,
    machine: str,
    folders: Sequence[Folder],
    means: Mapping[str, Mapping[str, Mapping[str, Any]]] | None,
    features: str | None = None,
    earlier: Sequence[Mapping[str, Any]] = (),
    earlier_data: str = "",
    blend: str = "",
    share: float = 1.0,
    teacher: str = "",
    version: str = "",
) -> str:
    """The model card: YAML front matter and Markdown.

    Parameters
    ----------
    name
        Of the model.
    stages
        The runs that made it, first to last.
    parameters
        Number of weights.
    machine
        What it was trained on.
    folders
        The images it was trained on; empty if unknown.
    means
        From :func:`results`, or None if it was not evaluated.
    features
        What the feature network of the evaluation is called.
    earlier, earlier_data
        Stages and images of the published model that the first run started from, by its card.
    blend, share
        The weights are the last run's by this share, and another model's for the rest.
    teacher
        What is to be said of the network whose images were a target.
    version
        Of the weights; empty if they have none.
    """
    last = stages[-1].config
    scale = last.generator.scale
    adversarial = last.loss.adversarial_weight > 0
    trained = [
        *earlier,
        *(
            {
                "name": stage.config.name,
                "steps": stage.step,
                "minutes": round(stage.seconds / 60, 1),
                "batch": stage.config.batch,
                "crop": stage.config.data.crop,
                "seed": stage.config.seed,
            }
            for stage in stages
        ),
    ]
    minutes = sum(stage["minutes"] for stage in trained)
    evaluations = [
        EvalResult(
            task_type="image-to-image",
            task_name=f"×{scale} super-resolution",
            dataset_type=collection.lower().replace(" ", "-"),
            dataset_name=collection,
            metric_type=metric,
            metric_name=title,
            metric_value=round(of["model"][metric], digits),
        )
        for collection, of in (means or {}).items()
        for metric, title, digits in (("psnr", "PSNR on luma, dB", 2), ("ssim", "SSIM on luma", 4))
    ]
    front = ModelCardData(
        license="mit",
        library_name="srgan-infer",
        pipeline_tag="image-to-image",
        tags=["super-resolution", "srgan" if adversarial else "srresnet"],
        model_name=name,
        eval_results=evaluations or None,
        version=version or None,
        training={
            "stages": trained,
            "hardware": machine,
            "images": sum(folder.images for folder in folders),
        },
    )
    degraded = max(last.data.blur, last.data.noise, last.data.jpeg, last.data.second_order) > 0
    purpose = (
        "sharp, with texture that is invented where the input holds none"
        if adversarial
        else "faithful: the highest PSNR, no invented texture"
    )
    if degraded:
        purpose = f"for compressed, noisy or slightly blurred photographs; {purpose}"
    network, start = last.generator, Path(stages[0].config.start).name
    parts = [
        f"---\n{front.to_yaml()}\n---\n",
        f"# {name}\n",
        f"A ×{scale} super-resolution generator (SRResNet/SRGAN, arXiv 1609.04802): {purpose}. "
        f"{network.blocks} residual blocks of {network.channels} channels, {parameters:,} weights, "
        f"no batch norm left in it.{f' Version {version} of its weights.' if version else ''}\n",
        "```python\nfrom srgan_infer import SuperResolver\n\n"
        f'big = SuperResolver.from_pretrained("{name}")(image)\n```\n',
        "## Results\n",
        "PSNR (dB) / SSIM on BT.601 luma, 4 pixels cut from each border, 8-bit images. SSIM: "
        "Gaussian 11×11, σ 1.5. Distances: of the network's features, squared, relative to the "
        "original's, mean over five layers; lower is closer.\n\n" + results_table(means, features)
        if means
        else "Not evaluated.\n",
        f"## {DATA_TITLE}\n",
        table(
            ["folder", "images", "what", "licence"],
            [[f.name, f"{f.images:,}", f.what or "not described", f.licence] for f in folders],
            text=(0, 2, 3),
        )
        if folders
        else "Not recorded.\n",
        *(
            [f"What `{start}` was trained on, which this model started from:\n\n{earlier_data}\n"]
            if earlier_data
            else []
        ),
        "## Training\n",
        table(
            ["stage", "steps", "minutes", "batch", "crop (low-resolution)", "seed"],
            [
                [
                    stage["name"],
                    f"{stage['steps']:,}",
                    f"{stage['minutes']:.1f}",
                    str(stage["batch"]),
                    f"{stage['crop']}×{stage['crop']}",
                    str(stage["seed"]),
                ]
                for stage in trained
            ],
        ),
        f"Hardware: {machine}. Wall time: {minutes:.1f} minutes.\n",
    ]
    if start:
        parts.append(
            f"The runs started from the published `{start}`; what its card says of its own is in "
            "the table.\n"
            if earlier
            else f"The runs started from the published `{start}`; its card says how that one was "
            "trained.\n"
        )
    if teacher:
        parts.append(f"{teacher}\n")
    if blend:
        parts.append(
            f"The weights are {share:g} × the generator of the last stage + {1 - share:g} × "
            f"`{blend}` (network interpolation, arXiv 1809.00219).\n"
        )
    for stage in stages:
        recipe = to_toml(dataclasses.asdict(without_paths(stage.config)))
        parts.append(
            f"<details><summary>Recipe of {stage.config.name}</summary>\n\n"
            f"```toml\n{recipe}```\n\n</details>\n"
        )
    parts += [
        "## Limits\n",
        LIMITS.format(
            scale=scale,
            degraded=" and then blurred, noisy or JPEG-compressed" if degraded else "",
            invents="Texture is plausible, not true. " if adversarial else "",
        )
        + "\n",
    ]
    return "\n".join(parts)


def without_paths(config: TrainConfig) -> TrainConfig:
    """The settings with only the last part of every path: the rest is nobody's business."""

    def names(folders: Sequence[str]) -> tuple[str, ...]:
        return tuple(Path(folder).name for folder in folders)

    data = config.data
    network = Path(config.loss.feature_network).name
    return replace(
        config,
        start=Path(config.start).name,
        branch=Path(config.branch).name,
        data=replace(
            data, folders=names(data.folders), low=names(data.low), teacher=names(data.teacher)
        ),
        loss=replace(config.loss, feature_network=network),
    )


def to_toml(values: Mapping[str, Any], path: str = "") -> str:
    """Settings as TOML that training accepts: scalars, arrays, inline and nested tables."""
    lines, tables = [], []
    for key, value in values.items():
        if isinstance(value, Mapping) and path == "":
            tables.append((key, value))
        else:
            lines.append(f"{key} = {toml_value(value)}\n")
    text = "".join(lines)
    return text + "".join(f"\n[{key}]\n{to_toml(value, key)}" for key, value in tables)


def toml_value(value: Any) -> str:
    """One value as TOML; JSON's notation is TOML's but for tables."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
