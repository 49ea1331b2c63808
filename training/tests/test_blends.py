"""``strength`` leads from the faithful bundled model to the perceptual one."""

from pathlib import Path

import numpy as np
from PIL import Image
from srgan_training import metrics
from srgan_training.degrade import downscale
from srgan_training.evaluate import to_image, to_tensor
from srgan_training.judge import JUDGE, load_judge

from srgan_infer import SuperResolver

ORIGINAL = Path(__file__).resolve().parents[2] / "docs/images/original.jpg"


def test_blends_lie_between_their_ends() -> None:
    with Image.open(ORIGINAL) as image:
        high = to_tensor(image.crop((100, 100, 420, 356)))
    low = np.asarray(to_image(downscale(high, 4)))
    judge = load_judge(JUDGE)
    psnr, distance = [], []
    for strength in (0, 0.25, 0.5, 0.75, 1):
        sr = SuperResolver.from_pretrained(strength=strength, device="cpu", dtype="float32")
        result = to_tensor(Image.fromarray(sr(low)))
        psnr.append(metrics.psnr(result, high).item())
        distance.append(judge.distance(result, high).item())
    assert psnr[0] > psnr[-1]
    assert distance[0] > distance[-1]
    # Some slack: what two networks agree on, their mean may get a little better.
    for between in psnr[1:-1]:
        assert psnr[-1] - 0.05 < between < psnr[0] + 0.05
    for between in distance[1:-1]:
        assert 0.97 * distance[-1] < between < 1.01 * distance[0]
