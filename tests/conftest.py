"""Shared by all tests: tiny models, and a stand-in for the Hugging Face Hub."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import pytest
import torch
from helpers import Hub, make_model

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

    folder = tmp_path / "bundled-models"
    make_model(folder / "srresnet", seed=1)
    make_model(folder / "srgan", seed=2)
    make_model(folder / "srgan-photo", seed=3)
    monkeypatch.setattr("srgan_infer.weights.folder.BUNDLED_FOLDER", folder)
    return folder
