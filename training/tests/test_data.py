"""Pictures are found, split, cropped and degraded as they should be."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from srgan_training.config import DataConfig
from srgan_training.data import (
    DataError,
    ResidentPictures,
    TrainingSet,
    decode_all,
    draw,
    find_pictures,
    finish_batch,
    share,
    split,
    turned,
    validation_crops,
)
from srgan_training.degrade import Degradation, degrade, downscale, jpeg

SET5 = Path(__file__).parents[3] / "shared/data/benchmarks/Set5"
CPU = torch.device("cpu")


def noise_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def to_tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for number in range(10):
        parent = tmp_path if number % 2 else tmp_path / "deep" / "er"
        Image.fromarray(noise_picture(96, 128, number)).save(parent / f"{number}.PNG")
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    Image.fromarray(noise_picture(16, 128)).save(tmp_path / "small.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_pictures_are_found_recursively_and_limited(folder: Path) -> None:
    assert len(find_pictures([folder])) == 12
    assert find_pictures([folder], limit=3) == find_pictures([folder])[:3]
    with pytest.raises(DataError, match="no such folder"):
        find_pictures([folder / "missing"])


def test_unreadable_and_small_files_are_named_and_skipped(folder: Path) -> None:
    paths, pictures, skipped = decode_all(find_pictures([folder]), 64)
    assert len(paths) == len(pictures) == 10
    assert sorted(Path(line.split(": ")[0]).name for line in skipped) == ["broken.jpg", "small.png"]


def test_split_is_stable_under_its_seed_and_disjoint(folder: Path) -> None:
    paths = find_pictures([folder])
    training, held_back = split(paths, 0.25, seed=1)
    assert (training, held_back) == split(paths[::-1], 0.25, seed=1)
    assert set(training) | set(held_back) == set(paths)
    assert len(held_back) == 3
    assert not set(training) & set(held_back)
    assert any(split(paths, 0.25, seed)[1] != held_back for seed in range(2, 6))


def test_crops_are_windows_of_the_pictures() -> None:
    pictures = [noise_picture(64, 96, 1), noise_picture(80, 72, 2)]
    resident = ResidentPictures(pictures, CPU)
    drawn = draw(DataConfig(crop=8, flips=False), 4, resident.areas, 16, seed=0, step=0)
    for crop, number in zip(resident.crops(drawn), drawn.picture.tolist(), strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(pictures[number], (32, 32), axis=(0, 1))
        assert (windows == crop.numpy()).all(axis=(2, 3, 4)).any()


def test_both_data_paths_give_the_same_batches(folder: Path) -> None:
    paths, pictures, _ = decode_all(find_pictures([folder]), 64)
    config = DataConfig(crop=16, smallest_reduction=0.5, jpeg=0.5, noise=0.5, blur=0.5, workers=2)
    resident = ResidentPictures(pictures, CPU)
    sets = [
        TrainingSet(config, 4, 0, 4, 0, 1, CPU, resident.areas, kept, paths)
        for kept in (resident, None)
    ]
    for (low, high), (low_read, high_read) in zip(
        *(islice(each.batches(3), 3) for each in sets), strict=True
    ):
        assert low.shape == (4, 3, 16, 16)
        assert high.shape == (4, 3, 64, 64)
        torch.testing.assert_close(low, low_read)
        torch.testing.assert_close(high, high_read)


def test_a_batch_depends_on_seed_and_step_alone_and_is_shared_out_whole() -> None:
    areas = torch.ones(50, dtype=torch.double)
    config = DataConfig(noise=0.5)
    whole = draw(config, 4, areas, 8, seed=5, step=7)
    again = draw(config, 4, areas, 8, seed=5, step=7)
    assert torch.equal(whole.place, again.place)
    assert not torch.equal(whole.place, draw(config, 4, areas, 8, seed=5, step=8).place)
    parts = [share(whole, rank, 2) for rank in range(2)]
    rejoined = torch.stack([part.place for part in parts], 1).reshape(8, 2)
    assert torch.equal(rejoined, whole.place)


def test_turns_are_the_eight_symmetries() -> None:
    picture = torch.rand(3, 5, 5)
    results = turned(picture.expand(8, 3, 5, 5), torch.arange(8))
    assert len({result.numpy().tobytes() for result in results}) == 8
    for result in results:
        assert torch.equal(result.flatten(1).sort().values, picture.flatten(1).sort().values)


def test_low_resolution_stays_aligned_with_high_resolution() -> None:
    pictures = [noise_picture(128, 128, seed) for seed in range(3)]
    resident = ResidentPictures(pictures, CPU)
    config = DataConfig(crop=16, smallest_reduction=0.5)
    drawn = draw(config, 4, resident.areas, 8, seed=0, step=2)
    low, high = finish_batch(resident.crops(drawn), drawn, config, 4)
    torch.testing.assert_close(low, downscale(high, 4), atol=1 / 255 + 1e-6, rtol=0)


def test_validation_crops_are_the_same_every_time() -> None:
    pictures = [noise_picture(128, 136, seed) for seed in range(3)]
    config = DataConfig(validation_crop=24, jpeg=0.5, noise=0.5)
    low, high = validation_crops(pictures, config, 4, seed=3)
    assert low.shape == (3, 3, 24, 24)
    assert high.shape == (3, 3, 96, 96)
    assert torch.equal(low, validation_crops(pictures, config, 4, seed=3)[0])


@pytest.mark.skipif(not SET5.is_dir(), reason="the benchmark pictures are not here")
def test_downscale_agrees_with_matlab() -> None:
    for path in sorted((SET5 / "HR").iterdir()):
        with Image.open(path) as high, Image.open(next(SET5.glob(f"LRx4/{path.stem}*"))) as low:
            ours = downscale(to_tensor(np.asarray(high.convert("RGB"))), 4)
            theirs = to_tensor(np.asarray(low.convert("RGB")))
        inner = (..., slice(3, -3), slice(3, -3))
        assert psnr(ours[inner], theirs[inner]) > 50


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
def test_jpeg_agrees_with_pillow(quality: int) -> None:
    picture = noise_picture(72, 88)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as image:
        theirs = to_tensor(np.asarray(image))
    original = to_tensor(picture)
    ours = jpeg(original, torch.tensor([float(quality)]))
    assert psnr(ours, theirs) > psnr(original, theirs) + 3
    assert psnr(ours, original) == pytest.approx(psnr(theirs, original), abs=0.3)


def test_degradations_touch_only_the_pictures_they_are_drawn_for() -> None:
    clean = downscale(to_tensor(noise_picture(64, 64)), 4)
    batch = clean.expand(4, 3, 16, 16)
    how = Degradation(
        blur=torch.tensor([0.0, 1.0, 0.0, 0.0]),
        noise=torch.tensor([0.0, 0.0, 5.0, 0.0]),
        quality=torch.tensor([0.0, 0.0, 0.0, 40.0]),
        seed=1,
    )
    result = degrade(batch, how)
    torch.testing.assert_close(result[0], clean[0], atol=1 / 255 + 1e-6, rtol=0)
    for number in (1, 2, 3):
        assert (result[number] - clean[0]).abs().max() > 3 / 255
    assert (result[2] - clean[0]).std() * 255 == pytest.approx(5, rel=0.25)
    assert result[1].std() < clean.std()
