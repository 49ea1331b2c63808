"""Models in spandrel itself, which ComfyUI and chaiNNer load models with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import srgan_infer.spandrel
from srgan_infer import SuperResolver, WeightsError, weights
from srgan_infer.network.generator import Generator, GeneratorConfig
from srgan_infer.weights.export import CONFIG_TENSOR

CONFIG = GeneratorConfig(
    channels=6, blocks=2, scale=2, output_activation="tanh", input_mean=(0.5, 0.4, 0.3)
)


@pytest.fixture
def spandrel() -> Any:
    try:
        import spandrel
    except Exception as reason:  # a torchvision of another build fails in its own ways
        pytest.skip(f"spandrel and its torchvision cannot be imported here: {reason}")
    srgan_infer.spandrel.install()
    return spandrel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state = Generator(CONFIG).state_dict()
    weights.save(tmp_path / "model", CONFIG, state, "---\nlicense: mit\n---\n")
    return tmp_path / "model"


def same(model: Any, folder: Path) -> bool:
    x = torch.rand(1, 3, 17, 12)
    sr = SuperResolver.from_pretrained(folder, device="cpu", dtype="float32")
    with torch.inference_mode():
        return bool((model.eval()(x).clamp(0, 1) - sr(x)).abs().max() <= 1e-5)


def test_a_folder_is_loaded_with_the_config_beside_it(spandrel: Any, folder: Path) -> None:
    model = spandrel.ModelLoader().load_from_file(folder / "model.safetensors")
    assert model.scale == 2
    assert same(model, folder)


def test_a_single_file_is_loaded_wherever_it_lies(
    spandrel: Any, folder: Path, tmp_path: Path
) -> None:
    sr = SuperResolver.from_pretrained(folder, device="cpu")
    sr.export(tmp_path / "srgan-x2.safetensors")
    assert same(spandrel.ModelLoader().load_from_file(tmp_path / "srgan-x2.safetensors"), folder)
    # As ComfyUI does it: it reads the file itself, and passes the tensors on.
    tensors = load_file(tmp_path / "srgan-x2.safetensors")
    assert same(spandrel.ModelLoader().load_from_state_dict(tensors), folder)


@pytest.mark.parametrize("scale", [4, 8])
def test_other_scales(spandrel: Any, scale: int, tmp_path: Path) -> None:
    config = GeneratorConfig(channels=4, blocks=1, scale=scale)
    weights.save(tmp_path / "model", config, Generator(config).state_dict(), "")
    model = spandrel.ModelLoader().load_from_file(tmp_path / "model" / "model.safetensors")
    assert model.scale == scale
    assert same(model, tmp_path / "model")


def test_installing_twice_is_installing_once(spandrel: Any, folder: Path) -> None:
    before = len(spandrel.MAIN_REGISTRY)
    srgan_infer.spandrel.install()
    assert len(spandrel.MAIN_REGISTRY) == before


def test_a_file_that_was_changed_is_refused(spandrel: Any, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["sha256"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="was replaced"):
        spandrel.ModelLoader().load_from_file(folder / "model.safetensors")


def test_a_file_of_another_program_is_left_to_spandrel(
    spandrel: Any, folder: Path, tmp_path: Path
) -> None:
    (folder / "config.json").write_text('{"architecture": "other"}')
    with pytest.raises(WeightsError, match=r"keep config\.json beside"):
        spandrel.ModelLoader().load_from_file(folder / "model.safetensors")


# What does not need spandrel.


def test_the_single_file_states_what_it_is(folder: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    sr = SuperResolver.from_pretrained(folder, device="cpu")
    sr.export(tmp_path / "a.safetensors", half=True)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        facts = file.metadata()
        names = set(file.keys())
    assert facts == {"format": "pt", "model": str(folder), "sha256": sr.sha256, "licence": "mit"}
    assert names == {*Generator(CONFIG).state_dict(), CONFIG_TENSOR}
    generator, state = srgan_infer.spandrel.build(load_file(tmp_path / "a.safetensors"))
    assert generator.config == CONFIG
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"channels": 0}', b'{"depth": 3}'])
def test_a_description_that_is_none_is_an_error(text: bytes) -> None:
    state = {CONFIG_TENSOR: torch.tensor(list(text), dtype=torch.uint8)}
    with pytest.raises(WeightsError, match="export it again"):
        srgan_infer.spandrel.build(state)


def test_importing_it_imports_no_spandrel() -> None:
    code = "import srgan_infer.spandrel, sys; sys.exit('spandrel' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
