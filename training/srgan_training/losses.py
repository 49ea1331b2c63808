"""The pixel and feature terms of the generator's loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_training.features import FeatureNetwork


def distance(x: Tensor, target: Tensor, kind: str) -> Tensor:
    """Mean absolute (``"l1"``) or squared (``"mse"``) difference."""
    return F.l1_loss(x, target) if kind == "l1" else F.mse_loss(x, target)


def feature_loss(
    network: FeatureNetwork, weights: dict[str, float], fake: Tensor, real: Tensor, kind: str
) -> Tensor:
    """Weighted sum over layers of the features' distance; pictures N×3×H×W in [0, 1]."""
    with torch.no_grad():
        targets = network(real)
    found = network(fake)
    terms = [
        weight * distance(found[layer].float(), targets[layer].float(), kind)
        for layer, weight in weights.items()
    ]
    return torch.stack(terms).sum()


def grid_loss(fake: Tensor, real: Tensor, scale: int, cells: int = 8) -> Tensor:
    """How strong a grid with the period of one low-resolution pixel, and a colour cast, is.

    On an even area a generator can invent texture only as a pattern that
    repeats with every low-resolution pixel, and a feature loss rewards it for
    that. The difference of the pictures is averaged at each of the scale²
    sub-pixel phases over windows of ``cells`` × ``cells`` low-resolution
    pixels: texture that is not locked to the grid cancels out, a grid does not,
    and nor does a local colour that is off.

    Parameters
    ----------
    fake, real
        N×3×H×W in [0, 1], H and W multiples of ``scale``, cut on the grid.

    Returns
    -------
    Tensor
        Mean square of the phases' means.
    """
    phases = F.pixel_unshuffle(fake - real, scale)
    phases = phases.reshape(-1, scale**2, *phases.shape[2:])
    means = F.avg_pool2d(phases, cells, stride=max(cells // 2, 1))
    return means.square().mean()


def shifted(fake: Tensor, real: Tensor, most: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut both to one random window that is ``most`` pixels smaller.

    Crops start on the low-resolution grid. Unshifted, the pooling grids of the
    feature network and the strides of the discriminator are locked to the
    sub-pixel phases, and the generator learns to draw a regular grid.
    """
    if most == 0:
        return fake, real
    top, left = torch.randint(most + 1, (2,), generator=rng).tolist()
    height, width = fake.shape[-2] - most, fake.shape[-1] - most
    window = (..., slice(top, top + height), slice(left, left + width))
    return fake[window], real[window]
