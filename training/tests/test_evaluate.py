"""Scoring models through SuperResolver, and the sheets that compare them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from srgan_training import evaluate, metrics, scores, sheets
from srgan_training.features import load_features
from srgan_training.main import main

from srgan_infer import weights
from srgan_infer.network.generator import Generator, GeneratorConfig

SHARED = Path(__file__).resolve().parents[3] / "shared/data"
FEATURES = SHARED / "perceptual/vgg19_distilled16x.safetensors"


def texture(width: int, height: int, seed: int) -> Image.Image:
    """A blurred random image: detail at every scale, as photographs have."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for cell in (2, 5, 12):
        noise = rng.integers(0, 256, (height // cell + 2, width // cell + 2, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        image += np.asarray(layer) / 3
    return Image.fromarray(image.astype(np.uint8))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that is bilinear enlargement: all its convolutions are zero."""
    config = GeneratorConfig(channels=8, blocks=1, input_skip="bilinear")
    state = {name: torch.zeros_like(t) for name, t in Generator(config).state_dict().items()}
    weights.save(tmp_path / "models/bilinear", config, state, "---\nlicense: mit\n---\n")
    return tmp_path / "models/bilinear"


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    texture(101, 90, 1).save(folder / "colour.png")
    texture(96, 82, 2).convert("L").save(folder / "grey.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["evaluate", *map(str, arguments)])
    output = capsys.readouterr()
    return status, output.out, output.err


def test_a_folder_of_originals_is_scored_at_a_multiple_of_four(
    model: Path, originals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text, _ = run(capsys, model, "--data", originals, "--out", tmp_path / "out")
    assert status == 0
    assert text == (tmp_path / "out/evaluation.md").read_text()
    found = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert found["models"] == {"bilinear": weights.read(model, "").sha256}
    assert set(found["scores"]) == {"images"}
    assert set(found["scores"]["images"]) == {"colour.png", "grey.png"}

    with Image.open(originals / "colour.png") as image:
        high = evaluate.to_tensor(image.crop((0, 0, 100, 88)))
    low = F.interpolate(high, size=(22, 25), mode="bicubic", antialias=True)
    low = metrics.to_levels(low) / 255
    bilinear = F.interpolate(low, scale_factor=4, mode="bilinear")
    ours = found["scores"]["images"]["colour.png"]
    assert ours["bilinear"]["psnr"] == pytest.approx(metrics.psnr(bilinear, high).item(), abs=0.01)
    assert ours["bilinear"]["ssim"] == pytest.approx(metrics.ssim(bilinear, high).item(), abs=1e-3)
    bicubic = evaluate.to_image(low).resize((100, 88), Image.Resampling.BICUBIC)
    expected = metrics.psnr(evaluate.to_tensor(bicubic), high).item()
    assert ours["bicubic"]["psnr"] == pytest.approx(expected, abs=1e-3)
    mean = found["means"]["images"]["bicubic"]["psnr"]
    both = [s["bicubic"]["psnr"] for s in found["scores"]["images"].values()]
    assert mean == pytest.approx(np.mean(both))
    assert f"| bicubic | {mean:.2f} / " in text
    assert f"| colour.png | {ours['bicubic']['psnr']:.2f} / " in text


def test_given_low_resolution_images_are_used_and_none_may_be_missing(
    model: Path, originals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("HR", "LRx4"):
        (tmp_path / "sets/One" / part).mkdir(parents=True)
    texture(64, 80, 3).save(tmp_path / "sets/One/HR/a.png")
    flat = Image.new("RGB", (16, 20), (10, 20, 30))
    flat.save(tmp_path / "sets/One/LRx4/a.png")
    status, _, _ = run(capsys, model, "--data", tmp_path / "sets", "--out", tmp_path / "out")
    assert status == 0
    found = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert found["scores"]["One"]["a.png"]["bicubic"]["psnr"] < 12

    texture(64, 80, 4).save(tmp_path / "sets/One/HR/b.png")
    status, _, error = run(capsys, model, "--data", tmp_path / "sets")
    assert status == 1
    assert "b.png is missing" in error
    flat.save(tmp_path / "sets/One/LRx4/b.png")
    texture(68, 80, 4).save(tmp_path / "sets/One/HR/b.png")
    status, _, error = run(capsys, model, "--data", tmp_path / "sets")
    assert status == 1
    assert "is 16×20, which is not a 4th of 68×80" in error


def test_compressed_inputs_score_lower(
    model: Path, originals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    means = []
    for options in ([], ["--jpeg", 30]):
        run(capsys, model, "--data", originals, "--out", tmp_path / "out", *options)
        found = json.loads((tmp_path / "out/evaluation.json").read_text())
        means.append(found["means"]["images"]["bilinear"]["psnr"])
    assert means[1] < means[0] - 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}", "--data", "{nowhere}"], "no such folder"),
        (["{model}", "--data", "{model}"], "holds no images"),
        (["{nowhere}/m", "--data", "{images}"], "There is no model"),
        (["{model}", "--data", "{images}", "--features", "{nowhere}"], "no such feature network"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    model: Path,
    originals: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    names = {"model": model, "images": originals, "nowhere": tmp_path / "nowhere"}
    status, text, error = run(capsys, *(argument.format(**names) for argument in arguments))
    assert (status, text) == (1, "")
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error


def test_sheets_and_images_are_written(
    model: Path, originals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(capsys, model, "--data", originals, "--out", out, "--sheets", "--images")
    with Image.open(out / "sheets/images/grey.png") as sheet:
        assert sheet.mode == "RGB"
        assert sheet.width == sheets.GAP + 4 * (sheets.COLUMN + sheets.GAP)
    with Image.open(out / "images/bilinear/images/colour.png") as result:
        assert result.size == (100, 88)
    with Image.open(out / "images/bilinear/images/grey.png") as result:
        assert (result.size, result.mode) == ((96, 80), "L")


def test_crops_are_taken_where_the_detail_is() -> None:
    image = np.full((300, 400, 3), 128, np.uint8)
    image[150:230, 280:360] = np.random.default_rng(0).integers(0, 256, (80, 80, 3))
    first, second = sheets.detailed_boxes(Image.fromarray(image), 96)
    assert first[0] <= 280 < 360 <= first[2]
    assert first[1] <= 150 < 230 <= first[3]
    apart = second[2] <= first[0] or first[2] <= second[0]
    assert apart or second[3] <= first[1] or first[3] <= second[1]
    assert sheets.detailed_boxes(Image.new("RGB", (40, 30)), 30) == [(0, 0, 30, 30)]


def scored(energy: float, line: float, shift: float) -> scores.Scores:
    grids = dict.fromkeys(scores.GRIDS, energy)
    return scores.Scores(30, 0.9, {}, None, shift, grids, dict.fromkeys(scores.GRIDS, line))


def test_artefacts_are_summed_over_a_set_relative_to_the_originals() -> None:
    images = {
        "a": {"m": scored(3, 2, 0.5), "original": scored(2, 0, 0)},
        "b": {"m": scored(4, 1, 0.1), "original": scored(8, -1, 0)},
    }
    summary = scores.summarise(images, "m")
    assert summary.energy["x4"] == pytest.approx(0.7)
    assert summary.line["y2"] == pytest.approx(0.4)
    assert summary.colour_shift == 0.5
    assert summary.feature_distance is None


@pytest.mark.skipif(not FEATURES.is_file(), reason="the distilled VGG is not beside this checkout")
def test_feature_distance_ranks_noise_blur_and_another_image() -> None:
    network = load_features(str(FEATURES), scores.HEADS)
    files = evaluate.find_pairs(SHARED / "benchmarks/Set14", 4)["Set14"]
    pairs = [evaluate.open_pair("Set14", *files[number], 4, None) for number in (3, 6)]
    width, height = (min(pair.high.size[axis] for pair in pairs) for axis in (0, 1))

    def distances(result: Image.Image, pair: evaluate.Pair) -> list[float]:
        found = evaluate.score(result, pair, network, None, torch.device("cpu"))
        return list(found.feature_distance.values())

    for pair, other in zip(pairs, reversed(pairs), strict=True):
        bicubic = pair.low.resize(pair.high.size, Image.Resampling.BICUBIC)
        rng = np.random.default_rng(0)
        noisy = np.asarray(pair.high) + rng.normal(0, 8, (*pair.high.size[::-1], 3))
        noise = distances(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), pair)
        blur = distances(bicubic, pair)
        assert len(blur) == 5
        assert max(noise) < 0.06 < 0.15 < min(blur) <= max(blur) < 0.65
        part = evaluate.Pair("", "", pair.low, pair.high.crop((0, 0, width, height)))
        unrelated = distances(other.high.crop((0, 0, width, height)), part)
        assert min(unrelated) > max(0.65, *blur)
