"""×2 and ×8 generators do all that ×4 ones do: every kind of image, file and command."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from srgan_infer import SuperResolver, weights
from srgan_infer.batch import UpscaleBatch
from srgan_infer.cli.main import main
from srgan_infer.network.generator import INPUT_SKIPS, Generator, GeneratorConfig

CARD = "---\nlicense: mit\n---\n"


def generator(scale: int, skip: str = "bilinear") -> Generator:
    torch.manual_seed(scale)
    config = GeneratorConfig(channels=8, blocks=2, scale=scale, input_skip=skip)
    return Generator(config).eval().requires_grad_(False)


@pytest.fixture(params=[2, 8])
def network(request: pytest.FixtureRequest) -> Generator:
    return generator(request.param)


@pytest.fixture
def folder(network: Generator, tmp_path: Path) -> Path:
    weights.save(tmp_path / "model", network.config, network.state_dict(), CARD)
    return tmp_path / "model"


def resolver(folder: Path, **options: Any) -> SuperResolver:
    return SuperResolver.from_pretrained(folder, device="cpu", **options)


def pixels(height: int, width: int, channels: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def expected(network: Generator, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Whole-image inference in plain PyTorch, in levels."""
    x = torch.from_numpy(image[..., :3]).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        y: torch.Tensor = network(x)
    return y[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255


SAVED: dict[tuple[int, str], Path] = {}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    scale=st.sampled_from([2, 8]),
    skip=st.sampled_from(INPUT_SKIPS),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    tile=st.integers(1, 40),
)
def test_any_cut_gives_the_whole_image(
    dtype: str,
    scale: int,
    skip: str,
    height: int,
    width: int,
    tile: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    network = generator(scale, skip)
    if (scale, skip) not in SAVED:
        SAVED[scale, skip] = tmp_path_factory.mktemp("scales")
        weights.save(SAVED[scale, skip], network.config, network.state_dict(), CARD)
    image = pixels(height, width)
    big = resolver(SAVED[scale, skip], dtype=dtype, tile=tile)(image)
    difference = np.abs(big - expected(network, image)).max()
    assert difference <= (0.51 if dtype == "float32" else 2)


def test_every_kind_of_image(network: Generator, folder: Path) -> None:
    sr, scale = resolver(folder, dtype="float32"), network.config.scale
    image = pixels(12, 9)
    whole = expected(network, image)
    assert np.abs(sr(image) - whole).max() <= 0.51
    assert np.abs(np.asarray(sr(Image.fromarray(image))) - whole).max() <= 0.51
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    assert np.abs(sr(tensor).permute(1, 2, 0).numpy() - whole).max() <= 0.51
    deep = sr(image.astype(np.uint16) * 257)
    assert np.abs(deep / 257 - whole).max() <= 0.01
    assert sr(image[..., 0]).shape == (12 * scale, 9 * scale)
    alpha = np.full((12, 9, 1), 200, np.uint8)
    big = sr(np.concatenate([image, alpha], 2))
    assert big.shape == (12 * scale, 9 * scale, 4)
    assert (big[..., 3] == 200).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.webp", "a.bmp"])
def test_every_kind_of_file(name: str, network: Generator, folder: Path, tmp_path: Path) -> None:
    scale = network.config.scale
    Image.fromarray(pixels(40, 31)).save(tmp_path / "in.png", dpi=(300, 300))
    steps: list[tuple[int, int]] = []
    sr = resolver(folder, dtype="float32", tile=16)
    result = sr.upscale_file(
        tmp_path / "in.png", tmp_path / name, progress=lambda *step: steps.append(step)
    )
    assert result.size == (31 * scale, 40 * scale)
    assert steps[-1][0] == steps[-1][1]
    with Image.open(tmp_path / name) as big:
        assert big.size == result.size
        if name in ("a.png", "a.tif", "a.bmp"):
            assert np.abs(np.asarray(big) - expected(network, pixels(40, 31))).max() <= 0.51


def test_animations_and_transparency(network: Generator, folder: Path, tmp_path: Path) -> None:
    scale = network.config.scale
    frames = [Image.fromarray(pixels(7, 6, 4) // count, "RGBA") for count in (1, 2)]
    frames[0].save(tmp_path / "in.webp", save_all=True, append_images=frames[1:], lossless=True)
    result = resolver(folder).upscale_file(tmp_path / "in.webp", tmp_path / "out.png")
    assert (result.frames, result.size) == (2, (6 * scale, 7 * scale))
    with Image.open(tmp_path / "out.png") as big:
        assert (big.size, getattr(big, "n_frames", 1)) == (result.size, 2)


def test_any_size(network: Generator, folder: Path, tmp_path: Path) -> None:
    Image.fromarray(pixels(12, 10)).save(tmp_path / "in.png")
    sr = resolver(folder)
    for asked, size in (
        ({"outscale": 1.5}, (15, 18)),
        ({"outscale": 3}, (30, 36)),
        ({"outscale": 16}, (160, 192)),
        ({"size": (50, None)}, (50, 60)),
    ):
        result = sr.upscale_file(tmp_path / "in.png", tmp_path / "out.png", **asked)
        assert result.size == size
        with Image.open(tmp_path / "out.png") as big:
            assert big.size == size


def test_many_images(network: Generator, folder: Path) -> None:
    images = [pixels(7, 6), pixels(5, 9)]
    whole = [expected(network, image) for image in images]
    sr = resolver(folder, dtype="float32")
    for big, same in zip(sr.map(images), whole, strict=True):
        assert np.abs(big - same).max() <= 0.51
    file = io.BytesIO()
    Image.fromarray(images[0]).save(file, "PNG")
    rows = UpscaleBatch(str(folder), device="cpu", dtype="float32")({"bytes": [file.getvalue()]})
    assert rows["error"] == [None]
    with Image.open(io.BytesIO(rows["upscaled"][0])) as image:
        assert np.abs(np.asarray(image) - whole[0]).max() <= 0.51


def test_the_command(
    network: Generator,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    scale = network.config.scale
    Image.fromarray(pixels(20, 25)).save("a.png")
    assert main(["a.png", "b.png", "--model", "model", "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out.splitlines()[0])
    assert planned["output_size"] == [25 * scale, 20 * scale]
    assert main(["a.png", "b.png", "--model", "model", "--dtype", "float32", "-q"]) == 0
    assert np.abs(np.asarray(Image.open("b.png")) - expected(network, pixels(20, 25))).max() <= 0.51


def test_saved_again_it_is_the_same(network: Generator, folder: Path, tmp_path: Path) -> None:
    sr = resolver(folder)
    sr.save_pretrained(tmp_path / "copy")
    again = resolver(tmp_path / "copy")
    assert (again.scale, again.sha256) == (network.config.scale, sr.sha256)


def test_a_large_image_is_planned_within_the_memory(network: Generator, folder: Path) -> None:
    plan = resolver(folder).plan(3000, 4000, max_memory="300MB")
    assert plan.peak_bytes <= 300 << 20
    assert f"to {4000 * plan.scale}x{3000 * plan.scale}" in str(plan)
