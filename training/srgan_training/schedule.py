"""The learning rate over a run, by its steps or by its time budget."""

from __future__ import annotations

import dataclasses
import math

from srgan_training.config import OptimizerConfig, TrainConfig


def rate_factor(settings: OptimizerConfig, part: float, step: int) -> float:
    """Factor on the learning rate when ``part`` (0…1) of the run is done."""
    factor = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "cosine":
        cosine = (1 + math.cos(math.pi * min(part, 1.0))) / 2
        factor *= settings.final + (1 - settings.final) * cosine
    elif settings.schedule == "step":
        factor *= settings.factor ** sum(part >= milestone for milestone in settings.milestones)
    elif settings.schedule == "decay" and settings.decay > 0:
        factor *= min(1.0, max(0.0, 1 - part) / settings.decay)
    return factor


def branched(config: TrainConfig, step: int, run: str) -> TrainConfig:
    """A branch of a run whose end nobody knew: from here its rate falls to zero.

    A run of constant rate goes on without end; whenever its weights are wanted, a
    branch is cooled down for a tenth of the steps so far (warmup-stable-decay,
    arXiv 2404.06395), and the run itself goes on undisturbed.

    Parameters
    ----------
    config
        Of the run.
    step
        How far it is.
    run
        Its folder.
    """
    steps = step + math.ceil(step / 10)
    optimizer = dataclasses.replace(
        config.optimizer, schedule="decay", decay=(steps - step) / steps, warmup=0
    )
    return dataclasses.replace(
        config, branch=run, steps=steps, max_minutes=0.0, optimizer=optimizer
    )


def elapsed_part(config: TrainConfig, seconds: float) -> float:
    """The part of the time budget that is spent; 0 without one."""
    return seconds / (60 * config.max_minutes) if config.max_minutes else 0.0


def expected_steps(config: TrainConfig, step: int, spent: float) -> int:
    """Where the run will end at the pace so far, if the time budget runs out first."""
    return min(config.steps, max(step, round(step / spent))) if spent > 0 else config.steps
