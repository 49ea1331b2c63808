"""Other people's checkpoints of this architecture as model folders.

SRGAN has been written many times, with other names for the same layers. A
checkpoint is recognised by its tensors' names, its batch norms are folded into
the convolutions in front of them, and the result is a folder like any other:
it runs in bands, and exactly. What is another network is refused by its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import Tensor
from torch.torch_version import TorchVersion

from srgan_infer.errors import WeightsError
from srgan_infer.network.generator import GeneratorConfig
from srgan_infer.weights.folder import CONFIG_FILE, save

# Before this one, torch.load(weights_only=True) could be made to run code
# (CVE-2025-32434) or to overrun its memory (CVE-2026-24747).
SOUND_TORCH = "2.10"
# Where checkpoints keep the tensors, among optimizers and counters.
WRAPPERS = ("state_dict", "model_state_dict", "params_ema", "params", "generator", "model")
# What stands in front of every name: of DistributedDataParallel, of torch.compile, and of
# the SRGAN of sgrvinod, which holds its SRResNet as "net".
PREFIXES = ("module.", "_orig_mod.", "net.")
BATCH_NORM_EPS = 1e-5  # PyTorch's, and that of all these networks
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Layout:
    """How one repository names the layers, and what it does before and behind them.

    Attributes
    ----------
    source
        The repository.
    names
        Pattern of a layer's name → ours, which ends in ``.norm`` for a batch norm.
    output_activation
        As in :class:`GeneratorConfig`.
    mean, std
        What the input, RGB in [0, 1], is normalised by.
    """

    source: str
    names: Mapping[str, str]
    output_activation: str = "none"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def rename(self, key: str) -> str | None:
        """Our name of a tensor; ``None`` if this layout has no such tensor."""
        layer, _, parameter = key.rpartition(".")
        for pattern, name in self.names.items():
            if match := re.fullmatch(pattern, layer):
                return f"{match.expand(name)}.{parameter}"
        return None


LAYOUTS = (
    Layout(
        "github.com/Lornatang/SRGAN-PyTorch",
        {  # the files of 2022 have conv_block1 where later ones have conv1
            r"conv(?:_block)?1\.0": "stem",
            r"conv(?:_block)?1\.1": "stem_activation",
            r"trunk\.(\d+)\.rcb\.0": r"blocks.\1.conv1",
            r"trunk\.(\d+)\.rcb\.1": r"blocks.\1.conv1.norm",
            r"trunk\.(\d+)\.rcb\.2": r"blocks.\1.activation",
            r"trunk\.(\d+)\.rcb\.3": r"blocks.\1.conv2",
            r"trunk\.(\d+)\.rcb\.4": r"blocks.\1.conv2.norm",
            r"conv(?:_block)?2\.0": "trunk",
            r"conv(?:_block)?2\.1": "trunk.norm",
            r"upsampling\.(\d+)\.upsample_block\.0": r"upsample.\1.conv",
            r"upsampling\.(\d+)\.upsample_block\.2": r"upsample.\1.activation",
            r"conv(?:_block)?3": "output",
        },
    ),
    Layout(
        "github.com/leftthomas/SRGAN",
        {
            r"block1\.0": "stem",
            r"block1\.1": "stem_activation",
            **{
                rf"block{number + 2}\.{theirs}": f"blocks.{number}.{ours}"
                for number in range(5)
                for theirs, ours in (
                    ("conv1", "conv1"),
                    ("bn1", "conv1.norm"),
                    ("prelu", "activation"),
                    ("conv2", "conv2"),
                    ("bn2", "conv2.norm"),
                )
            },
            r"block7\.0": "trunk",
            r"block7\.1": "trunk.norm",
            r"block8\.(\d+)\.conv": r"upsample.\1.conv",
            r"block8\.(\d+)\.prelu": r"upsample.\1.activation",
            r"block8\.\d+": "output",
        },
        output_activation="tanh",
    ),
    Layout(
        "github.com/sgrvinod/a-PyTorch-Tutorial-to-Super-Resolution",
        {
            r"conv_block1\.conv_block\.0": "stem",
            r"conv_block1\.conv_block\.1": "stem_activation",
            r"residual_blocks\.(\d+)\.conv_block1\.conv_block\.0": r"blocks.\1.conv1",
            r"residual_blocks\.(\d+)\.conv_block1\.conv_block\.1": r"blocks.\1.conv1.norm",
            r"residual_blocks\.(\d+)\.conv_block1\.conv_block\.2": r"blocks.\1.activation",
            r"residual_blocks\.(\d+)\.conv_block2\.conv_block\.0": r"blocks.\1.conv2",
            r"residual_blocks\.(\d+)\.conv_block2\.conv_block\.1": r"blocks.\1.conv2.norm",
            r"conv_block2\.conv_block\.0": "trunk",
            r"conv_block2\.conv_block\.1": "trunk.norm",
            r"subpixel_convolutional_blocks\.(\d+)\.conv": r"upsample.\1.conv",
            r"subpixel_convolutional_blocks\.(\d+)\.prelu": r"upsample.\1.activation",
            r"conv_block3\.conv_block\.0": "output",
        },
        output_activation="tanh",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    ),
)

# Networks that are often met and are not this one: patterns that all must match some
# tensor's name, what it is, and what runs it. More special ones come first.
_SPANDREL = "chaiNNer and ComfyUI run it"
FOREIGN = (
    (
        ("(body|RRDB_trunk).0.(rdb|RDB)1.conv1.weight",),
        "the RRDBNet of ESRGAN and Real-ESRGAN",
        f"Real-ESRGAN, {_SPANDREL}",
    ),
    (("model.1.sub.0.RDB1.conv1.0.weight",), "an RRDBNet of the old ESRGAN", _SPANDREL),
    (
        ("conv_first.weight", "body.0.conv1.weight", "upconv1.weight"),
        "the MSRResNet of BasicSR, an SRResNet of another topology",
        "BasicSR runs it",
    ),
    (
        ("layers.0.residual_group.overlap_attn.qkv.weight",),
        "a HAT transformer",
        _SPANDREL,
    ),
    (
        ("layers.0.residual_group.blocks.0.attn.(relative_position_bias_table|cpb_mlp.0.weight)",),
        "a SwinIR or Swin2SR transformer",
        _SPANDREL,
    ),
    (("before_RG.1.weight", "layers.0.blocks.0.norm1.weight"), "a DAT transformer", _SPANDREL),
    (("block_1.c1_r.sk.weight", "conv_cat.weight"), "a SPAN network", _SPANDREL),
    (("unet1.conv1.conv.0.weight", "unet2.conv1_down.weight"), "a Real-CUGAN network", _SPANDREL),
    (
        ("body.0.body.0.body.0.weight", "body.0.body.0.body.3.conv_du.0.weight"),
        "an RCAN network",
        _SPANDREL,
    ),
    (
        ("head.0.weight", "body.0.body.0.weight", "tail.0.0.weight"),
        "an EDSR network",
        "its own repository, EDSR-PyTorch, runs it",
    ),
    (
        ("features.0.weight", "classifier.0.weight"),
        "a discriminator or a VGG network",
        "an SRGAN's generator is in another file",
    ),
    (
        ("conv_blocks.0.conv_block.0.weight", "fc1.weight"),
        "a discriminator",
        "an SRGAN's generator is in another file",
    ),
    (
        ("0.weight", "23.weight"),
        "a discriminator",
        "an SRGAN's generator is in another file",
    ),
    (
        ("body.0.weight", "body.1.weight", "body.2.weight"),
        "the SRVGGNetCompact of Real-ESRGAN",
        f"Real-ESRGAN, {_SPANDREL}",
    ),
)


def convert(
    checkpoint: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    licence: str | None = None,
    overwrite: bool = True,
) -> None:
    """Write a checkpoint of another SRGAN repository as a model folder.

    Known are those of Lornatang (SRResNet and SRGAN, ×2, ×4 and ×8, both name
    layouts), leftthomas and sgrvinod, found by their tensors' names.

    Parameters
    ----------
    checkpoint
        A ``.safetensors`` file, or a PyTorch checkpoint (``.pth``, ``.pth.tar``,
        ``.pt``), of which tensors and plain containers are read, never code.
    folder
        Created if need be; :meth:`SuperResolver.from_pretrained` takes it.
    licence
        Of the weights, as their source states it: an identifier such as
        ``"apache-2.0"`` or a sentence. The card says "unknown" without it.
    overwrite
        Replace a model that is in the folder; otherwise it is an error.

    Raises
    ------
    WeightsError
        If the file cannot be read safely, or is no network that this library can run.
    """
    path, target = Path(checkpoint), Path(folder)
    if (target / CONFIG_FILE).exists() and not overwrite:
        raise WeightsError(f"{target} holds a model already; name another folder, or overwrite it.")
    layout, config, state = recognise(_tensors(path), path.name)
    save(target, config, state, _card(path, layout, config, licence))


def recognise(
    tensors: Mapping[str, Tensor], name: str
) -> tuple[Layout, GeneratorConfig, dict[str, Tensor]]:
    """Find a checkpoint's layout, and give its network in this library's terms.

    Parameters
    ----------
    tensors
        The checkpoint's names and tensors, batch norms among them.
    name
        How messages call it.

    Returns
    -------
    layout, config, state
        Where it comes from, and the network: batch norms and normalisation folded.

    Raises
    ------
    WeightsError
        If it is no network that this library can run.
    """
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    for layout in LAYOUTS:
        renamed = {layout.rename(key): tensor for key, tensor in tensors.items()}
        if None not in renamed and tensors:
            state = {str(key): tensor for key, tensor in renamed.items()}
            return layout, *_in_our_terms(layout, state, name)
    raise WeightsError(_refusal(tensors.keys(), name))


def _in_our_terms(
    layout: Layout, state: dict[str, Tensor], name: str
) -> tuple[GeneratorConfig, dict[str, Tensor]]:
    """Config and state of a checkpoint whose tensors have our names."""
    counters = [key for key in state if key.endswith(".num_batches_tracked")]
    for key in counters:
        del state[key]
    config = _describe(layout, state, name)
    for key in [key for key in state if key.endswith(".norm.running_var")]:
        _fold(state, key.removesuffix(".norm.running_var"), name)
    # (x - mean) / std, of which the network subtracts the mean itself: around the
    # image it sees zeros in place of the difference.
    state["stem.weight"] = (
        state["stem.weight"] / state["stem.weight"].new_tensor(layout.std)[:, None, None]
    )
    return config, state


def _describe(layout: Layout, state: Mapping[str, Tensor], name: str) -> GeneratorConfig:
    """The network that the tensors belong to, from their shapes."""

    def count(part: str) -> int:
        return len({key.split(".")[1] for key in state if key.startswith(f"{part}.")})

    try:
        channels, colours, stem, _ = state["stem.weight"].shape
        body, output = state["trunk.weight"].shape[2], state["output.weight"].shape[2]
        if any(tensor.numel() != 1 for key, tensor in state.items() if "activation.w" in key):
            raise ValueError("its PReLU layers have a slope for each channel, here there is one")
        if colours != 3 or state["output.weight"].shape[0] != 3:
            raise ValueError("it is not for RGB images")
        if any(
            state[f"upsample.{n}.conv.weight"].shape[0] != 4 * channels
            for n in range(count("upsample"))
        ):
            raise ValueError("its magnification is no power of two")
        return GeneratorConfig(
            channels=channels,
            blocks=count("blocks"),
            stem_kernel=stem,
            body_kernel=body,
            output_kernel=output,
            scale=2 ** count("upsample"),
            output_activation=layout.output_activation,
            input_mean=layout.mean,
        )
    except KeyError as error:
        raise WeightsError(
            f"{name} looks like a checkpoint of {layout.source}, but lacks its {error.args[0]}; "
            "fetch it again."
        ) from None
    except ValueError as error:
        raise WeightsError(
            f"{name} is a checkpoint of {layout.source} that cannot be represented: {error}."
        ) from None


def _fold(state: dict[str, Tensor], conv: str, name: str) -> None:
    """Put the batch norm behind a convolution into it; its tensors go."""
    try:
        gain, shift, mean, variance = (
            state.pop(f"{conv}.norm.{part}").double()
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        weight = state[f"{conv}.weight"].double()
    except KeyError as error:
        raise WeightsError(f"{name} lacks the tensor of {error.args[0]}; fetch it again.") from None
    bias = state[f"{conv}.bias"].double() if f"{conv}.bias" in state else torch.zeros_like(mean)
    gain = gain / torch.sqrt(variance + BATCH_NORM_EPS)
    state[f"{conv}.weight"] = (weight * gain[:, None, None, None]).float()
    state[f"{conv}.bias"] = ((bias - mean) * gain + shift).float()


def _refusal(keys: Any, name: str) -> str:
    """Why these tensors are no network that this library can run."""
    if {"stem.weight", "trunk.weight", "output.weight"} <= set(keys):
        return (
            f"{name} has srgan-infer's own tensor names: it needs no conversion, but the "
            f"{CONFIG_FILE} that lies beside it."
        )
    for patterns, what, advice in FOREIGN:
        found = (
            any(re.fullmatch(pattern.replace(".", r"\."), key) for key in keys)
            for pattern in patterns
        )
        if all(found):
            return f"{name} is {what}, which this library cannot represent; {advice}."
    some = ", ".join(sorted(keys)[:3]) or "none"
    return (
        f"{name} is of an architecture that is not known here (tensors: {some}, …); "
        f"known are {', '.join(layout.source for layout in LAYOUTS)}."
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name, on the CPU."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    # A safetensors file begins with the length of a JSON object.
    content = _safetensors(path) if start[8:] == b"{" else _pickle(path)
    for _ in range(2):
        for wrapper in WRAPPERS:
            if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
                content = content[wrapper]
                break
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise WeightsError(
            f"{path.name} holds no state dict, that is tensors by name; "
            "save the generator's `state_dict()` where the file was made."
        )
    return {key: value.to_dense() if value.is_sparse else value for key, value in content.items()}


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors_torch.load_file(path)
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"{path} is damaged ({error}); fetch it again.") from error


def _pickle(path: Path) -> Any:
    """What a PyTorch checkpoint holds: tensors and plain containers, nothing that runs."""
    if TorchVersion(torch.__version__) < SOUND_TORCH:
        raise WeightsError(
            f"{path.name} is a pickle, which PyTorch {torch.__version__} cannot read safely; "
            f"use PyTorch {SOUND_TORCH} or newer, or a safetensors file."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise WeightsError(_unreadable(path)) from error
        raise WeightsError(
            f"{path.name} holds more than tensors ({found[1]}), which could run code, so it is "
            f"not opened; where it was made, save the tensors alone: {_two_lines(path, found[1])}"
        ) from error
    except Exception as error:
        # A damaged archive fails in many ways.
        raise WeightsError(_unreadable(path)) from error


def _unreadable(path: Path) -> str:
    return (
        f"{path.name} is neither safetensors nor a PyTorch checkpoint, or damaged; fetch it again."
    )


def _two_lines(path: Path, found: str) -> str:
    """The lines that save a state dict from whole modules, as sgrvinod's tutorial pickles them."""
    key = "model" if found.endswith(".SRResNet") else "generator"
    return (
        f'`network = torch.load("{path.name}", map_location="cpu", weights_only=False)["{key}"]` '
        'and `torch.save(network.state_dict(), "weights.pth")`, and convert weights.pth.'
    )


def _card(path: Path, layout: Layout, config: GeneratorConfig, licence: str | None) -> str:
    """The model card: where the weights come from, and that they are not this library's."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    identifier = (licence or "unknown").strip()
    front = f"license: {identifier.lower()}"
    if not re.fullmatch(r"[A-Za-z0-9.+-]+", identifier):
        front = f"license: other\nlicense_name: {json.dumps(identifier, ensure_ascii=False)}"
    stated = (
        f"As stated by who converted them: {identifier}."
        if licence
        else "Not stated by who converted them; ask their source before they are used or passed on."
    )
    return f"""---
{front}
library_name: srgan-infer
pipeline_tag: image-to-image
tags:
- super-resolution
- srgan
---

# {path.name.split(".")[0]}

A ×{config.scale} super-resolution generator (SRResNet/SRGAN, arXiv 1609.04802),
{config.blocks} residual blocks of {config.channels} channels.

## Source

These weights are not srgan-infer's: others trained them, and srgan-infer has neither tested nor
published them. They were converted from `{path.name}` (SHA-256 {digest}),
a checkpoint in the layout of {layout.source}; batch norm was folded into the convolutions.

## Licence

{stated}

```python
from srgan_infer import SuperResolver

sr = SuperResolver.from_pretrained("this-folder-or-repository")
```
"""
