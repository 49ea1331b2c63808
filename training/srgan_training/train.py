"""Train one stage, from nothing, from weights or from its last checkpoint.

Stage 1 has no adversarial weight and hence no discriminator; stage 2 has one.
A run that is started again in its folder goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import logging
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn.utils.parametrize import cached
from tqdm import tqdm

from srgan_infer.engine.devices import multiplies_bfloat16
from srgan_training import checkpoint
from srgan_training.checkpoint import CHECKPOINT
from srgan_training.config import TrainConfig, load_config, overridden
from srgan_training.curves import draw_curves
from srgan_training.data import SHIFT, Batch, open_data, step_rng
from srgan_training.discriminator import discriminator_loss, make_discriminator, probability
from srgan_training.errors import TrainingError
from srgan_training.features import FeatureNetwork, feature_distance, load_features
from srgan_training.generator import TrainingGenerator
from srgan_training.judge import Judge, load_judge
from srgan_training.logbook import Logbook, sample_grid
from srgan_training.losses import generator_losses, grid_loss, shifted
from srgan_training.metrics import psnr, ssim
from srgan_training.optimizers import adam, average_weights, optimizers, set_rate, step_unless
from srgan_training.schedule import branched, elapsed_part, expected_steps, rate_factor

log = logging.getLogger("srgan_training")
T = TypeVar("T")
OPTIMIZERS = ("generator_optimizer", "generator_muon")  # their names in a checkpoint
GIVE_UP_AFTER = 10  # steps in a row with a non-finite gradient


def train(config: TrainConfig, out: Path, progress: bool = True) -> bool:
    """Run one stage in a folder until its budget is spent.

    Parameters
    ----------
    config
        The stage.
    out
        Receives ``checkpoint.pt``, ``metrics.jsonl``, ``config.json``, sample
        images, curves and TensorBoard logs; a checkpoint that is there is resumed.
    progress
        Show a progress bar on standard error.

    Returns
    -------
    bool
        Whether the budget is spent; False after Ctrl-C or SIGTERM, when the
        run is saved and can go on.

    Raises
    ------
    TrainingError
        If there are no images to train on, the folder holds a checkpoint of another
        configuration, or ten steps in a row had a non-finite gradient.
    """
    accelerator = Accelerator(mixed_precision=precision(config))
    if config.batch % accelerator.num_processes:
        raise TrainingError(
            f"a batch of {config.batch} cannot be shared by {accelerator.num_processes} processes; "
            "choose a multiple."
        )
    torch.manual_seed(config.seed)
    torch.backends.cudnn.benchmark = True  # all steps have the same shapes
    out.mkdir(parents=True, exist_ok=True)
    training_set, held_back = open_data(
        config, accelerator.process_index, accelerator.num_processes, accelerator.device
    )
    nets = build(config, accelerator)
    step, seconds = go_on(config, out, nets, accelerator)
    started = time.monotonic() - seconds
    book = Logbook(out, step, config, accelerator)
    counter = BadSteps(accelerator.device)
    interrupted = Interrupted()
    bar = tqdm(
        total=config.steps,
        initial=step,
        desc=config.name,
        unit="step",
        disable=not (progress and accelerator.is_main_process),
    )
    batches = training_set.batches(step)
    spent, stop = elapsed_part(config, seconds), False
    while step < config.steps and spent < 1 and not stop:
        factor = rate_factor(config.optimizer, max(step / config.steps, spent), step)
        losses, bad = training_step(config, nets, accelerator, next(batches), step, factor)
        # A step is counted on the device; the numbers are fetched at the next log line.
        counter.add(bad)
        step += 1
        average_weights(nets.average, nets.raw_generator, config.optimizer.ema, step)
        book.count(losses)
        bar.update()

        last = step == config.steps
        if step % min(config.log_every, GIVE_UP_AFTER) == 0 or last:
            # One clock and one Ctrl-C for all processes, or they would drift apart.
            seconds, stop = broadcast((time.monotonic() - started, interrupted.now))
            spent = elapsed_part(config, seconds)
            bar.total = expected_steps(config, step, spent)
            counter.give_up(step)
        ending = last or spent >= 1 or stop
        if step % config.log_every == 0 or ending:
            rate = config.optimizer.learning_rate * factor
            book.write_means(step, {"learning_rate": rate, "skipped": float(counter.skipped)})
            bar.set_postfix(book.shown())
        if step % config.validate_every == 0 or ending:
            if accelerator.is_main_process and len(held_back.low):
                book.add(step, validate(nets, held_back, accelerator.device))
                book.image(step, sample_grid(nets.average, held_back))
                draw_curves(out)
            book.restart_clock()
        if step % config.save_every == 0 or ending:
            if accelerator.is_main_process:
                parts = nets.parts()
                checkpoint.save(out / CHECKPOINT, parts, config, step, time.monotonic() - started)
            accelerator.wait_for_everyone()
    bar.close()
    interrupted.restore()
    book.close()
    accelerator.end_training()
    return not stop


@dataclass
class Networks:
    """The networks of a run and their optimizers; those of stage 2 are None in stage 1.

    What Accelerate has prepared computes; the raw networks hold the weights.
    """

    generator: nn.Module
    raw_generator: TrainingGenerator
    generator_optimizers: list[Any]
    average: TrainingGenerator
    features: FeatureNetwork | None
    judge: Judge | None
    discriminator: nn.Module | None = None
    raw_discriminator: nn.Module | None = None
    discriminator_optimizer: Any = None

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, by name."""
        parts: dict[str, Any] = {"generator": self.raw_generator, "average": self.average}
        parts |= zip(OPTIMIZERS, self.generator_optimizers, strict=False)
        if self.raw_discriminator is not None:
            parts["discriminator"] = self.raw_discriminator
            parts["discriminator_optimizer"] = self.discriminator_optimizer
        return parts


def build(config: TrainConfig, accelerator: Accelerator) -> Networks:
    """Make the networks and optimizers of a run on its device."""
    device, settings = accelerator.device, config.optimizer
    raw = TrainingGenerator(
        config.generator, batch_norm=config.batch_norm, initial_gain=config.initial_gain
    )
    if config.start:
        checkpoint.start_from(raw, config.start)
    average = copy.deepcopy(raw).requires_grad_(False).eval()
    for model in (raw, average):
        channels_last(model, device)
    generator, *generator_optimizers = accelerator.prepare(
        torch.compile(raw) if config.compile else raw, *optimizers(raw, settings)
    )
    features = None
    if config.loss.feature_weight > 0:
        features = load_features(
            config.loss.feature_network,
            list(config.loss.feature_layers),
            config.loss.before_activation,
        )
        channels_last(features, device)
    judge = load_judge(config.judge).to(device) if config.judge else None
    nets = Networks(generator, raw, generator_optimizers, average, features, judge)
    if config.loss.adversarial_weight > 0:
        discriminator = make_discriminator(config.discriminator)
        channels_last(discriminator, device)
        optimizer = adam(discriminator.parameters(), settings.discriminator_learning_rate, settings)
        nets.raw_discriminator = discriminator
        nets.discriminator, nets.discriminator_optimizer = accelerator.prepare(
            discriminator, optimizer
        )
    return nets


def go_on(
    config: TrainConfig, out: Path, nets: Networks, accelerator: Accelerator
) -> tuple[int, float]:
    """Load the run's checkpoint, or that of the run it branches off; its step and seconds."""
    if accelerator.is_main_process:
        settings = json.dumps(dataclasses.asdict(config), indent=2)
        (out / "config.json").write_text(settings + "\n")
    file = out / CHECKPOINT
    if not file.is_file():
        if not config.branch:
            return 0, 0.0
        file = Path(config.branch, CHECKPOINT)
    step, seconds = checkpoint.resume(file, nets.parts(), config, accelerator.device)
    log.info("going on from step %d of %s", step, file)
    return step, seconds


def training_step(
    config: TrainConfig,
    nets: Networks,
    accelerator: Accelerator,
    batch: Batch,
    step: int,
    factor: float,
) -> tuple[dict[str, Tensor], Tensor]:
    """One step of the generator, and of the discriminator if there is one.

    Returns
    -------
    losses, bad
        The terms by name, and whether a gradient was not finite.
    """
    rng = step_rng(config.seed, step, SHIFT)
    alone = nets.discriminator is not None and step < config.loss.discriminator_first
    with accelerator.autocast(), torch.set_grad_enabled(not alone):
        fake = nets.generator(batch.low).float()
        windows = shifted(fake, batch.high, config.loss.shift, rng)
        losses = generator_losses(
            config.loss,
            config.generator.scale,
            fake,
            batch,
            windows,
            nets.features,
            nets.raw_discriminator,
            nets.average,
        )
    bad = torch.zeros((), dtype=torch.bool, device=fake.device)
    if not alone:
        accelerator.backward(losses["loss"])
        clip = config.optimizer.clip or float("inf")
        bad = ~torch.isfinite(accelerator.clip_grad_norm_(nets.generator.parameters(), clip))
        for optimizer in nets.generator_optimizers:
            set_rate(optimizer, config.optimizer.learning_rate * factor)
            step_unless(optimizer, bad)
    if nets.discriminator is not None:
        set_rate(
            nets.discriminator_optimizer, config.optimizer.discriminator_learning_rate * factor
        )
        judged, spoilt = discriminator_step(
            nets.discriminator,
            nets.discriminator_optimizer,
            accelerator,
            windows,
            config.loss.relativistic,
        )
        losses, bad = losses | judged, bad | spoilt
    return losses, bad


def discriminator_step(
    discriminator: nn.Module,
    optimizer: Any,
    accelerator: Accelerator,
    windows: tuple[Tensor, Tensor],
    relativistic: bool,
) -> tuple[dict[str, Tensor], Tensor]:
    """One step of the discriminator on generated and real windows; as of `training_step`."""
    fake, real = windows
    # Cached: one power iteration of a spectral norm a step.
    with accelerator.autocast(), cached():
        real_logits = discriminator(real).float()
        fake_logits = discriminator(fake.detach()).float()
        loss = discriminator_loss(real_logits, fake_logits, relativistic)
    accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(discriminator.parameters(), float("inf"))
    bad = ~torch.isfinite(norm)
    step_unless(optimizer, bad)
    losses = {
        "discriminator": loss,
        "D(real)": probability(real_logits),
        "D(fake)": probability(fake_logits),
    }
    return losses, bad


class BadSteps:
    """Counts steps with a non-finite gradient, on the device."""

    def __init__(self, device: torch.device) -> None:
        self.in_a_row, self.worst, self.skipped = torch.zeros(3, device=device).unbind()

    def add(self, bad: Tensor) -> None:
        """Count one step."""
        self.in_a_row = (self.in_a_row + 1) * bad
        self.worst, self.skipped = torch.maximum(self.worst, self.in_a_row), self.skipped + bad

    def give_up(self, step: int) -> None:
        """Raise a `TrainingError` after too many in a row."""
        if self.worst >= GIVE_UP_AFTER:
            raise TrainingError(
                f"the gradient was not finite in {GIVE_UP_AFTER} steps in a row at step {step}; "
                "lower optimizer.learning_rate or clip harder."
            )


def precision(config: TrainConfig) -> str:
    """Accelerate's name of the precision; auto is bf16 where a GPU or the CPU multiplies it."""
    if config.precision != "auto":
        return config.precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    return "bf16" if multiplies_bfloat16() else "no"


def channels_last(model: nn.Module, device: torch.device) -> None:
    """Move a network, in the memory layout that convolutions are fastest in."""
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def broadcast(value: T) -> T:
    """The main process's value, on all processes."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


@torch.no_grad()
def validate(nets: Networks, held_back: Batch, device: torch.device) -> dict[str, float]:
    """Means over held-back crops: PSNR-Y, SSIM and, where there are networks for them, distances.

    ``val_feature_distance`` is by the network that is trained with, ``val_judge_distance``
    by one that training never sees.
    """
    found: dict[str, list[Tensor]] = {}
    scale = held_back.high.shape[-1] // held_back.low.shape[-1]
    for low, high in zip(
        torch.split(held_back.low, 8), torch.split(held_back.high, 8), strict=True
    ):
        target = high.to(device)
        fake = nets.average(low.to(device)).clamp(0, 1)
        values = {
            "val_psnr": psnr(fake, target),
            "val_ssim": ssim(fake, target),
            "val_grid": grid_loss(fake, target, scale).expand(len(target)),
        }
        if nets.features is not None:
            distances = feature_distance(nets.features, fake, target)
            values["val_feature_distance"] = torch.stack(list(distances.values())).mean(0)
        if nets.judge is not None:
            values["val_judge_distance"] = nets.judge.distance(fake, target)
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: float(torch.cat(parts).mean()) for name, parts in found.items()}


class Interrupted:
    """Ctrl-C and SIGTERM set ``now``; the loop then saves and ends."""

    def __init__(self) -> None:
        self.now = False
        self.before = {
            number: signal.signal(number, self._set) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def _set(self, number: int, frame: Any) -> None:
        self.now = True

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("config", type=Path, nargs="?", help="a TOML file, see configs/")
    parser.add_argument(
        "--branch",
        type=Path,
        metavar="RUN",
        help="instead of a config: cool that run down for a tenth of its steps so far",
    )
    parser.add_argument("--data", nargs="+", default=[], help="folders of images")
    parser.add_argument("--low", nargs="+", default=[], help="of pairs: their low resolution")
    parser.add_argument("--teacher", nargs="+", default=[], help="of pairs: a teacher's images")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def command(options: argparse.Namespace) -> int:
    """Train; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if (options.config is None) == (options.branch is None):
        raise TrainingError("give a config file, or --branch RUN.")
    folders = {
        f"data.{key}={json.dumps(value)}"
        for key, value in (
            ("folders", options.data),
            ("low", options.low),
            ("teacher", options.teacher),
        )
        if value
    }
    overrides = [*options.overrides, *folders]
    if options.branch is None:
        config = load_config(options.config, overrides)
    else:
        config = branch_config(options.branch, options.out, overrides)
    finished = train(config, options.out, progress=not options.quiet)
    return 0 if finished else 128 + signal.SIGINT


def branch_config(run: Path, out: Path, overrides: Sequence[str]) -> TrainConfig:
    """The settings of a branch: those it began with, if it has, else from the run as it is."""
    begun = (out / CHECKPOINT).is_file()
    values = checkpoint.load((out if begun else run) / CHECKPOINT)
    config: TrainConfig = values["config"]
    if not begun:
        config = branched(config, values["step"], str(run))
    return overridden(config, overrides)
