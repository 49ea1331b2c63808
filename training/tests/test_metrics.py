"""The numbers that images are judged by."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from srgan_training import metrics
from torch import Tensor

BENCHMARKS = Path(__file__).resolve().parents[3] / "shared/data/benchmarks"
needs_benchmarks = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the benchmark images are not beside this checkout"
)


def to_tensor(image: Image.Image) -> Tensor:
    levels = torch.from_numpy(np.array(image.convert("RGB")))
    return levels.permute(2, 0, 1)[None].float() / 255


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_luma_of_black_white_and_the_primaries() -> None:
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    levels = metrics.luma(255 * colours[..., None, None]).flatten()
    assert levels.tolist() == pytest.approx([16, 235, 81.481, 144.553, 40.966], abs=1e-3)


def test_psnr_of_a_known_error() -> None:
    target = torch.full((2, 3, 32, 40), 100 / 255)
    prediction = target.clone()
    prediction[1] += 10 / 255
    assert metrics.psnr(prediction, target)[0] == pytest.approx(100)
    error = 10 * 219 / 255
    assert metrics.psnr(prediction, target)[1].item() == pytest.approx(
        20 * np.log10(255 / error), abs=1e-3
    )


def test_the_border_is_not_judged() -> None:
    target = noise(1, 3, 40, 40)
    prediction = target.clone()
    prediction[..., :4, :] = 0
    prediction[..., -4:] = 1
    assert metrics.psnr(prediction, target).item() == pytest.approx(100)
    assert metrics.ssim(prediction, target).item() == pytest.approx(1, abs=1e-5)
    prediction[..., 4, 20] = 1 - target[..., 4, 20].round()
    assert metrics.psnr(prediction, target).item() < 60


def test_values_are_rounded_to_what_a_file_can_hold() -> None:
    levels = torch.randint(0, 256, (1, 3, 40, 40), generator=torch.Generator().manual_seed(1))
    assert metrics.psnr(levels / 255 + 0.4 / 255, levels / 255).item() == pytest.approx(100)


def test_ssim_of_one_window_written_out() -> None:
    a, b = noise(1, 3, 11, 11, seed=1), noise(1, 3, 11, 11, seed=2)
    x, y = (metrics.luma(metrics.to_levels(p))[0, 0].double().numpy() for p in (a, b))
    position = np.arange(-5, 6)
    weight = np.exp(-(position[:, None] ** 2 + position[None, :] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    mean_x, mean_y = (weight * x).sum(), (weight * y).sum()
    var_x, var_y = (weight * (x - mean_x) ** 2).sum(), (weight * (y - mean_y) ** 2).sum()
    covariance = (weight * (x - mean_x) * (y - mean_y)).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    assert metrics.ssim(a, b, border=0).item() == pytest.approx(expected, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), height=st.integers(20, 60), width=st.integers(20, 60))
def test_more_noise_scores_lower_and_a_batch_scores_like_its_images(
    seed: int, height: int, width: int
) -> None:
    target = 0.25 + 0.5 * noise(1, 3, height, width, seed=seed)
    error = noise(1, 3, height, width, seed=seed + 1) - 0.5
    predictions = torch.cat([target + 0.05 * error, target + 0.3 * error])
    for score in (metrics.psnr, metrics.ssim):
        both = score(predictions, target.expand(2, -1, -1, -1))
        assert both[0] > both[1]
        torch.testing.assert_close(both[1:], score(predictions[1:], target))


@pytest.mark.parametrize(
    ("score", "size"), [(metrics.psnr, (8, 40)), (metrics.ssim, (18, 40)), (metrics.ssim, (40, 18))]
)
def test_a_image_that_is_too_small_is_refused(
    score: Callable[[Tensor, Tensor], Tensor], size: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="pixels"):
        score(noise(1, 3, *size), noise(1, 3, *size))


@pytest.mark.parametrize("period", [2, 4])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_faint_grid_shows_at_its_period_and_axis_alone(period: int, axis: str) -> None:
    # Natural images have a spectrum that falls with frequency: blurred noise.
    clean = torch.nn.functional.avg_pool2d(noise(1, 3, 164, 184), 5, stride=1)
    grid = torch.zeros(180 if axis == "x" else 160)
    grid[::period] = 3 / 255
    gridded = clean + (grid if axis == "x" else grid[:, None])
    for p in (2, 4):
        for direction in ("x", "y"):
            before = metrics.grid_energy(clean, p, direction)
            after = metrics.grid_energy(gridded, p, direction)
            line = (after.line / before.energy).item()
            if direction == axis and p in (period, period // 2):
                assert line > 1
            else:
                assert abs(line) < 0.5


def test_colour_shift_is_in_levels_by_channel() -> None:
    low = torch.full((1, 3, 16, 16), 100 / 255)
    big = torch.full((1, 3, 64, 64), 100 / 255)
    big[:, 2] += 3 / 255
    assert metrics.colour_shift(big, low).tolist() == [[0, 0, pytest.approx(3, abs=1e-4)]]


@needs_benchmarks
@pytest.mark.parametrize(
    ("name", "expected"), [("Set5", 28.43), ("Set14", 26.09), ("BSD100", 25.96)]
)
def test_bicubic_scores_as_in_published_tables(name: str, expected: float) -> None:
    scores = []
    for file in sorted((BENCHMARKS / name / "HR").iterdir()):
        with Image.open(file) as high, Image.open(BENCHMARKS / name / "LRx4" / file.name) as low:
            big = low.resize(high.size, Image.Resampling.BICUBIC)
            scores.append(metrics.psnr(to_tensor(big), to_tensor(high)).item())
    assert np.mean(scores) == pytest.approx(expected, abs=0.006)
