"""The generator in training form, and its way into the deployment form."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from srgan_infer.generator import (
    Generator,
    GeneratorConfig,
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
                nn.init.zeros_(module.bias)
        for step in self.upsample:
            alike_in_all_phases(step.conv.weight)
        if batch_norm:
            for block in self.blocks:
                block.conv1 = normalised(block.conv1)
                block.conv2 = normalised(block.conv2)
            self.trunk = normalised(self.trunk)

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W in [0, 1] → N×3×(scale·H)×(scale·W).

        The last convolution is computed in front of the last shuffle
        (`convolution_before_shuffle`): the same function, a third faster to
        train, and the published 9×9 weights stay the parameters.
        """
        features = self.features(x)
        for step in self.upsample[:-1]:
            features = step(features)
        last = self.upsample[-1]
        features = last.activation(last.conv(features))
        weight = convolution_before_shuffle(self.output.weight)
        bias = self.output.bias.repeat_interleave(4)
        raw = F.conv2d(features, weight, bias, padding=weight.shape[-1] // 2)
        return finish(self.config, F.pixel_shuffle(raw, 2).to(x.dtype), x)


def normalised(layer: nn.Conv2d) -> nn.Sequential:
    """The convolution followed by batch norm."""
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels))


@torch.no_grad()
def alike_in_all_phases(weight: Tensor) -> None:
    """Give the four sub-pixel phases the same weights, so that no grid is there to unlearn (ICNR, arXiv 1707.02937)."""
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
    for block in source.blocks:
        block.conv1, block.conv2 = folded(block.conv1), folded(block.conv2)
    source.trunk = folded(source.trunk)
    generator = Generator(source.config).eval()
    generator.load_state_dict(source.state_dict())
    return generator


def folded(layer: nn.Module) -> nn.Module:
    """A convolution with its batch norm folded in; a bare convolution as it is."""
    return fuse_conv_bn_eval(*layer) if isinstance(layer, nn.Sequential) else layer
