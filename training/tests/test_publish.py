"""Uploading to a local server that stands in for the Hub's API."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from srgan_training import publish

from srgan_infer import weights
from srgan_infer.network.generator import Generator, GeneratorConfig

ROOT = Path(__file__).resolve().parents[2]
CARD = "---\nlicense: mit\n---\n# A tiny model\n"


class Hub:
    """The part of the Hub's API that an upload uses; safetensors go through LFS."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.commits: list[str] = []
        self.blobs: dict[str, bytes] = {}
        self.puts = 0
        self.fail: list[tuple[str, int]] = []  # (part of the path, status) of coming failures
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.answer("POST")

            def do_PUT(self) -> None:
                self.answer("PUT")

            def do_GET(self) -> None:
                self.answer("GET")

            def answer(self, method: str) -> None:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    body = b""
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0]
                for failure in outer.fail:
                    if failure[0] in path:
                        outer.fail.remove(failure)
                        self.send(failure[1], {"error": "made to fail"})
                        return
                self.send(*outer.answer(method, path, body, self.headers["Authorization"]))

            def send(self, status: int, content: object) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(
        self, method: str, path: str, body: bytes, authorization: str | None
    ) -> tuple[int, object]:
        if method == "PUT":
            self.puts += 1
            self.blobs[hashlib.sha256(body).hexdigest()] = body
            return 200, {}
        if authorization != "Bearer hf_right":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            values = json.loads(body)
            repo = f"{values['organization']}/{values['name']}"
            status = 409 if repo in self.repos else 200
            self.repos.setdefault(repo, {})
            return status, {"url": f"{self.url}/{repo}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if match := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            return 200, {
                "files": [
                    {
                        "path": (name := file["path"]),
                        "uploadMode": "lfs" if name.endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                        "oid": self.object_id(match[1], name),
                    }
                    for file in json.loads(body)["files"]
                ]
            }
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**item, "actions": {"upload": {"href": f"{self.url}/blobs/{item['oid']}"}}}
                if item["oid"] not in self.blobs
                else item
                for item in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        if match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            return self.commit(match[1], body)
        if match := re.fullmatch(r"/api/models/(.+)/revision/main", path):
            return 200, {"id": match[1], "sha": f"{len(self.commits):040x}", "siblings": []}
        return 404, {"error": f"{method} {path}"}

    def object_id(self, repo: str, name: str) -> str | None:
        content = self.repos[repo].get(name)
        if content is None:
            return None
        if name.endswith(".safetensors"):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def commit(self, repo: str, body: bytes) -> tuple[int, object]:
        header, *operations = (json.loads(line) for line in body.splitlines())
        for operation in operations:
            value = operation["value"]
            self.repos[repo][value["path"]] = (
                self.blobs[value["oid"]]
                if operation["key"] == "lfsFile"
                else base64.b64decode(value["content"])
            )
        self.commits.append(header["value"]["summary"])
        sha = f"{len(self.commits):040x}"
        return 200, {"commitUrl": f"{self.url}/{repo}/commit/{sha}", "commitOid": sha}


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = GeneratorConfig(channels=8, blocks=1)
    weights.save(tmp_path / "model", config, Generator(config).state_dict(), CARD)
    (tmp_path / "model/notes.txt").write_text("not part of the model")
    return tmp_path / "model"


def run(
    hub: Hub, folder: Path, *options: str, token: str = "hf_right"
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(folder.parent / "hub"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "training"), str(ROOT)]),
    }
    command = [sys.executable, "-m", "srgan_training.publish", str(folder), "someone/tiny"]
    return subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, timeout=120
    )


def model_files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "notes.txt"}


def test_a_dry_run_shows_what_would_go_and_sends_nothing(hub: Hub, folder: Path) -> None:
    result = run(hub, folder, "--dry-run")
    assert result.returncode == 0
    assert f"{hub.url}/someone/tiny" in result.stdout
    for name, content in model_files(folder).items():
        assert f"{len(content):,} bytes  {name}\n" in result.stdout
    assert "notes" not in result.stdout
    assert not hub.repos


def test_a_folder_arrives_in_one_commit_and_a_repetition_makes_none(hub: Hub, folder: Path) -> None:
    result = run(hub, folder, "--message", "First weights")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"{hub.url}/someone/tiny"
    assert hub.repos["someone/tiny"] == model_files(folder)
    assert hub.commits == ["First weights"]
    assert run(hub, folder).returncode == 0
    assert hub.puts == 1
    assert len(hub.commits) == 1


@pytest.mark.parametrize("failure", [("/blobs/", 400), ("/commit/", 500)])
def test_an_upload_that_fails_is_completed_by_repeating_it(
    hub: Hub, folder: Path, failure: tuple[str, int]
) -> None:
    hub.fail = [failure]
    failed = run(hub, folder)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "someone/tiny failed" in failed.stderr
    assert "try again" in failed.stderr
    assert not hub.commits
    assert run(hub, folder).returncode == 0
    assert hub.repos["someone/tiny"] == model_files(folder)
    assert hub.puts == 1, "what had arrived is not sent twice"


def test_a_wrong_token_is_named(hub: Hub, folder: Path) -> None:
    result = run(hub, folder, token="hf_wrong")
    assert result.returncode == 1
    assert "hf auth login" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("what", "message"), [("weights", "is damaged"), ("card", "front matter")])
def test_a_folder_that_is_no_model_is_not_sent(
    folder: Path,
    what: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(weights, "push", lambda *_, **__: pytest.fail("the Hub was asked"))
    if what == "weights":
        content = bytearray((folder / weights.WEIGHTS_FILE).read_bytes())
        content[-1] ^= 1
        (folder / weights.WEIGHTS_FILE).write_bytes(content)
    else:
        (folder / weights.CARD_FILE).write_text("# no front matter\n")
    assert publish.main([str(folder), "someone/tiny"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
