"""From high to low resolution, in batches on the device: downscale, blur, noise, JPEG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_training.config import DataConfig

# Annex K of ITU-T T.81: the tables that JPEG encoders scale by their quality.
LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99, 99, 99, 99, 99, 99, 99, 99),) * 4,
)
# Full-range BT.601, as in JFIF.
TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
TO_RGB = tuple(map(tuple, torch.linalg.inv(torch.tensor(TO_YCBCR)).tolist()))


def quantised(x: Tensor) -> Tensor:
    """Clip to [0, 1] and round to 8-bit levels."""
    return (x.clamp(0, 1) * 255).round() / 255


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Antialiased bicubic (a = -0.5), as MATLAB's imresize; N×C×H×W float."""
    return F.interpolate(
        x, size=(height, width), mode="bicubic", antialias=True, align_corners=False
    )


def downscale(x: Tensor, scale: int) -> Tensor:
    """High-resolution N×3×H×W in [0, 1] to low-resolution 8-bit levels in [0, 1]."""
    return quantised(resize(x, x.shape[-2] // scale, x.shape[-1] // scale))


@dataclass(frozen=True)
class Degradation:
    """What is done to each of N low-resolution pictures; 0 leaves a step out.

    Attributes
    ----------
    blur
        N standard deviations, pixels.
    noise
        N standard deviations, levels of 255.
    quality
        N JPEG qualities, 1…100.
    seed
        Of the noise.
    """

    blur: Tensor
    noise: Tensor
    quality: Tensor
    seed: int


def draw_degradation(config: DataConfig, count: int, rng: torch.Generator) -> Degradation:
    """Draw a batch's degradations from the config's probabilities and ranges."""

    def some(probability: float, low: float, high: float) -> Tensor:
        chosen = torch.rand(count, generator=rng) < probability
        return chosen * (low + (high - low) * torch.rand(count, generator=rng))

    return Degradation(
        blur=some(config.blur, *config.blur_sigma),
        noise=some(config.noise, *config.noise_sigma),
        quality=some(config.jpeg, *config.jpeg_quality).round(),
        seed=int(torch.randint(2**62, (), generator=rng)),
    )


def sent(x: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for what a GPU is doing."""
    if device.type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


@lru_cache
def constant(values: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """A table on the device."""
    return torch.tensor(values, device=device, dtype=torch.float32)


def degrade(x: Tensor, how: Degradation) -> Tensor:
    """Blur, add noise to, and JPEG-compress N×3×H×W in [0, 1]; 8-bit levels in [0, 1]."""
    if how.blur.any():
        x = blurred(x, sent(how.blur, x.device))
    if how.noise.any():
        rng = torch.Generator(x.device).manual_seed(how.seed)
        noise = torch.randn(x.shape, generator=rng, device=x.device)
        x = x + noise * (sent(how.noise, x.device) / 255)[:, None, None, None]
    x = quantised(x)
    chosen = how.quality.nonzero()[:, 0]
    if len(chosen):
        at = sent(chosen, x.device)
        x = x.index_copy(0, at, jpeg(x[at], sent(how.quality[chosen], x.device)))
    return x


def blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of N×C×H×W with a standard deviation of its own for each picture."""
    count, channels, height, width = x.shape
    reach = 3
    at = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-at.square() / (2 * sigma.clamp(min=0.05).square()[:, None]))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    groups = count * channels
    padded = F.pad(x, (reach,) * 4, mode="replicate").reshape(1, groups, height + 6, width + 6)
    rows = F.conv2d(padded, kernel[:, None, :, None], groups=groups)
    return F.conv2d(rows, kernel[:, None, None, :], groups=groups).reshape(x.shape)


def cosine_basis(device: torch.device) -> Tensor:
    """The 8×8 orthonormal DCT-II."""
    k = torch.arange(8, device=device, dtype=torch.float32)
    basis = torch.cos(math.pi * (2 * k[None, :] + 1) * k[:, None] / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis


def jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """Baseline JPEG with 4:2:0 chroma, less its lossless part.

    Parameters
    ----------
    x
        N×3×H×W, RGB in [0, 1].
    quality
        N values, 1…100, on the scale of libjpeg.

    Returns
    -------
    Tensor
        N×3×H×W, 8-bit levels in [0, 1].
    """
    height, width = x.shape[-2:]
    padded = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")
    matrix = constant(TO_YCBCR, x.device)
    ycbcr = torch.einsum("ij,njhw->nihw", matrix, padded * 255).round()
    ycbcr[:, 0] -= 128
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    luma = coded(ycbcr[:, :1], LUMA_TABLE, percent)
    chroma = coded(F.avg_pool2d(ycbcr[:, 1:], 2).round(), CHROMA_TABLE, percent)
    # libjpeg's "fancy" upsampling is the triangle filter that bilinear is.
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    ycbcr = torch.cat([luma + 128, chroma], 1)
    rgb = torch.einsum("ij,njhw->nihw", constant(TO_RGB, x.device), ycbcr)
    return quantised(rgb[..., :height, :width] / 255)


def coded(planes: Tensor, table: tuple[tuple[int, ...], ...], percent: Tensor) -> Tensor:
    """Quantise each 8×8 block's DCT coefficients of N×C×H×W by the table scaled by percent."""
    count, channels, height, width = planes.shape
    basis = cosine_basis(planes.device)
    scaled = constant(table, planes.device) * percent[:, None, None]
    steps = torch.floor((scaled + 50) / 100).clamp(1, 255)[:, None, None, None]
    blocks = planes.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = (basis @ blocks @ basis.T / steps).round() * steps
    decoded = (basis.T @ coefficients @ basis).transpose(3, 4).reshape(planes.shape)
    return decoded.round()
