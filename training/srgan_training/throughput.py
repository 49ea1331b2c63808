"""Do the images come faster than the generator takes them?

Prints, for both data paths, batches a second without a model, and the training
steps a second of the generator alone on a batch that stays in memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]

from srgan_training.config import TrainConfig, load_config
from srgan_training.data import open_data
from srgan_training.generator import TrainingGenerator
from srgan_training.losses import pixel_loss
from srgan_training.optimizers import optimizers, step_unless
from srgan_training.train import channels_last, precision


def rate(work: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Calls a second, after three that are not counted."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        work()
    wait()
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        work()
        wait()
        calls += 1
    return calls / (time.perf_counter() - started)


def measure(config: TrainConfig, seconds: float) -> dict[str, float]:
    """Steps a second of the model, and batches a second of each data path.

    Parameters
    ----------
    seconds
        How long each of the three is run.
    """
    accelerator = Accelerator(mixed_precision=precision(config))
    device = accelerator.device
    found = {}
    for name, resident in (("resident", True), ("loader", False)):
        data = dataclasses.replace(config.data, resident=resident)
        training_set, _ = open_data(dataclasses.replace(config, data=data), 0, 1, device)
        batches = training_set.batches(0)
        batch = next(batches)
        found[f"{name} batches/s"] = rate(lambda b=batches: next(b), seconds, device)  # type: ignore[misc]

    model = TrainingGenerator(
        config.generator, batch_norm=config.batch_norm, initial_gain=config.initial_gain
    )
    channels_last(model, device)
    steppers = optimizers(model, config.optimizer)
    fine = torch.zeros((), device=device)

    def step() -> None:
        with accelerator.autocast():
            loss = pixel_loss(model(batch.low).float(), batch, config.loss)
        accelerator.backward(loss)
        for optimizer in steppers:
            step_unless(optimizer, fine)

    found["model steps/s"] = rate(step, seconds, device)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides")


def command(options: argparse.Namespace) -> int:
    """Measure; exit status 1 where a data path gives less than twice what the model takes."""
    config = load_config(options.config, options.overrides)
    data = dataclasses.replace(config.data, folders=tuple(options.data))
    found = measure(dataclasses.replace(config, data=data), options.seconds)
    model = found["model steps/s"]
    for name, value in found.items():
        sys.stdout.write(f"{name:20} {value:8.2f}   {value / model:6.2f} × the model\n")
    return int(min(found["resident batches/s"], found["loader batches/s"]) < 2 * model)
