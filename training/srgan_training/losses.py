"""The losses of both networks: every term, and their weighted sum."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_training.config import LossConfig
from srgan_training.data import Batch
from srgan_training.discriminator import adversarial_loss
from srgan_training.features import FeatureNetwork


def generator_losses(
    config: LossConfig,
    scale: int,
    fake: Tensor,
    batch: Batch,
    windows: tuple[Tensor, Tensor],
    features: FeatureNetwork | None = None,
    discriminator: nn.Module | None = None,
    average: nn.Module | None = None,
) -> dict[str, Tensor]:
    """The terms of the generator's loss, and their weighted sum as ``"loss"``.

    Parameters
    ----------
    fake
        What the generator makes of ``batch.low``.
    windows
        Of ``fake`` and of ``batch.high``, from `shifted`: what the feature network and
        the discriminator see.
    features, discriminator
        For their terms; None leaves them out. The discriminator gets no gradient.
    average
        The averaged generator, for the artefact term.
    """
    terms = {"pixel": pixel_loss(fake, batch, config)}
    if config.grid_weight > 0:
        terms["grid"] = grid_loss(fake, batch.high, scale)
    if config.artefact_weight > 0 and average is not None:
        with torch.no_grad():
            smooth = average(batch.low).float()
        terms["artefact"] = artefact_loss(fake, batch.high, smooth)
    if features is not None:
        terms["feature"] = feature_loss(features, config.feature_layers, *windows, config.feature)
    if discriminator is not None:
        discriminator.requires_grad_(False)
        reference = None
        if config.relativistic:
            with torch.no_grad():
                reference = discriminator(windows[1]).float()
        terms["adversarial"] = adversarial_loss(discriminator(windows[0]).float(), reference)
        discriminator.requires_grad_(True)
    weighted = [getattr(config, f"{name}_weight") * term for name, term in terms.items()]
    return {**terms, "loss": torch.stack(weighted).sum()}


def pixel_loss(fake: Tensor, batch: Batch, config: LossConfig) -> Tensor:
    """Distance to the original, and in part to the teacher's image where there is one.

    What a teacher draws lacks what no network can predict, noise above all.
    """
    original = distance(fake, batch.high, config.pixel)
    if batch.teacher is None:
        return original
    taught = distance(fake, batch.teacher, config.pixel)
    return original.lerp(taught, config.teacher_share)


def distance(x: Tensor, target: Tensor, kind: str) -> Tensor:
    """Mean absolute (``"l1"``) or squared (``"mse"``) difference."""
    return F.l1_loss(x, target) if kind == "l1" else F.mse_loss(x, target)


def feature_loss(
    network: FeatureNetwork, weights: dict[str, float], fake: Tensor, real: Tensor, kind: str
) -> Tensor:
    """Weighted sum over layers of the features' distance; images N×3×H×W in [0, 1]."""
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
    that. The difference of the images is averaged at each of the scale²
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


def artefact_loss(fake: Tensor, real: Tensor, smooth: Tensor) -> Tensor:
    """Punishes detail that is likely to be an artefact (LDL, arXiv 2203.09195).

    Parameters
    ----------
    fake, real
        N×3×H×W in [0, 1].
    smooth
        What the averaged generator makes of the same input: it is steadier, so where
        ``fake`` is further from the original than it, detail is taken for an artefact.

    Returns
    -------
    Tensor
        Mean absolute difference, weighted by the variance of the residual in windows
        of 7×7 pixels and the fifth root of that in the whole image.
    """
    with torch.no_grad():
        ours = (real - fake).abs().sum(1, keepdim=True)
        theirs = (real - smooth).abs().sum(1, keepdim=True)
        padded = F.pad(ours, (3, 3, 3, 3), mode="reflect")
        mean = F.avg_pool2d(padded, 7, stride=1)
        local = (F.avg_pool2d(padded.square(), 7, stride=1) - mean.square()).clamp(min=0)
        whole = ours.var((1, 2, 3), keepdim=True) ** 0.2
        weight = whole * local * (ours >= theirs)
    return (weight * (fake - real).abs()).mean()


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
