"""Training runs as their folders tell them: settings, steps, time, images."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from torch import Tensor

from srgan_infer import weights
from srgan_training import checkpoint
from srgan_training.checkpoint import CHECKPOINT
from srgan_training.config import TrainConfig
from srgan_training.data import find_sources, sizes_of, smallest_edge, split
from srgan_training.errors import TrainingError
from srgan_training.pairs import PAIRS_RECORD

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Stage:
    """One training run, as its checkpoint tells it.

    Attributes
    ----------
    config
        Its settings.
    step, seconds
        How long it was trained.
    average
        The averaged generator in training form, tensors by name.
    """

    config: TrainConfig
    step: int
    seconds: float
    average: dict[str, Tensor]


def read_stage(run: Path) -> Stage:
    """Read a run's folder or checkpoint.

    Raises
    ------
    TrainingError
        If there is none, or it is not a checkpoint of this project.
    """
    values = checkpoint.load(run / CHECKPOINT if run.is_dir() else run)
    return Stage(values["config"], values["step"], values["seconds"], values["average"])


def read_stages(run: Path) -> list[Stage]:
    """A run and the runs that it started from, the first one first."""
    stages = [read_stage(run)]
    while (start := Path(stages[0].config.start)) != Path() and (
        (start / CHECKPOINT).is_file() or start.suffix == ".pt"
    ):
        stages.insert(0, read_stage(start))
    return stages


def card_facts(folder: Path) -> dict[str, Any]:
    """The ``training`` entry of a model card's front matter; empty if there is none."""
    card = folder / weights.CARD_FILE
    if not card.is_file():
        return {}
    data: Any = ModelCard(card.read_text(encoding="utf-8")).data
    facts: dict[str, Any] = data.to_dict().get("training", {})
    return facts


def card_section(folder: Path, title: str) -> str:
    """What a model card says below a heading; empty if there is none."""
    card = folder / weights.CARD_FILE
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    _, found, rest = text.partition(f"\n## {title}\n")
    return rest.partition("\n## ")[0].strip() if found else ""


@dataclass(frozen=True)
class Folder:
    """A folder of training images, as the card lists it."""

    name: str
    images: int
    what: str
    licence: str


def count_images(config: TrainConfig, licences: Mapping[str, Mapping[str, str]]) -> list[Folder]:
    """The images that a run was trained on, by the folder that they lie in.

    Empty where the images are no longer there.
    """
    try:
        sources = find_sources(config.data)
    except TrainingError:
        return []
    training, _ = split(sources, config.data.validation, config.seed)
    smallest = smallest_edge(config.data, config.data.crop, config.generator.scale)
    used, _, _ = sizes_of(training, smallest, config.generator.scale)
    # A pair that is there in several sizes is one image.
    images = {(source.high.parent.name, source.high.stem) for source in used}
    counts = Counter(folder for folder, _ in images)
    unknown = {"what": "", "licence": "not stated"}
    return [
        Folder(name, number, **{**unknown, **licences.get(name, {})})
        for name, number in sorted(counts.items())
    ]


def describe_teacher(config: TrainConfig, licences: Mapping[str, Mapping[str, str]]) -> str:
    """A sentence on the network whose images were a target; empty without one."""
    if not config.data.teacher:
        return ""
    record = Path(config.data.teacher[0]).parent / PAIRS_RECORD
    name = json.loads(record.read_text())["teacher"] if record.is_file() else "a teacher network"
    known = licences.get(name, {})
    what = f", {known['what']} ({known['licence']})," if known else ""
    return (
        f"{config.loss.teacher_share:g} of the pixel term has for its target what `{name}`{what} "
        "makes of the low-resolution images, the rest the originals."
    )


def read_licences(file: Path | None) -> dict[str, dict[str, str]]:
    """Folder name → ``what`` and ``licence``, from a TOML file."""
    if file is None:
        return {}
    with open(file, "rb") as stream:
        return tomllib.load(stream)
