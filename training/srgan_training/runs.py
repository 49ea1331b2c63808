"""Training runs as their folders tell them: settings, steps, time, pictures."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from srgan_training.config import TrainConfig, from_dict
from srgan_training.data import DataError, find_pictures, sizes_of, split
from srgan_training.train import CHECKPOINT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class RunError(Exception):
    """A run cannot be read; the message says what to do."""


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
    RunError
        If there is none, or it is not a checkpoint of this project.
    """
    path = run / CHECKPOINT if run.is_dir() else run
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        config = from_dict(TrainConfig, values["config"])
        return Stage(config, values["step"], values["seconds"], values["average"])
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist; give the folder of a training run.") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{path} is no checkpoint of a training run ({reason}).") from error


def read_stages(run: Path) -> list[Stage]:
    """A run and the runs that it started from, the first one first."""
    stages = [read_stage(run)]
    while (start := Path(stages[0].config.start)) != Path() and (
        (start / CHECKPOINT).is_file() or start.suffix == ".pt"
    ):
        stages.insert(0, read_stage(start))
    return stages


@dataclass(frozen=True)
class Folder:
    """A folder of training pictures, as the card lists it."""

    name: str
    pictures: int
    what: str
    licence: str


def count_pictures(config: TrainConfig, licences: Mapping[str, Mapping[str, str]]) -> list[Folder]:
    """The pictures that a run was trained on, by the folder that they lie in.

    Empty where the pictures are no longer there.
    """
    try:
        paths = find_pictures(config.data.folders, config.data.limit)
    except DataError:
        return []
    training, _ = split(paths, config.data.validation, config.seed)
    used, _, _ = sizes_of(training, config.data.crop * config.generator.scale)
    counts = Counter(path.parent.name for path in used)
    unknown = {"what": "", "licence": "not stated"}
    return [
        Folder(name, number, **{**unknown, **licences.get(name, {})})
        for name, number in sorted(counts.items())
    ]


def read_licences(file: Path | None) -> dict[str, dict[str, str]]:
    """Folder name → ``what`` and ``licence``, from a TOML file."""
    if file is None:
        return {}
    with open(file, "rb") as stream:
        return tomllib.load(stream)
