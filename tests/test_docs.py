"""The code in the how-tos runs as it stands."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from web_server import running

DOCS = Path(__file__).parents[1] / "docs"


def code(page: str) -> str:
    """The Python blocks of a page, one after the other."""
    text = (DOCS / "howto" / page).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


def png(width: int = 12, height: int = 9) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_dataloader(bundled: Path, tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(png(8 + index, 8))
    names: dict[str, Any] = {"__name__": "howto"}
    exec(code("dataloader.md"), names)
    big = list(names["upscaled"](tmp_path, workers=0))
    assert [tuple(image.shape) for image in big] == [(3, 32, 4 * (8 + index)) for index in range(3)]


def test_fastapi(bundled: Path) -> None:
    pytest.importorskip("gradio", reason="the extra [web] is not installed")
    from fastapi.testclient import TestClient

    names: dict[str, Any] = {"__name__": "howto"}
    exec(code("fastapi.md"), names)
    client = TestClient(names["api"])
    for place in ("/upscale", "/in-turn"):
        answer = client.post(place, files={"image": ("in.png", png())})
        assert answer.status_code == 200
        with Image.open(io.BytesIO(answer.content)) as big:
            assert big.size == (48, 36)
    answer = client.post("/upscale", files={"image": ("in.png", b"not an image")})
    assert answer.status_code == 422
    huge = io.BytesIO()
    Image.new("1", (20000, 10000)).save(huge, "PNG")
    answer = client.post("/upscale", files={"image": ("huge.png", huge.getvalue())})
    assert answer.status_code == 422
    assert "pixels" in answer.json()["detail"]
    assert client.get("/page/health").json() == {"status": "ok"}


def test_programs_use_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundled: Path
) -> None:
    pytest.importorskip("gradio", reason="the extra [web] is not installed")
    page, use = code("hosting.md").split("from gradio_client", 1)
    names: dict[str, Any] = {}
    exec(page, names)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jpg").write_bytes(png())
    with running(names["page"]) as address:
        exec("from gradio_client" + use.replace("http://127.0.0.1:7860", address), names)
    with Image.open(names["file"]) as big:
        assert big.size == (48, 36)
        assert big.format == "PNG"
    assert names["report"]["done"]
