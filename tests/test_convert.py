"""Checkpoints of other repositories: the same pixels, a card that says whose they are, or a reason.

The reference networks are written from each repository's published description,
with random weights and fewer channels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from srgan_infer import SuperResolver, WeightsError, weights
from srgan_infer.cli.main import main
from srgan_infer.weights import convert

CHANNELS = 6


class Block(nn.Module):
    """A residual block whose layers have these names."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            nest(self, name, layer)
        self.order = list(layers)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for name in self.order:
            y = self.get_submodule(name)(y)
        return x + y


class Up(nn.Module):
    """A sub-pixel block whose convolution and activation have these names."""

    def __init__(self, conv: str, activation: str) -> None:
        super().__init__()
        nest(self, conv, nn.Conv2d(CHANNELS, 4 * CHANNELS, 3, padding=1))
        nest(self, activation, nn.PReLU())
        self.names = conv, activation

    def forward(self, x: Tensor) -> Tensor:
        conv, activation = (self.get_submodule(name) for name in self.names)
        y: Tensor = activation(nn.functional.pixel_shuffle(conv(x), 2))
        return y


class Reference(nn.Module):
    """SRResNet: the stem, blocks, trunk, sub-pixel blocks and output under these names."""

    def __init__(self, parts: dict[str, nn.Module], skip: tuple[str, str]) -> None:
        super().__init__()
        for name, part in parts.items():
            nest(self, name, part)
        self.order, self.skip = list(parts), skip

    def forward(self, x: Tensor) -> Tensor:
        kept = x
        for name in self.order:
            x = self.get_submodule(name)(x)
            if name == self.skip[0]:
                kept = x
            if name == self.skip[1]:
                x = x + kept
        return x


def nest(module: nn.Module, path: str, child: nn.Module) -> None:
    *above, name = path.split(".")
    for part in above:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    module.add_module(name, child)


def conv3(bias: bool = True) -> nn.Module:
    return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=bias)


def stem(kernel: int = 9) -> nn.Module:
    return nn.Conv2d(3, CHANNELS, kernel, padding=kernel // 2)


def last(kernel: int = 9) -> nn.Module:
    return nn.Conv2d(CHANNELS, 3, kernel, padding=kernel // 2)


def norm() -> nn.Module:
    return nn.BatchNorm2d(CHANNELS)


def lornatang(scale: int, old: bool = False) -> Reference:
    name = "conv_block" if old else "conv"
    parts: dict[str, nn.Module] = {f"{name}1.0": stem(), f"{name}1.1": nn.PReLU()}
    for number in range(3):
        layers = [conv3(False), norm(), nn.PReLU(), conv3(False), norm()]
        parts[f"trunk.{number}"] = Block({f"rcb.{n}": layer for n, layer in enumerate(layers)})
    parts |= {f"{name}2.0": conv3(False), f"{name}2.1": norm()}
    for number in range(scale.bit_length() - 1):
        parts[f"upsampling.{number}"] = Up("upsample_block.0", "upsample_block.2")
    parts[f"{name}3"] = last()
    return Reference(parts, (f"{name}1.1", f"{name}2.1"))


def leftthomas(scale: int) -> Reference:
    parts: dict[str, nn.Module] = {"block1.0": stem(), "block1.1": nn.PReLU()}
    for number in range(2, 7):
        layers = {"conv1": conv3(), "bn1": norm(), "prelu": nn.PReLU()}
        parts[f"block{number}"] = Block({**layers, "conv2": conv3(), "bn2": norm()})
    parts |= {"block7.0": conv3(), "block7.1": norm()}
    steps = scale.bit_length() - 1
    parts |= {f"block8.{number}": Up("conv", "prelu") for number in range(steps)}
    parts[f"block8.{steps}"] = last()
    return Reference(parts, ("block1.1", "block7.1"))


def sgrvinod(scale: int, prefix: str = "net.", kernel: int = 9) -> Reference:
    one, two = "conv_block1.conv_block", "conv_block2.conv_block"
    parts: dict[str, nn.Module] = {
        f"{prefix}{one}.0": stem(kernel),
        f"{prefix}{one}.1": nn.PReLU(),
    }
    for number in range(2):
        layers = {f"{one}.0": conv3(), f"{one}.1": norm(), f"{one}.2": nn.PReLU()}
        parts[f"{prefix}residual_blocks.{number}"] = Block(
            {**layers, f"{two}.0": conv3(), f"{two}.1": norm()}
        )
    parts |= {f"{prefix}{two}.0": conv3(), f"{prefix}{two}.1": norm()}
    for number in range(scale.bit_length() - 1):
        parts[f"{prefix}subpixel_convolutional_blocks.{number}"] = Up("conv", "prelu")
    parts[f"{prefix}conv_block3.conv_block.0"] = last(kernel)
    return Reference(parts, (f"{prefix}{one}.1", f"{prefix}{two}.1"))


def randomised(network: Reference, seed: int = 0) -> Reference:
    """As after training: no statistic and no slope is what it was at the start."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.3, 2)
        elif isinstance(module, nn.PReLU):
            module.weight.data.uniform_(-0.2, 0.4)
        elif isinstance(module, nn.Conv2d):
            module.weight.data.normal_(0, module.weight[0].numel() ** -0.5)
    return network.eval()


def as_lornatang(network: Reference, x: Tensor) -> Tensor:
    return network(x).clamp(0, 1)  # type: ignore[no-any-return]


def as_leftthomas(network: Reference, x: Tensor) -> Tensor:
    return (torch.tanh(network(x)) + 1) / 2


def as_sgrvinod(network: Reference, x: Tensor) -> Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return (torch.tanh(network((x - mean) / std)) + 1) / 2


CASES = {
    **{f"Lornatang x{scale}": (lornatang(scale), as_lornatang) for scale in (2, 4, 8)},
    "Lornatang of 2022": (lornatang(4, old=True), as_lornatang),
    **{f"leftthomas x{scale}": (leftthomas(scale), as_leftthomas) for scale in (2, 4, 8)},
    **{f"sgrvinod x{scale}": (sgrvinod(scale), as_sgrvinod) for scale in (2, 4, 8)},
    "sgrvinod's SRResNet": (sgrvinod(4, prefix="", kernel=5), as_sgrvinod),
}


def pixels(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def checkpoint(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("case", CASES)
@settings(
    deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(height=st.integers(1, 30), width=st.integers(1, 30), tile=st.integers(1, 30))
@torch.inference_mode()
def test_the_result_is_that_of_the_source(
    case: str, height: int, width: int, tile: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    network, run = CASES[case]
    folder = tmp_path_factory.mktemp("convert")
    path = checkpoint(folder / "net.pth.tar", {"state_dict": randomised(network).state_dict()})
    convert(path, folder / "model")
    sr = SuperResolver.from_pretrained(folder / "model", device="cpu", dtype="float32", tile=tile)
    x = pixels(height, width, height * width)
    expected = run(network, x).clamp(0, 1)
    assert (sr(x) - expected).abs().max() <= 1e-4
    # Every pixel, those at the border too; in tiles as in bands.
    engine = SuperResolver.from_pretrained(folder / "model", device="cpu", dtype="float16")
    assert (engine(x) - expected).abs().max() <= 0.02


def test_half_precision_runs_a_normalised_network(tmp_path: Path) -> None:
    network = randomised(sgrvinod(4))
    convert(checkpoint(tmp_path / "a.pth", network.state_dict()), tmp_path / "model")
    x = pixels(24, 20)
    expected = as_sgrvinod(network, x)
    for dtype in ("float16", "bfloat16"):
        sr = SuperResolver.from_pretrained(tmp_path / "model", device="cpu", dtype=dtype, tile=9)
        assert (sr(x) - expected).abs().max() <= 0.03


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda state: state,
    "with counters": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 1e-4}},
    "compiled": lambda state: {"state_dict": {f"_orig_mod.{k}": v for k, v in state.items()}},
    "parallel": lambda state: OrderedDict((f"module.{k}", v) for k, v in state.items()),
    "half": lambda state: {k: v.half() if v.is_floating_point() else v for k, v in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappings_are_seen_through(wrapping: str, tmp_path: Path) -> None:
    state = randomised(lornatang(2)).state_dict()
    convert(checkpoint(tmp_path / "a.pth", state), tmp_path / "plain")
    convert(checkpoint(tmp_path / "b.pth", WRAPPINGS[wrapping](state)), tmp_path / "wrapped")
    plain, wrapped = weights.load(tmp_path / "plain"), weights.load(tmp_path / "wrapped")
    assert plain.config == wrapped.config
    for key, tensor in plain.state.items():
        assert torch.allclose(tensor, wrapped.state[key], atol=2e-3)


def test_safetensors_are_read_under_any_name(tmp_path: Path) -> None:
    state = randomised(leftthomas(4)).state_dict()
    save_file(state, tmp_path / "weights.bin")
    convert(tmp_path / "weights.bin", tmp_path / "model")
    assert weights.load(tmp_path / "model").config.blocks == 5


def test_the_card_says_whose_the_weights_are(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "SRGAN_x4.pth.tar", lornatang(4).state_dict())
    convert(path, tmp_path / "model", licence="Apache-2.0")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "SRGAN_x4.pth.tar" in card
    assert "github.com/Lornatang/SRGAN-PyTorch" in card
    assert "These weights are not srgan-infer's" in card
    convert(path, tmp_path / "model", licence='by "them": CC')
    card = (tmp_path / "model" / "README.md").read_text()
    assert 'license: other\nlicense_name: "by \\"them\\": CC"' in card
    convert(path, tmp_path / "model")
    assert "license: unknown" in (tmp_path / "model" / "README.md").read_text()


def test_a_model_in_the_folder_is_kept(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pth", randomised(lornatang(4)).state_dict())
    convert(path, tmp_path / "model")
    before = weights.load(tmp_path / "model").sha256
    other = checkpoint(tmp_path / "b.pth", randomised(lornatang(2)).state_dict())
    with pytest.raises(WeightsError, match="holds a model already"):
        convert(other, tmp_path / "model", overwrite=False)
    assert weights.load(tmp_path / "model").sha256 == before
    convert(other, tmp_path / "model")
    assert weights.load(tmp_path / "model").config.scale == 2


# Names of tensors that are in the files of these networks.
FOREIGN = {
    "MSRResNet of BasicSR": ["conv_first.weight", "body.0.conv1.weight", "upconv1.weight"],
    "RRDBNet of ESRGAN and Real-ESRGAN": ["conv_first.weight", "body.0.rdb1.conv1.weight"],
    "RRDBNet of the old ESRGAN": ["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"],
    "SRVGGNetCompact of Real-ESRGAN": ["body.0.weight", "body.1.weight", "body.2.weight"],
    "SwinIR": [
        "conv_first.weight",
        "layers.0.residual_group.blocks.0.attn.relative_position_bias_table",
    ],
    "HAT": ["conv_first.weight", "layers.0.residual_group.overlap_attn.qkv.weight"],
    "DAT": ["conv_first.weight", "before_RG.1.weight", "layers.0.blocks.0.norm1.weight"],
    "SPAN": ["conv_1.sk.weight", "block_1.c1_r.sk.weight", "conv_cat.weight"],
    "Real-CUGAN": ["unet1.conv1.conv.0.weight", "unet2.conv1_down.weight"],
    "EDSR": ["head.0.weight", "body.0.body.0.weight", "tail.0.0.weight"],
    "RCAN": ["body.0.body.0.body.0.weight", "body.0.body.0.body.3.conv_du.0.weight"],
    "discriminator": ["features.0.weight", "classifier.0.weight"],
}


@pytest.mark.parametrize("what", FOREIGN)
def test_other_networks_are_refused_by_name(what: str, tmp_path: Path) -> None:
    state = {name: torch.zeros(1) for name in FOREIGN[what]}
    path = checkpoint(tmp_path / "net.pth", {"params_ema": state})
    with pytest.raises(WeightsError, match=f"{what}.*cannot represent; ") as caught:
        convert(path, tmp_path / "model")
    assert str(caught.value).endswith(".")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"a.weight": torch.zeros(1)}, r"not known here \(tensors: a.weight"),
        ({}, "not known here"),
        ([1, 2], "holds no state dict"),
        ({"state_dict": {"a": 3}}, "holds no state dict"),
        (
            {k: v for k, v in lornatang(4).state_dict().items() if k != "conv2.0.weight"},
            "lacks its trunk.weight",
        ),
        (
            {k: v for k, v in lornatang(4).state_dict().items() if k != "trunk.1.rcb.4.bias"},
            "lacks .*blocks.1.conv2.norm.bias",
        ),
        (
            {k: v for k, v in leftthomas(4).state_dict().items() if not k.startswith("block4.")},
            "lacks",
        ),
        (
            {**lornatang(4).state_dict(), "conv1.1.weight": torch.zeros(CHANNELS)},
            "a slope for each channel",
        ),
        (
            {**lornatang(4).state_dict(), "conv3.weight": torch.zeros(1, CHANNELS, 9, 9)},
            "not for RGB",
        ),
        (
            {
                **lornatang(2).state_dict(),
                "upsampling.0.upsample_block.0.weight": torch.zeros(9 * CHANNELS, CHANNELS, 3, 3),
            },
            "no power of two",
        ),
        ({**lornatang(2).state_dict(), "conv1.0.weight": torch.zeros(3)}, "cannot be represented"),
    ],
)
def test_what_does_not_fit_is_refused(state: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=reason):
        convert(checkpoint(tmp_path / "net.pth", state), tmp_path / "model")
    assert not (tmp_path / "model").exists()


class Opened:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("opened"),)


def test_a_pickle_never_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = checkpoint(tmp_path / "evil.pth", {"state_dict": Opened()})
    with pytest.raises(WeightsError, match="holds more than tensors"):
        convert(path, "model")
    assert not Path("opened").exists()


def test_a_pickled_module_is_refused_with_the_lines_that_help(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "checkpoint_srgan.pth.tar", {"generator": sgrvinod(4)})
    with pytest.raises(WeightsError, match="holds more than tensors") as caught:
        convert(path, tmp_path / "model")
    lines = [part for part in str(caught.value).split("`") if part.startswith(("network", "torch"))]
    # The advice, followed to the letter.
    scope: dict[str, Any] = {"torch": torch}
    import os

    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        for line in lines:
            exec(line, scope)
    finally:
        os.chdir(before)
    convert(tmp_path / "weights.pth", tmp_path / "model")
    assert weights.load(tmp_path / "model").config.input_mean == (0.485, 0.456, 0.406)


def test_an_old_torch_opens_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint(tmp_path / "a.pth", lornatang(4).state_dict())
    save_file(lornatang(4).state_dict(), tmp_path / "a.safetensors")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(WeightsError, match=r"use PyTorch 2\.10 or newer"):
        convert(path, tmp_path / "model")
    convert(tmp_path / "a.safetensors", tmp_path / "model")


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04 no archive", b"12345678{no json"])
def test_files_that_are_none_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.pth is .*fetch it again"):
        convert(tmp_path / "a.pth", tmp_path / "model")
    with pytest.raises(WeightsError, match="cannot be read"):
        convert(tmp_path / "b.pth", tmp_path / "model")


def test_the_command_converts_and_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    network = randomised(lornatang(2))
    checkpoint(tmp_path / "SRGAN_x2.pth.tar", {"state_dict": network.state_dict()})
    assert main(["--convert", "SRGAN_x2.pth.tar", "model", "--licence", "apache-2.0"]) == 0
    assert "model" in capsys.readouterr().err
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)).save("a.png")
    assert main(["a.png", "b.png", "--model", "model", "--dtype", "float32", "-q"]) == 0
    x = torch.from_numpy(np.array(Image.open("a.png"))).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        expected = as_lornatang(network, x)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(np.asarray(Image.open("b.png")) - expected).max() <= 0.51
    assert main(["--convert", "SRGAN_x2.pth.tar", "model"]) == 2
    assert "holds a model already" in capsys.readouterr().err
    assert main(["--convert", "SRGAN_x2.pth.tar", "model", "--overwrite"]) == 0
