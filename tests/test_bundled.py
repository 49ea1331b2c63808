"""The weights that come with the package: whole, as recorded, and better than bicubic."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srgan_infer import SuperResolver, weights
from srgan_infer.cli.doctor import self_test
from srgan_infer.cli.main import main
from srgan_infer.engine.devices import multiplies_bfloat16
from srgan_infer.weights.folder import bundled_folder

SET5 = Path(__file__).parents[2] / "shared" / "data" / "benchmarks" / "Set5"
ORIGINAL = Path(__file__).parents[1] / "docs" / "images" / "original.jpg"
SAMPLE = Path(__file__).parents[1] / "docs" / "images" / "sample.png"
MODELS = ("srgan", "srgan-photo", "srresnet")


def test_all_models_are_bundled() -> None:
    assert weights.bundled() == MODELS
    assert weights.load().name == "srgan"


@pytest.mark.parametrize("model", MODELS)
def test_a_bundled_folder_is_a_hub_repository(model: str) -> None:
    folder = bundled_folder(model)
    assert {"config.json", "model.safetensors", "README.md"} <= {p.name for p in folder.iterdir()}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "license: mit" in card.split("---")[1]
    for subject in ("data", "steps", "Set5"):
        assert subject in card


def test_all_share_one_topology() -> None:
    configs = {weights.load(name).config for name in MODELS}
    assert [config.halo for config in configs] == [40]


@pytest.mark.parametrize("model", MODELS)
def test_the_golden_image(model: str) -> None:
    """When weights were replaced on purpose: ``python tests/renew_golden.py``."""
    result = self_test(model, "cpu")
    assert result.passed, result.problem


@pytest.mark.skipif(not multiplies_bfloat16(), reason="this processor has no bfloat16")
@pytest.mark.parametrize("model", MODELS)
def test_bfloat16_is_within_a_level_of_float32(model: str) -> None:
    with Image.open(SAMPLE) as sample:
        image = np.asarray(sample.convert("RGB"))
    exact, rough = (
        SuperResolver.from_pretrained(model, device="cpu", dtype=dtype)(image).astype(int)
        for dtype in ("float32", "bfloat16")
    )
    assert np.abs(rough - exact).max() == 1


def test_the_doctor_is_content(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--doctor", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    for model in MODELS:
        assert weights.load(model).sha256 in shown
    assert "All is well." in shown


def psnr_y(one: Image.Image, two: Image.Image) -> float:
    """PSNR in dB on BT.601 luma with a border of 4 pixels cut, as tables have it."""
    luma = [
        np.asarray(image.convert("RGB"), np.float64) @ (65.481, 128.553, 24.966) / 255
        for image in (one, two)
    ]
    error = (luma[0] - luma[1])[4:-4, 4:-4]
    return float(10 * np.log10(255**2 / np.mean(error**2)))


def pairs() -> Iterator[tuple[Image.Image, Image.Image]]:
    """Originals and what is left of them at a quarter: one of ours, and Set5 where it lies."""
    with Image.open(ORIGINAL) as image:
        original = image.convert("RGB")
    original = original.crop((0, 0, original.width // 4 * 4, original.height // 4 * 4))
    quarter = (original.width // 4, original.height // 4)
    yield original, original.resize(quarter, Image.Resampling.BICUBIC)
    for path in sorted((SET5 / "HR").glob("*")):
        with Image.open(path) as high, Image.open(SET5 / "LRx4" / path.name) as low:
            yield high.convert("RGB"), low.convert("RGB")


@pytest.mark.parametrize(
    ("model", "gain"), [("srresnet", 1.2), ("srgan", 0.8), ("srgan-photo", 0.5)]
)
def test_the_bundled_models_are_better_than_bicubic(model: str, gain: float) -> None:
    sr = SuperResolver.from_pretrained(model, device="cpu")
    gains = []
    for high, low in pairs():
        bicubic = low.resize(high.size, Image.Resampling.BICUBIC)
        gains.append(psnr_y(sr(low), high) - psnr_y(bicubic, high))
    assert gains[0] >= gain
    assert np.mean(gains) >= gain


@pytest.mark.parametrize("quality", [50, 75])
def test_compressed_images_are_better_off_with_srgan_photo(quality: int) -> None:
    photo, plain = (
        SuperResolver.from_pretrained(m, device="cpu") for m in ("srgan-photo", "srgan")
    )
    for high, low in pairs():
        file = io.BytesIO()
        low.save(file, "JPEG", quality=quality)
        with Image.open(file) as compressed:
            assert psnr_y(photo(compressed), high) > psnr_y(plain(compressed), high)
