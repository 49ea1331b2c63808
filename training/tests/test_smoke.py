"""The whole of training in small: two stages, export, evaluation, by the one command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from srgan_infer import SuperResolver

RUN = Path(__file__).resolve().parents[1] / "run.sh"


def start(*arguments: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    # One thread: so small a network is slower on several that wait for each other.
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        **({"PYTHONPATH": str(path)} if path else {}),
    }
    return subprocess.run(
        ["bash", str(RUN), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


def means(out: Path) -> dict[str, dict[str, float]]:
    found = json.loads((out / "evaluation/evaluation.json").read_text())
    by_version: dict[str, dict[str, float]] = found["means"]["held back"]
    return by_version


@pytest.mark.slow
def test_a_smoke_run_learns_in_both_stages(tmp_path: Path) -> None:
    images, out = tmp_path / "out/made/images", tmp_path / "out"
    result = start("--smoke", images, out)
    assert result.returncode == 0, result.stderr[-3000:]
    scores = means(out)
    assert scores["srresnet"]["psnr"] > scores["bicubic"]["psnr"] + 0.15
    assert scores["srgan"]["feature_distance"] < 0.97 * scores["srresnet"]["feature_distance"]
    for name in ("srresnet", "srgan"):
        assert SuperResolver.from_pretrained(out / "models" / name).scale == 4
        card = (out / "models" / name / "README.md").read_text()
        assert f"| held back, bicubic | {scores['bicubic']['psnr']:.2f} / " in card
    assert len(list((out / "evaluation/sheets/held back").iterdir())) == 8

    # Run again after the loss of the second stage's end: only that is done again.
    (out / "srgan/done").unlink()
    checkpoints = [out / "srresnet/checkpoint.pt", out / "srgan/checkpoint.pt"]
    before = [torch.load(file, weights_only=True)["step"] for file in checkpoints]
    written = checkpoints[0].stat().st_mtime_ns
    again = start("--smoke", images, out)
    assert again.returncode == 0, again.stderr[-3000:]
    assert checkpoints[0].stat().st_mtime_ns == written
    assert [torch.load(file, weights_only=True)["step"] for file in checkpoints] == before
    assert means(out) == scores


@pytest.mark.slow
def test_a_teacher_makes_pairs_for_stage_one(tmp_path: Path) -> None:
    # Stands in for spandrel: a network that repeats pixels.
    (tmp_path / "spandrel.py").write_text(
        "import types\nimport torch\n\n"
        "class ImageModelDescriptor:\n"
        "    model = torch.nn.Upsample(scale_factor=4)\n\n"
        "def ModelLoader(device):\n"
        "    return types.SimpleNamespace(load_from_file=lambda file: ImageModelDescriptor())\n"
    )
    out = tmp_path / "out"
    result = start(
        "--smoke", out / "made/images", out, "--teacher", "wise.pth",
        "--set1", "steps=20", "--set2", "steps=10", path=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(list(out.glob("pairs/teacher/0.7/images/*.png"))) == 40
    settings = json.loads((out / "srresnet/config.json").read_text())["data"]
    assert settings["teacher"] == [str(out / "pairs/teacher")]
    assert not json.loads((out / "srgan/config.json").read_text())["data"]["teacher"]
    assert "`wise.pth`" in (out / "models/srresnet/README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the folder of images"),
        (("--smoke", "one"), "give both folders or none"),
        (("a", "b", "--recipe", "cake"), "there is no recipe cake"),
        (("a", "b", "--set"), "--set needs a value"),
        (("a", "b", "--fast"), "unknown option --fast"),
    ],
)
def test_wrong_usage_is_said(arguments: tuple[str, ...], message: str) -> None:
    result = start(*arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_a_folder_without_images_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = start(tmp_path / "empty", tmp_path / "out")
    assert result.returncode == 1
    assert "no image to train on" in result.stderr
    assert not (tmp_path / "out/models").exists()
