"""Perceptual feature networks: VGG-19 and a distilled VGG-19, from safetensors files.

VGG-19's trunk is sixteen 3×3 convolutions with ReLU and a 2×2 max-pool after
the 2nd, 4th, 8th and 12th; layer names follow Simonyan & Zisserman (arXiv
1409.1556): ``relu5_4`` is the last activation ("VGG54" of the SRGAN paper).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn

HUB_VGG19 = "timm/vgg19.tv_in1k"
CONVOLUTIONS = [
    "1_1",
    "1_2",
    "2_1",
    "2_2",
    "3_1",
    "3_2",
    "3_3",
    "3_4",
    "4_1",
    "4_2",
    "4_3",
    "4_4",
    "5_1",
    "5_2",
    "5_3",
    "5_4",
]
POOL_AFTER = ("1_2", "2_2", "3_4", "4_4")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def vgg19_to_trunk(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the classifier's ``features.N.*`` to ``convB_I.*``; mean and std become ``input``."""
    numbers = sorted(
        int(name.split(".")[1])
        for name in tensors
        if name.startswith("features.") and name.endswith(".weight")
    )
    renamed = {}
    for number, name in zip(numbers, CONVOLUTIONS, strict=True):
        for part in ("weight", "bias"):
            renamed[f"conv{name}.{part}"] = tensors[f"features.{number}.{part}"]
    std, mean = torch.tensor(IMAGENET_STD), torch.tensor(IMAGENET_MEAN)
    renamed["input.weight"] = torch.diag(1 / std).reshape(3, 3, 1, 1)
    renamed["input.bias"] = -mean / std
    return renamed


class FeatureNetwork(nn.Module):
    """Frozen features of an image at named layers.

    Parameters
    ----------
    tensors
        ``input`` (1×1), ``convB_I`` (3×3) and optionally ``projectB_1`` (1×1
        heads that map a distilled layer to VGG-19's own channels), each with
        ``.weight`` and ``.bias``.
    layers
        Names ``reluB_I`` of the wanted layers.
    before_activation
        Give the convolution's result (of the head's, where there is one)
        instead of its ReLU (ESRGAN, arXiv 1809.00219).

    Raises
    ------
    ValueError
        If a layer is not in these weights.
    """

    def __init__(
        self, tensors: dict[str, Tensor], layers: list[str], before_activation: bool = False
    ) -> None:
        super().__init__()
        self.before_activation = before_activation
        heads = any(name.startswith("project") for name in tensors)
        there = [
            name
            for name in CONVOLUTIONS
            if f"conv{name}.weight" in tensors and (not heads or f"project{name}.weight" in tensors)
        ]
        unknown = [layer for layer in layers if layer.removeprefix("relu") not in there]
        if unknown or not layers:
            raise ValueError(
                f"feature layers {unknown or 'are missing'}: these weights have "
                + ", ".join(f"relu{name}" for name in there)
                + "."
            )
        self.layers = sorted(layers)
        last = CONVOLUTIONS.index(self.layers[-1].removeprefix("relu"))
        self.names = CONVOLUTIONS[: last + 1]
        self.projected = heads
        for name in ("input", *(f"conv{n}" for n in self.names)):
            self._add(name, tensors)
        if heads:
            for layer in self.layers:
                self._add(layer.replace("relu", "project"), tensors)
        self.requires_grad_(False).eval()

    @property
    def title(self) -> str:
        """What tables call it."""
        return "distilled VGG-19" if self.projected else "VGG-19"

    def _add(self, name: str, tensors: dict[str, Tensor]) -> None:
        weight = tensors[f"{name}.weight"]
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2])
        layer.load_state_dict({"weight": weight, "bias": tensors[f"{name}.bias"]})
        self.add_module(name, layer)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """N×3×H×W, RGB in [0, 1] → layer name → N×C×h×w."""
        found = {}
        x = self.get_submodule("input")(x)
        for name in self.names:
            mode = "reflect" if self.projected else "constant"
            raw = self.get_submodule(f"conv{name}")(F.pad(x, (1, 1, 1, 1), mode=mode))
            x = F.relu(raw)
            if f"relu{name}" in self.layers:
                if self.projected:
                    raw = self.get_submodule(f"project{name}")(x)
                found[f"relu{name}"] = raw if self.before_activation else F.relu(raw)
            if name in POOL_AFTER:
                x = F.max_pool2d(x, 2)
        return found


def load_features(
    source: str, layers: list[str], before_activation: bool = False
) -> FeatureNetwork:
    """Load a feature network.

    Parameters
    ----------
    source
        ``"vgg19"`` fetches it from the Hub; else a local safetensors file of
        VGG-19 or of the distilled one.
    layers, before_activation
        As of `FeatureNetwork`.
    """
    path = source
    if source == "vgg19":
        path = hf_hub_download(HUB_VGG19, "model.safetensors")
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: no such feature network; give a safetensors file, "
            f"or 'vgg19' to fetch {HUB_VGG19}."
        )
    tensors = load_file(path)
    if "features.0.weight" in tensors:
        tensors = vgg19_to_trunk(tensors)
    return FeatureNetwork(tensors, layers, before_activation)


def feature_distance(network: FeatureNetwork, x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Squared distance of the features relative to the target's, per layer.

    Parameters
    ----------
    x, target
        N×3×H×W, RGB in [0, 1].

    Returns
    -------
    dict
        Layer → N values: 0 for equal images, about 1 for unrelated ones.
    """
    ours, theirs = network(x), network(target)
    dims = (1, 2, 3)
    return {
        layer: (ours[layer] - theirs[layer]).square().sum(dims) / theirs[layer].square().sum(dims)
        for layer in network.layers
    }
