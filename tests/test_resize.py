"""Output sizes: what is asked for, and rows reduced as Pillow reduces the whole image."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from srgan_infer.images.resize import Reducer, output_size, parse_size

Array = npt.NDArray[Any]


def by_pillow(whole: Array, size: tuple[int, int]) -> Array:
    """Pillow's Lanczos of the whole image in mode F channel by channel; not rounded."""
    planes = [
        np.asarray(
            Image.fromarray(whole[..., channel].astype(np.float32)).resize(
                size, Image.Resampling.LANCZOS
            )
        )
        for channel in range(whole.shape[2])
    ]
    top = 1 if whole.dtype == np.float32 else np.iinfo(whole.dtype.name).max
    return np.stack(planes, axis=2).clip(0, top)


def reduced(whole: Array, size: tuple[int, int], heights: list[int]) -> Array:
    """By a Reducer that gets bands of these heights, over and over."""
    reducer = Reducer((whole.shape[1], whole.shape[0]), size, whole.dtype)
    parts, top, turn = [], 0, 0
    while top < whole.shape[0]:
        height = heights[turn % len(heights)]
        parts.append(reducer.push(whole[top : top + height]))
        top, turn = top + height, turn + 1
    return np.concatenate(parts)


@st.composite
def images(draw: st.DrawFn) -> Array:
    dtype = np.dtype(draw(st.sampled_from(["uint8", "uint16", "float32"])))
    shape = (draw(st.integers(1, 90)), draw(st.integers(1, 40)), draw(st.integers(1, 4)))
    if dtype == np.float32:
        return draw(arrays(dtype, shape, elements=st.floats(0, 1, width=32)))
    values = st.integers(0, int(np.iinfo(dtype.name).max))
    return draw(arrays(dtype, shape, elements=values))


class TestReducer:
    @settings(max_examples=150, deadline=None)
    @given(whole=images(), data=st.data())
    def test_any_bands_give_what_pillow_gives_on_the_whole(self, whole: Array, data: Any) -> None:
        height, width, _ = whole.shape
        size = (data.draw(st.integers(1, width)), data.draw(st.integers(1, height)))
        heights = data.draw(st.lists(st.integers(1, height), min_size=1, max_size=5))
        result = reduced(whole, size, heights)
        expected = by_pillow(whole, size)
        assert result.dtype == whole.dtype
        assert result.shape == expected.shape
        # Half a level is lost to rounding; in 16 bits Pillow's own floats are less exact.
        level = {"uint8": 0.51, "uint16": 1, "float32": 1e-5}[whole.dtype.name]
        assert np.abs(result.astype(np.float64) - expected).max() <= level

    def test_a_large_noisy_image(self) -> None:
        whole = np.random.default_rng(0).integers(0, 256, (1200, 333, 3)).astype(np.uint8)
        for size in ((166, 599), (333, 1199), (20, 77)):
            for height in (1, 7, 64, 1200):
                result = reduced(whole, size, [height])
                expected = np.rint(by_pillow(whole, size))
                difference = np.abs(result - expected)
                assert difference.max() <= 1
                assert (difference > 0).mean() < 1e-3

    def test_a_flat_image_stays_flat(self) -> None:
        for value in (0, 1, 128, 255):
            whole = np.full((100, 30, 1), value, np.uint8)
            assert (reduced(whole, (13, 41), [9]) == value).all()

    def test_no_ringing_is_cut_between_the_two_passes(self) -> None:
        # A cross of black on white: both passes overshoot, and one makes good for the other.
        whole = np.full((80, 80, 1), 255, np.uint8)
        whole[38:42], whole[:, 38:42] = 0, 0
        result = reduced(whole, (31, 31), [8]).astype(int)
        assert np.abs(result - by_pillow(whole, (31, 31))).max() <= 0.51

    def test_memory_does_not_grow_with_the_height(self) -> None:
        peaks = []
        for height in (2000, 16000):
            reducer = Reducer((400, height), (200, height // 2), np.dtype(np.uint8))
            band = np.zeros((20, 400, 3), np.uint8)
            tracemalloc.start()
            for _ in range(0, height, 20):
                reducer.push(band)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert peaks[-1] <= Reducer.bytes_held((400, height), (200, height // 2), 3)
        assert peaks[1] < 1.1 * peaks[0]


class TestOutputSize:
    def test_nothing_asked_for_is_the_networks_own_scale(self) -> None:
        plain = output_size((30, 20), 4)
        assert (plain.size, plain.passes, plain.is_reduced) == ((120, 80), 1, False)
        assert output_size((30, 20), 4, outscale=4) == plain
        assert output_size((30, 20), 4, size=(120, None)) == plain

    @pytest.mark.parametrize(
        ("asked", "size", "passes"),
        [
            ({"outscale": 2}, (200, 100), 1),
            ({"outscale": 0.5}, (50, 25), 1),
            ({"outscale": 2.5}, (250, 125), 1),
            ({"outscale": 4.01}, (401, 200), 2),
            ({"outscale": 16}, (1600, 800), 2),
            ({"size": (300, None)}, (300, 150), 1),
            ({"size": (None, 300)}, (600, 300), 2),
            ({"size": (300, 300)}, (300, 150), 1),
            ({"size": (300, 100)}, (200, 100), 1),
            ({"size": (1, 1)}, (1, 1), 1),
            ({"megapixels": 0.02}, (200, 100), 1),
            ({"megapixels": 1}, (1414, 707), 2),
        ],
    )
    def test_sizes(self, asked: dict[str, Any], size: tuple[int, int], passes: int) -> None:
        found = output_size((100, 50), 4, **asked)
        assert (found.size, found.passes) == (size, passes)

    @settings(deadline=None)
    @given(
        source=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
        scale=st.sampled_from([2, 3, 4, 8]),
        box=st.tuples(st.integers(1, 20000), st.integers(1, 20000)),
    )
    @example(source=(3, 1000), scale=4, box=(1, 20000))
    def test_a_box_is_filled_and_not_left(
        self, source: tuple[int, int], scale: int, box: tuple[int, int]
    ) -> None:
        factor = min(box[0] / source[0], box[1] / source[1])
        if factor > 16:
            with pytest.raises(ValueError, match="16 times at most"):
                output_size(source, scale, size=box)
            return
        found = output_size(source, scale, size=box)
        assert found.width <= box[0]
        assert found.height <= box[1]
        assert found.width == box[0] or found.height == box[1]
        for result, edge in zip(found.size, source, strict=True):
            assert abs(result - factor * edge) <= 0.5 or result == 1
        assert found.width <= found.upscaled[0]
        assert found.height <= found.upscaled[1]
        assert found.upscaled == tuple(scale**found.passes * edge for edge in source)

    @settings(deadline=None)
    @given(
        source=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
        megapixels=st.floats(0.001, 100),
    )
    def test_megapixels_are_not_exceeded(self, source: tuple[int, int], megapixels: float) -> None:
        if megapixels * 1e6 > 250 * source[0] * source[1]:
            return
        width, height = output_size(source, 4, megapixels=megapixels).size
        if min(width, height) > 1:
            assert width * height <= megapixels * 1e6 * (1 + 1e-6) + 1
            assert (width + 1) * (height + 1) > megapixels * 1e6 * (1 - 1e-6)

    @pytest.mark.parametrize(
        ("asked", "sentence"),
        [
            ({"outscale": 0}, "above 0"),
            ({"outscale": -2}, "above 0"),
            ({"outscale": float("nan")}, "above 0"),
            ({"outscale": float("inf")}, "above 0"),
            ({"outscale": "2"}, "above 0"),
            ({"outscale": True}, "above 0"),
            ({"outscale": 17}, "at most 16"),
            ({"size": (0, 100)}, "above 0"),
            ({"size": (None, None)}, "a width or a height"),
            ({"size": (10.5, None)}, "whole numbers"),
            ({"size": 100}, r"\(width, height\)"),
            ({"size": (100000, None)}, "16 times at most"),
            ({"megapixels": -1}, "above 0"),
            ({"megapixels": 1000}, "16 times at most"),
            ({"outscale": 2, "size": (10, 10)}, "give one"),
            ({"outscale": 2, "megapixels": 1}, "give one"),
        ],
    )
    def test_what_means_nothing(self, asked: dict[str, Any], sentence: str) -> None:
        with pytest.raises(ValueError, match=sentence) as caught:
            output_size((100, 50), 4, **asked)
        assert str(caught.value).endswith(".")


class TestParseSize:
    @pytest.mark.parametrize(
        ("text", "box"),
        [
            ("1600x1200", (1600, 1200)),
            ("1600x", (1600, None)),
            ("x1200", (None, 1200)),
            ("16X9", (16, 9)),
        ],
    )
    def test_sizes(self, text: str, box: tuple[int | None, int | None]) -> None:
        assert parse_size(text) == box

    @pytest.mark.parametrize("text", ["", "x", "1600", "axb", "-1x5", "1x2x3", "1.5x2"])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(ValueError, match="1600x1200, 1600x or x1200"):
            parse_size(text)
