"""The SRResNet/SRGAN generator in its deployment form: no batch norm, nothing to fold.

The network file knows nothing of files, devices or images. It is described
by a frozen :class:`GeneratorConfig`, from which everything else (the scale,
the halo that a tile needs, the tensor shapes) is derived.

Source of the topology: Ledig et al., "Photo-Realistic Single Image
Super-Resolution Using a Generative Adversarial Network", arXiv 1609.04802.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = ("prelu", "leaky_relu")
OUTPUT_ACTIVATIONS = ("none", "sigmoid", "tanh")
INPUT_SKIPS = ("none", "nearest", "bilinear")
LEAKY_SLOPE = 0.2


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything that is needed to rebuild a generator from its weights.

    Parameters
    ----------
    channels
        Feature channels of the trunk.
    blocks
        Number of residual blocks.
    stem_kernel, body_kernel, output_kernel
        Odd kernel sizes of the first convolution, of every 3×3 convolution of
        the published network (blocks, trunk, sub-pixel), and of the last one.
    scale
        Magnification, a power of two; each sub-pixel block doubles the size.
    activation
        ``"prelu"`` (one learned slope per layer) or ``"leaky_relu"`` (slope 0.2).
    output_activation
        ``"none"``, ``"sigmoid"`` or ``"tanh"`` (mapped from [-1, 1] to [0, 1]).
    input_skip
        ``"none"``, or how the low-resolution input is upscaled before it is
        added to the output: ``"nearest"`` or ``"bilinear"``.
    input_mean
        Red, green and blue that are subtracted from the input in front of the first
        convolution, which adds its zeros afterwards: a network that was trained on
        normalised images sees its mean colour around the image, not black.

    Raises
    ------
    ValueError
        If a field has a value that describes no network.
    """

    channels: int = 64
    blocks: int = 16
    stem_kernel: int = 9
    body_kernel: int = 3
    output_kernel: int = 9
    scale: int = 4
    activation: str = "prelu"
    output_activation: str = "none"
    input_skip: str = "none"
    input_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        for name in ("channels", "blocks", "stem_kernel", "body_kernel", "output_kernel", "scale"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}.")
        for name in ("stem_kernel", "body_kernel", "output_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd, not {getattr(self, name)}.")
        if self.scale < 2 or self.scale & (self.scale - 1):
            raise ValueError(f"scale must be 2, 4, 8, …, not {self.scale}.")
        for name, choices in (
            ("activation", ACTIVATIONS),
            ("output_activation", OUTPUT_ACTIVATIONS),
            ("input_skip", INPUT_SKIPS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}."
                )
        mean = self.input_mean
        if (
            type(mean) is not tuple
            or len(mean) != 3
            or not all(type(value) in (int, float) and math.isfinite(value) for value in mean)
        ):
            raise ValueError(f"input_mean must be three numbers, not {mean!r}.")

    @property
    def doublings(self) -> int:
        """Number of sub-pixel blocks."""
        return self.scale.bit_length() - 1

    @property
    def halo(self) -> int:
        """Low-resolution pixels on each side that an output pixel depends on.

        Half the receptive field, rounded up: what a tile must be given around
        its core for its result to equal inference on the whole image. A
        convolution behind *n* sub-pixel blocks reaches 2⁻ⁿ as far.
        """
        body = self.body_kernel // 2
        reach = self.stem_kernel // 2 + body * (2 * self.blocks + 1)
        reach_up = sum(body * 0.5**step for step in range(self.doublings))
        halo = math.ceil(reach + reach_up + self.output_kernel // 2 / self.scale)
        return max(halo, int(self.input_skip == "bilinear"))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values.

        Without ``input_mean`` where there is none, for releases that do not know it.
        """
        values = asdict(self)
        mean = values.pop("input_mean")
        return {**values, "input_mean": list(mean)} if any(mean) else values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GeneratorConfig:
        """Rebuild a config; an unknown field is a ``ValueError``."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown generator field: {', '.join(unknown)}.")
        if isinstance(values.get("input_mean"), list):
            values = {**values, "input_mean": tuple(values["input_mean"])}
        return cls(**values)


def conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """A stride-1 convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def activation(config: GeneratorConfig) -> nn.Module:
    """The activation between convolutions."""
    return nn.PReLU() if config.activation == "prelu" else nn.LeakyReLU(LEAKY_SLOPE)


class ResidualBlock(nn.Module):
    """Convolution, activation, convolution, plus the block's input."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.conv1 = conv(config.channels, config.channels, config.body_kernel)
        self.activation = activation(config)
        self.conv2 = conv(config.channels, config.channels, config.body_kernel)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C×H×W."""
        y: Tensor = self.conv2(self.activation(self.conv1(x)))
        return x + y


class SubPixel(nn.Module):
    """Doubles height and width: convolution to four phases, shuffle, activation.

    Source: Shi et al., arXiv 1609.05158. The activation has one slope for all
    channels, so it commutes with the shuffle.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.conv = conv(config.channels, 4 * config.channels, config.body_kernel)
        self.activation = activation(config)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C×2H×2W."""
        return F.pixel_shuffle(self.activation(self.conv(x)), 2)


class Generator(nn.Module):
    """SRResNet/SRGAN generator.

    Parameters
    ----------
    config
        The network's description; kept as ``self.config``.
    """

    def __init__(self, config: GeneratorConfig | None = None) -> None:
        super().__init__()
        config = config or GeneratorConfig()
        self.config = config
        self.stem = conv(3, config.channels, config.stem_kernel)
        self.stem_activation = activation(config)
        self.blocks = nn.ModuleList(ResidualBlock(config) for _ in range(config.blocks))
        self.trunk = conv(config.channels, config.channels, config.body_kernel)
        self.upsample = nn.ModuleList(SubPixel(config) for _ in range(config.doublings))
        self.output = conv(config.channels, 3, config.output_kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale a batch.

        Parameters
        ----------
        x
            N×3×H×W float, RGB in [0, 1].

        Returns
        -------
        Tensor
            N×3×(scale·H)×(scale·W), the same dtype; nominally in [0, 1], not clipped.
        """
        features = self.features(x)
        for step in self.upsample:
            features = step(features)
        return finish(self.config, self.output(features), x)

    def features(self, x: Tensor) -> Tensor:
        """The trunk: N×3×H×W → N×channels×H×W, before any upscaling."""
        features: Tensor = self.stem_activation(self.stem(centred(self.config, x)))
        skip = features
        for block in self.blocks:
            features = block(features)
        trunk: Tensor = self.trunk(features)
        return skip + trunk


def centred(config: GeneratorConfig, x: Tensor) -> Tensor:
    """The input, N×3×H×W, as the first convolution takes it."""
    return x - x.new_tensor(config.input_mean)[:, None, None] if any(config.input_mean) else x


def finish(config: GeneratorConfig, raw: Tensor, x: Tensor) -> Tensor:
    """Apply the output activation and add the upscaled input.

    Parameters
    ----------
    raw
        N×3×(scale·H)×(scale·W), the last convolution's result.
    x
        N×3×H×W, the network's input.
    """
    if config.output_activation == "sigmoid":
        raw = torch.sigmoid(raw)
    elif config.output_activation == "tanh":
        raw = (torch.tanh(raw) + 1) / 2
    if config.input_skip == "nearest":
        raw = raw + F.interpolate(x, scale_factor=config.scale, mode="nearest")
    elif config.input_skip == "bilinear":
        raw = raw + F.interpolate(
            x, scale_factor=config.scale, mode="bilinear", align_corners=False
        )
    return raw


def convolution_before_shuffle(weight: Tensor) -> Tensor:
    """Rewrite a convolution behind a 2× pixel shuffle as one in front of it.

    ``conv(pixel_shuffle(x, 2), weight)`` equals ``pixel_shuffle(conv(x, result), 2)``
    with zero padding in both: the full-resolution tensor with all its channels
    is then never made. Exact (taps are moved, not changed) and differentiable.
    The bias is repeated four times by the caller.

    Parameters
    ----------
    weight
        O×C×K×K, K odd, of the stride-1 convolution at full resolution.

    Returns
    -------
    Tensor
        4·O×4·C×M×M with M = 2·⌈(K//2)/2⌉ + 1; a 9×9 kernel becomes 5×5.
    """
    outputs, inputs, size, _ = weight.shape
    reach = size // 2
    half = -(-reach // 2)
    taps = 2 * half + 1
    # Row a of an output pair reads the full-resolution row a + d, which is
    # phase (a + d) mod 2 of the half-resolution row ⌊(a + d)/2⌋.
    phase = torch.arange(2, device=weight.device)
    read = phase[:, None] + torch.arange(-reach, reach + 1, device=weight.device)
    found = phase[:, None] + 2 * torch.arange(-half, half + 1, device=weight.device)
    # Row a, tap d, phase p, half-resolution row r.
    select = (read[:, :, None, None] == found).to(weight.dtype)
    moved = torch.einsum("oiyx,aypr,bxqs->oabipqrs", weight, select, select)
    return moved.reshape(4 * outputs, 4 * inputs, taps, taps)
