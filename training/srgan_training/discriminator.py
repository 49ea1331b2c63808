"""The discriminators: stacks of convolutions that score images, and a U-Net that scores pixels."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from srgan_training.config import DiscriminatorConfig

# (output channels as a multiple of the width, stride) of each 3×3 convolution.
PAPER = ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2))
COCO10K = ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1))
LAYOUTS = {"paper": PAPER, "coco10k": COCO10K}
POOLED = 6


class Discriminator(nn.Module):
    """Tells photographs from generated images.

    Parameters
    ----------
    layout
        ``"paper"``: 8 convolutions, 64…512 channels, strides 1-2 (arXiv
        1609.04802); ``"coco10k"``: the first 7 of them.
    width
        Channels of the first convolution, 64 in the paper.
    norm
        ``"batch"`` as in the paper (none on the first convolution),
        ``"spectral"`` (arXiv 1802.05957, on every convolution) or ``"none"``.
    patch
        Score overlapping patches by one more convolution instead of the whole
        crop by a dense layer; the logit is then the mean score.
    """

    def __init__(
        self, layout: str = "paper", width: int = 64, norm: str = "batch", patch: bool = False
    ) -> None:
        super().__init__()
        self.patch = patch
        channels = [3, *(width * multiple for multiple, _ in LAYOUTS[layout])]
        layers: list[nn.Module] = []
        for number, ((inputs, outputs), (_, stride)) in enumerate(
            zip(pairwise(channels), LAYOUTS[layout], strict=True)
        ):
            batch = norm == "batch" and number > 0
            layer = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=not batch)
            layers.append(spectral_norm(layer) if norm == "spectral" else layer)
            if batch:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(0.2))
        self.convolutions = nn.Sequential(*layers)
        if patch:
            self.head: nn.Module = nn.Conv2d(channels[-1], 1, 3, padding=1)
        else:
            self.head = nn.Sequential(
                nn.AdaptiveAvgPool2d(POOLED),
                nn.Flatten(),
                nn.Linear(channels[-1] * POOLED**2, 16 * width),
                nn.LeakyReLU(0.2),
                nn.Linear(16 * width, 1),
            )

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W, RGB in [0, 1] → logits, N×1 (or N×1×h×w patch scores)."""
        scores: Tensor = self.head(self.convolutions(2 * x - 1))
        return scores


class UNetDiscriminator(nn.Module):
    """Tells photographs from generated images, pixel by pixel (arXiv 2107.10833).

    Three convolutions of stride 2, three bilinear steps back that add the features of
    the same size, spectral norm (arXiv 1802.05957) on all but the first and last.

    Parameters
    ----------
    width
        Channels of the first convolution, 64 there.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False))

        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(layer(width * n, width * n * 2, 4, 2) for n in (1, 2, 4))
        self.up = nn.ModuleList(layer(width * n * 2, width * n) for n in (4, 2, 1))
        self.last = nn.Sequential(
            layer(width, width),
            nn.LeakyReLU(0.2),
            layer(width, width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W, RGB in [0, 1] → logits, N×1×H×W."""
        x = F.leaky_relu(self.first(2 * x - 1), 0.2)
        passed = []
        for layer in self.down:
            passed.append(x)
            x = F.leaky_relu(layer(x), 0.2)
        for layer in self.up:
            same = passed.pop()
            x = F.interpolate(x, size=same.shape[-2:], mode="bilinear", align_corners=False)
            x = F.leaky_relu(layer(x), 0.2) + same
        scores: Tensor = self.last(x)
        return scores


def make_discriminator(config: DiscriminatorConfig) -> nn.Module:
    """The discriminator of these settings."""
    if config.layout == "unet":
        return UNetDiscriminator(config.width)
    return Discriminator(config.layout, config.width, config.norm, config.patch)


def discriminator_loss(real: Tensor, fake: Tensor, relativistic: bool) -> Tensor:
    """Binary cross-entropy of the discriminator's logits.

    With ``relativistic``, each logit is taken relative to the mean of the
    other kind (relativistic average GAN, arXiv 1807.00734).
    """
    if relativistic:
        real, fake = real - fake.mean(), fake - real.mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def adversarial_loss(fake: Tensor, real: Tensor | None) -> Tensor:
    """The generator's non-saturating loss; relativistic average where ``real`` logits are given."""
    if real is None:
        return F.softplus(-fake).mean()
    return (F.softplus(-(fake - real.mean())).mean() + F.softplus(real - fake.mean()).mean()) / 2


def probability(logits: Tensor) -> Tensor:
    """Mean probability of being a photograph, for the log."""
    return torch.sigmoid(logits.detach().float()).mean()
