from itertools import cycle

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from srgan_infer.network.generator import (
    ACTIVATIONS,
    INPUT_SKIPS,
    OUTPUT_ACTIVATIONS,
    Generator,
    GeneratorConfig,
)
from srgan_infer.network.stream import FLOAT32_BLOCKS, RowStream, prepare

CPU = torch.device("cpu")

configs = st.builds(
    GeneratorConfig,
    channels=st.sampled_from([4, 6, 8]),
    blocks=st.integers(1, 3),
    stem_kernel=st.sampled_from([1, 3, 9]),
    body_kernel=st.sampled_from([1, 3, 5]),
    output_kernel=st.sampled_from([1, 3, 5, 7, 9]),
    scale=st.sampled_from([2, 4, 8]),
    activation=st.sampled_from(ACTIVATIONS),
    output_activation=st.sampled_from(OUTPUT_ACTIVATIONS),
    input_skip=st.sampled_from(INPUT_SKIPS),
)


def random_generator(config: GeneratorConfig, seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    generator = Generator(config).eval()
    with torch.no_grad():
        for name, value in generator.named_parameters():
            if name.endswith("activation.weight"):
                value.uniform_(-0.5, 0.5)
    return generator


def image(height: int, width: int, seed: int = 0, images: int = 1) -> torch.Tensor:
    values = torch.rand(images, height, width, 3, generator=torch.Generator().manual_seed(seed))
    return values.permute(0, 3, 1, 2)


def streamed(
    stream: RowStream, x: torch.Tensor, bands: list[int], apart: bool = False
) -> torch.Tensor:
    """Feed the image in bands of these heights, over and over; its end with no rows if apart."""
    parts: list[torch.Tensor] = []
    top = 0
    for count in cycle(bands):
        bottom = min(x.shape[2], top + count)
        parts.extend(stream.push(x[:, :, top:bottom], bottom == x.shape[2] and not apart))
        if bottom == x.shape[2]:
            if apart:
                parts.extend(stream.push(x[:, :, :0], True))
            return torch.cat(parts, 2)
        top = bottom
    raise AssertionError("no bands")


@settings(deadline=None, max_examples=60)
@given(
    config=configs,
    height=st.integers(1, 40),
    width=st.integers(1, 20),
    bands=st.lists(st.integers(1, 12), min_size=1),
    apart=st.booleans(),
    tail_rows=st.sampled_from([None, 1, 2, 5]),
    images=st.sampled_from([1, 1, 2, 3]),
    seed=st.integers(0, 99),
)
@example(
    config=GeneratorConfig(channels=4, blocks=1, stem_kernel=1, body_kernel=1, output_kernel=1),
    height=3,
    width=3,
    bands=[2],
    apart=True,
    tail_rows=None,
    images=1,
    seed=0,
)
@torch.inference_mode()
def test_bands_equal_the_whole_image(
    config: GeneratorConfig,
    height: int,
    width: int,
    bands: list[int],
    apart: bool,
    tail_rows: int | None,
    images: int,
    seed: int,
) -> None:
    generator, x = random_generator(config, seed), image(height, width, seed, images)
    stream = RowStream(prepare(generator, CPU, torch.float32), tail_rows)
    result = streamed(stream, x, bands, apart)
    expected = generator(x)
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= 1e-4


@torch.inference_mode()
def test_rows_come_out_as_soon_as_what_they_depend_on_is_there() -> None:
    config = GeneratorConfig(channels=4, blocks=2)
    stream = RowStream(prepare(random_generator(config), CPU, torch.float32))
    x = image(200, 8)
    ready = 0
    for top in range(0, 192, 8):
        ready += sum(rows.shape[2] for rows in stream.push(x[:, :, top : top + 8], last=False))
        assert ready >= config.scale * (top + 8 - config.halo)


@torch.inference_mode()
def test_what_is_kept_does_not_grow_with_the_height() -> None:
    stream = RowStream(prepare(random_generator(GeneratorConfig(channels=4)), CPU, torch.float32))

    def kept() -> int:
        convs = [stream.stem, stream.trunk, stream.output, *stream.upsample]
        convs += [conv for pair in stream.blocks for conv in pair]
        held = [conv.kept for conv in convs if conv.kept is not None]
        assert len(held) == len(convs)
        assert stream.room.memory is not None
        held += [*stream.skip.waiting, stream.room.memory]
        return sum(rows.untyped_storage().nbytes() for rows in held)

    sizes = []
    for step in range(40):
        list(stream.push(image(8, 16, step), last=False))
        sizes.append(kept())
    assert max(sizes[10:]) == min(sizes[10:])


@pytest.mark.parametrize("skip", INPUT_SKIPS)
@torch.inference_mode()
def test_bfloat16_is_close(skip: str) -> None:
    generator = random_generator(GeneratorConfig(channels=16, blocks=8, input_skip=skip))
    x = image(24, 24)
    (result,) = RowStream(prepare(generator, CPU, torch.bfloat16)).push(x, last=True)
    assert result.dtype == torch.float32
    assert (result - generator(x)).abs().max() <= 1 / 255


@settings(deadline=None, max_examples=20)
@given(
    height=st.integers(1, 40),
    bands=st.lists(st.integers(1, 12), min_size=1),
    tail_rows=st.sampled_from([None, 1, 3]),
)
@torch.inference_mode()
def test_bands_in_bfloat16_equal_the_whole_image_in_it(
    height: int, bands: list[int], tail_rows: int | None
) -> None:
    config = GeneratorConfig(channels=16, blocks=FLOAT32_BLOCKS + 2, input_skip="bilinear")
    network, x = prepare(random_generator(config), CPU, torch.bfloat16), image(height, 12)
    (whole,) = RowStream(network).push(x, last=True)
    assert (streamed(RowStream(network, tail_rows), x, bands) - whole).abs().max() <= 0.5 / 255


def test_preparing_leaves_the_generator_as_it_is() -> None:
    generator = random_generator(GeneratorConfig(channels=4, blocks=1))
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    network = prepare(generator, CPU, torch.float32)
    with torch.no_grad():
        generator.trunk.weight.add_(1)
    assert torch.equal(network.trunk.weight, before["trunk.weight"])
