"""The generator as an ONNX file, checked in ONNX Runtime against the network it was made from."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_infer.errors import UpscaleError
from srgan_infer.network.generator import Generator, SubPixel, convolution_before_shuffle, finish
from srgan_infer.network.stream import RowStream, prepare
from srgan_infer.network.streaming import slope

if TYPE_CHECKING:
    import onnx

OPSET = 18
# Largest difference to the network, where 1 is white.
TOLERANCE, HALF_TOLERANCE = 1e-4, 4e-3
# Batch, height and width of the images that a file for any size is checked with.
CHECKED_SIZES = ((1, 1, 1), (2, 19, 24), (1, 48, 33))
# Low-resolution pixels that the check gives the sub-pixel layers at a time.
TAIL_PIXELS = 4096


class Exported(nn.Module):
    """The generator as it stands in the file.

    PReLU has one slope for all channels here, so it is a LeakyReLU, which every
    runtime knows. The output convolution goes in front of the last shuffle: it
    has 12 channels there and not 3, which ONNX Runtime runs in two thirds of the time.

    Parameters
    ----------
    generator
        Copied.
    half
        Compute in float16, all but the image itself: input, output and the
        upscaled input that is added stay in float32.
    """

    def __init__(self, generator: Generator, half: bool) -> None:
        super().__init__()
        self.dtype = torch.float16 if half else torch.float32
        weight = convolution_before_shuffle(generator.output.weight.detach())
        output = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding="same")
        assert generator.output.bias is not None
        output.weight = nn.Parameter(weight)
        output.bias = nn.Parameter(generator.output.bias.detach().repeat_interleave(4))
        self.output = output.to(self.dtype)
        self.generator = copy.deepcopy(generator).to(self.dtype)
        for module in list(self.generator.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.PReLU):
                    setattr(module, name, nn.LeakyReLU(slope(child)))

    def forward(self, input: Tensor) -> Tensor:
        """N×3×H×W float32 in [0, 1] → N×3×(scale·H)×(scale·W), clipped to [0, 1]."""
        features = self.generator.features(input.to(self.dtype))
        *steps, last = cast(list[SubPixel], list(self.generator.upsample))
        for step in steps:
            features = step(features)
        raw = self.output(last.activation(last.conv(features)))
        # Not all programs clip: in some, what is below black comes out white.
        return finish(self.generator.config, F.pixel_shuffle(raw.float(), 2), input).clamp(0, 1)


def to_onnx(
    generator: Generator,
    properties: Mapping[str, str],
    *,
    fixed: int | None = None,
    half: bool = False,
) -> bytes:
    """The content of an ONNX file.

    Its input ``input`` is N×3×H×W float32, RGB in [0, 1]; its output ``output``
    N×3×(scale·H)×(scale·W) float32, clipped to [0, 1].

    Parameters
    ----------
    generator
        The network, on the CPU.
    properties
        Written to ``metadata_props``, with ``scale`` and ``halo`` added.
    fixed
        Height and width that the file takes, one image at a time; any number of
        images of any size if ``None``.
    half
        Store and compute in float16, half the size; input and output stay float32.

    Raises
    ------
    ValueError
        If ``fixed`` is no positive integer.
    UpscaleError
        If packages are missing, or the file's result is not the network's.
    """
    if fixed is not None and (type(fixed) is not int or fixed < 1):
        raise ValueError(f"fixed must be a positive integer, not {fixed!r}.")
    try:
        import onnxruntime
        import onnxscript  # noqa: F401, only torch uses it
    except ImportError as error:
        raise UpscaleError(
            f"Exporting needs the package {error.name}; run `pip install 'srgan-infer[export]'`."
        ) from error
    module = Exported(generator, half).eval().requires_grad_(False)
    example, shapes = torch.zeros(2, 3, 16, 24), None
    if fixed is None:
        dim = torch.export.Dim
        shapes = {"input": {0: dim("batch"), 2: dim("height"), 3: dim("width")}}
    else:
        example = torch.zeros(1, 3, fixed, fixed)
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=["input"],
            output_names=["output"],
            verbose=False,
        )
    assert program is not None
    config = generator.config
    added = {"scale": str(config.scale), "halo": str(config.halo)}
    data: bytes = _stripped(program.model_proto, {**properties, **added}).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    sizes = CHECKED_SIZES if fixed is None else ((1, fixed, fixed),)
    for size in sizes:
        _check(session, generator, size, HALF_TOLERANCE if half else TOLERANCE)
    return data


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages it does not need."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _stripped(model: onnx.ModelProto, properties: Mapping[str, str]) -> onnx.ModelProto:
    """The model with these properties, and without the exporter's notes: the maker's paths."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    del model.metadata_props[:]
    for key, value in properties.items():
        model.metadata_props.add(key=key, value=value)
    return model


@torch.inference_mode()
def _check(
    session: Any, generator: Generator, size: tuple[int, int, int], tolerance: float
) -> None:
    """Compare the file's result with that of the network in bands, on one size."""
    batch, height, width = size
    network = prepare(generator, torch.device("cpu"), torch.float32)
    seed = torch.Generator().manual_seed(0)
    x = torch.rand(batch, height, width, 3, generator=seed).permute(0, 3, 1, 2)
    (found,) = session.run(["output"], {"input": x.contiguous().numpy()})
    for image, result in zip(x, torch.from_numpy(found), strict=True):
        stream = RowStream(network, tail_rows=max(1, TAIL_PIXELS // width))
        expected = torch.cat(list(stream.push(image[None], last=True)), 2)
        difference = float((result - expected[0].clamp(0, 1)).abs().max())
        if not difference <= tolerance:  # NaN must not pass
            raise UpscaleError(
                f"The exported network is {difference:.1e} off on an image of {width}x{height}, "
                f"more than {tolerance:.0e}, so it was not written; "
                "another version of PyTorch or ONNX Runtime may do better."
            )
