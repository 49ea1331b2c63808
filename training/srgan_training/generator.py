"""The generator in training form, and its way into the deployment form."""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from srgan_infer.network.generator import (
    Generator,
    GeneratorConfig,
    SubPixel,
    convolution_before_shuffle,
    finish,
)


class TrainingGenerator(Generator):
    """`srgan_infer.Generator`, optionally with batch norm behind the trunk's convolutions.

    Parameters
    ----------
    config
        The network's description.
    batch_norm
        Batch norm behind both convolutions of every block and behind the
        trunk convolution, as in arXiv 1609.04802.
    initial_gain
        Factor on the Kaiming-normal weights of every convolution. Without
        batch norm a small one keeps 34 summed layers near the identity.
    """

    def __init__(
        self, config: GeneratorConfig, *, batch_norm: bool, initial_gain: float = 1.0
    ) -> None:
        super().__init__(config)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2)
                module.weight.data.mul_(initial_gain)
                nn.init.zeros_(cast(Tensor, module.bias))
        for step in self.upsample:
            alike_in_all_phases(cast(SubPixel, step).conv.weight)
        if batch_norm:
            for parent, name in normalised_layers(self):
                layer = getattr(parent, name)
                setattr(parent, name, nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels)))

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W in [0, 1] → N×3×(scale·H)×(scale·W).

        The last convolution is computed in front of the last shuffle
        (`convolution_before_shuffle`): the same function, a third faster to
        train, and the published 9×9 weights stay the parameters.
        """
        features = self.features(x)
        for step in self.upsample[:-1]:
            features = step(features)
        last = cast(SubPixel, self.upsample[-1])
        features = last.activation(last.conv(features))
        weight = convolution_before_shuffle(self.output.weight)
        bias = cast(Tensor, self.output.bias).repeat_interleave(4)
        raw = F.conv2d(features, weight, bias, padding=weight.shape[-1] // 2)
        return finish(self.config, F.pixel_shuffle(raw, 2).to(x.dtype), x)


def normalised_layers(model: Generator) -> list[tuple[nn.Module, str]]:
    """Parent and name of every convolution that the paper follows with batch norm."""
    convolutions: list[tuple[nn.Module, str]] = [(model, "trunk")]
    for block in model.blocks:
        convolutions += [(block, "conv1"), (block, "conv2")]
    return convolutions


@torch.no_grad()
def alike_in_all_phases(weight: Tensor) -> None:
    """Give the four sub-pixel phases the same weights (ICNR, arXiv 1707.02937).

    No grid is then there at the start that would have to be unlearned.
    """
    weight.copy_(weight[::4].repeat_interleave(4, dim=0))


def deploy(model: TrainingGenerator) -> Generator:
    """Fold batch norm into the convolutions.

    Returns
    -------
    Generator
        A float32 CPU copy in evaluation mode that computes what ``model``
        computes in evaluation mode.
    """
    source = copy.deepcopy(model).cpu().float().eval()
    for parent, name in normalised_layers(source):
        layer = getattr(parent, name)
        if isinstance(layer, nn.Sequential):
            convolution, norm = cast("tuple[nn.Conv2d, nn.BatchNorm2d]", tuple(layer))
            setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
    generator = Generator(source.config).eval()
    generator.load_state_dict(source.state_dict())
    return generator
