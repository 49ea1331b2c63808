"""Training networks agree with what is published and deployed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from srgan_training.discriminator import Discriminator, adversarial_loss, discriminator_loss
from srgan_training.features import FeatureNetwork, feature_distance, load_features
from srgan_training.generator import TrainingGenerator, deploy
from srgan_training.losses import feature_loss, grid_loss, shifted

from srgan_infer.network.generator import Generator, GeneratorConfig

DISTILLED = Path(__file__).parents[3] / "shared/data/perceptual/vgg19_distilled16x.safetensors"
VGG19 = [64, 64, 128, 128, *[256] * 4, *[512] * 8]


def trained_norms(model: TrainingGenerator) -> None:
    """Give batch norm the statistics and scales of a trained network."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ["prelu", "leaky_relu"])
@pytest.mark.parametrize(
    ("output_activation", "input_skip"),
    [("none", "none"), ("sigmoid", "none"), ("tanh", "nearest"), ("none", "bilinear")],
)
def test_deployment_form_computes_the_same(
    batch_norm: bool, activation: str, output_activation: str, input_skip: str
) -> None:
    torch.manual_seed(0)
    config = GeneratorConfig(
        channels=8,
        blocks=3,
        activation=activation,
        output_activation=output_activation,
        input_skip=input_skip,
    )
    model = TrainingGenerator(config, batch_norm=batch_norm)
    trained_norms(model)
    generator = deploy(model)
    assert type(generator) is Generator
    assert not any("norm" in type(m).__name__.lower() for m in generator.modules())
    x = torch.rand(2, 3, 13, 17)
    with torch.inference_mode():
        expected = model.eval()(x)
        torch.testing.assert_close(generator(x), expected, atol=1e-4, rtol=1e-4)


def test_sub_pixel_phases_start_alike() -> None:
    model = TrainingGenerator(GeneratorConfig(channels=8, blocks=1), batch_norm=False)
    enlarged = model.upsample[0](torch.rand(1, 8, 6, 6))
    blocks = enlarged.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    assert torch.equal(blocks, blocks[..., :1].expand_as(blocks))


@pytest.mark.parametrize(("layout", "convolutions"), [("paper", 8), ("coco10k", 7)])
@pytest.mark.parametrize("norm", ["batch", "spectral", "none"])
def test_discriminators_end_in_one_logit(layout: str, convolutions: int, norm: str) -> None:
    model = Discriminator(layout, width=8, norm=norm)
    found = [m for m in model.convolutions.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(found) == convolutions
    for edge in (96, 128):
        assert model(torch.rand(2, 3, edge, edge)).shape == (2, 1)


def test_the_papers_discriminator_has_its_channels_and_strides() -> None:
    layers = [m for m in Discriminator().convolutions if isinstance(m, torch.nn.Conv2d)]
    assert [m.out_channels for m in layers] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [m.stride[0] for m in layers] == [1, 2, 1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize("relativistic", [False, True])
def test_adversarial_losses_pull_the_right_way(relativistic: bool) -> None:
    real, fake = torch.tensor([[2.0], [3.0]]), torch.tensor([[-2.0], [-1.0]])
    right = discriminator_loss(real, fake, relativistic)
    assert right < discriminator_loss(fake, real, relativistic)
    fooled = adversarial_loss(real, fake if relativistic else None)
    assert fooled < adversarial_loss(fake, real if relativistic else None)
    at_chance = discriminator_loss(torch.zeros(2, 1), torch.zeros(2, 1), relativistic)
    assert float(at_chance) == pytest.approx(2 * torch.log(torch.tensor(2.0)).item())


def random_vgg19() -> dict[str, torch.Tensor]:
    """Tensors under the names of timm's VGG-19, an eighth as wide."""
    torch.manual_seed(0)
    numbers = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    tensors, inputs = {"head.fc.weight": torch.rand(2, 2)}, 3
    for number, channels in zip(numbers, VGG19, strict=True):
        outputs = channels // 8
        weight = torch.randn(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        tensors |= {
            f"features.{number}.weight": weight,
            f"features.{number}.bias": torch.rand(outputs),
        }
        inputs = outputs
    return tensors


def test_vgg19_features_are_those_of_a_plain_sequential(tmp_path: Path) -> None:
    tensors = random_vgg19()
    save_file(tensors, tmp_path / "vgg.safetensors")
    x = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (x - mean[:, None, None]) / std[:, None, None]
    raw = expected
    for number in range(36):
        if f"features.{number}.weight" in tensors:
            raw = torch.nn.functional.conv2d(
                expected,
                tensors[f"features.{number}.weight"],
                tensors[f"features.{number}.bias"],
                padding=1,
            )
            expected = raw.relu()
        elif number in (4, 9, 18, 27):
            expected = torch.nn.functional.max_pool2d(expected, 2)
    path = str(tmp_path / "vgg.safetensors")
    torch.testing.assert_close(load_features(path, ["relu5_4"])(x)["relu5_4"], expected)
    before = load_features(path, ["relu5_4"], before_activation=True)
    torch.testing.assert_close(before(x)["relu5_4"], raw)
    assert all(not p.requires_grad for p in before.parameters())


def test_unknown_layers_and_missing_files_are_named(tmp_path: Path) -> None:
    save_file(random_vgg19(), tmp_path / "vgg.safetensors")
    with pytest.raises(ValueError, match="relu6_1"):
        load_features(str(tmp_path / "vgg.safetensors"), ["relu6_1"])
    with pytest.raises(FileNotFoundError, match="vgg19"):
        load_features(str(tmp_path / "missing.safetensors"), ["relu1_1"])


@pytest.mark.skipif(not DISTILLED.is_file(), reason="the distilled VGG-19 is not here")
def test_distilled_distances_are_zero_for_equal_and_large_for_other_images() -> None:
    network = load_features(str(DISTILLED), [f"relu{n}_1" for n in range(1, 6)])
    small = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(small, scale_factor=8, mode="bilinear")
    noisy = (image + torch.randn_like(image) * 8 / 255).clamp(0, 1)
    same = feature_distance(network, image, image)
    near = feature_distance(network, noisy, image)
    other = feature_distance(network, image.flip(0), image)
    for layer in network.layers:
        assert same[layer].max() == 0
        assert (near[layer] < other[layer]).all()


def test_feature_loss_has_a_gradient_for_the_generated_image_only() -> None:
    tensors = {
        "conv1_1.weight": torch.randn(4, 3, 3, 3),
        "conv1_1.bias": torch.randn(4),
        "conv1_2.weight": torch.randn(4, 4, 3, 3),
        "conv1_2.bias": torch.randn(4),
    }
    tensors |= {"input.weight": torch.eye(3)[:, :, None, None], "input.bias": torch.zeros(3)}
    network = FeatureNetwork(tensors, ["relu1_1", "relu1_2"])
    fake = torch.rand(1, 3, 8, 8, requires_grad=True)
    real = torch.rand(1, 3, 8, 8, requires_grad=True)
    loss = feature_loss(network, {"relu1_1": 1.0, "relu1_2": 0.5}, fake, real, "l1")
    loss.backward()  # type: ignore[no-untyped-call]
    assert fake.grad is not None
    assert fake.grad.abs().max() > 0
    assert real.grad is None


def test_grid_loss_sees_a_grid_and_a_colour_cast_but_not_noise() -> None:
    rng = torch.Generator().manual_seed(0)
    real = torch.rand(2, 3, 64, 64, generator=rng)
    grid = torch.zeros(64, 64)
    grid[::4, 2::4] = 0.05
    noise = torch.randn(real.shape, generator=rng) * grid.std()
    assert grid_loss(real, real, 4) == 0
    assert float(grid_loss(real + 0.1, real, 4)) == pytest.approx(0.01, rel=1e-3)
    seen = grid_loss(real + grid, real, 4)
    assert float(seen) == pytest.approx(float(grid.square().mean()), rel=1e-3)
    assert seen > 8 * grid_loss(real + noise, real, 4)


def test_shift_moves_both_images_alike_and_off_the_grid() -> None:
    rows = torch.arange(32.0)[None, None, :, None].expand(1, 3, 32, 32)
    rng = torch.Generator().manual_seed(0)
    tops = set()
    for _ in range(40):
        fake, real = shifted(rows, rows, 8, rng)
        assert fake.shape[-2:] == (24, 24)
        assert torch.equal(fake, real)
        tops.add(int(fake[0, 0, 0, 0]))
    assert {top % 4 for top in tops} == {0, 1, 2, 3}
