"""The training loop of both stages.

    python -m srgan_training.train CONFIG.toml --data FOLDER --out FOLDER
    accelerate launch -m srgan_training.train CONFIG.toml ...      (several GPUs or machines)

Stage 1 has no adversarial weight and hence no discriminator; stage 2 has one.
A run that is started again in its folder goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn.utils.parametrize import cached
from tqdm import tqdm

from srgan_training.config import OptimizerConfig, TrainConfig, load_config
from srgan_training.data import DataError, open_data
from srgan_training.discriminator import (
    Discriminator,
    adversarial_loss,
    discriminator_loss,
    probability,
)
from srgan_training.features import FeatureNetwork, feature_distance, load_features
from srgan_training.generator import TrainingGenerator
from srgan_training.logbook import MetricsFile, sample_grid
from srgan_training.losses import distance, feature_loss, grid_loss, shifted
from srgan_training.metrics import psnr, ssim
from srgan_training.muon import Muon

log = logging.getLogger("srgan_training")
T = TypeVar("T")
CHECKPOINT = "checkpoint.pt"
OPTIMIZERS = ("generator_optimizer", "generator_muon")  # their names in it
GIVE_UP_AFTER = 10  # steps in a row with a non-finite gradient


class TrainingError(Exception):
    """The run cannot go on; the message says what to do."""


def train(config: TrainConfig, out: Path, progress: bool = True) -> bool:
    """Run one stage in a folder until its budget is spent.

    Parameters
    ----------
    config
        The stage.
    out
        Receives ``checkpoint.pt``, ``metrics.jsonl``, ``config.json``, sample
        pictures and TensorBoard logs; a checkpoint that is there is resumed.
    progress
        Show a progress bar on standard error.

    Returns
    -------
    bool
        Whether the budget is spent; False after Ctrl-C or SIGTERM, when the
        run is saved and can go on.

    Raises
    ------
    DataError
        If there are no pictures to train on.
    TrainingError
        After ten steps in a row with a non-finite gradient, or when the folder
        holds a checkpoint of another configuration.
    """
    accelerator = Accelerator(mixed_precision=precision(config))
    device, main_process = accelerator.device, accelerator.is_main_process
    torch.manual_seed(config.seed)
    torch.backends.cudnn.benchmark = True  # all steps have the same shapes
    out.mkdir(parents=True, exist_ok=True)

    # Data -------------------------------------------------------------------
    if config.batch % accelerator.num_processes:
        raise TrainingError(
            f"a batch of {config.batch} cannot be shared by {accelerator.num_processes} processes; "
            "choose a multiple."
        )
    training_set, low_held, high_held = open_data(
        config, accelerator.process_index, accelerator.num_processes, device
    )

    # Models -----------------------------------------------------------------
    generator = TrainingGenerator(
        config.generator, batch_norm=config.batch_norm, initial_gain=config.initial_gain
    )
    if config.start:
        start_from(generator, config.start)
    average = copy.deepcopy(generator).requires_grad_(False).eval()
    for model in (generator, average):
        channels_last(model, device)
    adversarial = config.loss.adversarial_weight > 0
    discriminator = (
        Discriminator(**dataclasses.asdict(config.discriminator)) if adversarial else None
    )
    features = None
    if config.loss.feature_weight > 0:
        features = load_features(
            config.loss.feature_network,
            list(config.loss.feature_layers),
            config.loss.before_activation,
        )
        channels_last(features, device)

    settings = config.optimizer
    generator_optimizers = optimizers(generator, settings)
    raw_generator: nn.Module = generator
    generator, *generator_optimizers = accelerator.prepare(
        torch.compile(generator) if config.compile else generator, *generator_optimizers
    )
    raw_discriminator: nn.Module | None = None
    if discriminator is not None:
        raw_discriminator = discriminator
        channels_last(discriminator, device)
        discriminator_optimizer = adam(
            discriminator.parameters(), settings.discriminator_learning_rate, settings
        )
        discriminator, discriminator_optimizer = accelerator.prepare(
            discriminator, discriminator_optimizer
        )

    # Resume -----------------------------------------------------------------
    step, seconds = 0, 0.0
    state: dict[str, Any] = {
        "generator": raw_generator,
        "average": average,
    }
    state |= zip(OPTIMIZERS, generator_optimizers, strict=False)
    if raw_discriminator is not None:
        state["discriminator"] = raw_discriminator
        state["discriminator_optimizer"] = discriminator_optimizer
    checkpoint = out / CHECKPOINT
    if checkpoint.is_file():
        step, seconds = resume(checkpoint, state, config, device)
        log.info("going on from step %d of %s", step, checkpoint)
    started = time.monotonic() - seconds
    written = MetricsFile(out, step) if main_process else None
    (out / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")

    # The loop ---------------------------------------------------------------
    interrupted = Interrupted()
    bad_in_a_row = torch.zeros((), device=device)
    worst_run, skipped = torch.zeros((), device=device), torch.zeros((), device=device)
    sums: dict[str, Tensor] = {}
    log_started, log_step = time.monotonic(), step
    bar = tqdm(
        total=config.steps,
        initial=step,
        desc=config.name,
        unit="step",
        disable=not (progress and main_process),
    )
    batches = training_set.batches(step)
    spent, stop = elapsed_part(config, seconds), False
    while step < config.steps and spent < 1 and not stop:
        part = max(step / config.steps, spent)
        factor = rate_factor(settings, part, step)
        low, high = next(batches)
        shift_rng = torch.Generator().manual_seed((config.seed * 1_000_003 + step) % 2**63)

        # Generator.
        for optimizer in generator_optimizers:
            set_rate(optimizer, settings.learning_rate * factor)
        with accelerator.autocast():
            fake = generator(low).float()
            losses = {"pixel": distance(fake, high, config.loss.pixel)}
            loss = config.loss.pixel_weight * losses["pixel"]
            if config.loss.grid_weight > 0:
                losses["grid"] = grid_loss(fake, high, config.generator.scale)
                loss = loss + config.loss.grid_weight * losses["grid"]
            fake_window, real_window = shifted(fake, high, config.loss.shift, shift_rng)
            if features is not None:
                losses["feature"] = feature_loss(
                    features,
                    config.loss.feature_layers,
                    fake_window,
                    real_window,
                    config.loss.feature,
                )
                loss = loss + config.loss.feature_weight * losses["feature"]
            if raw_discriminator is not None:
                raw_discriminator.requires_grad_(False)
                reference = None
                if config.loss.relativistic:
                    with torch.no_grad():
                        reference = raw_discriminator(real_window).float()
                fake_logits = raw_discriminator(fake_window).float()
                losses["adversarial"] = adversarial_loss(fake_logits, reference)
                loss = loss + config.loss.adversarial_weight * losses["adversarial"]
                raw_discriminator.requires_grad_(True)
        losses["loss"] = loss
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(generator.parameters(), settings.clip or float("inf"))
        bad = ~torch.isfinite(norm)
        for optimizer in generator_optimizers:
            step_unless(optimizer, bad)

        # Discriminator.
        if discriminator is not None:
            set_rate(discriminator_optimizer, settings.discriminator_learning_rate * factor)
            # Cached: one power iteration of a spectral norm a step.
            with accelerator.autocast(), cached():
                real_logits = discriminator(real_window).float()
                fake_logits = discriminator(fake_window.detach()).float()
                losses["discriminator"] = discriminator_loss(
                    real_logits, fake_logits, config.loss.relativistic
                )
            accelerator.backward(losses["discriminator"])
            discriminator_norm = accelerator.clip_grad_norm_(
                discriminator.parameters(), float("inf")
            )
            bad = bad | ~torch.isfinite(discriminator_norm)
            step_unless(discriminator_optimizer, ~torch.isfinite(discriminator_norm))
            losses["D(real)"], losses["D(fake)"] = (
                probability(real_logits),
                probability(fake_logits),
            )

        # A step is counted on the device; the numbers are fetched at the next log line.
        bad_in_a_row = (bad_in_a_row + 1) * bad
        worst_run, skipped = torch.maximum(worst_run, bad_in_a_row), skipped + bad
        step += 1
        average_weights(average, raw_generator, settings.ema, step)
        for name, value in losses.items():
            finite = torch.nan_to_num(value.detach(), 0.0, 0.0, 0.0)
            sums[name] = sums.get(name, torch.zeros((), device=device)) + finite
        bar.update()

        last = step == config.steps
        if step % min(config.log_every, GIVE_UP_AFTER) == 0 or last:
            # One clock and one Ctrl-C for all processes, or they would drift apart.
            seconds, stop = shared((time.monotonic() - started, interrupted.now))
            spent = elapsed_part(config, seconds)
            bar.total = expected_steps(config, step, spent)
            if worst_run >= GIVE_UP_AFTER:
                raise TrainingError(
                    f"the gradient was not finite in {GIVE_UP_AFTER} steps in a row "
                    f"at step {step}; "
                    "lower optimizer.learning_rate or clip harder."
                )
        ending = last or spent >= 1 or stop
        if step % config.log_every == 0 or (ending and step > log_step):
            steps_done, took = step - log_step, time.monotonic() - log_started
            totals = accelerator.reduce(torch.stack(list(sums.values())), "mean").tolist()
            if written is not None:
                rates = throughput(config, steps_done / took)
                means = {name: total / steps_done for name, total in zip(sums, totals, strict=True)}
                rate = settings.learning_rate * factor
                written.add(
                    step, {**means, "learning_rate": rate, "skipped": float(skipped)} | rates
                )
                bar.set_postfix({"loss": f"{means['loss']:.4f}", **written.shown()})
            sums, log_started, log_step = {}, time.monotonic(), step
        if step % config.validate_every == 0 or ending:
            if written is not None and len(low_held):
                written.add(step, validate(average, low_held, high_held, features, accelerator))
                written.picture(step, sample_grid(average, low_held, high_held))
            log_started = time.monotonic()
        if step % config.save_every == 0 or ending:
            if main_process:
                save(checkpoint, state, config, step, time.monotonic() - started)
            accelerator.wait_for_everyone()
    bar.close()
    interrupted.restore()
    if written is not None:
        written.close()
    accelerator.end_training()
    return not stop


def precision(config: TrainConfig) -> str:
    """Accelerate's name of the precision; auto is bf16 where a GPU has it."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


def start_from(generator: TrainingGenerator, source: str) -> None:
    """Load a checkpoint's averaged generator, or published weights (which have no batch norm)."""
    if Path(source, CHECKPOINT).is_file() or Path(source).suffix == ".pt":
        path = Path(source, CHECKPOINT) if Path(source).is_dir() else Path(source)
        tensors = torch.load(path, map_location="cpu", weights_only=True)["average"]
    else:
        from srgan_infer.weights import load

        tensors = load(source).state
    try:
        generator.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainingError(
            f"{source} does not fit this generator; give it the same generator and batch_norm "
            f"settings ({str(error).splitlines()[0]})."
        ) from error


def channels_last(model: nn.Module, device: torch.device) -> None:
    """Move a network, in the memory layout that convolutions are fastest in."""
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def optimizers(generator: TrainingGenerator, settings: OptimizerConfig) -> list[Any]:
    """The generator's: Adam, and Muon for its convolutions if the settings say so."""
    if settings.method == "adam":
        return [adam(generator.parameters(), settings.learning_rate, settings)]
    matrices = [
        module.weight
        for module in generator.modules()
        if isinstance(module, nn.Conv2d) and module is not generator.output
    ]
    taken = set(map(id, matrices))
    others = [weight for weight in generator.parameters() if id(weight) not in taken]
    return [
        adam(others, settings.learning_rate, settings),
        Muon(matrices, settings.learning_rate),
    ]


def adam(
    weights: Iterable[nn.Parameter], rate: float, settings: OptimizerConfig
) -> torch.optim.Adam:
    """Fused Adam: one kernel, and able to skip a step without a round trip to the host."""
    return torch.optim.Adam(weights, rate, betas=settings.betas, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def step_unless(optimizer: Any, bad: Tensor) -> None:
    """Step and clear the gradients; the weights stay as they are where ``bad`` is true.

    Fused optimizers take ``found_inf`` on the device (the protocol of
    torch.amp.GradScaler), so the host need not wait for the gradient.
    """
    fused = getattr(optimizer, "optimizer", optimizer)
    fused.found_inf = bad.float()
    optimizer.step()
    optimizer.zero_grad()


def rate_factor(settings: OptimizerConfig, part: float, step: int) -> float:
    """Factor on the learning rate when ``part`` (0…1) of the run is done."""
    factor = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "cosine":
        cosine = (1 + math.cos(math.pi * min(part, 1.0))) / 2
        factor *= settings.final + (1 - settings.final) * cosine
    elif settings.schedule == "step":
        factor *= settings.factor ** sum(part >= milestone for milestone in settings.milestones)
    return factor


def elapsed_part(config: TrainConfig, seconds: float) -> float:
    """The part of the time budget that is spent; 0 without one."""
    return seconds / (60 * config.max_minutes) if config.max_minutes else 0.0


def expected_steps(config: TrainConfig, step: int, spent: float) -> int:
    """Where the run will end at the pace so far, if the time budget runs out first."""
    return min(config.steps, max(step, round(step / spent))) if spent > 0 else config.steps


def shared(value: T) -> T:
    """The main process's value, on all processes."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


@torch.no_grad()
def average_weights(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average; it starts short, so that the first weights are soon forgotten."""
    decay = min(decay, step / (step + 10))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for ours, theirs in zip(average.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)


def throughput(config: TrainConfig, steps_a_second: float) -> dict[str, float]:
    """Steps, crops, and megapixels of high-resolution crop a second."""
    crops = steps_a_second * config.batch
    edge = config.data.crop * config.generator.scale
    return {
        "steps/s": steps_a_second,
        "crops/s": crops,
        "megapixels/s": crops * edge**2 / 1e6,
    }


@torch.no_grad()
def validate(
    model: nn.Module,
    low: Tensor,
    high: Tensor,
    features: FeatureNetwork | None,
    accelerator: Accelerator,
) -> dict[str, float]:
    """PSNR-Y, SSIM and, where there is a network for it, feature distance on held-back crops."""
    found: dict[str, list[Tensor]] = {
        name: [] for name in ("val_psnr", "val_ssim", "val_grid", "val_feature_distance")
    }
    scale = high.shape[-1] // low.shape[-1]
    for low_part, high_part in zip(torch.split(low, 8), torch.split(high, 8), strict=True):
        target = high_part.to(accelerator.device)
        fake = model(low_part.to(accelerator.device)).clamp(0, 1)
        found["val_psnr"].append(psnr(fake, target))
        found["val_ssim"].append(ssim(fake, target))
        found["val_grid"].append(grid_loss(fake, target, scale).expand(len(target)))
        if features is not None:
            distances = feature_distance(features, fake, target)
            found["val_feature_distance"].append(torch.stack(list(distances.values())).mean(0))
    return {name: float(torch.cat(values).mean()) for name, values in found.items() if values}


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


def save(path: Path, state: dict[str, Any], config: TrainConfig, step: int, seconds: float) -> None:
    """Write everything a run needs to go on, atomically.

    The batches are a function of seed and step, so the step is their state.
    """
    values = {name: part.state_dict() for name, part in state.items()}
    values |= {
        "step": step,
        "seconds": seconds,
        "config": dataclasses.asdict(config),
        "rng": torch.get_rng_state(),
    }
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(values, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def resume(
    path: Path, state: dict[str, Any], config: TrainConfig, device: torch.device
) -> tuple[int, float]:
    """Load a checkpoint into the run's parts; returns its step and seconds."""
    values = torch.load(path, map_location=device, weights_only=True)
    then, now = values["config"], dataclasses.asdict(config)
    changed = [key for key in ("generator", "discriminator", "batch_norm") if then[key] != now[key]]
    if then["optimizer"].get("method", "adam") != now["optimizer"]["method"]:
        changed.append("optimizer.method")
    if changed:
        raise TrainingError(
            f"{path} was trained with other settings of {', '.join(changed)}; "
            "choose another output folder."
        )
    for name, part in state.items():
        part.load_state_dict(values[name])
    torch.set_rng_state(values["rng"].cpu())
    return values["step"], values["seconds"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="srgan_training.train", description="Train one stage.")
    parser.add_argument("config", type=Path, help="a TOML file, see configs/")
    parser.add_argument("--data", nargs="+", default=[], help="folders of pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        config = load_config(options.config, options.overrides)
        if options.data:
            data = dataclasses.replace(config.data, folders=tuple(options.data))
            config = dataclasses.replace(config, data=data)
        finished = train(config, options.out, progress=not options.quiet)
    except (DataError, TrainingError, ValueError, FileNotFoundError) as error:
        log.error("error: %s", error)
        return 1
    return 0 if finished else 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
