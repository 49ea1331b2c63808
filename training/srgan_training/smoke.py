"""Draw something to train on where there is nothing.

Writes small drawn images and a feature network with random weights, so that
the whole of training can be tried without data and without a download. Random
convolutions still tell sharp edges from blurred ones, which is all that a
trial needs; weights for use need VGG-19.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from torch import Tensor

from srgan_training.features import CONVOLUTIONS

IMAGES = 40
EDGE = 160
WIDTHS = {"1": 8, "2": 12, "3": 16, "4": 16, "5": 16}  # channels by block of the network
WORDS = ("Rhein", "4711", "Super", "pixel", "Angle", "&c.", "Qty 12", "xkcd")


def draw_image(seed: int) -> Image.Image:
    """Shapes, stripes and letters on a gradient, antialiased; RGB, 160×160."""
    rng = np.random.default_rng(seed)
    size = 2 * EDGE
    ramp = np.linspace(0, 1, size)[:, None, None]
    ends = rng.uniform(30, 225, (2, 1, 1, 3))
    background = np.broadcast_to(ends[0] * ramp + ends[1] * (1 - ramp), (size, size, 3))
    image = Image.fromarray(background.astype(np.uint8))
    pen = ImageDraw.Draw(image)

    def colour() -> tuple[int, ...]:
        return tuple(int(value) for value in rng.integers(0, 256, 3))

    for _ in range(6):
        points = [tuple(point) for point in rng.integers(0, size, (4, 2)).tolist()]
        pen.polygon(points, fill=colour())
        left, top = rng.integers(0, size - 60, 2).tolist()
        pen.ellipse([left, top, left + 60, top + int(rng.integers(20, 60))], fill=colour())
        angle, ink = rng.uniform(0, math.pi), colour()
        for offset in range(0, 80, int(rng.integers(8, 14))):
            x, y = left + offset * math.sin(angle), top - offset * math.cos(angle)
            reach = (70 * math.cos(angle), 70 * math.sin(angle))
            pen.line([x, y, x + reach[0], y + reach[1]], fill=ink, width=3)
        word = WORDS[int(rng.integers(len(WORDS)))]
        place = tuple(rng.integers(0, size - 80, 2).tolist())
        pen.text(place, word, colour(), ImageFont.load_default(int(rng.integers(24, 48))))
    return image.resize((EDGE, EDGE), Image.Resampling.LANCZOS)


def random_features(seed: int = 0) -> dict[str, Tensor]:
    """Tensors of a narrow VGG-19 trunk with random weights, for `FeatureNetwork`."""
    rng = torch.Generator().manual_seed(seed)
    tensors = {
        "input.weight": 2 * torch.eye(3).reshape(3, 3, 1, 1),
        "input.bias": -torch.ones(3),
    }
    inputs = 3
    for name in CONVOLUTIONS:
        outputs = WIDTHS[name[0]]
        gain = math.sqrt(2 / (9 * inputs))
        weight = torch.randn(outputs, inputs, 3, 3, generator=rng) * gain
        tensors[f"conv{name}.weight"] = weight
        tensors[f"conv{name}.bias"] = torch.zeros(outputs)
        inputs = outputs
    return tensors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path)


def command(options: argparse.Namespace) -> int:
    """Write the images and the network; returns the exit status."""
    folder = options.folder
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(IMAGES):
        draw_image(number).save(folder / "images" / f"drawn{number:02}.png")
    save_file(random_features(), folder / "features.safetensors")
    return 0
