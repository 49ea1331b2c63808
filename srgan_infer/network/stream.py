"""SRResNet over streams of rows.

An image is fed in thin horizontal bands. Every convolution keeps the last
rows of its input, every skip connection keeps the rows that wait for their
counterpart, so each pixel of each layer is computed once, the result equals
inference on the whole image, and memory does not grow with the height.

:class:`RowStream` strings the pieces of streaming.py together for one image (or
one column of a wide image). :func:`prepare` rewrites a generator once into
the layers that the pieces run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from srgan_infer.network.generator import (
    Generator,
    GeneratorConfig,
    centred,
    convolution_before_shuffle,
)
from srgan_infer.network.streaming import (
    Convolution,
    FeatureBuffer,
    FeatureRows,
    InputSkip,
    Layer,
    Skip,
    add,
    phases_first,
    shuffle,
    slope,
    split,
)

# In bfloat16 these residual blocks, counted from the first, stay in float32: what they
# round away all later layers build on, and most of the deviation came from them.
FLOAT32_BLOCKS = 5


@dataclass(frozen=True)
class Network:
    """A generator's layers in the order in which they run.

    Attributes
    ----------
    config
        The generator's description.
    feature_dtype
        Number type of the image and of the features that skips carry.
    stem
        3 → C.
    blocks
        The residual blocks, two layers each.
    trunk
        C → C, behind it the long skip.
    upsample
        The sub-pixel layers, C → 4·C; all but the last are followed by a shuffle.
    spread, output
        4·C → 12 in front of the last shuffle, as two layers: along the rows
        for each of the kernel's rows, then the sum of those down the columns.
    """

    config: GeneratorConfig
    feature_dtype: torch.dtype
    stem: Layer
    blocks: tuple[tuple[Layer, Layer], ...]
    trunk: Layer
    upsample: tuple[Layer, ...]
    spread: Layer
    output: Layer


def prepare(generator: Generator, device: torch.device, dtype: torch.dtype) -> Network:
    """Rewrite a generator into layers, once.

    Weights are laid out channels last. The output convolution moves in front
    of the last shuffle, so the full-resolution tensor with all its channels is
    never made. Channels that are shuffled are put in the order in which
    :func:`shuffle` copies the longest runs.

    In bfloat16, whose 8 bits are few, only the inner convolutions use it: the
    image, the first residual blocks, the features that the blocks add to,
    and the last sum stay in float32.
    """
    wide = torch.float32 if dtype == torch.bfloat16 else dtype

    def layer(
        weight: Tensor, bias: Tensor, activation: nn.Module | None, dtype: torch.dtype = dtype
    ) -> Layer:
        return Layer(
            weight.detach().to(device, dtype).contiguous(memory_format=torch.channels_last),
            bias.detach().to(device, dtype),
            None if activation is None else slope(activation),
        )

    def plain(
        conv: nn.Conv2d, activation: nn.Module | None = None, dtype: torch.dtype = dtype
    ) -> Layer:
        assert conv.bias is not None
        return layer(conv.weight, conv.bias, activation, dtype)

    upsample = []
    for step, part in enumerate(generator.upsample):
        conv, activation = part.conv, part.activation
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(activation, nn.Module)
        assert conv.bias is not None
        if step == len(generator.upsample) - 1:
            upsample.append(plain(conv, activation))
        else:
            order = phases_first(conv.out_channels // 4)
            upsample.append(layer(conv.weight[order], conv.bias[order], activation))
    assert generator.output.bias is not None
    order = phases_first(generator.output.out_channels)
    output = convolution_before_shuffle(generator.output.weight.detach().float())[order]
    spread, gather = split(output)
    # What is added to the input may be coarser than what is the image itself.
    sums = wide if generator.config.input_skip == "none" else dtype
    blocks = []
    for count, block in enumerate(generator.blocks):
        conv1, activation, conv2 = block.conv1, block.activation, block.conv2
        assert isinstance(conv1, nn.Conv2d)
        assert isinstance(conv2, nn.Conv2d)
        assert isinstance(activation, nn.Module)
        inner = wide if count < FLOAT32_BLOCKS else dtype
        blocks.append((plain(conv1, activation, inner), plain(conv2, dtype=inner)))
    return Network(
        generator.config,
        wide,
        plain(generator.stem, generator.stem_activation, wide),
        tuple(blocks),
        plain(generator.trunk),
        tuple(upsample),
        layer(spread, spread.new_zeros(spread.shape[0]), None, sums),
        layer(gather, generator.output.bias.repeat_interleave(4)[order], None, wide),
    )


class RowStream:
    """One image, or one column of it, or a batch, on its way through the network.

    Parameters
    ----------
    network
        The prepared layers, shared by all streams.
    tail_rows
        Low-resolution rows that the sub-pixel layers take at a time, whose
        tensors are up to 16 times as large as those before them; None for no
        limit.
    room
        Shared by the streams of one image; by default this one has its own.
    """

    def __init__(
        self, network: Network, tail_rows: int | None = None, room: FeatureBuffer | None = None
    ) -> None:
        self.config = network.config
        self.tail_rows = tail_rows
        self.room = room or FeatureBuffer()
        self.stem = Convolution(network.stem)
        self.blocks = [(Convolution(one), Convolution(two)) for one, two in network.blocks]
        self.trunk = Convolution(network.trunk)
        self.skip = Skip()
        self.upsample = [Convolution(layer) for layer in network.upsample]
        self.spread = Convolution(network.spread)
        self.output = Convolution(network.output)
        self.input_skip = InputSkip(network.config)
        self.tallest = 0  # rows fed at a time

    def push(self, rows: Tensor, last: bool) -> Iterator[Tensor]:
        """Feed the next rows of the image.

        Parameters
        ----------
        rows
            N×3×H×W in [0, 1], channels last, in the network's ``feature_dtype``.
        last
            The image ends with these rows.

        Yields
        ------
        Tensor
            N×3×h×(scale·W): the rows of the result that are ready, from top to
            bottom, possibly none. All must be taken before the next rows are fed.
        """
        if self.stem.kept is None and not last:
            self._start(rows)
        self.tallest = max(self.tallest, rows.shape[2])
        self.input_skip.feed(rows)
        x = self.stem.push(centred(self.config, rows), last).to(rows.dtype)
        self.skip.push(x)
        for features, end in self._trunk(self._strip(x), last, 0):
            rest = torch.split(features, self.tail_rows or max(features.shape[2], 1), 2)
            for part in rest:
                final = end and part is rest[-1]
                yield self.input_skip.push(self._tail(part, final), final)

    def _strip(self, rows: Tensor) -> FeatureRows:
        """A copy of the rows, with room for those that the layers put above and below."""
        layers = (*(one for one, _ in self.blocks), self.trunk)
        above = 0 if self.stem.kept is None else sum(2 * conv.layer.reach for conv in layers)
        return self.room.strip(rows, above, self.trunk.layer.reach)

    def _trunk(self, strip: FeatureRows, last: bool, first: int) -> Iterator[tuple[Tensor, bool]]:
        """Residual blocks from ``first`` on, and the long skip; and whether the image ends."""
        for step, (one, two) in enumerate(self.blocks[first:], first + 1):
            inner, strip = one.push_strip(strip, last)
            done = 0
            for out in two.push_parts(inner, last):
                add(strip.rows[:, :, done : done + out.shape[2]], out)
                done += out.shape[2]
            # Both layers together lag as far behind as the first one keeps rows.
            strip = strip.head(done)
            if last and 0 < self.tallest < strip.height:
                # With the rows that all layers have held back, more than in any band.
                yield from self._trunk(strip.head(self.tallest), False, step)
                strip = strip.rest(self.tallest)
        x, _ = self.trunk.push_strip(strip, last)
        yield self.skip.add_to(x), last

    def _start(self, rows: Tensor) -> None:
        """Make room for all rows that are kept, side by side."""
        images, _, _, width = rows.shape
        self.stem.start(images, width)
        for one, two in self.blocks:
            # What is kept here is also added to, so it has the features' type.
            one.start(images, width, rows.dtype)
            two.start(images, width)
        self.trunk.start(images, width, rows.dtype)
        for step, conv in enumerate(self.upsample):
            conv.start(images, width << step)
        self.output.start(images, width << (len(self.upsample) - 1))

    def _tail(self, x: Tensor, last: bool) -> Tensor:
        """Sub-pixel and output convolutions."""
        for step in self.upsample[:-1]:
            x = shuffle(step.push(x, last))
        for conv in (self.upsample[-1], self.spread, self.output):
            x = conv.push(x, last)
        return shuffle(x)


def stream_values(
    config: GeneratorConfig, *, tall: int, wide: int, read: int, width: int, tail: int, single: bool
) -> int:
    """Estimated number of values in memory at the highest point of a run in bands.

    Parameters
    ----------
    config
        The generator's description.
    tall
        Rows of the tallest band, low-resolution pixels as all that follow.
    wide, read
        Columns that the widest stream reads, and all streams together.
    width
        Of the image.
    tail
        Rows that the sub-pixel layers take at a time.
    single
        Whether one band is the whole image, so that no layer keeps rows for the next.
    """
    channels, body = config.channels, config.body_kernel // 2
    growth = 1 << (config.doublings - 1)
    lag = body * (2 * config.blocks + 1)
    # The rows of features, and above them room for the rows that all layers keep.
    features = tall + body + (0 if single else lag + body)
    # A residual block: its input in the layer's type, and two results.
    work = 3 * tall * wide * channels
    # The last sub-pixel layer: its input, its result, and both behind the rows kept.
    last = tail * wide * growth**2
    work = max(work, tall * wide * channels + last * (channels * (2 + 4 + 4) + 36))
    work += features * wide * channels
    # Features that wait for the long skip.
    kept = (lag + tall) * channels
    if not single or tail < tall:
        kept += 2 * (config.stem_kernel // 2) * 3 + 2 * lag * channels
        kept += sum(2 * body * channels << step for step in range(config.doublings))
        kept += 2 * -(-(config.output_kernel // 2) // 2) * 12 * config.output_kernel * growth
    # The result as floats, and put together from columns as pixels; in the last
    # step with the rows that all layers held back.
    result = 2 * max(tall, 0 if single else lag) * config.scale**2 * width * 3
    return work + kept * read + result


def tile_values(config: GeneratorConfig, area: int) -> int:
    """Estimated number of values on the device at the highest point of a tile of so many pixels."""
    last = area << 2 * (config.doublings - 1)
    # As for bands; a library's workspace may take as much again as the largest result.
    return last * config.channels * (2 + 4 + 4) + last * 4 * 3 * 6
