"""The code in the pages on other programs runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srgan_infer import SuperResolver

PAGES = Path(__file__).parents[1] / "docs" / "programs"


def test_onnxruntime(bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sr = SuperResolver.from_pretrained(device="cpu", dtype="float32")
    sr.export("srgan-x4.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (41, 53, 3), np.uint8)
    Image.fromarray(pixels).save("in.png")
    text = (PAGES / "onnxruntime.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec("\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)), names)
    expected = sr(pixels).astype(int)
    for result in (
        names["upscale"](pixels),
        names["upscale_in_tiles"](pixels, edge=17),
        np.asarray(Image.open("out.png")),
    ):
        assert np.abs(result - expected).max() <= 1
