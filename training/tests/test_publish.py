"""What publish hands to huggingface_hub, and what it refuses to."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError
from srgan_training import publish
from srgan_training.main import main

from srgan_infer import weights
from srgan_infer.network.generator import Generator, GeneratorConfig

CARD = "---\nlicense: mit\n---\n# A tiny model\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = GeneratorConfig(channels=8, blocks=1)
    weights.save(tmp_path / "tiny", config, Generator(config).state_dict(), CARD)
    (tmp_path / "tiny/notes.txt").write_text("not for the Hub")
    return tmp_path / "tiny"


class Api:
    """Records the calls; `failure` is raised by the upload."""

    endpoint = "https://hub.example"
    failure: Exception | None = None

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self, repo: str, **options: Any) -> None:
        self.calls.append(("create_repo", {"repo_id": repo, **options}))

    def create_branch(self, repo: str, **options: Any) -> None:
        self.calls.append(("create_branch", {"repo_id": repo, **options}))

    def upload_folder(self, **options: Any) -> SimpleNamespace:
        if self.failure is not None:
            raise self.failure
        self.calls.append(("upload_folder", options))
        return SimpleNamespace(commit_url=f"{self.endpoint}/{options['repo_id']}/commit/1")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()
    monkeypatch.setattr(publish, "HfApi", lambda: made)
    return made


def test_a_model_folder_is_uploaded_and_nothing_else_in_it(
    folder: Path, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--private", "--message", "Better", "--revision", "trial"]
    assert main(["publish", str(folder), "someone/tiny", *options]) == 0
    made, branched, sent = api.calls
    assert made == ("create_repo", {"repo_id": "someone/tiny", "private": True, "exist_ok": True})
    assert branched[1]["branch"] == sent[1]["revision"] == "trial"
    assert sent[1]["folder_path"] == folder
    assert sorted(sent[1]["allow_patterns"]) == ["README.md", "config.json", "model.safetensors"]
    assert sent[1]["commit_message"] == "Better"
    assert capsys.readouterr().out == "https://hub.example/someone/tiny/commit/1\n"


def test_a_dry_run_lists_the_files_and_sends_nothing(
    folder: Path, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(folder), "someone/tiny", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "https://hub.example/someone/tiny" in shown
    assert f"{(folder / 'model.safetensors').stat().st_size:,} bytes  model.safetensors" in shown
    assert "notes.txt" not in shown
    assert not api.calls


@pytest.mark.parametrize("what", ["no card", "no front matter", "damaged"])
def test_a_folder_that_is_not_ready_is_refused_before_anything_is_sent(
    folder: Path, api: Api, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if what == "no card":
        (folder / "README.md").unlink()
    elif what == "no front matter":
        (folder / "README.md").write_text("# Tiny\n")
    else:
        (folder / "model.safetensors").write_bytes(b"broken")
    assert main(["publish", str(folder), "someone/tiny"]) == 1
    assert "export the model again" in capsys.readouterr().err
    assert not api.calls


def test_a_failed_upload_says_to_run_it_again(
    folder: Path, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    response: Any = SimpleNamespace(headers={}, request=None)
    api.failure = HfHubHTTPError("401 Client Error", response=response)
    assert main(["publish", str(folder), "someone/tiny"]) == 1
    error = capsys.readouterr().err
    assert "401 Client Error" in error
    assert "hf auth login" in error
    assert "Traceback" not in error
