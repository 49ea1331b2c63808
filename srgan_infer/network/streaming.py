"""The pieces of a network over streams of rows: convolution, skip, shuffle."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_infer.network.generator import GeneratorConfig, finish

# Values of another dtype that are added at a time.
ADDED_VALUES = 1 << 18


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
        """Convolve N×C×H×W in the weight's dtype.

        ``padding`` zero rows are added above and below, and as many columns as it takes.
        """
        x = x.to(self.weight.dtype)
        out = F.conv2d(x, self.weight, self.bias, padding=(padding, self.weight.shape[3] // 2))
        return out if self.slope is None else F.leaky_relu_(out, self.slope)


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
    """Double height and width of N×4C×H×W, channels last, phases first."""
    count, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(count, height, width, 2, 2 * (channels // 4))
    x = x.transpose(2, 3).reshape(count, 2 * height, 2 * width, channels // 4)
    return x.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class FeatureRows:
    """Rows of features inside a taller block of memory, changed in place.

    On its way through the residual blocks a strip moves up: each layer puts the
    rows that it has kept in front, so it sees them in one piece with those that
    follow, and nothing but these few rows is copied.
    """

    store: Tensor
    top: int
    bottom: int

    @property
    def rows(self) -> Tensor:
        """N×C×H×W."""
        return self.store[:, :, self.top : self.bottom]

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.top

    def with_above(self, rows: Tensor) -> FeatureRows:
        """With these rows in front."""
        top = self.top - rows.shape[2]
        self.store[:, :, top : self.top] = rows
        return replace(self, top=top)

    def with_zeros_below(self, count: int) -> FeatureRows:
        """With zero rows behind."""
        bottom = self.bottom + count
        self.store[:, :, self.bottom : bottom] = 0
        return replace(self, bottom=bottom)

    def head(self, height: int) -> FeatureRows:
        """The first rows."""
        return replace(self, bottom=self.top + height)

    def rest(self, height: int) -> FeatureRows:
        """All but the first rows."""
        return replace(self, top=self.top + height)


class FeatureBuffer:
    """Memory for the features of one band, for streams that take turns."""

    def __init__(self) -> None:
        self.memory: Tensor | None = None

    def strip(self, rows: Tensor, above: int, below: int) -> FeatureRows:
        """A copy of N×C×H×W rows, channels last, with room for rows above and below."""
        images, channels, count, width = rows.shape
        height = above + count + below
        size = images * height * width * channels
        if self.memory is None or self.memory.numel() < size:
            self.memory = rows.new_empty(size)
        store = self.memory[:size].view(images, height, width, channels).permute(0, 3, 1, 2)
        store[:, :, above : above + count] = rows
        return FeatureRows(store, above, above + count)


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
        self.padding = 0  # zero rows at their top, above the image

    def start(self, images: int, width: int, dtype: torch.dtype | None = None) -> None:
        """Make room for the rows to keep, zeros at first; by default in the weight's type."""
        weight, reach = self.layer.weight, self.layer.reach
        rows = weight.new_zeros((images, 2 * reach, width, weight.shape[1]), dtype=dtype)
        self.kept = rows.permute(0, 3, 1, 2)
        self.count = self.padding = reach

    def push(self, rows: Tensor, last: bool) -> Tensor:
        """Feed the next rows.

        Parameters
        ----------
        rows
            N×C×H×W, H may be 0.
        last
            The image ends with these rows.

        Returns
        -------
        Tensor
            The rows that can be computed now, possibly none.
        """
        layer, reach = self.layer, self.layer.reach
        if reach == 0:
            return self._run(rows)
        if self.kept is None:
            if last:
                return layer(rows, reach)
            self.start(rows.shape[0], rows.shape[3])
            assert self.kept is not None
        end = self.count + rows.shape[2]
        x = empty(layer.weight, rows.shape[0], end + (reach if last else 0), rows.shape[3])
        x[:, :, : self.count] = self.kept[:, :, : self.count]
        x[:, :, self.count : end] = rows
        x[:, :, end:] = 0
        self._keep(x)
        return self._run(x)

    def push_parts(self, rows: Tensor, last: bool) -> list[Tensor]:
        """As :meth:`push`, in parts from top to bottom, so that few rows are copied."""
        few = 2 * self.layer.reach
        if last or rows.shape[2] <= few:
            return [self.push(rows, last)]
        first = self.push(rows[:, :, :few], False)
        self._keep(rows)
        return [first, self.layer(rows, 0)]

    def push_strip(self, strip: FeatureRows, last: bool) -> tuple[Tensor, FeatureRows]:
        """As :meth:`push`, with room above the strip for the rows that were kept.

        Returns
        -------
        out, seen
            The rows that can be computed now, and the input from the first row
            that had no output yet.
        """
        reach = self.layer.reach
        if self.kept is None:
            if last:
                return self.layer(strip.rows, reach), strip
            self.start(strip.store.shape[0], strip.store.shape[3], strip.store.dtype)
            assert self.kept is not None
        padding = self.padding
        x = strip.with_above(self.kept[:, :, : self.count])
        self._keep(x.rows)
        return self._run((x.with_zeros_below(reach) if last else x).rows), x.rest(padding)

    def _keep(self, x: Tensor) -> None:
        """Keep the last rows, always in the same place.

        Memory that stays between blocks that go would leave holes that the next,
        larger block does not fit into.
        """
        assert self.kept is not None
        height = x.shape[2]
        self.count = min(height, 2 * self.layer.reach)
        self.kept[:, :, : self.count] = x[:, :, height - self.count :]
        self.padding = max(0, self.padding - (height - self.count))

    def _run(self, x: Tensor) -> Tensor:
        """Convolve rows that have those they depend on around them."""
        weight = self.layer.weight
        if x.shape[2] > 2 * self.layer.reach:
            return self.layer(x, 0)
        return weight.new_empty((x.shape[0], weight.shape[0], 0, x.shape[3]))


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


class InputSkip:
    """The upscaled input, which some generators add to their result, over a stream of rows."""

    def __init__(self, config: GeneratorConfig) -> None:
        self.config = config
        self.plain = replace(config, input_skip="none")
        self.input: Tensor | None = None
        self.first = 0  # the image row that self.input begins with
        self.raw: Tensor | None = None
        self.done = 0

    def feed(self, rows: Tensor) -> None:
        """Take the next rows of the input, N×3×H×W, before what is computed from them."""
        if self.config.input_skip != "none":
            self.input = rows if self.input is None else torch.cat((self.input, rows), 2)

    def push(self, raw: Tensor, last: bool) -> Tensor:
        """Apply the output activation and add the upscaled input to the next rows.

        Parameters
        ----------
        raw
            N×3×h×(scale·W), the next rows of the last convolution's result.
        last
            The image ends with these rows.
        """
        raw = finish(self.plain, raw, raw)
        if self.input is None:
            return raw
        scale = self.config.scale
        raw = raw if self.raw is None else torch.cat((self.raw, raw), 2)
        # Bilinear upscaling looks one row ahead.
        bottom = self.first + self.input.shape[2]
        count = raw.shape[2] if last else min(raw.shape[2], (bottom - 1) * scale - self.done)
        self.raw = raw[:, :, max(count, 0) :]
        if count <= 0:
            return raw[:, :, :0]
        top = max(self.first, self.done // scale - 1)
        offset = self.done - top * scale
        # No more rows than are wanted, and one ahead.
        bottom = min(bottom, -(-(self.done + count) // scale) + 1)
        big = upscale_input(self.config, self.input[:, :, top - self.first : bottom - self.first])
        self.done += count
        keep = max(self.first, self.done // scale - 1)
        self.input = self.input[:, :, keep - self.first :]
        self.first = keep
        return raw[:, :, :count] + big[:, :, offset : offset + count]


def upscale_input(config: GeneratorConfig, rows: Tensor) -> Tensor:
    """The input as the generator adds it to its result."""
    if config.input_skip == "nearest":
        return F.interpolate(rows, scale_factor=config.scale, mode="nearest")
    return F.interpolate(rows, scale_factor=config.scale, mode="bilinear", align_corners=False)


def empty(weight: Tensor, images: int, height: int, width: int) -> Tensor:
    """Room for input rows of a convolution, channels last."""
    return weight.new_empty((images, height, width, weight.shape[1])).permute(0, 3, 1, 2)


def add(to: Tensor, rows: Tensor) -> None:
    """Add in place.

    Of two dtypes PyTorch makes one on the CPU, with a copy of what it adds;
    of a few rows that copy stays in the cache.
    """
    wide = to.shape[0] * to.shape[1] * to.shape[3]
    few = to.shape[2] if to.dtype == rows.dtype else ADDED_VALUES // wide
    parts = (torch.split(x, max(few, 1), 2) for x in (to, rows))
    for one, other in zip(*parts, strict=True):
        one.add_(other)
