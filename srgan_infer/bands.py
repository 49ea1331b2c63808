"""The network over streams of rows.

A picture is fed in thin horizontal bands. Every convolution keeps the last
rows of its input, every skip connection keeps the rows that wait for their
counterpart, so each pixel of each layer is computed once, the result equals
inference on the whole picture, and memory does not grow with the height.

Three small pieces do it: :class:`Convolution`, :class:`Skip` and
:func:`shuffle`; :class:`Stream` strings them together for one picture (or one
column of a wide picture). :func:`prepare` rewrites a generator once into the
layers that the pieces run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_infer.generator import (
    Generator,
    GeneratorConfig,
    convolution_before_shuffle,
    finish,
)

# In bfloat16 these residual blocks, counted from the first, stay in float32: what they
# round away all later layers build on, and most of the deviation came from them.
FLOAT32_BLOCKS = 5


@dataclass(frozen=True)
class Layer:
    """A convolution and the activation behind it, ready to run.

    ``slope`` is the activation's slope below zero; None stands for no activation.
    """

    weight: Tensor
    bias: Tensor
    slope: float | None

    @property
    def reach(self) -> int:
        """Rows above and below that an output depends on."""
        return int(self.weight.shape[2]) // 2

    def __call__(self, x: Tensor, padding: int) -> Tensor:
        """Convolve N×C×H×W in the weight's number type.

        ``padding`` zero rows are added above and below, and as many columns as it takes.
        """
        x = x.to(self.weight.dtype)
        out = F.conv2d(x, self.weight, self.bias, padding=(padding, self.weight.shape[3] // 2))
        return out if self.slope is None else F.leaky_relu_(out, self.slope)


@dataclass(frozen=True)
class Network:
    """A generator's layers in the order in which they run.

    Attributes
    ----------
    config
        The generator's description.
    features
        Number type of the picture and of the features that skips carry.
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
    features: torch.dtype
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
    picture, the first residual blocks, the features that the blocks add to,
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
    # What is added to the input may be coarser than what is the picture itself.
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


def split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A convolution to few channels as one along the rows to more, and a sum down the columns.

    A processor computes 16 channels at a time, so 12 leave a quarter of it
    idle; 5 · 12 leave little. And the rows that are kept for the next band
    then have these channels and not the many of the input.

    Parameters
    ----------
    weight
        O×C×M×M.

    Returns
    -------
    spread, gather
        P×C×1×M and O×P×M×1, with P = M·O rounded up to a multiple of 16.
    """
    outputs, inputs, rows, columns = weight.shape
    count = -(-rows * outputs // 16) * 16
    spread = weight.new_zeros(count, inputs, 1, columns)
    gather = weight.new_zeros(outputs, count, rows, 1)
    for row in range(rows):
        spread[row * outputs : (row + 1) * outputs, :, 0] = weight[:, :, row]
        for channel in range(outputs):
            gather[channel, row * outputs + channel, row] = 1
    return spread, gather


def slope(activation: nn.Module) -> float:
    """The slope below zero of a generator's activation."""
    if isinstance(activation, nn.PReLU):
        return float(activation.weight.detach().float().item())
    assert isinstance(activation, nn.LeakyReLU)
    return float(activation.negative_slope)


def phases_first(channels: int) -> Tensor:
    """Indices that bring the channels of a pixel shuffle into the order (row, column, channel)."""
    return torch.arange(4 * channels).reshape(channels, 2, 2).permute(1, 2, 0).reshape(-1)


def shuffle(x: Tensor) -> Tensor:
    """Double height and width of 1×4C×H×W, channels last, phases first."""
    _, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(height, width, 2, 2 * (channels // 4))
    x = x.transpose(1, 2).reshape(1, 2 * height, 2 * width, channels // 4)
    return x.permute(0, 3, 1, 2)


class Convolution:
    """A layer over a stream of rows: keeps the last rows of its input.

    Parameters
    ----------
    layer
        What to run.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.kept: Tensor | None = None
        self.count = 0  # rows in use of those kept
        self.padding = 0  # zero rows at their top, above the picture

    def start(self, width: int, like: Tensor) -> None:
        """Make room for the rows to keep, zeros at first."""
        reach, channels = self.layer.reach, int(self.layer.weight.shape[1])
        self.kept = blank(like, channels, 2 * reach, width)
        self.count = self.padding = reach

    def push(self, rows: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        """Feed the next rows.

        Parameters
        ----------
        rows
            1×C×H×W, H may be 0.
        last
            The picture ends with these rows.

        Returns
        -------
        out, seen
            The rows that can be computed now (possibly none), and the input
            rows from the first one that has no output yet.
        """
        layer, reach = self.layer, self.layer.reach
        if reach == 0 and rows.shape[2]:
            return layer(rows, 0), rows
        if self.kept is None:
            if last:
                return layer(rows, reach), rows
            self.start(rows.shape[3], rows)
            assert self.kept is not None
        if self.kept.dtype != rows.dtype:
            self.kept = self.kept.to(rows.dtype)
        parts = [self.kept[:, :, : self.count], rows]
        if last:
            parts.append(blank(rows, rows.shape[1], reach, rows.shape[3]))
        x = torch.cat(parts, 2)
        height = x.shape[2]
        seen = x[:, :, self.padding :]
        if not last:
            # Always in the same place: memory that stays between blocks that go
            # would leave holes that the next, larger block does not fit into.
            self.count = min(height, 2 * reach)
            self.kept[:, :, : self.count] = x[:, :, height - self.count :]
            self.padding = max(0, self.padding - (height - self.count))
        if height <= 2 * reach:
            empty = (1, layer.weight.shape[0], 0, x.shape[3])
            return x.new_empty(empty, dtype=layer.weight.dtype), seen
        return layer(x, 0), seen


class Skip:
    """Rows that wait until the layers they bypass have caught up."""

    def __init__(self) -> None:
        self.waiting: list[Tensor] = []

    def push(self, rows: Tensor) -> None:
        """Add rows at the bottom."""
        self.waiting.append(rows)

    def add_to(self, out: Tensor) -> Tensor:
        """Add the rows that have waited longest to ``out``, which may be changed."""
        done, height = 0, out.shape[2]
        out = out.to(self.waiting[0].dtype) if self.waiting else out
        while done < height:
            rows = self.waiting.pop(0)
            count = min(height - done, rows.shape[2])
            out[:, :, done : done + count] += rows[:, :, :count]
            if count < rows.shape[2]:
                self.waiting.insert(0, rows[:, :, count:])
            done += count
        return out


class Enlarged:
    """The enlarged input, which some generators add to their result, over a stream of rows."""

    def __init__(self, config: GeneratorConfig) -> None:
        self.config = config
        self.plain = replace(config, input_skip="none")
        self.input: Tensor | None = None
        self.first = 0  # the picture row that self.input begins with
        self.raw: Tensor | None = None
        self.done = 0

    def feed(self, rows: Tensor) -> None:
        """Take the next rows of the input, 1×3×H×W, before what is computed from them."""
        if self.config.input_skip != "none":
            self.input = rows if self.input is None else torch.cat((self.input, rows), 2)

    def push(self, raw: Tensor, last: bool) -> Tensor:
        """Apply the output activation and add the enlarged input to the next rows.

        Parameters
        ----------
        raw
            1×3×h×(scale·W), the next rows of the last convolution's result.
        last
            The picture ends with these rows.
        """
        raw = finish(self.plain, raw, raw)
        if self.input is None:
            return raw
        scale = self.config.scale
        raw = raw if self.raw is None else torch.cat((self.raw, raw), 2)
        # Bilinear enlargement looks one row ahead.
        bottom = self.first + self.input.shape[2]
        count = raw.shape[2] if last else min(raw.shape[2], (bottom - 1) * scale - self.done)
        self.raw = raw[:, :, max(count, 0) :]
        if count <= 0:
            return raw[:, :, :0]
        top = max(self.first, self.done // scale - 1)
        offset = self.done - top * scale
        # No more rows than are wanted, and one ahead.
        bottom = min(bottom, -(-(self.done + count) // scale) + 1)
        big = enlarge(self.config, self.input[:, :, top - self.first : bottom - self.first])
        self.done += count
        keep = max(self.first, self.done // scale - 1)
        self.input = self.input[:, :, keep - self.first :]
        self.first = keep
        return raw[:, :, :count] + big[:, :, offset : offset + count]


def enlarge(config: GeneratorConfig, rows: Tensor) -> Tensor:
    """The input as the generator adds it to its result."""
    if config.input_skip == "nearest":
        return F.interpolate(rows, scale_factor=config.scale, mode="nearest")
    return F.interpolate(rows, scale_factor=config.scale, mode="bilinear", align_corners=False)


def blank(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Zero rows, channels last."""
    return like.new_zeros((1, height, width, channels)).permute(0, 3, 1, 2)


class Stream:
    """One picture, or one column of it, on its way through the network.

    Parameters
    ----------
    network
        The prepared layers, shared by all streams.
    tail_rows
        Low-resolution rows that the sub-pixel layers take at a time, whose
        tensors are up to 16 times as large as those before them; None for no
        limit.
    """

    def __init__(self, network: Network, tail_rows: int | None = None) -> None:
        self.tail_rows = tail_rows
        self.stem = Convolution(network.stem)
        self.blocks = [(Convolution(one), Convolution(two)) for one, two in network.blocks]
        self.trunk = Convolution(network.trunk)
        self.skip = Skip()
        self.upsample = [Convolution(layer) for layer in network.upsample]
        self.spread = Convolution(network.spread)
        self.output = Convolution(network.output)
        self.enlarged = Enlarged(network.config)
        self.tallest = 0  # rows fed at a time

    def push(self, rows: Tensor, last: bool) -> Iterator[Tensor]:
        """Feed the next rows of the picture.

        Parameters
        ----------
        rows
            1×3×H×W in [0, 1], channels last, in the network's ``features`` type.
        last
            The picture ends with these rows.

        Yields
        ------
        Tensor
            1×3×h×(scale·W): the rows of the result that are ready, from top to
            bottom, possibly none. All must be taken before the next rows are fed.
        """
        if self.stem.kept is None and not last:
            self._start(rows)
        self.tallest = max(self.tallest, rows.shape[2])
        self.enlarged.feed(rows)
        x = self.stem.push(rows, last)[0].to(rows.dtype)
        self.skip.push(x)
        for features, end in self._trunk(x, last, 0):
            rest = torch.split(features, self.tail_rows or max(features.shape[2], 1), 2)
            for part in rest:
                final = end and part is rest[-1]
                yield self.enlarged.push(self._tail(part, final), final)

    def _trunk(self, x: Tensor, last: bool, first: int) -> Iterator[tuple[Tensor, bool]]:
        """Residual blocks from ``first`` on, and the long skip; and whether the picture ends."""
        for step, (one, two) in enumerate(self.blocks[first:], first + 1):
            inner, seen = one.push(x, last)
            out, _ = two.push(inner, last)
            # Both layers together lag as far behind as the first one keeps rows.
            seen = seen[:, :, : out.shape[2]]
            x = out.add_(seen) if out.dtype == seen.dtype else seen + out
            if last and 0 < self.tallest < x.shape[2]:
                # With the rows that all layers have held back, more than in any band.
                yield from self._trunk(x[:, :, : self.tallest], False, step)
                x = x[:, :, self.tallest :]
        x, _ = self.trunk.push(x, last)
        yield self.skip.add_to(x), last

    def _start(self, rows: Tensor) -> None:
        """Make room for all rows that are kept, side by side."""
        width = rows.shape[3]
        for conv in (self.stem, *(conv for pair in self.blocks for conv in pair), self.trunk):
            conv.start(width, rows)
        for step, conv in enumerate(self.upsample):
            conv.start(width << step, rows)
        self.output.start(width << (len(self.upsample) - 1), rows)

    def _tail(self, x: Tensor, last: bool) -> Tensor:
        """Sub-pixel and output convolutions."""
        for step in self.upsample[:-1]:
            x = shuffle(step.push(x, last)[0])
        x, _ = self.upsample[-1].push(x, last)
        x, _ = self.spread.push(x, last)
        x, _ = self.output.push(x, last)
        return shuffle(x)
