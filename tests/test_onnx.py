"""Models as files for other programs: the same pixels there, facts in the file, or no file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from srgan_infer import SuperResolver, UpscaleError, weights
from srgan_infer.cli.main import main
from srgan_infer.network import onnx as network_onnx
from srgan_infer.network.generator import Generator, GeneratorConfig
from srgan_infer.network.onnx import to_onnx

onnx: Any = pytest.importorskip("onnx", reason="the extra [export] is not installed")
onnxruntime: Any = pytest.importorskip("onnxruntime", reason="the extra [export] is not installed")

CARD = "---\nlibrary_name: srgan-infer\nlicense: cc-by-4.0\n---\n"


def generator(config: GeneratorConfig, seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    network = Generator(config).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.PReLU):
            module.weight.uniform_(-0.3, 0.5)
    return network


def model(folder: Path, config: GeneratorConfig) -> SuperResolver:
    weights.save(folder, config, generator(config).state_dict(), CARD)
    return SuperResolver.from_pretrained(folder, device="cpu", dtype="float32")


def session(source: Path | bytes) -> Any:
    data = source if isinstance(source, bytes) else source.read_bytes()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def run(session: Any, x: Tensor) -> Tensor:
    return torch.from_numpy(session.run(["output"], {"input": x.numpy()})[0])


CONFIGS = [
    GeneratorConfig(channels=4, blocks=1, scale=2, output_activation="tanh"),
    GeneratorConfig(channels=4, blocks=2, scale=4, input_skip="bilinear"),
    GeneratorConfig(channels=4, blocks=1, scale=8, input_skip="nearest", activation="leaky_relu"),
    GeneratorConfig(
        channels=4, blocks=1, output_kernel=5, output_activation="sigmoid", input_mean=(0.4, 0.5, 0)
    ),
]
NETWORKS = [(generator(config), session(to_onnx(generator(config), {}))) for config in CONFIGS]


@settings(deadline=None, max_examples=40)
@given(
    network=st.sampled_from(NETWORKS),
    batch=st.integers(1, 3),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 99),
)
@torch.inference_mode()
def test_onnx_runtime_gives_the_same_pixels(
    network: Any, batch: int, height: int, width: int, seed: int
) -> None:
    x = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
    expected = network[0](x).clamp(0, 1)
    found = run(network[1], x)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4


def test_tiles_with_the_halo_of_the_file_are_exact() -> None:
    _, runtime = NETWORKS[1]
    facts = runtime.get_modelmeta().custom_metadata_map
    halo, scale = int(facts["halo"]), int(facts["scale"])
    x = torch.rand(1, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    whole = run(runtime, x)
    top, bottom, left, right = 20, 31, 33, 47
    first, start = max(0, top - halo), max(0, left - halo)
    tile = run(runtime, x[:, :, first : bottom + halo, start : right + halo].contiguous())
    core = tile[:, :, (top - first) * scale :, (left - start) * scale :]
    core = core[:, :, : (bottom - top) * scale, : (right - left) * scale]
    expected = whole[:, :, top * scale : bottom * scale, left * scale : right * scale]
    assert (core - expected).abs().max() <= 1e-5


def test_the_file_states_what_it_is(tmp_path: Path) -> None:
    sr = model(tmp_path / "model", GeneratorConfig(channels=4, blocks=1, input_skip="bilinear"))
    sr.export(tmp_path / "a.onnx")
    loaded = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(loaded)
    facts = {entry.key: entry.value for entry in loaded.metadata_props}
    assert facts == {
        "model": str(tmp_path / "model"),
        "sha256": sr.sha256,
        "licence": "cc-by-4.0",
        "scale": "4",
        "halo": str(sr.config.halo),
    }
    assert [entry.name for entry in loaded.graph.input] == ["input"]
    assert [entry.name for entry in loaded.graph.output] == ["output"]
    shape = loaded.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == ["batch", 3, "height", "width"]
    # Only operators that browsers and old runtimes have as well.
    assert {node.op_type for node in loaded.graph.node} <= {
        "Conv",
        "LeakyRelu",
        "Add",
        "Clip",
        "DepthToSpace",
        "Resize",
    }
    text = (tmp_path / "a.onnx").read_bytes()
    assert str(Path(network_onnx.__file__).parent).encode() not in text, "its maker's folders"
    # Programs that ask for the scale infer it from the shapes.
    for dim, value in zip(shape, (1, 3, 16, 16), strict=True):
        dim.dim_value = value
    loaded.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(loaded, strict_mode=True)
    found = inferred.graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in found] == [1, 3, 64, 64]


def test_a_fixed_file_takes_its_one_size(tmp_path: Path) -> None:
    sr = model(tmp_path / "model", GeneratorConfig(channels=4, blocks=1, scale=8))
    sr.export(tmp_path / "a.onnx", fixed=24)
    found = session(tmp_path / "a.onnx")
    assert found.get_inputs()[0].shape == [1, 3, 24, 24]
    assert found.get_outputs()[0].shape == [1, 3, 192, 192]
    x = torch.rand(1, 3, 24, 24)
    assert (run(found, x) - sr(x)).abs().max() <= 1e-4
    with pytest.raises(Exception, match="dimensions"):
        run(found, torch.rand(1, 3, 24, 25))


def test_half_is_half_the_size_and_close(tmp_path: Path) -> None:
    sr = model(tmp_path / "model", GeneratorConfig(channels=24, blocks=3, input_skip="bilinear"))
    sr.export(tmp_path / "b.onnx", half=True)
    values = sum(tensor.numel() for tensor in weights.load(tmp_path / "model").state.values())
    assert (tmp_path / "b.onnx").stat().st_size < 3 * values
    x = torch.rand(1, 3, 30, 20)
    found = run(session(tmp_path / "b.onnx"), x)
    assert found.dtype == torch.float32
    assert (found - sr(x)).abs().max() <= 4e-3


def test_a_blend_is_exported_as_such(bundled: Path, tmp_path: Path) -> None:
    sr = SuperResolver.from_pretrained(strength=0.5, device="cpu", dtype="float32")
    sr.export(tmp_path / "blend.onnx")
    found = session(tmp_path / "blend.onnx")
    facts = found.get_modelmeta().custom_metadata_map
    assert facts["model"] == "srresnet+srgan at strength 0.5"
    assert facts["licence"] == "mit"
    assert facts["sha256"].count("+") == 1
    x = torch.rand(1, 3, 9, 12)
    assert (run(found, x) - sr(x)).abs().max() <= 1e-4


def test_a_file_that_gives_other_pixels_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sr = model(tmp_path / "model", GeneratorConfig(channels=4, blocks=1))
    (tmp_path / "a.onnx").write_bytes(b"old")
    forward = network_onnx.Exported.forward

    def wrong(self: Any, input: Tensor) -> Tensor:
        return forward(self, input) + 5e-4

    monkeypatch.setattr(network_onnx.Exported, "forward", wrong)
    with pytest.raises(UpscaleError, match=r"5\.\de-04 off on an image of .* not written"):
        sr.export(tmp_path / "a.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "model"]
    assert (tmp_path / "a.onnx").read_bytes() == b"old"


@pytest.mark.parametrize("size", network_onnx.CHECKED_SIZES)
@pytest.mark.parametrize("wrong", [2e-4, float("nan")])
def test_one_size_that_differs_is_enough(
    size: tuple[int, int, int], wrong: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sr = model(tmp_path / "model", GeneratorConfig(channels=4, blocks=1))
    whole = onnxruntime.InferenceSession

    class Runtime:
        """Right, but for one pixel of images of one size."""

        def __init__(self, *values: Any, **options: Any) -> None:
            self.session = whole(*values, **options)

        def run(self, names: list[str], given: dict[str, Any]) -> list[Any]:
            (found,) = self.session.run(names, given)
            batch, _, height, width = given["input"].shape
            if (batch, height, width) == size:
                # Away from the ends of the range, at which a result is clipped.
                found[-1, -1, -1, -1] += wrong if found[-1, -1, -1, -1] < 0.5 else -wrong
            return [found]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Runtime)
    with pytest.raises(UpscaleError, match=f"image of {size[2]}x{size[1]}, .* not written"):
        sr.export(tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_a_file_that_overflows_is_not_written(tmp_path: Path) -> None:
    config = GeneratorConfig(channels=4, blocks=1)
    state = {key: tensor * 500 for key, tensor in generator(config).state_dict().items()}
    weights.save(tmp_path / "model", config, state, CARD)
    sr = SuperResolver.from_pretrained(tmp_path / "model", device="cpu", dtype="float32")
    with pytest.raises(UpscaleError, match="off"):
        sr.export(tmp_path / "a.onnx", half=True)
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("a.pth", {}, "as .onnx or .safetensors, not as 'a.pth'"),
        ("a.safetensors", {"fixed": 4}, "fixed is for .onnx"),
        ("a.onnx", {"fixed": 0}, "fixed must be a positive integer, not 0"),
        ("a.onnx", {"fixed": 4.5}, "fixed must be a positive integer, not 4.5"),
    ],
)
def test_options_that_mean_nothing(
    name: str, options: Any, reason: str, tmp_path: Path, model_folder: Path
) -> None:
    sr = SuperResolver.from_pretrained(model_folder, device="cpu")
    with pytest.raises(ValueError, match=reason):
        sr.export(tmp_path / name, **options)


def test_a_missing_package_is_named(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    sr = SuperResolver.from_pretrained(model_folder, device="cpu")
    with pytest.raises(UpscaleError, match=r"pip install 'srgan-infer\[export\]'"):
        sr.export(tmp_path / "a.onnx")


def test_the_command_exports(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--export", "a.onnx", "--model", "srresnet", "--fixed", "20", "--half"]) == 0
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.startswith("srgan-upscale: a.onnx is srresnet, ×4, halo ")
    assert told.err.count("\n") == 1, "no remarks of the exporter"
    x = torch.rand(1, 3, 20, 20)
    sr = SuperResolver.from_pretrained("srresnet", device="cpu", dtype="float32")
    assert (run(session(Path("a.onnx")), x) - sr(x)).abs().max() <= 4e-3
    before = Path("a.onnx").read_bytes()
    assert main(["--export", "a.onnx", "--strength", "0.3"]) == 2
    assert "a.onnx exists" in capfd.readouterr().err
    assert Path("a.onnx").read_bytes() == before
    assert main(["--export", "a.onnx", "--strength", "0.3", "--overwrite", "-q"]) == 0
    assert capfd.readouterr().err == ""
    assert main(["--export", "b.onnx", "picture.png"]) == 2
    assert "takes no images" in capfd.readouterr().err
    assert main(["--export", "nowhere/b.onnx"]) == 2
    assert "nowhere" in capfd.readouterr().err
    np.testing.assert_equal(sorted(path.name for path in Path().glob("*.onnx")), ["a.onnx"])


def test_the_code_of_the_documentation_runs_as_it_stands(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sr = SuperResolver.from_pretrained(device="cpu", dtype="float32")
    sr.export("srgan-x4.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (41, 53, 3), np.uint8)
    Image.fromarray(pixels).save("in.png")
    page = Path(__file__).parents[1] / "docs" / "programs" / "onnxruntime.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    expected = sr(pixels).astype(int)
    tiled = names["upscale_in_tiles"](pixels, edge=17)
    for result in (names["upscale"](pixels), tiled, np.asarray(Image.open("out.png"))):
        assert np.abs(result - expected).max() <= 1
