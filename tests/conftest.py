"""Shared by all tests: tiny models, a stand-in for the Hugging Face Hub, a browser."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Hub, make_model
from web_server import Held

# The networks of the tests are so small that sharing out their work costs more than it saves.
torch.set_num_threads(1)

# The Hub library reads its environment when it is imported, hence here and not in a
# fixture: no test reaches the real Hub, a user's cache or a user's login.
_hub = Hub()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{_hub.server_port}"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf-home-")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
for _name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
    os.environ.pop(_name, None)
threading.Thread(target=_hub.serve_forever, daemon=True).start()


@pytest.fixture
def hub() -> Hub:
    _hub.reset()
    return _hub


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A tiny random model in the layout of a Hub repository."""
    return make_model(tmp_path / "tiny-model")


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny random models in the place of the bundled ones."""
    return bundle(tmp_path / "bundled-models", monkeypatch)


@pytest.fixture(scope="module")
def bundled_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same for all tests of a file, whose server looks for them at any time."""
    with pytest.MonkeyPatch.context() as patch:
        yield bundle(tmp_path_factory.mktemp("bundled-models"), patch)


def bundle(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    for seed, name in enumerate(("srresnet", "srgan", "srgan-photo"), 1):
        make_model(folder / name, seed=seed)
    patch.setattr("srgan_infer.weights.folder.BUNDLED_FOLDER", folder)
    return folder


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Holds every image that is upscaled in this process until the test lets it go."""
    from srgan_infer import SuperResolver

    held = Held(SuperResolver.upscale_file)
    monkeypatch.setattr(
        SuperResolver, "upscale_file", lambda self, *values, **named: held(self, *values, **named)
    )
    yield held
    held.go.set()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as driver:
        # Its sandbox does not work as root, as which containers run.
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
