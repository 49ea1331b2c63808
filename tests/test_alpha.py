"""Transparency: no fringes of hidden colour, and a smooth edge."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from srgan_infer.images.alpha import (
    FilledRows,
    fill_transparent,
    split_alpha,
    upscale_alpha,
    visible_mean,
)
from srgan_infer.images.pillow import from_pil
from srgan_infer.images.read import open_file

Array = npt.NDArray[Any]


def disc(size: int) -> Array:
    """A hard-edged disc in the middle of a square: True inside."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    inside: Array = np.hypot(x, y) < size / 3
    return inside


def upscale(image: Image.Image) -> Array:
    """(4H, 4W, 4): the colour by bicubic interpolation, which rings more than a network."""
    decoded, _ = from_pil(image)
    assert decoded.alpha is not None
    color = Image.fromarray(decoded.color[0 : image.height])
    big = color.resize((4 * image.width, 4 * image.height), Image.Resampling.BICUBIC)
    return np.dstack([np.asarray(big), upscale_alpha(decoded.alpha, 4)])


@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 255, 255), (0, 255, 0)])
@pytest.mark.parametrize("background", [0, 255])
def test_a_hard_edged_sprite_has_no_fringe(hidden: tuple[int, ...], background: int) -> None:
    color = (200, 120, 40)
    inside = disc(30)
    sprite = np.zeros((30, 30, 4), np.uint8)
    sprite[..., :3] = np.where(inside[..., None], color, hidden)
    sprite[..., 3] = inside * 255
    big = upscale(Image.fromarray(sprite)).astype(np.float64)
    alpha = big[..., 3:] / 255
    shown = big[..., :3] * alpha + background * (1 - alpha)
    low, high = np.minimum(color, background), np.maximum(color, background)
    # Every pixel is a mix of the sprite's own colour and the background.
    assert (shown >= low - 1).all()
    assert (shown <= high + 1).all()
    assert 0 < alpha[alpha > 0].min() < 0.5
    assert alpha.max() == 1


def test_hidden_colour_takes_that_of_the_nearest_visible_pixel() -> None:
    color = np.zeros((9, 40, 3), np.uint8)
    color[:, :5], color[:, -5:] = (250, 10, 20), (5, 100, 200)
    alpha = np.zeros((9, 40), np.uint8)
    alpha[:, :5] = alpha[:, -5:] = 1
    filled = fill_transparent(color, alpha)
    assert (filled[:, :20] == (250, 10, 20)).all()
    assert (filled[:, 20:] == (5, 100, 200)).all()


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    seed=st.integers(0, 999),
)
def test_visible_pixels_stay_and_hidden_ones_do_not_matter(
    height: int, width: int, channels: int, dtype: str, share: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    top = 1 if dtype == "float32" else np.iinfo(dtype).max
    color = (random.random((height, width, channels)) * top).astype(dtype)
    alpha = ((random.random((height, width)) < share) * top).astype(dtype)
    visible = alpha > 0
    filled = fill_transparent(color, alpha)
    assert filled.dtype == color.dtype
    assert np.array_equal(filled[visible], color[visible])
    other = color.copy()
    other[~visible] = top - other[~visible]
    assert np.array_equal(fill_transparent(other, alpha), filled)
    if visible.any():
        assert filled.min() >= color[visible].min()
        assert filled.max() <= color[visible].max()


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 25),
    width=st.integers(1, 12),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    cut=st.integers(0, 24),
    seed=st.integers(0, 999),
)
def test_alpha_in_bands_equals_the_whole(
    height: int, width: int, dtype: str, cut: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    top = 1 if dtype == "float32" else np.iinfo(dtype).max
    alpha = (random.integers(0, 2, (height, width)) * top).astype(dtype)
    whole = upscale_alpha(alpha, 4)
    assert whole.shape == (4 * height, 4 * width)
    assert whole.dtype == alpha.dtype
    cut = min(cut, height)
    bands = [
        upscale_alpha(alpha, 4, *rows) for rows in ((0, cut), (cut, height)) if rows[0] < rows[1]
    ]
    assert np.array_equal(np.concatenate(bands), whole)


def test_full_and_no_cover_stay_exact() -> None:
    for value in (0, 255):
        assert (upscale_alpha(np.full((7, 5), value, np.uint8), 4) == value).all()


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 160),
    width=st.integers(1, 6),
    channels=st.sampled_from([2, 4]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    part=st.sampled_from([0.0, 0.003, 0.1, 1.0]),
    cuts=st.lists(st.integers(0, 160), max_size=4),
    seed=st.integers(0, 999),
)
def test_filled_in_bands_equals_the_whole(
    height: int, width: int, channels: int, dtype: str, part: float, cuts: list[int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    top = 1 if dtype == "float32" else np.iinfo(dtype).max
    rows = (random.random((height, width, channels)) * top).astype(dtype)
    rows[..., -1] *= random.random((height, width)) < part
    decoded = split_alpha(rows)
    assert np.array_equal(decoded.color[:], fill_transparent(rows[..., :-1], rows[..., -1]))
    assert decoded.alpha is not None
    assert np.array_equal(decoded.alpha[:], rows[..., -1])
    filled = FilledRows(rows, visible_mean(rows))
    edges = sorted({0, height, *(min(cut, height) for cut in cuts)})
    bands = [filled[first:last] for first, last in pairwise(edges)]
    assert np.array_equal(np.concatenate(bands)[..., :-1], decoded.color[:])


def test_a_large_transparent_image_does_not_stay_in_memory(tmp_path: Path) -> None:
    sprite = np.zeros((1600, 1500, 4), np.uint8)
    sprite[::2, :, :3], sprite[400:1200, ::3, 3] = 200, 255
    Image.fromarray(sprite).save(tmp_path / "sprite.png")
    tracemalloc.start()
    decoded = next(open_file(tmp_path / "sprite.png").frames())
    held, _ = tracemalloc.get_traced_memory()
    assert decoded.alpha is not None
    assert np.array_equal(decoded.alpha[500:520], sprite[500:520, :, 3])
    tracemalloc.stop()
    assert held < sprite.nbytes / 10
