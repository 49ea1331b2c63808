"""A model as one file for other programs: ONNX, or safetensors that spandrel understands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors import torch as safetensors_torch
from torch import Tensor

from srgan_infer.errors import UpscaleError, WeightsError
from srgan_infer.files import replace_file
from srgan_infer.network.generator import GeneratorConfig
from srgan_infer.weights.folder import CARD_FILE, Weights, build

# The tensor that describes the network in a file without config.json: JSON as bytes.
# Programs that load tensors alone pass it on, where they drop a file's metadata.
CONFIG_TENSOR = "srgan_infer_config"


def export(
    weights: Weights,
    path: Path,
    *,
    fixed: int | None = None,
    half: bool = False,
    overwrite: bool = True,
) -> None:
    """Write a model as one file; see :meth:`srgan_infer.SuperResolver.export`."""
    kind = path.suffix.lower()
    if kind not in (".onnx", ".safetensors"):
        raise ValueError(f"a model is exported as .onnx or .safetensors, not as {path.name!r}.")
    if kind == ".safetensors" and fixed is not None:
        raise ValueError("fixed is for .onnx; a .safetensors file takes images of any size.")
    if path.exists() and not overwrite:
        raise UpscaleError(f"{path} exists; name another file, or overwrite it.")
    facts = {"model": weights.name, "sha256": weights.sha256, "licence": licence(weights)}
    if kind == ".onnx":
        from srgan_infer.network.onnx import to_onnx

        data = to_onnx(build(weights), facts, fixed=fixed, half=half)
    else:
        dtype = torch.float16 if half else torch.float32
        state = {key: tensor.to(dtype).contiguous() for key, tensor in weights.state.items()}
        state[CONFIG_TENSOR] = config_tensor(weights.config)
        data = safetensors_torch.save(state, {"format": "pt", **facts})
    replace_file(path, data)


def licence(weights: Weights) -> str:
    """The licence that a model's card states; "unknown" if it states none."""
    if weights.folder is None:
        return "mit"  # a blend is one of two bundled models
    try:
        card = (weights.folder / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "unknown"
    front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    lines = front[1] if front else ""
    for field in ("license_name", "license"):
        if found := re.search(rf"^{field}: *(.+?) *$", lines, re.MULTILINE):
            return found[1].strip("\"'")
    return "unknown"


def config_tensor(config: GeneratorConfig) -> Tensor:
    """A network's description as a tensor."""
    return torch.tensor(list(json.dumps(config.to_dict()).encode()), dtype=torch.uint8)


def config_of(tensor: Tensor, name: str) -> GeneratorConfig:
    """The description that :func:`config_tensor` made; ``name`` is for the message."""
    try:
        return GeneratorConfig.from_dict(json.loads(bytes(tensor.tolist())))
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{name} has no valid {CONFIG_TENSOR} ({error}); export it again."
        ) from error
