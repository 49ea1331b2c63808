"""Pairs: three files of one name for each original and reduction."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from srgan_training.config import DataConfig
from srgan_training.data import find_sources
from srgan_training.degrade import downscale
from srgan_training.errors import TrainingError
from srgan_training.main import main
from srgan_training.pairs import list_pairs, load_teacher, make_pairs
from torch import Tensor


def nearest(low: Tensor) -> Tensor:
    return F.interpolate(low, scale_factor=4)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "lakes"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (130, 97)), ("deep/b.png", (64, 80)), ("c.png", (64, 80))):
        small = Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(folder / name)
    return folder


def read(file: Path) -> Tensor:
    with Image.open(file) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def test_each_reduction_gives_an_original_its_low_resolution_and_the_teachers_image(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert make_pairs(list_pairs([images], [1, 0.5]), out, teacher=nearest) == 6
    names = sorted(p.relative_to(out / "high").as_posix() for p in out.glob("high/**/*.png"))
    assert names == [
        f"{part}/lakes/{name}" for part in ("0.5", "1") for name in ("a.png", "c.png", "deep/b.png")
    ]
    for name in names:
        low, high = read(out / "low" / name), read(out / "high" / name)
        torch.testing.assert_close(low, downscale(high, 4), atol=1e-6, rtol=0)
        torch.testing.assert_close(read(out / "teacher" / name), nearest(low))
    assert read(out / "high/1/lakes/a.png").shape == (1, 3, 96, 128)
    assert read(out / "high/0.5/lakes/a.png").shape == (1, 3, 48, 64)
    # They are what the trainer takes.
    config = DataConfig(
        folders=(str(out / "high"),), low=(str(out / "low"),), teacher=(str(out / "teacher"),)
    )
    assert len(find_sources(config)) == 6
    # Run again, only what is missing is made.
    (out / "teacher/1/lakes/a.png").unlink()
    assert make_pairs(list_pairs([images], [1, 0.5]), out, teacher=nearest) == 1


def test_the_student_sees_the_degraded_image_and_the_teacher_the_clean_one(
    images: Path, tmp_path: Path
) -> None:
    config = tmp_path / "noisy.toml"
    config.write_text("[data]\nnoise = 1.0\nnoise_sigma = [20, 20]\n")
    command = ["pairs", str(tmp_path / "out"), "--data", str(images), "--degrade", str(config)]
    assert main(command) == 0
    high, low = (read(tmp_path / "out" / kind / "1/lakes/c.png") for kind in ("high", "low"))
    noise = (low - downscale(high, 4)) * 255
    assert 12 < float(noise.std()) < 25
    assert not (tmp_path / "out/teacher").exists()

    seen = []

    def teacher(clean: Tensor) -> Tensor:
        seen.append(clean)
        return nearest(clean)

    noisy = DataConfig(noise=1.0, noise_sigma=(20.0, 20.0))
    make_pairs(list_pairs([images], [1]), tmp_path / "two", data=noisy, teacher=teacher)
    clean = downscale(read(tmp_path / "two/high/1/lakes/a.png"), 4)
    assert any(s.shape == clean.shape and torch.equal(s, clean) for s in seen)


def test_a_degradation_depends_on_the_name_alone(images: Path, tmp_path: Path) -> None:
    data = DataConfig(noise=1.0, second_order=0.5)
    pairs = list_pairs([images], [1])
    make_pairs(pairs, tmp_path / "all", data=data)
    for pair in reversed(pairs):
        make_pairs([pair], tmp_path / "each", data=data)
        names = (tmp_path / made / "low" / pair.name for made in ("all", "each"))
        one, two = map(read, names)
        assert torch.equal(one, two)


def test_two_images_of_one_name_are_refused(images: Path) -> None:
    Image.new("RGB", (64, 64)).save(images / "c.jpg")
    with pytest.raises(TrainingError, match="have one name"):
        list_pairs([images], [1])


def test_a_teacher_of_another_magnification_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="does not magnify 4 times"):
        make_pairs(
            list_pairs([images], [1]), tmp_path, teacher=lambda x: F.interpolate(x, scale_factor=2)
        )


@pytest.mark.parametrize("part", ["0", "1.5"])
def test_a_reduction_beyond_the_original_is_refused(
    images: Path, tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["pairs", out, "--data", str(images), "--reduce", part]) == 1
    assert "above 0 and up to 1" in capsys.readouterr().err


class Descriptor:
    """Stands in for spandrel's: a network that repeats pixels."""

    model = torch.nn.Upsample(scale_factor=4)


@pytest.fixture
def spandrel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spandrel that knows files that are named wise.pth."""

    class Loader:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def load_from_file(self, file: Path) -> Descriptor:
            if file.name != "wise.pth":
                raise RuntimeError("unsupported architecture")
            return Descriptor()

    module = SimpleNamespace(ImageModelDescriptor=Descriptor, ModelLoader=Loader)
    monkeypatch.setitem(sys.modules, "spandrel", module)


def test_a_teachers_file_is_loaded_by_spandrel(
    spandrel: None, images: Path, tmp_path: Path
) -> None:
    command = ["pairs", str(tmp_path / "out"), "--data", str(images), "--teacher", "a/wise.pth"]
    assert main(command) == 0
    low, taught = (read(tmp_path / "out" / k / "1/lakes/c.png") for k in ("low", "teacher"))
    torch.testing.assert_close(taught, nearest(low))
    assert '"wise.pth"' in (tmp_path / "out/pairs.json").read_text()


def test_a_teacher_that_cannot_be_loaded_is_named(
    spandrel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match=r"other\.pth is no network that spandrel knows"):
        load_teacher(Path("other.pth"))
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(TrainingError, match="pip install"):
        load_teacher(Path("wise.pth"))
