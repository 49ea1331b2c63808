"""Images are found, split, cropped and degraded as they should be."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from srgan_training.config import DataConfig
from srgan_training.data import (
    CROPS,
    SHIFT,
    Batch,
    ResidentImages,
    Source,
    TrainingSet,
    decode_all,
    draw,
    find_images,
    find_sources,
    finish_batch,
    shard,
    split,
    step_rng,
    turned,
    validation_crops,
)
from srgan_training.degrade import (
    Degradation,
    degrade,
    downscale,
    draw_degradation,
    jpeg,
    sinc_kernels,
)
from srgan_training.errors import TrainingError

SET5 = Path(__file__).parents[3] / "shared/data/benchmarks/Set5"
CPU = torch.device("cpu")


def noise_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def originals(folder: Path) -> list[Source]:
    return [Source(path) for path in find_images([folder])]


def to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for number in range(10):
        parent = tmp_path if number % 2 else tmp_path / "deep" / "er"
        Image.fromarray(noise_image(96, 128, number)).save(parent / f"{number}.PNG")
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    Image.fromarray(noise_image(16, 128)).save(tmp_path / "small.png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_images_are_found_recursively_and_limited(folder: Path) -> None:
    assert len(find_images([folder])) == 12
    assert find_images([folder], limit=3) == find_images([folder])[:3]
    with pytest.raises(TrainingError, match="no such folder"):
        find_images([folder / "missing"])


def test_unreadable_and_small_files_are_named_and_skipped(folder: Path) -> None:
    sources, images, skipped = decode_all(originals(folder), 64, 4)
    assert len(sources) == len(images) == 10
    assert sorted(Path(line.split(": ")[0]).name for line in skipped) == ["broken.jpg", "small.png"]


def test_split_is_stable_under_its_seed_and_disjoint(folder: Path) -> None:
    sources = originals(folder)
    training, held_back = split(sources, 0.25, seed=1)
    assert (training, held_back) == split(sources[::-1], 0.25, seed=1)
    assert set(training) | set(held_back) == set(sources)
    assert len(held_back) == 3
    assert not set(training) & set(held_back)
    assert any(split(sources, 0.25, seed)[1] != held_back for seed in range(2, 6))


def test_all_sizes_of_an_image_are_on_one_side_of_the_split() -> None:
    sources = [
        Source(Path(f"{size}/lakes/{n}.png")) for size in ("1", "0.7", "0.5") for n in range(40)
    ]
    training, held_back = split(sources, 0.25, seed=1)
    assert len(held_back) == 30
    assert not {s.high.stem for s in training} & {s.high.stem for s in held_back}
    plain = split([Source(Path(f"lakes/{n}.jpg")) for n in range(40)], 0.25, seed=1)[1]
    assert {s.high.stem for s in plain} == {s.high.stem for s in held_back}


def test_crops_are_windows_of_the_images() -> None:
    images = [noise_image(64, 96, 1), noise_image(80, 72, 2)]
    resident = ResidentImages(images, CPU)
    drawn = draw(DataConfig(crop=8, flips=False), 4, resident.areas, 16, seed=0, step=0)
    for crop, number in zip(resident.crops(drawn), drawn.image.tolist(), strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(images[number], (32, 32), axis=(0, 1))
        assert (windows == crop.numpy()).all(axis=(2, 3, 4)).any()


def test_both_data_paths_give_the_same_batches(folder: Path) -> None:
    sources, images, _ = decode_all(originals(folder), 64, 4)
    config = DataConfig(
        crop=16, min_scale=0.5, jpeg=0.5, noise=0.5, blur=0.5, second_order=0.5, workers=2
    )
    resident = [ResidentImages([files[0] for files in images], CPU)]
    for ours, read in both_paths(config, resident, sources):
        assert ours.low.shape == (4, 3, 16, 16)
        assert ours.high.shape == (4, 3, 64, 64)
        assert ours.teacher is None
        torch.testing.assert_close(ours.low, read.low)
        torch.testing.assert_close(ours.high, read.high)


def both_paths(
    config: DataConfig, resident: list[ResidentImages], sources: list[Source]
) -> Iterator[tuple[Batch, Batch]]:
    """Three steps' batches from memory and from files."""
    sets = [
        TrainingSet(config, 4, 0, 4, 0, 1, CPU, resident[0].areas, kept, sources)
        for kept in (resident, None)
    ]
    return zip(*(islice(each.batches(3), 3) for each in sets), strict=True)


@pytest.fixture
def paired(tmp_path: Path) -> DataConfig:
    """Pairs with a teacher: each original's low resolution, and it enlarged by bicubic."""
    for number in range(4):
        high = noise_image(96, 128, number)
        low = downscale(to_tensor(high), 4)
        repeated = F.interpolate(low, scale_factor=4)
        layers = {"high": to_tensor(high), "low": low, "teacher": repeated}
        for kind, layer in layers.items():
            file = tmp_path / "pairs" / kind / "deep" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((layer[0] * 255).round().byte().permute(1, 2, 0).numpy()).save(file)
    places = (str(tmp_path / "pairs" / kind) for kind in ("high", "low", "teacher"))
    high_folder, low_folder, teacher = places
    return DataConfig(folders=(high_folder,), low=(low_folder,), teacher=(teacher,), crop=16)


def test_pairs_stay_aligned_on_both_data_paths(paired: DataConfig) -> None:
    sources = find_sources(paired)
    _, images, skipped = decode_all(sources, 16, 4)
    assert not skipped
    resident = [
        ResidentImages([files[order] for files in images], CPU, 4 if order else 1)
        for order in range(3)
    ]
    for ours, read in both_paths(paired, resident, sources):
        assert ours.teacher is not None
        assert read.teacher is not None
        for one, two in zip(ours, read, strict=True):
            torch.testing.assert_close(one, two)
        repeated = F.interpolate(ours.low, scale_factor=4)
        torch.testing.assert_close(ours.teacher, repeated)
        inner = (..., slice(8, -8), slice(8, -8))
        assert psnr(repeated[inner], ours.high[inner]) > 20


def test_a_pair_without_its_counterpart_is_named(paired: DataConfig) -> None:
    Path(paired.low[0], "deep", "2.png").unlink()
    with pytest.raises(
        TrainingError, match=r"low.deep.2 is missing; .*2\.png needs its counterpart"
    ):
        find_sources(paired)


def test_a_pair_of_wrong_size_is_skipped(paired: DataConfig) -> None:
    Image.new("RGB", (100, 96)).save(Path(paired.teacher[0], "deep", "1.png"))
    kept, _, skipped = decode_all(find_sources(paired), 16, 4)
    assert len(kept) == 3
    assert "teacher/deep/1.png: skipped, it is not 4 times as large" in skipped[0].replace(
        "\\", "/"
    )


def test_a_batch_depends_on_seed_and_step_alone_and_is_shared_out_whole() -> None:
    areas = torch.ones(50, dtype=torch.double)
    config = DataConfig(noise=0.5)
    whole = draw(config, 4, areas, 8, seed=5, step=7)
    again = draw(config, 4, areas, 8, seed=5, step=7)
    assert torch.equal(whole.place, again.place)
    assert not torch.equal(whole.place, draw(config, 4, areas, 8, seed=5, step=8).place)
    parts = [shard(whole, rank, 2) for rank in range(2)]
    rejoined = torch.stack([part.place for part in parts], 1).reshape(8, 2)
    assert torch.equal(rejoined, whole.place)


def test_the_shift_does_not_follow_the_crop() -> None:
    first = [
        [torch.rand((), generator=step_rng(0, step, stream)).item() for step in range(200)]
        for stream in (CROPS, SHIFT)
    ]
    assert abs(float(torch.corrcoef(torch.tensor(first))[0, 1])) < 0.3


def test_turns_are_the_eight_symmetries() -> None:
    image = torch.rand(3, 5, 5)
    results = turned(image.expand(8, 3, 5, 5), torch.arange(8))
    assert len({result.numpy().tobytes() for result in results}) == 8
    for result in results:
        assert torch.equal(result.flatten(1).sort().values, image.flatten(1).sort().values)


def test_low_resolution_stays_aligned_with_high_resolution() -> None:
    images = [noise_image(128, 128, seed) for seed in range(3)]
    resident = ResidentImages(images, CPU)
    config = DataConfig(crop=16, min_scale=0.5)
    drawn = draw(config, 4, resident.areas, 8, seed=0, step=2)
    low, high, _ = finish_batch([resident.crops(drawn)], drawn, config, 4)
    torch.testing.assert_close(low, downscale(high, 4), atol=1 / 255 + 1e-6, rtol=0)


def test_validation_crops_are_the_same_every_time() -> None:
    images = [[noise_image(128, 136, seed)] for seed in range(3)]
    config = DataConfig(validation_crop=24, jpeg=0.5, noise=0.5)
    low, high, _ = validation_crops(images, config, 4, seed=3)
    assert low.shape == (3, 3, 24, 24)
    assert high.shape == (3, 3, 96, 96)
    assert torch.equal(low, validation_crops(images, config, 4, seed=3)[0])


@pytest.mark.skipif(not SET5.is_dir(), reason="the benchmark images are not here")
def test_downscale_agrees_with_matlab() -> None:
    for path in sorted((SET5 / "HR").iterdir()):
        with Image.open(path) as high, Image.open(next(SET5.glob(f"LRx4/{path.stem}*"))) as low:
            ours = downscale(to_tensor(np.asarray(high.convert("RGB"))), 4)
            theirs = to_tensor(np.asarray(low.convert("RGB")))
        inner = (..., slice(3, -3), slice(3, -3))
        assert psnr(ours[inner], theirs[inner]) > 50


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
def test_jpeg_agrees_with_pillow(quality: int) -> None:
    image = noise_image(72, 88)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as compressed:
        theirs = to_tensor(np.asarray(compressed))
    original = to_tensor(image)
    ours = jpeg(original, torch.tensor([float(quality)]))
    assert psnr(ours, theirs) > psnr(original, theirs) + 3
    assert psnr(ours, original) == pytest.approx(psnr(theirs, original), abs=0.3)


def test_degradations_touch_only_the_images_they_are_drawn_for() -> None:
    clean = downscale(to_tensor(noise_image(64, 64)), 4)
    batch = clean.expand(4, 3, 16, 16)
    how = Degradation(
        blur=torch.tensor([0.0, 1.0, 0.0, 0.0]),
        noise=torch.tensor([0.0, 0.0, 5.0, 0.0]),
        quality=torch.tensor([0.0, 0.0, 0.0, 40.0]),
        seed=1,
    )
    result = degrade(batch, batch, how)
    torch.testing.assert_close(result[0], clean[0], atol=1 / 255 + 1e-6, rtol=0)
    for number in (1, 2, 3):
        assert (result[number] - clean[0]).abs().max() > 3 / 255
    assert (result[2] - clean[0]).std() * 255 == pytest.approx(5, rel=0.25)
    assert result[1].std() < clean.std()


def test_the_second_order_degradation_goes_from_nearly_clean_to_strong() -> None:
    rng = torch.Generator().manual_seed(0)
    image = F.interpolate(torch.rand(1, 3, 8, 8, generator=rng), size=(128, 128), mode="bicubic")
    high = (0.4 * image + 0.3).clamp(0, 1).expand(16, 3, 128, 128)
    low = downscale(high, 4)
    distances: list[float] = []
    for _ in range(6):
        how = draw_degradation(DataConfig(second_order=1.0), 16, rng)
        result = degrade(high, low, how)
        assert result.shape == low.shape
        torch.testing.assert_close(result * 255, (result * 255).round(), atol=1e-3, rtol=0)
        assert torch.equal(result, degrade(high, low, how))
        distances += (psnr(one, two) for one, two in zip(result, low, strict=True))
    assert max(distances) > 32
    assert min(distances) < 28
    spared = draw_degradation(DataConfig(second_order=1e-9), 16, rng)
    assert torch.equal(degrade(high, low, spared), low)


def test_sinc_filters_pass_what_is_slower_than_their_cut_off() -> None:
    kernels = sinc_kernels(torch.tensor([math.pi / 3, math.pi]))
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(2))
    response = torch.fft.fft2(kernels, s=(60, 60)).abs()
    assert response[0, 0, 4] > 0.9  # a period of 15 pixels
    assert response[0, 0, 24] < 0.1  # of 2.5, beyond the cut-off of 6
    assert response[1, 0, 24] > 0.8
