"""From high to low resolution, in batches on the device: downscale, blur, noise, JPEG.

The plain degradation is done to the low-resolution image. The second-order one is that
of Real-ESRGAN (arXiv 2107.10833): the original is blurred, resized, given noise and
compressed, and all of it again, weaker, which is what photographs on the web went through.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
KERNEL = 13  # edge of blur kernels, pixels
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
class Round:
    """One round of the second-order degradation, for each of N images.

    Attributes
    ----------
    kernels
        N×K×K blur kernels.
    factor
        Of the resize, of all images: 1 is the original's size.
    mode
        Of the resize: ``"area"``, ``"bilinear"`` or ``"bicubic"``.
    gaussian
        N standard deviations of Gaussian noise, levels of 255; 0 for none.
    poisson
        N strengths of Poisson noise: its variance over the signal, in levels; 0 for none.
    grey
        N flags: the noise is the same in all channels.
    quality
        N JPEG qualities, 1…100.
    """

    kernels: Tensor
    factor: float
    mode: str
    gaussian: Tensor
    poisson: Tensor
    grey: Tensor
    quality: Tensor


@dataclass(frozen=True)
class SecondOrder:
    """The second-order degradation of N images.

    Attributes
    ----------
    chosen
        N flags: the others are spared.
    first, second
        The rounds.
    ringing
        N×K×K sinc kernels, applied at the end.
    ringing_last
        Whether that is done behind the last JPEG compression, or in front of it.
    """

    chosen: Tensor
    first: Round
    second: Round
    ringing: Tensor
    ringing_last: bool


@dataclass(frozen=True)
class Degradation:
    """What is done to each of N images; 0 leaves a step out.

    Attributes
    ----------
    blur
        N standard deviations, low-resolution pixels.
    noise
        N standard deviations, levels of 255.
    quality
        N JPEG qualities, 1…100.
    seed
        Of the noise.
    second_order
        Done instead of all that, or None.
    """

    blur: Tensor
    noise: Tensor
    quality: Tensor
    seed: int
    second_order: SecondOrder | None = None


def draw_degradation(config: DataConfig, count: int, rng: torch.Generator) -> Degradation:
    """Draw a batch's degradations from the config's probabilities and ranges."""

    def some(probability: float, low: float, high: float) -> Tensor:
        chosen = torch.rand(count, generator=rng) < probability
        return chosen * (low + (high - low) * torch.rand(count, generator=rng))

    how = Degradation(
        blur=some(config.blur, *config.blur_sigma),
        noise=some(config.noise, *config.noise_sigma),
        quality=some(config.jpeg, *config.jpeg_quality).round(),
        seed=int(torch.randint(2**62, (), generator=rng)),
    )
    if config.second_order > 0:
        how = replace(how, second_order=draw_second_order(config.second_order, count, rng))
    return how


def draw_second_order(probability: float, count: int, rng: torch.Generator) -> SecondOrder:
    """Draw the second-order degradation of a batch.

    Each image has a strength, uniform from 0 to 1, that scales the ranges of
    arXiv 2107.10833: the mildest are nearly clean, so that clean inputs stay sharp.
    """
    strength = torch.rand(count, generator=rng)
    # The images of a batch have one size, so this strength is theirs together.
    reach = float(torch.rand((), generator=rng))
    first = draw_round(strength, rng, sigma=2.0, shrink=reach * 0.85, noise=30.0, poisson=3.0)
    second = draw_round(strength, rng, sigma=1.0, shrink=reach * 0.5, noise=20.0, poisson=2.0)
    cutoff = math.pi - strength * 2 / 3 * math.pi * torch.rand(count, generator=rng)
    return SecondOrder(
        chosen=torch.rand(count, generator=rng) < probability,
        first=first,
        second=second,
        ringing=sinc_kernels(cutoff),
        ringing_last=bool(torch.rand((), generator=rng) < 0.5),
    )


def draw_round(
    strength: Tensor,
    rng: torch.Generator,
    *,
    sigma: float,
    shrink: float,
    noise: float,
    poisson: float,
) -> Round:
    """Draw one round; the largest blur, noise and shrinking are those of a strength of 1."""
    count = len(strength)

    def uniform() -> Tensor:
        return torch.rand(count, generator=rng)

    sigmas = 0.1 + (sigma - 0.1) * strength[:, None] * torch.rand(count, 2, generator=rng)
    kinds = uniform()
    kernels = blur_kernels(sigmas, math.pi * uniform(), 0.5 + 3.5 * uniform(), kinds)
    # Now and then a sinc filter takes the blur's place, as in the published chain.
    cutoff = math.pi - strength * 2 / 3 * math.pi * uniform()
    kernels = torch.where((uniform() < 0.1)[:, None, None], sinc_kernels(cutoff), kernels)
    way = float(torch.rand((), generator=rng))
    factor = 1 - shrink * way if way > 0.3 else 1 + shrink * way
    is_gaussian = uniform() < 0.5
    return Round(
        kernels=kernels,
        factor=factor,
        mode=("area", "bilinear", "bicubic")[int(torch.randint(3, (), generator=rng))],
        gaussian=is_gaussian * strength * noise * uniform(),
        poisson=~is_gaussian * strength * poisson * uniform(),
        grey=uniform() < 0.4,
        quality=(95 - 65 * strength * uniform()).round(),
    )


def blur_kernels(sigmas: Tensor, angles: Tensor, shapes: Tensor, kinds: Tensor) -> Tensor:
    """N×K×K kernels: Gaussian, generalised Gaussian and plateau-shaped, turned ellipses.

    Parameters
    ----------
    sigmas
        N×2 standard deviations along both axes.
    angles
        N turns, radians.
    shapes
        N exponents of the generalised ones; 1 is the Gaussian.
    kinds
        N values: below 0.7 Gaussian, below 0.85 generalised, else plateau.
    """
    at = torch.arange(KERNEL) - KERNEL // 2
    y, x = torch.meshgrid(at.float(), at.float(), indexing="ij")
    cosine, sine = angles.cos()[:, None, None], angles.sin()[:, None, None]
    along, across = cosine * x + sine * y, cosine * y - sine * x
    radius = (along / sigmas[:, :1, None]).square() + (across / sigmas[:, 1:, None]).square()
    shape = torch.where(kinds < 0.7, 1.0, shapes)[:, None, None]
    bell = torch.exp(-0.5 * radius**shape)
    # Heavier tails than these would blur even where sigma is small.
    plateau = 1 / (1 + radius ** shape.clamp(1, 2))
    kernels = torch.where((kinds < 0.85)[:, None, None], bell, plateau)
    return kernels / kernels.sum((1, 2), keepdim=True)


def sinc_kernels(cutoff: Tensor) -> Tensor:
    """N×K×K circular low-pass filters that ring, by their cut-off in radians a pixel."""
    at = (torch.arange(KERNEL) - KERNEL // 2).float()
    radius = torch.hypot(at[:, None], at[None, :])
    cutoff = cutoff[:, None, None]
    middle = cutoff.square() / (4 * math.pi)
    ring = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernels = torch.where(radius == 0, middle, ring)
    return kernels / kernels.sum((1, 2), keepdim=True)


def shard_degradation(how: Degradation, mine: slice, rank: int) -> Degradation:
    """One process's part of a batch's degradations."""
    second = how.second_order
    if second is not None:
        second = SecondOrder(
            second.chosen[mine],
            shard_round(second.first, mine),
            shard_round(second.second, mine),
            second.ringing[mine],
            second.ringing_last,
        )
    return Degradation(how.blur[mine], how.noise[mine], how.quality[mine], how.seed + rank, second)


def shard_round(how: Round, mine: slice) -> Round:
    """One process's part of a round."""
    return Round(
        how.kernels[mine],
        how.factor,
        how.mode,
        how.gaussian[mine],
        how.poisson[mine],
        how.grey[mine],
        how.quality[mine],
    )


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for what a GPU is doing."""
    if device.type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


@lru_cache
def constant(values: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """A table on the device."""
    return torch.tensor(values, device=device, dtype=torch.float32)


def degrade(high: Tensor, low: Tensor, how: Degradation) -> Tensor:
    """Degrade the way from original to low-resolution image.

    Parameters
    ----------
    high
        N×3×(scale·H)×(scale·W) in [0, 1], originals.
    low
        N×3×H×W in [0, 1], reduced from them and nothing else.

    Returns
    -------
    Tensor
        N×3×H×W, 8-bit levels in [0, 1].
    """
    x = low
    if how.blur.any():
        x = blurred(x, to_device(how.blur, x.device))
    rng = torch.Generator(x.device).manual_seed(how.seed)
    if how.noise.any():
        noise = torch.randn(x.shape, generator=rng, device=x.device)
        x = x + noise * (to_device(how.noise, x.device) / 255)[:, None, None, None]
    x = quantised(x)
    chosen = how.quality.nonzero()[:, 0]
    if len(chosen):
        at = to_device(chosen, x.device)
        x = x.index_copy(0, at, jpeg(x[at], to_device(how.quality[chosen], x.device)))
    if how.second_order is not None:
        twice = degrade_twice(high, low.shape[-2:], how.second_order, rng)
        x = torch.where(to_device(how.second_order.chosen, x.device)[:, None, None, None], twice, x)
    return x


def degrade_twice(
    high: Tensor, size: Sequence[int], how: SecondOrder, rng: torch.Generator
) -> Tensor:
    """Two rounds of blur, resize, noise and JPEG, then ringing (arXiv 2107.10833).

    Parameters
    ----------
    high
        N×3×H×W in [0, 1].
    size
        Height and width of the result.

    Returns
    -------
    Tensor
        N×3×height×width, 8-bit levels in [0, 1].
    """
    device = high.device
    height, width = size
    x = one_round(high, (high.shape[-2], high.shape[-1]), how.first, rng)
    x = quantised(jpeg(x.clamp(0, 1), to_device(how.first.quality, device)))
    # The second resize is relative to the result's size, which the end brings back.
    x = one_round(x, (2 * height, 2 * width), how.second, rng)
    ringing = to_device(how.ringing, device)
    x = resize(x, height, width).clamp(0, 1)
    quality = to_device(how.second.quality, device)
    if how.ringing_last:
        return quantised(filtered(jpeg(x, quality), ringing))
    return jpeg(filtered(x, ringing).clamp(0, 1), quality)


def one_round(x: Tensor, size: tuple[int, int], how: Round, rng: torch.Generator) -> Tensor:
    """Blur, resize to ``how.factor`` times a size, and noise."""
    device = x.device
    x = filtered(x, to_device(how.kernels, device))
    target = [max(round(edge * how.factor), 16) for edge in size]
    if target != list(x.shape[-2:]):
        smooth = {} if how.mode == "area" else {"antialias": True, "align_corners": False}
        x = F.interpolate(x, size=target, mode=how.mode, **smooth)
    x = x.clamp(0, 1)
    gaussian = torch.randn(x.shape, generator=rng, device=device)
    gaussian = gaussian * (to_device(how.gaussian, device) / 255)[:, None, None, None]
    # Counts of photons: the variance grows with the signal.
    counts = 255 / to_device(how.poisson, device).clamp(min=1e-3)[:, None, None, None]
    poisson = torch.poisson(x * counts, generator=rng) / counts - x
    poisson = poisson * (to_device(how.poisson, device) > 0)[:, None, None, None]
    noise = gaussian + poisson
    grey = to_device(how.grey, device)[:, None, None, None]
    return (x + torch.where(grey, noise[:, :1], noise)).clamp(0, 1)


def filtered(x: Tensor, kernels: Tensor) -> Tensor:
    """N×C×H×W convolved with N kernels of K×K, each image with its own."""
    count, channels, height, width = x.shape
    reach = kernels.shape[-1] // 2
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    padded = padded.reshape(1, count * channels, height + 2 * reach, width + 2 * reach)
    weight = kernels.repeat_interleave(channels, 0)[:, None].to(x.dtype)
    return F.conv2d(padded, weight, groups=count * channels).reshape(x.shape)


def blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of N×C×H×W with a standard deviation of its own for each image."""
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
