"""The judge measures what an image classifier sees, and is named where it is missing."""

import pytest
import torch
import torch.nn.functional as F
from srgan_training.errors import TrainingError
from srgan_training.judge import JUDGE, load_judge


def test_the_judge_ranks_noise_and_blur() -> None:
    judge = load_judge(JUDGE)
    rng = torch.Generator().manual_seed(0)
    image = F.interpolate(torch.rand(2, 3, 32, 32, generator=rng), size=(128, 128), mode="bicubic")
    image = image.clamp(0, 1)
    low = F.interpolate(image, size=(32, 32), mode="bicubic", antialias=True)
    blurred = F.interpolate(low, size=(128, 128), mode="bicubic").clamp(0, 1)
    faint = (image + 0.01 * torch.randn(image.shape, generator=rng)).clamp(0, 1)
    same, near, far, other = (
        judge.distance(x, image) for x in (image, faint, blurred, image.flip(0))
    )
    assert same.shape == (2,)
    assert not same.any()
    assert (near < far).all()
    assert (far < other).all()


def test_a_judge_that_is_not_there_is_named() -> None:
    with pytest.raises(TrainingError, match="no judge resnet"):
        load_judge("resnet")
