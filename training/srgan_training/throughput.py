"""Do the pictures come faster than the generator takes them?

    python -m srgan_training.throughput CONFIG.toml --data FOLDER

prints, for both data paths, batches a second without a model, and the
training steps a second of the generator alone on a batch that stays in memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]

from srgan_training.config import TrainConfig, load_config
from srgan_training.data import open_data
from srgan_training.generator import TrainingGenerator
from srgan_training.losses import distance
from srgan_training.train import channels_last, optimizers, precision, step_unless


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
        training_set, _, _ = open_data(dataclasses.replace(config, data=data), 0, 1, device)
        batches = training_set.batches(0)
        low, high = next(batches)
        found[f"{name} batches/s"] = rate(lambda b=batches: next(b), seconds, device)  # type: ignore[misc]

    model = TrainingGenerator(
        config.generator, batch_norm=config.batch_norm, initial_gain=config.initial_gain
    )
    channels_last(model, device)
    steppers = optimizers(model, config.optimizer)
    fine = torch.zeros((), device=device)

    def step() -> None:
        with accelerator.autocast():
            loss = distance(model(low).float(), high, config.loss.pixel)
        accelerator.backward(loss)
        for optimizer in steppers:
            step_unless(optimizer, fine)

    found["model steps/s"] = rate(step, seconds, device)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit status 1 where a data path gives less than twice what the model takes."""
    parser = argparse.ArgumentParser(prog="srgan_training.throughput", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides")
    options = parser.parse_args(arguments)
    config = load_config(options.config, options.overrides)
    data = dataclasses.replace(config.data, folders=tuple(options.data))
    found = measure(dataclasses.replace(config, data=data), options.seconds)
    model = found["model steps/s"]
    for name, value in found.items():
        sys.stdout.write(f"{name:20} {value:8.2f}   {value / model:6.2f} × the model\n")
    return int(min(found["resident batches/s"], found["loader batches/s"]) < 2 * model)


if __name__ == "__main__":
    sys.exit(main())
