"""What super-resolved images are judged by, batched: PSNR-Y, SSIM, artefacts, colour.

One implementation serves validation during training and the evaluation of
published weights. Every function takes N×3×H×W float tensors, RGB in [0, 1],
clips and rounds them to 8 bits first (what is written to a file is what is
judged), and returns one value an image.

The protocol is that of the published ×4 tables: BT.601 luma with the studio
range of MATLAB's ``rgb2ycbcr`` (16…235), 4 pixels cut from each border.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BORDER = 4
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1 = 0.01
SSIM_K2 = 0.03
GRID_PERIODS = (2, 4)


def to_levels(images: Tensor) -> Tensor:
    """Clip to [0, 1] and round to whole 8-bit levels, kept as float in 0…255."""
    return (images.float().clamp(0, 1) * 255).round()


def luma(levels: Tensor) -> Tensor:
    """BT.601 luma of N×3×H×W RGB levels (0…255): N×1×H×W in 16…235."""
    weights = torch.tensor([65.481, 128.553, 24.966], device=levels.device) / 255
    return 16 + (levels.float() * weights.view(3, 1, 1)).sum(dim=-3, keepdim=True)


def _judged_luma(images: Tensor, border: int) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected N×3×H×W, got {'×'.join(map(str, images.shape))}.")
    if min(images.shape[-2:]) <= 2 * border:
        raise ValueError(f"nothing is left of {tuple(images.shape[-2:])} without {border} pixels.")
    height, width = images.shape[-2:]
    return luma(to_levels(images[..., border : height - border, border : width - border]))


def psnr(prediction: Tensor, target: Tensor, border: int = BORDER) -> Tensor:
    """Peak signal-to-noise ratio on luma, in dB (peak 255).

    Parameters
    ----------
    prediction, target
        N×3×H×W float, RGB in [0, 1].
    border
        Pixels left out on each side.

    Returns
    -------
    Tensor
        N values; 100 where the images are (nearly) equal, so that means stay finite.
    """
    difference = _judged_luma(prediction, border) - _judged_luma(target, border)
    error = difference.square().mean(dim=(1, 2, 3)) / 255**2
    return -10 * torch.log10(error.clamp_min(1e-10))


def ssim(prediction: Tensor, target: Tensor, border: int = BORDER) -> Tensor:
    """Structural similarity on luma: Gaussian 11×11, σ 1.5, K₁ 0.01, K₂ 0.03.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to
    Structural Similarity", 2004. Only windows that lie wholly inside the
    image (after the border cut) count.

    Parameters
    ----------
    prediction, target
        N×3×H×W float, RGB in [0, 1].
    border
        Pixels left out on each side.

    Returns
    -------
    Tensor
        N values, at most 1; float64, on the CPU.
    """
    # Variances are small differences of large squares, too fine for a GPU's TF32.
    a, b = (_judged_luma(x, border).cpu().double() for x in (prediction, target))
    if min(a.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs {SSIM_WINDOW + 2 * border} pixels in height and width.")
    position = torch.arange(SSIM_WINDOW, dtype=a.dtype, device=a.device) - SSIM_WINDOW // 2
    window = torch.exp(-(position**2) / (2 * SSIM_SIGMA**2))
    window = window / window.sum()
    maps = torch.cat([a, b, a * a, b * b, a * b], dim=1).flatten(0, 1)[:, None]
    maps = F.conv2d(F.conv2d(maps, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    mean_a, mean_b, aa, bb, ab = maps.view(a.shape[0], 5, *maps.shape[-2:]).unbind(1)
    c1, c2 = (SSIM_K1 * 255) ** 2, (SSIM_K2 * 255) ** 2
    variances = (aa - mean_a**2) + (bb - mean_b**2)
    covariance = ab - mean_a * mean_b
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (variances + c2)
    )
    return similarity.mean(dim=(1, 2))


class GridEnergy(NamedTuple):
    """Energy of luma at one period along one axis; N values each.

    Attributes
    ----------
    energy
        Spectral power in the three bins at the period, in squared levels.
    line
        The part of it that stands out of the bins beside it: near 0 (of either
        sign) where the period is nothing special, as large as ``energy`` where
        the image carries a grid.
    """

    energy: Tensor
    line: Tensor


def grid_energy(images: Tensor, period: int, axis: str) -> GridEnergy:
    """How much an image repeats itself with a period of a few pixels.

    Sub-pixel convolutions and the strides of a feature network can leave a
    faint grid with a period of 2 or 4 pixels. It appears as a line in the
    power spectrum of rows (axis ``"x"``) or columns (``"y"``) at the period's
    exact frequency. A Hann window keeps the edges of the image out of it.

    Parameters
    ----------
    images
        N×3×H×W float, RGB in [0, 1], at least 64 pixels along the axis.
    period
        In pixels.
    axis
        ``"x"`` (along rows) or ``"y"`` (along columns).

    Returns
    -------
    GridEnergy
        N values each.
    """
    if axis not in ("x", "y"):
        raise ValueError(f'axis must be "x" or "y", not {axis!r}.')
    lines = _judged_luma(images, 0)[:, 0]
    if axis == "y":
        lines = lines.transpose(-1, -2)
    length = lines.shape[-1] // period * period
    if length < 64:
        raise ValueError(f"a spectrum needs 64 pixels along {axis}, not {lines.shape[-1]}.")
    lines = lines[..., :length]
    window = torch.hann_window(length, dtype=lines.dtype, device=lines.device)
    centred = (lines - lines.mean(dim=-1, keepdim=True)) * window
    power = torch.fft.rfft(centred).abs().square().mean(dim=-2) / (window.square().sum() * length)
    # Hann spreads a line over its bin and the next on each side; the bins
    # from 3 to 8 away are free of it.
    line = length // period
    bins = torch.arange(power.shape[-1], device=power.device)
    near = power[:, (bins - line).abs() <= 1]
    beside = power[:, ((bins - line).abs() >= 3) & ((bins - line).abs() <= 8)]
    energy = near.sum(dim=-1)
    return GridEnergy(energy, energy - near.shape[-1] * beside.mean(dim=-1))


def colour_shift(prediction: Tensor, low_resolution: Tensor) -> Tensor:
    """Mean colour of the enlarged image minus that of its input.

    Parameters
    ----------
    prediction
        N×3×(s·H)×(s·W) float, RGB in [0, 1].
    low_resolution
        N×3×H×W float, RGB in [0, 1].

    Returns
    -------
    Tensor
        N×3, in levels of 255.
    """
    return to_levels(prediction).mean(dim=(2, 3)) - to_levels(low_resolution).mean(dim=(2, 3))
