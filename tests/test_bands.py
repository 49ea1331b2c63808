import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srgan_infer.bands import Stream, prepare
from srgan_infer.generator import (
    ACTIVATIONS,
    INPUT_SKIPS,
    OUTPUT_ACTIVATIONS,
    Generator,
    GeneratorConfig,
)

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


def random_generator(config, seed=0):
    torch.manual_seed(seed)
    generator = Generator(config).eval()
    with torch.no_grad():
        for name, value in generator.named_parameters():
            if name.endswith("activation.weight"):
                value.uniform_(-0.5, 0.5)
    return generator


def picture(height, width, seed=0):
    values = torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))
    return values.permute(0, 3, 1, 2)


@settings(deadline=None, max_examples=60)
@given(
    config=configs,
    height=st.integers(1, 40),
    width=st.integers(1, 20),
    bands=st.lists(st.integers(1, 12), min_size=1),
    tail_rows=st.sampled_from([None, 1, 2, 5]),
    seed=st.integers(0, 99),
)
@torch.inference_mode()
def test_bands_equal_the_whole_picture(config, height, width, bands, tail_rows, seed):
    generator, x = random_generator(config, seed), picture(height, width, seed)
    stream = Stream(prepare(generator, CPU, torch.float32), tail_rows)
    parts, top = [], 0
    while top < height:
        bottom = min(height, top + bands[len(parts) % len(bands)])
        parts.extend(stream.push(x[:, :, top:bottom], bottom == height))
        top = bottom
    result = torch.cat(parts, 2)
    expected = generator(x)
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= 1e-4


@torch.inference_mode()
def test_rows_come_out_as_soon_as_what_they_depend_on_is_there():
    config = GeneratorConfig(channels=4, blocks=2)
    stream = Stream(prepare(random_generator(config), CPU, torch.float32))
    x = picture(200, 8)
    ready = 0
    for top in range(0, 192, 8):
        ready += sum(rows.shape[2] for rows in stream.push(x[:, :, top : top + 8], last=False))
        assert ready >= config.scale * (top + 8 - config.halo)


@torch.inference_mode()
def test_what_is_kept_does_not_grow_with_the_height():
    stream = Stream(prepare(random_generator(GeneratorConfig(channels=4)), CPU, torch.float32))

    def kept():
        convs = [stream.stem, stream.trunk, stream.output, *stream.upsample]
        convs += [conv for pair in stream.blocks for conv in pair]
        count = sum(conv.kept.untyped_storage().nbytes() for conv in convs)
        return count + sum(rows.untyped_storage().nbytes() for rows in stream.skip.waiting)

    sizes = []
    for step in range(40):
        list(stream.push(picture(8, 16, step), last=False))
        sizes.append(kept())
    assert max(sizes[10:]) == min(sizes[10:])


@pytest.mark.parametrize("skip", INPUT_SKIPS)
@torch.inference_mode()
def test_bfloat16_is_close(skip):
    generator = random_generator(GeneratorConfig(channels=16, blocks=8, input_skip=skip))
    x = picture(24, 24)
    (result,) = Stream(prepare(generator, CPU, torch.bfloat16)).push(x, last=True)
    assert result.dtype == torch.float32
    assert (result - generator(x)).abs().max() <= 1 / 255


def test_preparing_leaves_the_generator_as_it_is():
    generator = random_generator(GeneratorConfig(channels=4, blocks=1))
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    network = prepare(generator, CPU, torch.float32)
    with torch.no_grad():
        generator.trunk.weight.add_(1)
    assert torch.equal(network.trunk.weight, before["trunk.weight"])
