"""What runs the network: the library, and what a user would pick instead.

Every contender is a function from an H×W×3 uint8 array to a 4H×4W×3 uint8
array, so that each pays for the same conversions. The peers get the network
as it was trained: batch norm unfused, in evaluation mode.
"""

from __future__ import annotations

import contextlib
import copy
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from srgan_infer.engine.engine import Engine
from srgan_infer.engine.plan import Tile
from srgan_infer.network.generator import Generator, GeneratorConfig

Pixels = npt.NDArray[np.uint8]
Contender = Callable[[Pixels], Pixels]


def as_trained(generator: Generator) -> Generator:
    """The same network with batch norm behind the trunk's convolutions, as it is trained.

    The statistics are random and the convolutions undo them, so the result is
    that of the deployment form.
    """
    network = copy.deepcopy(generator)
    torch.manual_seed(0)
    with torch.no_grad():
        for block in network.blocks:
            block.conv1 = normalised(block.conv1)
            block.conv2 = normalised(block.conv2)
        network.trunk = normalised(network.trunk)  # type: ignore[assignment]
    return network.eval()


def normalised(conv: Any) -> nn.Sequential:
    """A convolution and a batch norm that together equal the convolution."""
    norm = nn.BatchNorm2d(conv.out_channels)
    for value in (norm.weight.data, norm.running_var):
        assert value is not None
        value.uniform_(0.5, 2)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.bias.data.normal_()
    gain = norm.weight.data / torch.sqrt(norm.running_var + norm.eps)
    conv.bias.data.copy_((conv.bias.data - norm.bias.data) / gain + norm.running_mean)
    conv.weight.data.div_(gain[:, None, None, None])
    return nn.Sequential(conv, norm)


def to_floats(pixels: Pixels) -> Tensor:
    """1×3×H×W in [0, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous().float().div(255)


def to_pixels(out: Tensor) -> Pixels:
    """H×W×3, clipped and rounded."""
    rounded = out[0].float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return rounded.permute(1, 2, 0).contiguous().cpu().numpy()


def plain(
    generator: Generator, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Contender:
    """Plain PyTorch."""
    return pytorch(as_trained(generator), device, dtype)


def pytorch(network: nn.Module, device: str, dtype: torch.dtype) -> Contender:
    """A module as it is."""
    network = network.to(device, dtype)

    @torch.inference_mode()
    def run(pixels: Pixels) -> Pixels:
        return to_pixels(network(to_floats(pixels).to(device, dtype)))

    return run


def compiled(generator: Generator, device: str, dtype: torch.dtype) -> Contender:
    """torch.compile, warmed up by the first call."""
    return pytorch(torch.compile(as_trained(generator)), device, dtype)  # type: ignore[arg-type]


def tile_loop(
    generator: Generator, tile: int = 256, pad: int = 10, device: str = "cpu"
) -> Contender:
    """Tiles with a fixed pad around them, as Real-ESRGAN cuts images."""
    network = as_trained(generator).to(device)

    @torch.inference_mode()
    def run(pixels: Pixels) -> Pixels:
        x = to_floats(pixels)
        height, width = x.shape[2:]
        out = torch.empty(1, 3, 4 * height, 4 * width)
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                bottom, right = min(top + tile, height), min(left + tile, width)
                first, start = max(top - pad, 0), max(left - pad, 0)
                block = x[:, :, first : min(bottom + pad, height), start : min(right + pad, width)]
                result = network(block.to(device)).cpu()
                out[:, :, 4 * top : 4 * bottom, 4 * left : 4 * right] = result[
                    :,
                    :,
                    4 * (top - first) : 4 * (bottom - first),
                    4 * (left - start) : 4 * (right - start),
                ]
        return to_pixels(out)

    return run


def ours(
    generator: Generator, device: str = "cpu", dtype: str = "auto", tile: Tile = "auto"
) -> Contender:
    """The library's engine; ``tile="whole"`` is the image in one piece."""
    engine = Engine(generator, device, dtype)

    def run(pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        return np.concatenate(list(engine.run(pixels, engine.plan(height, width, tile))))

    return run


def streamed(generator: Generator) -> Callable[[Pixels], None]:
    """The library's engine, its rows dropped as they come, as they go into a file."""
    engine = Engine(generator, "cpu")

    def run(pixels: Pixels) -> None:
        for _ in engine.run(pixels, engine.plan(*pixels.shape[:2])):
            pass

    return run


def exported(generator: Generator, folder: Path) -> Path:
    """The network as an ONNX file with free height and width."""
    path = folder / "network.onnx"
    if not path.exists():
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(
                as_trained(generator),
                (torch.rand(1, 3, 64, 64),),
                str(path),
                input_names=["x"],
                output_names=["y"],
                dynamic_axes={"x": {2: "h", 3: "w"}, "y": {2: "big_h", 3: "big_w"}},
                opset_version=17,
                dynamo=False,
            )
    return path


def onnx_runtime(generator: Generator, folder: Path) -> Contender:
    """ONNX Runtime with its default settings."""
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    session = onnxruntime.InferenceSession(
        str(exported(generator, folder)), providers=["CPUExecutionProvider"]
    )

    def run(pixels: Pixels) -> Pixels:
        return to_pixels(torch.from_numpy(session.run(None, {"x": to_floats(pixels).numpy()})[0]))

    return run


def openvino(
    generator: Generator, folder: Path, size: tuple[int, int], precision: str | None
) -> Contender:
    """OpenVINO compiled for one size; without a precision it picks its own."""
    import openvino as ov  # type: ignore[import-untyped, unused-ignore]

    core = ov.Core()
    model = core.read_model(exported(generator, folder))
    model.reshape([1, 3, *size])
    hint = {} if precision is None else {"INFERENCE_PRECISION_HINT": precision}
    # Without this hint it divides the cores among parallel requests.
    model = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **hint})

    def run(pixels: Pixels) -> Pixels:
        return to_pixels(torch.from_numpy(model(to_floats(pixels).numpy())[0]))

    return run


def ncnn(generator: Generator, folder: Path, threads: int) -> Contender:
    """The network through pnnx in ncnn, with its default options but one.

    As a matrix product, its 9×9 output convolution takes 12 GB for 192×192 pixels.
    """
    import ncnn  # type: ignore[import-untyped, unused-ignore]
    import pnnx  # type: ignore[import-untyped, unused-ignore]

    if not (folder / "network.ncnn.bin").exists():
        pnnx.export(as_trained(generator), str(folder / "network.pt"), (torch.rand(1, 3, 64, 64),))
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_sgemm_convolution = False
    net.load_param(str(folder / "network.ncnn.param"))
    net.load_model(str(folder / "network.ncnn.bin"))

    def run(pixels: Pixels) -> Pixels:
        extractor = net.create_extractor()
        values = to_floats(pixels)[0].numpy()
        extractor.input("in0", ncnn.Mat(values).clone())
        _, out = extractor.extract("out0")
        return to_pixels(torch.from_numpy(np.array(out))[None])

    return run


def flop(config: GeneratorConfig) -> float:
    """Floating-point operations of the published network for one input pixel."""
    channels, body = config.channels, config.body_kernel**2
    count = 3 * channels * config.stem_kernel**2
    count += (2 * config.blocks + 1) * channels**2 * body
    count += sum(4 * channels**2 * body << 2 * step for step in range(config.doublings))
    count += 3 * channels * config.output_kernel**2 * config.scale**2
    return 2.0 * count


def floor(generator: Generator) -> Callable[[Pixels], float]:
    """Measures the seconds that direct convolution needs for an image.

    The network's operations at the rate that one of its convolutions, 3×3 from
    64 to 64 channels and channels last, reaches alone.
    """
    config, side, rounds = generator.config, 192, 10
    channels = config.channels
    x = torch.rand(1, channels, side, side).contiguous(memory_format=torch.channels_last)
    weight = torch.rand(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last)
    bias = torch.rand(channels)

    @torch.inference_mode()
    def run(pixels: Pixels) -> float:
        start = time.perf_counter()
        for _ in range(rounds):
            torch.nn.functional.conv2d(x, weight, bias, padding=1)
        seconds = (time.perf_counter() - start) / rounds
        alone = 18.0 * channels * channels * side * side
        area = float(pixels.shape[0] * pixels.shape[1])
        return flop(config) * area * seconds / alone

    return run


def levels(result: Pixels, expected: Pixels) -> tuple[int, float]:
    """Largest difference in levels, and the part of the values that are the same."""
    difference = np.abs(result.astype(np.int16) - expected.astype(np.int16))
    return int(difference.max()), float((difference == 0).mean())


def rms(result: Pixels, expected: Pixels) -> float:
    """Root mean square difference in levels."""
    return float(np.sqrt(np.mean((result.astype(np.float32) - expected) ** 2)))
