"""The page of results is made from measurements and cards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from srgan_training import results, smoke
from srgan_training.main import main

from srgan_infer import weights
from srgan_infer.network.generator import Generator, GeneratorConfig

CARD = """---
license: mit
training:
  stages:
  - name: first
    steps: 12345
    minutes: 6.5
    batch: 8
    crop: 24
    seed: 3
  hardware: an abacus
  images: 77
---
# Tiny
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number, name in enumerate(results.SETS):
        folder = tmp_path / "sets" / name / "HR"
        folder.mkdir(parents=True)
        image = np.asarray(smoke.draw_image(number))[:80, :96]
        Image.fromarray(image).save(folder / "one.png")
    return tmp_path / "sets"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = GeneratorConfig(channels=8, blocks=1, input_skip="bilinear")
    state = {name: torch.zeros_like(t) for name, t in Generator(config).state_dict().items()}
    weights.save(tmp_path / "tiny", config, state, CARD)
    return tmp_path / "tiny"


def test_the_page_holds_our_numbers_beside_the_published(
    data: Path, model: Path, tmp_path: Path
) -> None:
    save_file(smoke.random_features(), tmp_path / "features.safetensors")
    command = ["--data", str(data), "--features", str(tmp_path / "features.safetensors")]
    out = tmp_path / "docs/results.md"
    assert main(["results", *command, "--models", str(model), "--out", str(out)]) == 0
    page = out.read_text()
    assert "| SRGAN, paper | 29.40 / .8472 | 26.02 / .7397 | 25.16 / .6688 |" in page
    assert "| tiny | first | 12,345 | 6.5 | 8 | 24 | 3 | 77 | an abacus |" in page
    assert weights.read(model, "").sha256 in page
    assert "JPEG quality 50 | JPEG quality 75" in page
    ours = next(line for line in page.splitlines() if line.startswith("| **tiny, here**"))
    assert ours.count(" / ") == 3
    assert str(tmp_path) not in page


def test_all_three_sets_are_needed(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "BSD100").rename(data / "Other")
    out = tmp_path / "results.md"
    assert main(["results", "--data", str(data), "--models", str(model), "--out", str(out)]) == 1
    assert "lacks BSD100" in capsys.readouterr().err
    assert not out.exists()
