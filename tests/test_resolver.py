"""The public class: what goes in comes out in kind, four times as large."""

from __future__ import annotations

import io
import os
import threading
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import COMMITS, Hub, make_model, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from srgan_infer import ImageError, SuperResolver, WeightsError, weights
from srgan_infer.errors import ImageWarning
from srgan_infer.network.stream import RowStream


@pytest.fixture(scope="module")
def sr(tmp_path_factory: pytest.TempPathFactory) -> SuperResolver:
    # Exact, so that rounding can be told from the half precision of some processors.
    model = make_model(tmp_path_factory.mktemp("model"))
    return SuperResolver.from_pretrained(model, dtype="float32")


def reference(sr: SuperResolver, rgb: np.ndarray) -> np.ndarray:
    """Inference on the whole image, H×W×3 float in [0, 1], not rounded."""
    x = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    with torch.no_grad():
        y = weights.build(sr._weights)(x)
    return np.asarray(y[0].permute(1, 2, 0).clamp(0, 1))


class TestArrays:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    @pytest.mark.parametrize("layout", [(), (1,), (2,), (3,), (4,)])
    def test_layout_and_dtype_come_back(
        self, sr: SuperResolver, dtype: Any, layout: tuple[int, ...]
    ) -> None:
        given_ = noise((5, 7, *layout), dtype)
        kept = given_.copy()
        big = sr(given_)
        assert big.shape == (20, 28, *layout)
        assert big.dtype == dtype
        assert np.array_equal(given_, kept)

    def test_the_values_are_the_networks(self, sr: SuperResolver) -> None:
        rgb = noise((9, 6, 3), np.float32)
        assert np.abs(sr(rgb) - reference(sr, rgb)).max() <= 1e-4

    @pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
    def test_integers_are_rounded(self, sr: SuperResolver, dtype: Any, top: int) -> None:
        rgb = noise((8, 8, 3), dtype)
        expected = reference(sr, (rgb / top).astype(np.float32)) * top
        assert np.abs(sr(rgb) - expected).max() <= 0.5 + 1e-4 * top

    def test_memory_order_does_not_matter(self, sr: SuperResolver) -> None:
        rgb = noise((8, 5, 3), np.uint8)
        for other in (np.asfortranarray(rgb), rgb[::-1][::-1], rgb.copy()[:, ::1]):
            assert np.array_equal(sr(other), sr(rgb))
        flipped = rgb[:, ::-1]
        assert np.array_equal(sr(flipped), sr(np.ascontiguousarray(flipped)))

    @settings(max_examples=40, deadline=None)
    @given(
        letters=st.permutations("NHWC"),
        lacks_n=st.booleans(),
        lacks_c=st.booleans(),
        channels=st.integers(1, 4),
        count=st.integers(1, 3),
        as_tensor=st.booleans(),
    )
    def test_any_layout_that_is_named(
        self,
        sr: SuperResolver,
        letters: list[str],
        lacks_n: bool,
        lacks_c: bool,
        channels: int,
        count: int,
        as_tensor: bool,
    ) -> None:
        count, channels = 1 if lacks_n else count, 1 if lacks_c else channels
        images = noise((count, 5, 7, channels), np.uint8)
        expected = np.stack([sr(image) for image in images])
        layout = [x for x in letters if not ((x == "N" and lacks_n) or (x == "C" and lacks_c))]
        axes = {"N": count, "H": 5, "W": 7, "C": channels}
        turn = ["NHWC".index(letter) for letter in letters]

        def laid_out(stack: np.ndarray) -> np.ndarray:
            turned = stack.transpose(turn)
            lost = tuple(i for i, letter in enumerate(letters) if letter not in layout)
            return turned.squeeze(lost)

        given_: Any = laid_out(images)
        assert given_.shape == tuple(axes[letter] for letter in layout)
        if as_tensor:
            given_ = torch.from_numpy(np.ascontiguousarray(given_))
        big = sr(given_, layout="".join(layout))
        assert np.array_equal(np.asarray(big), laid_out(expected))

    @pytest.mark.parametrize("layout", ["", "HH", "HWX", "NC", "HWCHW", "hwc"])
    def test_what_is_no_layout(self, sr: SuperResolver, layout: str) -> None:
        with pytest.raises(ValueError, match="such as 'NHWC'"):
            sr(noise((4, 4, 3), np.uint8), layout=layout)

    def test_a_layout_that_does_not_fit(self, sr: SuperResolver) -> None:
        with pytest.raises(ImageError, match="4 axes, but the shape 4×4×3 has 3"):
            sr(noise((4, 4, 3), np.uint8), layout="NHWC")

    @pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4", ">u2", "<u2"])
    def test_other_floats_and_byte_orders(self, sr: SuperResolver, dtype: Any) -> None:
        dtype = np.dtype(dtype)
        native = noise((6, 5, 3), np.uint16 if dtype.kind == "u" else np.float32)
        native = native.astype(dtype.newbyteorder("="))
        big = sr(native.astype(dtype))
        assert big.dtype == dtype
        working = np.uint16 if dtype.kind == "u" else np.float32
        assert np.array_equal(big, sr(native.astype(working)).astype(dtype))

    def test_any_strides(self, sr: SuperResolver) -> None:
        wide = noise((12, 20, 3), np.uint8)
        for view in (wide[::-1, ::-1], wide[::2, ::3], wide[..., ::-1], wide.swapaxes(0, 1)):
            expected = sr(np.ascontiguousarray(view))
            assert np.array_equal(sr(view), expected)
            view.flags.writeable = False
            assert np.array_equal(sr(view), expected)

    def test_read_only_arrays(self, sr: SuperResolver) -> None:
        rgb = noise((4, 4, 3), np.uint8)
        rgb.flags.writeable = False
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sr(rgb)

    def test_opaque_alpha_changes_nothing(self, sr: SuperResolver) -> None:
        rgba = noise((6, 6, 4), np.uint8)
        rgba[..., 3] = 255
        big = sr(rgba)
        assert (big[..., 3] == 255).all()
        assert np.array_equal(big[..., :3], sr(np.ascontiguousarray(rgba[..., :3])))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_colour_under_transparent_pixels_does_not_bleed(
        self, sr: SuperResolver, dtype: Any
    ) -> None:
        top = 1 if dtype == np.float32 else np.iinfo(dtype).max
        sprite = np.full((12, 12, 4), top, dtype)
        sprite[:, 6:, 3] = 0
        results = []
        for hidden in (0, top):
            sprite[:, 6:, :3] = hidden
            results.append(sr(sprite))
        assert np.array_equal(results[0], results[1])

    @settings(max_examples=25, deadline=None)
    @given(
        height=st.integers(1, 40),
        width=st.integers(1, 40),
        tile=st.integers(1, 48),
        channels=st.sampled_from([1, 3, 4]),
        seed=st.integers(0, 99),
    )
    def test_tiles_do_not_show(
        self, sr: SuperResolver, height: int, width: int, tile: int, channels: int, seed: int
    ) -> None:
        image = noise((height, width, channels), np.uint8, seed)
        whole = sr(image, tile="whole").astype(int)
        tiled = sr(image, tile=tile).astype(int)
        difference = np.abs(whole - tiled)
        assert difference.max() <= 1
        assert (difference == 0).mean() >= 0.999 or difference.sum() <= 1

    @pytest.mark.parametrize(
        ("array", "expected"),
        [
            (np.zeros(5, np.uint8), "not 5;"),
            (np.zeros((2, 3, 4, 3), np.uint8), "2×3×4×3"),
            (np.zeros((3, 20, 30), np.uint8), "channels last"),
            (np.zeros((4, 4, 5), np.uint8), "1 to 4 channels"),
            (np.zeros((4, 4, 3), np.int64), "int64"),
            (np.zeros((4, 4, 3), np.complex64), "complex64"),
            (np.zeros((2, 8, 9, 3), np.uint8), "layout='NHWC'"),
            (np.zeros((3, 20, 30), np.uint8), "layout='CHW'"),
            (np.zeros((4, 4), bool), "bool"),
            (np.zeros((0, 4, 3), np.uint8), "empty"),
            (np.full((4, 4), np.nan, np.float32), "NaN"),
            (np.full((4, 4), np.inf, np.float32), "NaN or infinite"),
            (np.full((4, 4), 255, np.float32), "between 0 and 1, not 255 to 255"),
            (np.full((4, 4), -0.1, np.float32), "between 0 and 1"),
        ],
    )
    def test_what_is_no_image(self, sr: SuperResolver, array: np.ndarray, expected: str) -> None:
        with pytest.raises(ImageError, match=expected) as caught:
            sr(array)
        assert str(caught.value).count(". ") == 0

    def test_what_is_not_even_an_array(self, sr: SuperResolver) -> None:
        for thing in (None, 3, [[1, 2], [3, 4]]):
            with pytest.raises(ImageError, match="An image is a PIL image"):
                sr(thing)  # type: ignore[call-overload]


class TestTensors:
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16])
    @pytest.mark.parametrize("shape", [(3, 5, 7), (1, 5, 7), (2, 5, 7), (2, 4, 5, 7), (1, 3, 5, 7)])
    def test_layout_and_dtype_come_back(
        self, sr: SuperResolver, dtype: torch.dtype, shape: tuple[int, ...]
    ) -> None:
        values = torch.rand(shape)
        given_ = (values * 255).to(dtype) if dtype == torch.uint8 else values.to(dtype)
        big = sr(given_)
        assert big.shape == (*shape[:-2], 20, 28)
        assert big.dtype == dtype
        assert big.device == given_.device

    def test_same_values_as_an_array(self, sr: SuperResolver) -> None:
        array = noise((6, 5, 3), np.uint8)
        tensor = torch.from_numpy(array).permute(2, 0, 1)
        assert np.array_equal(sr(tensor).permute(1, 2, 0).numpy(), sr(array))

    def test_each_of_a_batch_for_itself(self, sr: SuperResolver) -> None:
        batch = torch.rand(3, 3, 4, 6)
        assert torch.allclose(sr(batch)[1], sr(batch[1]), rtol=0, atol=1e-5)

    @settings(deadline=None, max_examples=25)
    @given(
        count=st.integers(1, 9),
        channels=st.integers(1, 4),
        side=st.integers(1, 9),
        grey=st.lists(st.booleans(), min_size=9, max_size=9),
        size=st.sampled_from([{}, {"outscale": 3}, {"size": (5, None)}, {"outscale": 6}]),
        seed=st.integers(0, 99),
    )
    def test_small_images_run_together_are_what_they_are_alone(
        self,
        sr: SuperResolver,
        count: int,
        channels: int,
        side: int,
        grey: Any,
        size: Any,
        seed: int,
    ) -> None:
        images = noise((count, side, side, channels), np.uint8, seed)
        if channels > 2:
            for image, is_grey in zip(images, grey, strict=False):
                if is_grey:  # which is computed as grey
                    image[..., 1] = image[..., 2] = image[..., 0]
        steps: list[tuple[int, int]] = []
        big = sr(images, layout="NHWC", progress=lambda *step: steps.append(step), **size)
        assert len(steps) == steps[-1][0] == steps[-1][1]
        assert len(steps) >= count
        listed = sr.map(list(images), **size)
        for image, result, other in zip(images, big, listed, strict=True):
            alone = sr(image, **size)
            assert alone.dtype == result.dtype == other.dtype
            assert np.abs(result.astype(int) - alone).max() <= 1
            assert np.abs(other.astype(int) - alone).max() <= 1
            if channels > 2 and (image[..., :1] == image[..., :3]).all():
                assert (result[..., :1] == result[..., :3]).all()

    def test_gradients_are_not_tracked(self, sr: SuperResolver) -> None:
        assert not sr(torch.rand(3, 4, 4, requires_grad=True)).requires_grad

    @pytest.mark.parametrize(
        ("tensor", "expected"),
        [
            (torch.zeros(4, 4), "C×H×W"),
            (torch.zeros(20, 30, 3), "permute"),
            (torch.zeros(3, 4, 4, dtype=torch.int32), "int32"),
            (torch.zeros(3, 0, 4), "empty"),
            (torch.zeros(0, 3, 4, 4), "empty"),
            (torch.full((3, 4, 4), 2.0), "between 0 and 1"),
            (torch.full((3, 4, 4), torch.nan), "NaN"),
        ],
    )
    def test_what_is_no_image(self, sr: SuperResolver, tensor: torch.Tensor, expected: str) -> None:
        with pytest.raises(ImageError, match=expected):
            sr(tensor)


class TestImages:
    @pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "YCbCr", "LAB", "HSV", "I;16"])
    def test_modes_come_back(self, sr: SuperResolver, mode: str) -> None:
        if mode == "I;16":
            image = Image.fromarray(noise((5, 7), np.uint16))
        else:
            image = Image.fromarray(noise((5, 7, 3), np.uint8)).convert("RGB")
            if mode == "LAB":
                image = Image.frombytes("LAB", image.size, image.tobytes())
            else:
                image = image.convert(mode)
        big = sr(image)
        assert (big.mode, big.size) == (mode, (28, 20))

    @pytest.mark.parametrize(("mode", "result"), [("1", "L"), ("P", "RGB"), ("CMYK", "RGB")])
    def test_modes_that_must_change(self, sr: SuperResolver, mode: str, result: str) -> None:
        image = Image.fromarray(noise((5, 7, 3), np.uint8)).convert(mode)
        assert sr(image).mode == result

    def test_same_pixels_as_an_array(self, sr: SuperResolver) -> None:
        array = noise((6, 5, 3), np.uint8)
        assert np.array_equal(np.asarray(sr(Image.fromarray(array))), sr(array))

    def test_a_path_gives_an_upright_image(self, sr: SuperResolver, tmp_path: Path) -> None:
        image = Image.fromarray(noise((5, 7, 3), np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(tmp_path / "turned.png", exif=exif)
        for path in (tmp_path / "turned.png", str(tmp_path / "turned.png")):
            big = sr(path)
            assert isinstance(big, Image.Image)
            assert big.size == (20, 28)
        upright = image.transpose(Image.Transpose.ROTATE_270)
        assert np.array_equal(np.asarray(big), np.asarray(sr(upright)))

    def test_bytes_and_binary_files(self, sr: SuperResolver, tmp_path: Path) -> None:
        Image.fromarray(noise((5, 7, 3), np.uint8)).save(tmp_path / "in.png")
        expected = np.asarray(sr(tmp_path / "in.png"))
        data = (tmp_path / "in.png").read_bytes()
        assert np.array_equal(np.asarray(sr(data)), expected)
        assert np.array_equal(np.asarray(sr(io.BytesIO(data))), expected)
        with (tmp_path / "in.png").open("rb") as file:
            assert np.array_equal(np.asarray(sr(file)), expected)
        out = io.BytesIO()
        sr.upscale_file(data, out, format="png")
        assert np.array_equal(np.asarray(Image.open(out)), expected)
        with pytest.raises(ImageError, match="not an image"):
            sr(b"abc")

    @pytest.mark.parametrize(
        "address", ["https://example.com/a.png", "HTTP://example.com", "ftp://example.com/a.png"]
    )
    def test_an_address_is_named_as_it_was_given(
        self, sr: SuperResolver, address: str, tmp_path: Path
    ) -> None:
        for call in (sr, lambda name: sr.upscale_file(name, tmp_path / "o.png"), sr.plan_file):
            with pytest.raises(ImageError, match="download it first") as caught:
                call(address)
            assert str(caught.value).startswith(f"{address} is a web address")
        with pytest.raises(ImageError, match="pass the bytes"):
            sr("data:image/png;base64,AAAA")

    def test_a_path_to_nothing(self, sr: SuperResolver, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"nothing\.png"):
            sr(tmp_path / "nothing.png")


class TestFiles:
    @pytest.fixture
    def photo(self, tmp_path: Path) -> Path:
        path = tmp_path / "photo ünïcode 100%.png"
        Image.fromarray(noise((30, 50, 3), np.uint8)).save(path)
        return path

    def test_same_pixels_as_in_memory(self, sr: SuperResolver, photo: Path, tmp_path: Path) -> None:
        for name in ("big.png", "big.tif"):
            result = sr.upscale_file(photo, tmp_path / name)
            assert result.size == (200, 120)
            assert result.frames == 1
            with Image.open(tmp_path / name) as big, Image.open(photo) as small:
                assert np.array_equal(np.asarray(big), np.asarray(sr(small)))

    def test_alpha_in_bands_equals_alpha_in_memory(self, sr: SuperResolver, tmp_path: Path) -> None:
        Image.fromarray(noise((40, 9, 4), np.uint8)).save(tmp_path / "sprite.png")
        sr.upscale_file(tmp_path / "sprite.png", tmp_path / "big.png", tile=3)
        with Image.open(tmp_path / "big.png") as big, Image.open(tmp_path / "sprite.png") as small:
            difference = np.asarray(big).astype(int) - np.asarray(sr(small))
        assert np.abs(difference).max() <= 1
        assert (difference[..., 3] == 0).all()

    def test_file_objects(self, sr: SuperResolver, photo: Path, tmp_path: Path) -> None:
        sr.upscale_file(photo, tmp_path / "big.png")
        target = io.BytesIO()
        sr.upscale_file(io.BytesIO(photo.read_bytes()), target)
        with Image.open(target) as one, Image.open(tmp_path / "big.png") as two:
            assert one.format == "PNG"
            assert np.array_equal(np.asarray(one), np.asarray(two))

    def test_format_and_quality(self, sr: SuperResolver, photo: Path, tmp_path: Path) -> None:
        sizes = {}
        for quality in (30, 95):
            sr.upscale_file(photo, tmp_path / "out", format="jpeg", quality=quality)
            sizes[quality] = (tmp_path / "out").stat().st_size
            with Image.open(tmp_path / "out") as image:
                assert image.format == "JPEG"
        assert sizes[30] < sizes[95]

    def test_progress_counts_to_the_end(
        self, sr: SuperResolver, photo: Path, tmp_path: Path
    ) -> None:
        seen: list[tuple[int, int]] = []
        sr.upscale_file(
            photo, tmp_path / "o.png", tile=10, progress=lambda *step: seen.append(step)
        )
        total = seen[-1][1]
        assert seen == [(step, total) for step in range(1, total + 1)]
        assert total > 1

    def test_progress_over_the_frames_of_an_animation(
        self, sr: SuperResolver, tmp_path: Path
    ) -> None:
        frames = [Image.fromarray(noise((6, 6, 3), np.uint8, n)) for n in range(3)]
        frames[0].save(
            tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[50, 60, 70]
        )
        seen: list[tuple[int, int]] = []
        result = sr.upscale_file(
            tmp_path / "a.gif", tmp_path / "b.gif", progress=lambda *step: seen.append(step)
        )
        assert result.frames == 3
        assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
        assert seen[-1] == (len(seen), len(seen))
        with Image.open(tmp_path / "b.gif") as big:
            assert getattr(big, "n_frames", 1) == 3
            assert big.size == (24, 24)

    def test_a_bar_on_stderr(
        self,
        sr: SuperResolver,
        photo: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        sr.upscale_file(photo, tmp_path / "o.png", progress=True)
        captured = capsys.readouterr()
        assert "100%" in captured.err
        assert captured.out == ""
        sr.upscale_file(photo, tmp_path / "o.png")
        assert capsys.readouterr().err == ""

    def test_what_is_lost_is_warned_of(self, sr: SuperResolver, tmp_path: Path) -> None:
        Image.fromarray(noise((4, 4, 4), np.uint8)).save(tmp_path / "sprite.png")
        with pytest.warns(ImageWarning, match="transparency"):
            result = sr.upscale_file(tmp_path / "sprite.png", tmp_path / "flat.jpg")
        assert any("transparency" in sentence for sentence in result.warnings)

    def test_a_failure_keeps_the_old_file(
        self, sr: SuperResolver, photo: Path, tmp_path: Path
    ) -> None:
        target = tmp_path / "old.png"
        target.write_bytes(b"old")
        before = sorted(tmp_path.iterdir())

        def fail(done: int, total: int) -> None:
            if done == 3:
                raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            sr.upscale_file(photo, target, tile=4, progress=fail)
        assert target.read_bytes() == b"old"
        assert sorted(tmp_path.iterdir()) == before

    def test_impossible_targets_are_refused_before_computing(
        self, sr: SuperResolver, photo: Path, tmp_path: Path
    ) -> None:
        steps: list[int] = []
        for name in ("o.xyz", "missing folder/o.png"):
            with pytest.raises(ImageError):
                sr.upscale_file(photo, tmp_path / name, progress=lambda done, _: steps.append(done))
        assert not steps


class TestOutputSize:
    @staticmethod
    def reduced(whole: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Pillow's Lanczos in mode F, channel by channel, rounded once."""
        planes = [
            np.asarray(
                Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.LANCZOS)
            )
            for plane in np.moveaxis(whole, 2, 0)
        ]
        top = 1 if whole.dtype == np.float32 else np.iinfo(whole.dtype).max
        result = np.stack(planes, axis=2).clip(0, top)
        return result if whole.dtype == np.float32 else np.rint(result)

    @settings(max_examples=15, deadline=None)
    @given(
        height=st.integers(1, 30),
        width=st.integers(1, 30),
        channels=st.integers(1, 4),
        dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
        factor=st.floats(0.1, 4),
        tile=st.sampled_from(["whole", 5, 16]),
        seed=st.integers(0, 99),
    )
    def test_below_the_networks_scale_its_result_is_reduced(
        self,
        sr: SuperResolver,
        height: int,
        width: int,
        channels: int,
        dtype: Any,
        factor: float,
        tile: Any,
        seed: int,
    ) -> None:
        values = np.random.default_rng(seed).random((height, width, channels))
        top = 1 if dtype == np.float32 else np.iinfo(dtype).max
        image = (values * top).astype(dtype)
        big = sr(image, outscale=factor, tile=tile)
        size = (max(round(factor * width), 1), max(round(factor * height), 1))
        assert big.shape == (size[1], size[0], channels)
        assert big.dtype == dtype
        expected = self.reduced(sr(image, tile=tile), size)
        level = 1e-5 if dtype == np.float32 else 1
        assert np.abs(big.astype(np.float64) - expected).max() <= level

    def test_at_the_networks_scale_nothing_changes(self, sr: SuperResolver) -> None:
        rgba = noise((9, 7, 4), np.uint8)
        plain = sr(rgba)
        for asked in ({"outscale": 4}, {"size": (28, 36)}, {"size": (28, None)}):
            assert np.array_equal(sr(rgba, **asked), plain)

    @pytest.mark.parametrize("tile", ["whole", 6])
    @pytest.mark.parametrize("shape", [(9, 7, 3), (9, 7, 1), (9, 7)])
    def test_above_it_the_network_runs_over_its_own_result(
        self, sr: SuperResolver, shape: tuple[int, ...], tile: Any
    ) -> None:
        image = noise(shape)
        twice = sr(sr(image))
        big = sr(image, outscale=16, tile=tile).astype(int)
        assert big.shape == twice.shape
        assert np.abs(big - twice).max() <= 1
        size = (round(5.3 * 7), round(5.3 * 9))
        expected = self.reduced(twice.reshape(144, 112, -1), size)
        found = sr(image, outscale=5.3, tile=tile).astype(int)
        assert np.abs(found.reshape(expected.shape) - expected).max() <= 1

    def test_alpha_above_it_is_smooth(self, sr: SuperResolver) -> None:
        sprite = noise((8, 8, 4), np.uint8)
        sprite[..., 3] = 0
        sprite[:, 4:, 3] = 255
        alpha = sr(sprite, outscale=10)[..., 3].astype(int)
        assert alpha.shape == (80, 80)
        assert (alpha[:, :20] == 0).all()
        assert (alpha[:, -20:] == 255).all()
        assert (np.diff(alpha, axis=1) >= 0).all()

    def test_every_kind_of_input_takes_a_size(self, sr: SuperResolver, tmp_path: Path) -> None:
        rgb = noise((10, 20, 3), np.uint8)
        expected = sr(rgb, size=(50, None))
        assert expected.shape == (25, 50, 3)
        image = Image.fromarray(rgb)
        image.save(tmp_path / "in.png")
        assert np.array_equal(np.asarray(sr(image, size=(50, None))), expected)
        assert np.array_equal(np.asarray(sr(tmp_path / "in.png", size=(50, None))), expected)
        tensor = torch.from_numpy(rgb).permute(2, 0, 1)
        assert np.array_equal(sr(tensor, outscale=2.5).permute(1, 2, 0).numpy(), expected)
        assert sr(tensor[None].repeat(2, 1, 1, 1), megapixels=0.0002).shape == (2, 3, 10, 20)
        result = sr.upscale_file(tmp_path / "in.png", tmp_path / "out.png", size=(50, 50))
        assert (result.size, result.passes) == ((50, 25), 1)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected)

    def test_sizes_in_the_metadata_follow(self, sr: SuperResolver, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003] = 20, 10
        Image.fromarray(noise((10, 20, 3), np.uint8)).save(tmp_path / "in.jpg", exif=exif)
        sr.upscale_file(tmp_path / "in.jpg", tmp_path / "out.jpg", outscale=1.5)
        with Image.open(tmp_path / "out.jpg") as big:
            details = big.getexif().get_ifd(0x8769)
            assert (details[0xA002], details[0xA003]) == big.size == (15, 30)

    def test_the_plan_and_the_progress_know_the_size(self, sr: SuperResolver) -> None:
        image = noise((40, 50, 3), np.uint8)
        steps: list[tuple[int, int]] = []
        sr(image, outscale=6, tile=16, progress=lambda *step: steps.append(step))
        plan = sr.plan(40, 50, outscale=6, tile=16)
        assert plan.size == (300, 240)
        assert len(plan.passes) == 2
        assert str(plan).startswith("50x40 to 300x240 by way of 800x640 in 2 passes")
        assert steps[-1] == (plan.steps, plan.steps)
        assert [done for done, _ in steps] == list(range(1, plan.steps + 1))
        assert sr.plan(40, 50, outscale=2).peak_bytes > sr.plan(40, 50).peak_bytes

    def test_the_memory_given_holds_for_all_passes(self, sr: SuperResolver) -> None:
        plan = sr.plan(2000, 300, outscale=12, max_memory="120MB")
        assert plan.peak_bytes <= 120 * 2**20

    def test_a_size_that_the_format_cannot_hold(self, sr: SuperResolver, tmp_path: Path) -> None:
        Image.new("RGB", (2000, 3)).save(tmp_path / "in.png")
        with pytest.raises(ImageError, match="16383 pixels a side, not 20000×30"):
            sr.upscale_file(tmp_path / "in.png", tmp_path / "out.webp", outscale=10)

    @pytest.mark.parametrize(
        "asked", [{"outscale": 0}, {"size": (0, 1)}, {"outscale": 2, "megapixels": 3}]
    )
    def test_sizes_that_mean_nothing(self, sr: SuperResolver, asked: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"\.$"):
            sr(noise((4, 4, 3), np.uint8), **asked)


class TestMap:
    def test_mixed_images_come_in_order(self, sr: SuperResolver, tmp_path: Path) -> None:
        rgb = noise((5, 7, 3), np.uint8)
        Image.fromarray(rgb).save(tmp_path / "in.png")
        mixed: list[Any] = [
            rgb,
            torch.from_numpy(rgb).permute(2, 0, 1),
            Image.fromarray(rgb),
            tmp_path / "in.png",
            (tmp_path / "in.png").read_bytes(),
            rgb[:3],
        ] * 3
        for workers in (None, 1, 5):
            results = list(sr.map(iter(mixed), workers=workers))
            for result, image in zip(results, mixed, strict=True):
                assert type(result) is type(sr(image))
                assert np.array_equal(np.asarray(result), np.asarray(sr(image)))

    def test_options_are_those_of_a_call(self, sr: SuperResolver) -> None:
        images = [noise((3, 5, 7), np.uint8)] * 2
        for big in sr.map(images, layout="CHW", size=(20, None), tile=3):
            assert np.array_equal(big, sr(images[0], layout="CHW", size=(20, None), tile=3))

    def test_a_data_loader(self, sr: SuperResolver) -> None:
        images = torch.rand(5, 3, 4, 6)
        batches: Any = torch.utils.data.DataLoader(images, batch_size=2)  # type: ignore[arg-type]
        results = list(sr.map(batches))
        assert [len(batch) for batch in results] == [2, 2, 1]
        assert torch.allclose(torch.cat(results), sr(images), rtol=0, atol=1e-5)

    def test_few_images_are_taken_ahead(self, sr: SuperResolver) -> None:
        taken: list[int] = []

        def images() -> Iterator[np.ndarray]:
            for number in range(50):
                taken.append(number)
                yield noise((4, 4, 3), np.uint8)

        results = sr.map(images(), workers=3)
        assert not taken
        for count in range(1, 11):
            next(results)
            assert len(taken) <= count + 4
        results.close()  # type: ignore[attr-defined]
        assert len(taken) <= 14

    def test_the_next_image_is_computed_while_a_result_is_used(self, sr: SuperResolver) -> None:
        second = threading.Event()

        class Lazy:
            """An image file that tells when it is read."""

            def __init__(self, event: threading.Event | None) -> None:
                self.event = event
                self.data = io.BytesIO()
                Image.new("RGB", (4, 4)).save(self.data, "PNG")

            def seekable(self) -> bool:
                return False

            def read(self, size: int = -1) -> bytes:
                if self.event:
                    self.event.set()
                self.data.seek(0)
                return self.data.read()

        results = sr.map([Lazy(None), Lazy(second), Lazy(None)])
        next(results)
        assert second.wait(20)
        assert len(list(results)) == 2

    def test_the_first_error_is_raised(self, sr: SuperResolver) -> None:
        rgb = noise((4, 4, 3), np.uint8)
        results = sr.map([rgb, b"abc", rgb])
        next(results)
        with pytest.raises(ImageError, match="not an image"):
            next(results)
        assert list(results) == []

    def test_errors_take_the_place_of_their_image(self, sr: SuperResolver) -> None:
        rgb = noise((4, 4, 3), np.uint8)
        first, second, third = sr.map([rgb, b"abc", rgb], errors="yield")
        assert isinstance(second, ImageError)
        assert np.array_equal(first, third)

    def test_a_list_of_small_arrays_is_run_together(
        self, sr: SuperResolver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pushed: list[int] = []
        push = RowStream.push

        def counted(self: RowStream, rows: torch.Tensor, last: bool) -> Any:
            pushed.append(rows.shape[0])
            return push(self, rows, last)

        monkeypatch.setattr(RowStream, "push", counted)
        images: list[Any] = [noise((8, 8, 3), np.uint8, seed) for seed in range(20)]
        expected = [sr(image).astype(int) for image in images]
        images[5:5] = [Image.fromarray(images[0]), torch.rand(3, 8, 8), noise((9, 9), np.uint8)]
        pushed.clear()
        results = list(sr.map(images))
        assert sorted(pushed) == [1, 1, 1, 5, 15]
        assert isinstance(results[5], Image.Image)
        assert isinstance(results[6], torch.Tensor)
        assert results[7].shape == (36, 36)
        for result, alone in zip(results[:5] + results[8:], expected, strict=True):
            assert np.abs(result - alone).max() <= 1

    def test_an_error_among_images_that_are_run_together(self, sr: SuperResolver) -> None:
        images = [noise((8, 8, 3), np.float32, seed) for seed in range(6)]
        images[2] = np.full((8, 8, 3), np.nan, np.float32)
        results = list(sr.map(images, errors="yield"))
        assert [type(one) for one in results] == [*[np.ndarray] * 2, ImageError, *[np.ndarray] * 3]
        raising = sr.map(images)
        assert next(raising).shape == next(raising).shape == (32, 32, 3)
        with pytest.raises(ImageError, match="NaN"):
            next(raising)
        # The limit is for each of them.
        assert len(list(sr.map(images[:2], max_pixels=64))) == 2
        with pytest.raises(ImageError, match="max_pixels"):
            next(sr.map(images[:2], max_pixels=63))

    def test_errors_of_the_iterable_itself_are_raised(self, sr: SuperResolver) -> None:
        def images() -> Iterator[np.ndarray]:
            yield noise((4, 4, 3), np.uint8)
            raise RuntimeError("no more film")

        with pytest.raises(RuntimeError, match="no more film"):
            list(sr.map(images(), errors="yield"))

    def test_leaving_early_ends_all_threads(self, sr: SuperResolver) -> None:
        before = threading.active_count()
        results = sr.map(noise((64, 64, 3), np.uint8) for _ in range(100))
        next(results)
        results.close()  # type: ignore[attr-defined]
        assert threading.active_count() == before

    @pytest.mark.parametrize(
        "options", [{"errors": "ignore"}, {"workers": 0}, {"workers": 1.5}, {"outscale": 0}]
    )
    def test_options_are_checked_at_once(self, sr: SuperResolver, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"\.$"):
            sr.map([], **options)


class TestPlanOfAFile:
    def test_it_counts_the_source_and_what_the_encoder_holds(
        self, sr: SuperResolver, tmp_path: Path
    ) -> None:
        Image.new("RGBA", (500, 400), (9, 9, 9, 200)).save(tmp_path / "in.png")
        plans = {
            suffix: sr.plan_file(tmp_path / "in.png", tmp_path / f"out.{suffix}")
            for suffix in ("png", "tif", "jpg", "bmp")
        }
        source, result = 500 * 400 * 4, 16 * 500 * 400 * 4
        for plan in plans.values():
            assert plan.memory_bytes >= plan.cut.peak_bytes + source
            assert plan.temporary_bytes == 0
        assert plans["bmp"].memory_bytes >= plans["bmp"].cut.peak_bytes + source + result
        assert plans["png"].memory_bytes == plans["tif"].memory_bytes

    def test_it_tells_what_an_animation_takes(self, sr: SuperResolver, tmp_path: Path) -> None:
        frames = [Image.new("RGBA", (30, 20), (n, 0, 0, 255)) for n in range(40)]
        frames[0].save(tmp_path / "in.gif", save_all=True, append_images=frames[1:])
        held, spooled = {}, {}
        for suffix in ("gif", "png", "webp"):
            plan = sr.plan_file(tmp_path / "in.gif", tmp_path / f"out.{suffix}")
            held[suffix], spooled[suffix] = plan.memory_bytes, plan.temporary_bytes
            assert plan.frames == 40
        assert held["gif"] == held["png"] == held["webp"]
        assert spooled == {"gif": 0, "png": 0, "webp": 40 * 120 * 80 * 4}


class TestOptions:
    def test_tile_and_memory_at_construction_and_per_call(self, model_folder: Path) -> None:
        sr = SuperResolver.from_pretrained(model_folder, tile=16)
        assert (
            sr.plan(64, 64).steps > SuperResolver.from_pretrained(model_folder).plan(64, 64).steps
        )
        assert sr.plan(64, 64, tile="whole").steps == 1
        wide, narrow = (sr.plan(500, 500, tile="auto", max_memory=m) for m in ("1GB", "5MB"))
        assert narrow.peak_bytes <= 5e6
        assert narrow.peak_bytes < wide.peak_bytes

    @pytest.mark.parametrize(
        "options",
        [
            {"tile": 0},
            {"tile": "big"},
            {"max_memory": "many"},
            {"device": "abacus"},
            {"dtype": "float8"},
            {"strength": 2},
        ],
    )
    def test_values_that_mean_nothing(self, bundled: Path, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"\.$"):
            SuperResolver.from_pretrained(**options)(np.zeros((2, 2), np.uint8))

    def test_strength(self, bundled: Path) -> None:
        image = noise((6, 6, 3), np.float32)
        faithful, perceptual = (
            SuperResolver.from_pretrained(name)(image) for name in ("srresnet", "srgan")
        )
        assert np.array_equal(SuperResolver.from_pretrained(strength=0)(image), faithful)
        assert np.array_equal(SuperResolver.from_pretrained(strength=1)(image), perceptual)
        assert np.array_equal(SuperResolver.from_pretrained()(image), perceptual)
        between = SuperResolver.from_pretrained(strength=0.5)
        assert not np.array_equal(between(image), faithful)
        assert not np.array_equal(between(image), perceptual)
        with pytest.raises(ValueError, match="does not go with model 'srresnet'"):
            SuperResolver.from_pretrained("srresnet", strength=0.5)

    def test_several_threads_give_what_one_gives(self, sr: SuperResolver) -> None:
        images = [noise((11 + n, 17 - n, 3), np.uint8, n) for n in range(6)]
        expected = [sr(image) for image in images]
        found: dict[int, np.ndarray] = {}

        def work(first: int) -> None:
            for index in range(first, len(images), 3):
                found[index] = sr(images[index], tile=8)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index, one in enumerate(expected):
            assert np.abs(found[index].astype(int) - one).max() <= 1

    def test_what_an_instance_says_of_itself(self, model_folder: Path) -> None:
        sr = SuperResolver.from_pretrained(model_folder, device="cpu")
        assert sr.scale == sr.config.scale == 4
        assert sr.sha256 == weights.load(model_folder).sha256
        assert "cpu" in repr(sr)


class TestModule:
    def test_it_is_the_network(self, sr: SuperResolver) -> None:
        rgb = noise((6, 5, 3), np.float32)
        module = sr.module
        assert not module.training
        with torch.no_grad():
            y = module(torch.from_numpy(rgb).permute(2, 0, 1)[None])
        assert np.abs(y[0].permute(1, 2, 0).clamp(0, 1).numpy() - sr(rgb)).max() <= 1e-4

    def test_changing_it_changes_no_result(self, sr: SuperResolver) -> None:
        rgb = noise((6, 5, 3), np.uint8)
        before = sr(rgb)
        module = sr.module
        optimizer = torch.optim.SGD(module.parameters(), lr=1)
        module(torch.rand(1, 3, 4, 4)).sum().backward()
        optimizer.step()
        assert np.array_equal(sr(rgb), before)


class TestSaving:
    def test_save_and_load(self, model_folder: Path, tmp_path: Path) -> None:
        sr = SuperResolver.from_pretrained(model_folder)
        sr.save_pretrained(tmp_path / "copy")
        again = SuperResolver.from_pretrained(tmp_path / "copy")
        assert again.sha256 == sr.sha256
        assert (tmp_path / "copy" / "README.md").is_file()
        sr.save_pretrained(model_folder)
        assert SuperResolver.from_pretrained(model_folder).sha256 == sr.sha256

    def test_a_blend_can_be_saved(self, bundled: Path, tmp_path: Path) -> None:
        sr = SuperResolver.from_pretrained(strength=0.3)
        sr.save_pretrained(tmp_path / "blend")
        again = SuperResolver.from_pretrained(tmp_path / "blend")
        image = noise((5, 5, 3), np.uint8)
        assert np.array_equal(again(image), sr(image))
        card = (tmp_path / "blend" / "README.md").read_text(encoding="utf-8")
        assert card.startswith("---\nlicense: mit\n")
        assert "0.3" in card

    def test_from_the_hub(self, hub: Hub, model_folder: Path, tmp_path: Path) -> None:
        hub.add("user/repo", model_folder, COMMITS["v1"])
        sr = SuperResolver.from_pretrained("user/repo", revision="v1", cache_dir=tmp_path / "c")
        sr.save_pretrained(tmp_path / "copy")
        assert sr.sha256 == SuperResolver.from_pretrained(model_folder).sha256
        assert not os.path.islink(tmp_path / "copy" / "model.safetensors")

    def test_push(self, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        calls: list[tuple[str, dict[str, Any]]] = []

        class Api:
            def __init__(self, **options: Any) -> None:
                calls.append(("login", options))

            def create_repo(self, repo_id: str, **options: Any) -> Any:
                calls.append(("create", {"repo_id": repo_id, **options}))
                return huggingface_hub.RepoUrl(
                    f"http://hub.example/{repo_id}", endpoint="http://hub.example"
                )

            def create_branch(self, repo_id: str, **options: Any) -> None:
                calls.append(("branch", options))

            def upload_folder(self, **options: Any) -> Any:
                names = {path.name for path in Path(options["folder_path"]).iterdir()}
                calls.append(("upload", {**options, "names": names}))
                return types.SimpleNamespace(pr_url="http://hub.example/user/repo/discussions/3")

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        sr = SuperResolver.from_pretrained(model_folder)
        url = sr.push_to_hub("user/repo", private=True, token="hf_x", revision="v2")
        assert url == "http://hub.example/user/repo"
        assert [name for name, _ in calls] == ["login", "create", "branch", "upload"]
        assert calls[0][1]["token"] == "hf_x"
        assert calls[1][1]["private"] is True
        assert calls[2][1]["branch"] == calls[3][1]["revision"] == "v2"
        assert calls[3][1]["names"] == {"config.json", "model.safetensors", "README.md"}
        assert calls[3][1]["create_pr"] is False
        calls.clear()
        url = sr.push_to_hub("other/repo", create_pr=True)
        assert url == "http://hub.example/user/repo/discussions/3"
        assert [name for name, _ in calls] == ["login", "upload"]
        assert calls[1][1]["create_pr"] is True

    def test_push_without_permission(self, hub: Hub, model_folder: Path) -> None:
        hub.mode = "private"
        sr = SuperResolver.from_pretrained(model_folder)
        with pytest.raises(WeightsError, match="hf auth login"):
            sr.push_to_hub("user/repo", token="hf_wrong")
