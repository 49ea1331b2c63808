"""Muon: momentum whose update is made orthogonal, for the weights of convolutions.

Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024);
the scale that lets it share Adam's learning rate is from arXiv 2502.16982.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# Quintic whose repeated use takes every singular value in (0, 1] to about 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# Root mean square of Adam's usual update.
ADAM_RMS = 0.2


class Muon(Optimizer):
    """Muon over convolution weights, each taken as an outputs × (inputs · k · k) matrix.

    Parameters
    ----------
    params
        Weights of two or more dimensions.
    lr
        Learning rate, on Adam's scale.
    momentum
        Decay of the averaged gradient; the update looks one step ahead (Nesterov).

    Attributes
    ----------
    found_inf
        As of PyTorch's fused optimizers: where it is not 0, a step changes nothing.
    """

    found_inf: Tensor | None = None

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights from their gradients; closures are not supported."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    alike.setdefault(weight.shape, []).append(weight)
            for weights in alike.values():
                self._update(weights, group["lr"], group["momentum"])

    def _update(self, weights: list[Tensor], rate: float, decay: float) -> None:
        """One batched update of weights of one shape."""
        gradient = torch.stack([matrix(weight.grad) for weight in weights])
        momentum = torch.stack([self._momentum(weight) for weight in weights])
        good = torch.ones((), device=gradient.device)
        if self.found_inf is not None:
            good = (self.found_inf == 0).to(gradient.dtype)
            # A bad gradient leaves the average, and hence the direction, as it was.
            gradient = torch.where(good > 0, gradient, momentum)
        momentum = momentum.lerp(gradient, 1 - decay)
        direction = orthogonal(gradient.lerp(momentum, decay))
        scale = rate * ADAM_RMS * max(direction.shape[1:]) ** 0.5
        for weight, average, step in zip(weights, momentum, direction * good, strict=True):
            self.state[weight]["momentum"].copy_(average)
            weight.sub_(step.reshape(weight.shape), alpha=scale)

    def _momentum(self, weight: Tensor) -> Tensor:
        state: dict[str, Any] = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix(weight))
        average: Tensor = state["momentum"]
        return average


def matrix(weight: Tensor | None) -> Tensor:
    """Outputs × all else, whatever the memory layout."""
    assert weight is not None
    return weight.reshape(len(weight), -1)


def orthogonal(matrices: Tensor) -> Tensor:
    """N×R×C matrices with nearly all singular values near 1, by Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
