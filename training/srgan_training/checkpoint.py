"""A run's checkpoint: everything that it needs to go on, in one file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from srgan_infer import weights
from srgan_infer.files import new_file
from srgan_training.config import TrainConfig, of_checkpoint
from srgan_training.errors import TrainingError
from srgan_training.generator import TrainingGenerator

CHECKPOINT = "checkpoint.pt"
# What cannot change while a run goes on.
FIXED = ("generator", "discriminator", "batch_norm")


def save(path: Path, parts: dict[str, Any], config: TrainConfig, step: int, seconds: float) -> None:
    """Write a checkpoint, atomically.

    The batches are a function of seed and step, so the step is their state.

    Parameters
    ----------
    parts
        Networks and optimizers by name.
    """
    values = {name: part.state_dict() for name, part in parts.items()}
    values |= {
        "step": step,
        "seconds": seconds,
        "config": dataclasses.asdict(config),
        "rng": torch.get_rng_state(),
    }
    with new_file(path) as new:
        torch.save(values, new.stream)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; its ``"config"`` is a `TrainConfig`, also that of an older program.

    Raises
    ------
    TrainingError
        If there is none, or it is not one of this project.
    """
    try:
        values: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        values["config"] = of_checkpoint(values["config"])
        if missing := {"step", "seconds", "average"} - values.keys():
            raise KeyError(*missing)
    except FileNotFoundError as error:
        raise TrainingError(f"{path} does not exist; give the folder of a training run.") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"{path} is no checkpoint of a training run ({reason}).") from error
    return values


def resume(
    path: Path, parts: dict[str, Any], config: TrainConfig, device: torch.device
) -> tuple[int, float]:
    """Load a checkpoint into a run's parts; returns its step and seconds.

    Raises
    ------
    TrainingError
        If it is of another network or optimizer.
    """
    values = load(path, device)
    then: TrainConfig = values["config"]
    changed = [name for name in FIXED if getattr(then, name) != getattr(config, name)]
    if then.optimizer.method != config.optimizer.method:
        changed.append("optimizer.method")
    if changed:
        raise TrainingError(
            f"{path} was trained with other settings of {', '.join(changed)}; "
            "choose another output folder."
        )
    for name, part in parts.items():
        part.load_state_dict(values[name])
    torch.set_rng_state(values["rng"].cpu())
    return values["step"], values["seconds"]


def start_from(generator: TrainingGenerator, source: str) -> None:
    """Load a checkpoint's averaged generator, or published weights (which have no batch norm).

    Raises
    ------
    TrainingError
        If they do not fit the generator.
    """
    path = Path(source)
    if (path / CHECKPOINT).is_file():
        path = path / CHECKPOINT
    tensors = load(path)["average"] if path.suffix == ".pt" else weights.load(source).state
    try:
        generator.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainingError(
            f"{source} does not fit this generator; give it the same generator and batch_norm "
            f"settings ({str(error).splitlines()[0]})."
        ) from error
