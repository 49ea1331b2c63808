"""The optimizers of both networks, and steps that leave out a gradient that is not finite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from srgan_training.config import OptimizerConfig
from srgan_training.generator import TrainingGenerator
from srgan_training.muon import Muon


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


@torch.no_grad()
def average_weights(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average; it starts short, so that the first weights are soon forgotten."""
    decay = min(decay, step / (step + 10))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for ours, theirs in zip(average.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)
