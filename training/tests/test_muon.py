"""Muon: its update is orthogonal, on Adam's scale, and left out after a bad gradient."""

from __future__ import annotations

import pytest
import torch
from srgan_training.muon import Muon


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (64, 2, 3, 3)], ids=["wide", "tall"])
def test_every_direction_gets_a_step_of_one_length(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape)) for _ in range(2)]
    weights[1].data = weights[1].data.to(memory_format=torch.channels_last)
    before = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.grad = 1e-4 * torch.randn(shape)
    Muon(weights, lr=0.01).step()
    for weight, old in zip(weights, before, strict=True):
        update = (weight.detach() - old).reshape(shape[0], -1)
        longest = max(update.shape)
        lengths = torch.linalg.svdvals(update) / (0.01 * 0.2 * longest**0.5)
        assert 0.5 < lengths.min() <= lengths.max() < 1.3
        # Downhill.
        assert weight.grad is not None
        assert (update * weight.grad.reshape(update.shape)).sum() < 0


def test_it_minimises_what_it_is_given() -> None:
    torch.manual_seed(0)
    target, weight = torch.randn(6, 5, 3, 3), torch.nn.Parameter(torch.zeros(6, 5, 3, 3))
    optimizer = Muon([weight], lr=0.1)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        weight.grad = 2 * (weight.detach() - target)
        optimizer.step()
    assert (weight - target).abs().max() < 0.05


def test_a_bad_gradient_changes_neither_weights_nor_momentum() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4, 3, 3))
    optimizer = Muon([weight], lr=0.1)
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    old, momentum = weight.detach().clone(), optimizer.state[weight]["momentum"].clone()
    weight.grad = torch.full_like(weight, float("nan"))
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert torch.equal(weight, old)
    assert torch.equal(optimizer.state[weight]["momentum"], momentum)
