"""Object stores and the web: a real S3 server on loopback, with a proxy in front that fails."""

from __future__ import annotations

import http.client
import http.server
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_cli import Run, paint

from srgan_infer import stores
from srgan_infer.errors import UpscaleError
from srgan_infer.stores import Remote

NEEDED = "needs the extras s3 and http, and moto's server"
pytest.importorskip("s3fs", reason=NEEDED)
pytest.importorskip("aiohttp", reason=NEEDED)
botocore = pytest.importorskip("botocore.session", reason=NEEDED)
moto_server = pytest.importorskip("moto.server", reason=NEEDED)

Runs = Callable[..., Run]


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on, but fails as ``faults`` say: (request as a pattern, how, how often)."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Passer)
        self.behind = port
        self.client: Any = None
        self.reset()

    def reset(self) -> None:
        self.faults: list[list[Any]] = []
        self.requests: list[str] = []

    def fault(self, request: str) -> str:
        self.requests.append(request)
        for fault in self.faults:
            if fault[2] and re.search(fault[0], request):
                fault[2] -= 1
                return str(fault[1])
        return ""


class Passer(http.server.BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def reset(self) -> None:
        """End the connection as a machine does that is switched off."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise ConnectionResetError

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        fault = self.server.fault(f"{self.command} {self.path}")
        if fault == "reset":
            self.reset()
        if fault in ("500", "503", "403"):
            code = {"500": "InternalError", "503": "SlowDown", "403": "AccessDenied"}[fault]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
            return self.answer(int(fault), [("Content-Type", "application/xml")], text)
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind)
        behind.request(self.command, self.path, body, dict(self.headers))
        response = behind.getresponse()
        content = response.read()
        behind.close()
        if fault == "late":  # the store has done it, but does not say so
            self.reset()
        return self.answer(response.status, response.getheaders(), content, fault)

    def answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, fault: str = ""
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        length = dict((name.lower(), value) for name, value in headers).get("content-length")
        head = self.command == "HEAD" and length is not None
        self.send_header("Content-Length", str(length) if head else str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "cut":
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.reset()
        elif fault == "stall":
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            time.sleep(3)
            self.close_connection = True
        elif fault == "slow":
            for start in range(0, len(content), 40):
                self.wfile.write(content[start : start + 40])
                self.wfile.flush()
                time.sleep(0.1)
        else:
            self.wfile.write(content)

    def do_GET(self) -> None:
        self.pass_on()

    def do_HEAD(self) -> None:
        self.pass_on()

    def do_PUT(self) -> None:
        self.pass_on()

    def do_POST(self) -> None:
        self.pass_on()


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    behind = moto_server.ThreadedMotoServer(port=0, verbose=False)
    behind.start()
    proxy = Proxy(behind.get_host_and_port()[1])
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        endpoint = f"http://127.0.0.1:{proxy.behind}"
        proxy.client = botocore.get_session().create_client("s3", endpoint_url=endpoint)
        yield proxy
    proxy.shutdown()
    behind.stop()


class Bucket:
    """An empty bucket, looked at past the faults."""

    def __init__(self, server: Proxy) -> None:
        self.server = server
        server.reset()
        self.client = server.client
        self.name = f"bucket-{time.monotonic_ns()}"
        self.client.create_bucket(Bucket=self.name)

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def put(self, key: str, content: bytes) -> bytes:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)
        return content

    def paint(self, key: str, size: tuple[int, int] = (6, 5)) -> bytes:
        return self.put(key, paint("painted.png", size).read_bytes())

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def keys(self, prefix: str = "") -> list[str]:
        page = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix)
        return [entry["Key"] for entry in page.get("Contents", ())]

    def fails(self, request: str, how: str, times: int = 2) -> None:
        self.server.faults.append([request, how, times])


@pytest.fixture
def bucket(server: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    import s3fs

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stores, "PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 1)
    stores._store.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
    return Bucket(server)


@pytest.fixture
def run(bundled: Path, capsys: pytest.CaptureFixture[str]) -> Runs:
    return lambda *arguments: Run(capsys, arguments)


def size(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image.size


class TestStore:
    def test_a_mirrored_tree(self, run: Runs, bucket: Bucket) -> None:
        bucket.paint("in/a.png")
        bucket.paint("in/deep/b c.png")
        bucket.put("in/notes.txt", b"no image")
        bucket.put("in/.hidden/c.png", b"")
        bucket.put("in/folder/", b"")
        done = run(bucket.url("in"), "-r", "-o", bucket.url("out"), "--json")
        assert done.status == 0
        assert bucket.keys("out") == ["out/a.png", "out/deep/b c.png"]
        assert size(bucket.get("out/a.png")) == (24, 20)
        line = next(line for line in done.lines if line["input"].endswith("a.png"))
        assert line["output"] == bucket.url("out/a.png")
        assert line["output_bytes"] == len(bucket.get("out/a.png"))

    def test_the_result_is_that_of_a_local_file(self, run: Runs, bucket: Bucket) -> None:
        bucket.paint("a.png")
        Path("a.png").write_bytes(bucket.get("a.png"))
        assert run("a.png", "out.png").status == 0
        assert run(bucket.url("a.png"), bucket.url("out.png")).status == 0
        assert run(bucket.url("a.png"), "fetched.png").status == 0
        assert run("a.png", bucket.url("put.png")).status == 0
        expected = Path("out.png").read_bytes()
        assert bucket.get("out.png") == expected
        assert bucket.get("put.png") == expected
        assert Path("fetched.png").read_bytes() == expected

    def test_formats(self, run: Runs, bucket: Bucket) -> None:
        bucket.paint("a.png")
        assert run(bucket.url("a.png"), "-o", bucket.url("out"), "--format", "webp").status == 0
        with Image.open(io.BytesIO(bucket.get("out/a.webp"))) as image:
            assert image.format == "WEBP"

    def test_results_that_exist(self, run: Runs, bucket: Bucket) -> None:
        bucket.paint("in/a.png")
        bucket.put("out/a.png", b"mine")
        command = (bucket.url("in"), "-o", bucket.url("out"))
        refused = run(*command)
        assert refused.status == 1
        assert "--overwrite" in refused.err
        assert run(*command, "--skip-existing", "--json").lines[0]["status"] == "skipped"
        assert bucket.get("out/a.png") == b"mine"
        assert run(*command, "--overwrite").status == 0
        assert size(bucket.get("out/a.png")) == (24, 20)

    def test_a_manifest_is_believed(self, run: Runs, bucket: Bucket) -> None:
        bucket.paint("in/a.png")
        bucket.paint("in/b.png")
        command = (bucket.url("in"), "-o", bucket.url("out"), "--manifest", "m.jsonl")
        assert run(*command).status == 0
        bucket.put("out/b.png", bucket.get("out/b.png")[:40])
        done = run(*command, "--skip-existing", "--json")
        status = {line["input"][-5:]: line["status"] for line in done.lines}
        assert status == {"a.png": "skipped", "b.png": "done"}
        assert size(bucket.get("out/b.png")) == (24, 20)

    def test_an_output_inside_the_input(self, run: Runs, bucket: Bucket) -> None:
        bucket.paint("in/a.png")
        command = (bucket.url("in"), "-r", "-o", bucket.url("in/large"), "--overwrite")
        for _ in range(2):
            assert run(*command).status == 0
        assert bucket.keys() == ["in/a.png", "in/large/a.png"]

    def test_keys_that_would_leave_the_folder(self, run: Runs, bucket: Bucket) -> None:
        bucket.paint("in/../../evil.png")
        bucket.paint("in//b.png")
        assert run(bucket.url("in"), "-r", "-o", "here").status == 0
        assert os.listdir("here") == ["b.png"]  # as hidden files are not taken either
        Path("list.txt").write_text("../../evil.png\n")
        run("--from-file", "list.txt", "--root", bucket.url("in"), "-o", "here")
        assert not Path("../evil.png").exists()
        assert not Path("../../evil.png").exists()

    def test_a_list_of_addresses(self, run: Runs, bucket: Bucket) -> None:
        bucket.paint("in/x/a.png")
        bucket.paint("in/b.png")
        Path("list.txt").write_text(f"{bucket.url('in/x/a.png')}\nb.png\nmissing.png\n")
        done = run("--from-file", "list.txt", "--root", bucket.url("in"), "-o", bucket.url("out"))
        assert done.status == 1
        assert f"There is no {bucket.url('in/missing.png')}." in done.err
        assert bucket.keys("out") == ["out/b.png", "out/x/a.png"]

    def test_shards(self, run: Runs, bucket: Bucket) -> None:
        for index in range(6):
            bucket.paint(f"in/{index}.png", (2, 2))
        for index in range(2):
            command = (bucket.url("in"), "-o", bucket.url("out"), "--shard", f"{index}/2")
            assert run(*command).status == 0
        assert len(bucket.keys("out")) == 6

    def test_dry_run_puts_nothing(self, run: Runs, bucket: Bucket) -> None:
        bucket.paint("in/a.png")
        done = run(bucket.url("in"), "-o", bucket.url("out"), "--dry-run", "--json")
        assert done.lines[0]["output_size"] == [24, 20]
        assert bucket.keys("out") == []

    def test_names_are_listed_as_they_are_needed(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stores, "PAGE", 2)
        for index in range(5):
            bucket.put(f"in/{index}.png", b"")
            bucket.put(f"in/deep/{index}.png", b"")
        walk = Remote(bucket.url("in")).walk(recursive=False)
        first = next(walk)
        assert len([request for request in bucket.server.requests if "list-type" in request]) == 1
        rest = [remote.url for remote in walk]
        assert [first.url, *rest] == [bucket.url(f"in/{index}.png") for index in range(5)]
        assert len(list(Remote(bucket.url("in")).walk(recursive=True))) == 10


class TestFaults:
    @pytest.mark.parametrize(
        ("request_", "how"),
        [
            *[("GET .*in/a.png", how) for how in ("500", "503", "reset", "cut", "stall", "slow")],
            *[("PUT .*out/a.png", how) for how in ("500", "503", "reset", "late")],
            *[("GET .*list-type", how) for how in ("500", "reset", "cut")],
            *[("HEAD", how) for how in ("500", "reset")],
        ],
    )
    def test_that_pass(self, run: Runs, bucket: Bucket, request_: str, how: str) -> None:
        bucket.paint("in/a.png")
        bucket.fails(request_, how, 1 if how == "slow" else 2)
        done = run(bucket.url("in"), "-o", bucket.url("out"))
        assert done.status == 0, done.err
        assert bucket.keys("out") == ["out/a.png"]
        assert size(bucket.get("out/a.png")) == (24, 20)
        assert bucket.server.faults[0][2] == 0

    @pytest.mark.parametrize("how", ["500", "reset", "cut"])
    def test_that_stay_when_reading(self, run: Runs, bucket: Bucket, how: str) -> None:
        bucket.paint("in/a.png")
        bucket.paint("in/b.png")
        bucket.fails("GET .*in/a.png", how, 1000)
        done = run(bucket.url("in"), "-o", bucket.url("out"))
        assert done.status == 1
        assert f"{bucket.url('in/a.png')} cannot be fetched: " in done.err
        assert "1 done, 1 failed" in done.err
        assert bucket.keys("out") == ["out/b.png"]
        asked = [request for request in bucket.server.requests if "in/a.png" in request]
        assert len(asked) < 30

    @pytest.mark.parametrize("how", ["500", "reset", "403"])
    def test_that_stay_when_writing(self, run: Runs, bucket: Bucket, how: str) -> None:
        bucket.paint("in/a.png")
        bucket.paint("in/b.png")
        bucket.fails("PUT .*out/a.png", how, 1000)
        done = run(bucket.url("in"), "-o", bucket.url("out"))
        assert done.status == 1
        assert f"{bucket.url('out/a.png')} cannot be written: " in done.err
        assert bucket.keys("out") == ["out/b.png"]

    def test_a_missing_object(self, run: Runs, bucket: Bucket) -> None:
        bucket.paint("in/b.png")
        done = run(bucket.url("in/a.png"), bucket.url("in/b.png"), "-o", bucket.url("out"))
        assert done.status == 1
        assert f"There is no {bucket.url('in/a.png')}." in done.err
        assert bucket.keys("out") == ["out/b.png"]
        # Another attempt would not help.
        asked = [r for r in bucket.server.requests if r.startswith("GET") and "in/a.png" in r]
        assert len(asked) == 1

    def test_a_missing_bucket(self, run: Runs, bucket: Bucket) -> None:
        done = run("s3://no-such-bucket-here/in", "-o", "large")
        assert done.status == 1
        assert "s3://no-such-bucket-here/in" in done.err
        paint("a.png")
        done = run("a.png", "-o", "s3://no-such-bucket-here/out/", "--overwrite")
        assert done.status == 1
        assert "there is no such bucket" in done.err

    def test_nothing_in_a_folder(self, run: Runs, bucket: Bucket) -> None:
        done = run(bucket.url("empty"), "-o", "large")
        assert done.status == 1
        assert "no image in this folder" in done.err

    def test_a_damaged_image_puts_nothing(self, run: Runs, bucket: Bucket) -> None:
        whole = bucket.paint("in/a.png", (300, 200))
        bucket.put("in/a.png", whole[:20000])
        done = run(bucket.url("in"), "-o", bucket.url("out"))
        assert done.status == 1
        assert bucket.url("in/a.png") in done.err
        assert "/tmp" not in done.err
        assert bucket.keys("out") == []

    def test_access_that_is_refused(self, run: Runs, bucket: Bucket) -> None:
        bucket.paint("in/a.png")
        bucket.fails("GET .*in/a.png", "403", 1000)
        done = run(bucket.url("in/a.png"), "-o", "large")
        assert done.status == 1
        assert "credentials come from the environment" in done.err

    def test_no_credentials(
        self, run: Runs, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "nowhere")
        done = run(bucket.url("a.png"), "-o", "large")
        assert done.status == 1
        assert "credentials" in done.err

    def test_no_temporary_file_stays(
        self, run: Runs, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("temporary").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(Path("temporary").absolute()))
        bucket.paint("in/a.png")
        bucket.put("in/b.png", b"no image")
        bucket.fails("PUT .*out/a.png", "500", 1000)
        assert run(bucket.url("in"), "-o", bucket.url("out")).status == 1
        assert os.listdir("temporary") == []


class TestWeb:
    @pytest.fixture
    def web(self, bucket: Bucket) -> str:
        """A web server's address: the store's own, where anybody may read."""
        bucket.client.put_bucket_acl(Bucket=bucket.name, ACL="public-read")
        bucket.server.faults.clear()
        return f"http://127.0.0.1:{bucket.server.server_port}/{bucket.name}"

    @pytest.mark.parametrize("how", ["", "500", "reset", "cut", "slow"])
    def test_a_picture_is_fetched(self, run: Runs, bucket: Bucket, web: str, how: str) -> None:
        bucket.paint("a b.png")
        bucket.client.put_object_acl(Bucket=bucket.name, Key="a b.png", ACL="public-read")
        bucket.fails("GET", how)
        assert run(f"{web}/a%20b.png?x=1", "-o", "large").status == 0
        assert size(Path("large/a b.png").read_bytes()) == (24, 20)

    def test_what_is_not_there(self, run: Runs, web: str) -> None:
        done = run(f"{web}/missing.png", "-o", "large")
        assert done.status == 1
        assert f"There is no {web}/missing.png." in done.err

    def test_a_server_that_is_not_there(self, run: Runs, bucket: Bucket) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        done = run(f"http://127.0.0.1:{port}/a.png", "-o", "large")
        assert done.status == 1
        assert "cannot be fetched" in done.err

    def test_a_folder_cannot_be_listed(self, run: Runs, web: str) -> None:
        done = run(f"{web}/", "-o", "large")
        assert done.status == 1
        assert len(done.err.splitlines()) < 5


@pytest.mark.slow
def test_a_data_set_with_ray(bucket: Bucket, model_folder: Path) -> None:
    pytest.importorskip("ray.data", reason="needs the extra ray")
    names = ["a.png", "deep/b c.png", "deep/c.png"]
    for name in names:
        bucket.paint(f"in/{name}")
    bucket.put("in/bad.png", b"no image")
    bucket.put("in/notes.txt", b"no image")
    command = [sys.executable, "-m", "srgan_infer.ray", bucket.url("in"), bucket.url("out")]
    command += ["--model", str(model_folder), "--device", "cpu", "--cpus", "1", "--piece", "2"]
    quiet = {"RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}

    bucket.fails("GET .*c.png", "500", 1)
    done = subprocess.run(command, env={**os.environ, **quiet}, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1, done.stderr
    counts, where = done.stderr.splitlines()[-2:]
    assert counts == "3 done, 1 failed, 1 not taken"
    assert where == f"reasons are in {bucket.url('out/failed.jsonl')}"
    assert bucket.keys("out") == sorted(f"out/{name}" for name in [*names, "failed.jsonl"])
    assert all(size(bucket.get(f"out/{name}")) == (24, 20) for name in names)
    failed = json.loads(bucket.get("out/failed.jsonl"))
    assert failed["input"] == "bad.png"
    assert "image" in failed["reason"]
    # What is there is not done again; as a worker does it, without the seconds that Ray takes.
    from srgan_infer.ray import Options, Worker, pieces

    bucket.server.requests.clear()
    todo = [json.dumps(vars(piece)) for piece in pieces(bucket.url("in"), bucket.url("out"))]
    again = Worker(Options(str(model_folder), device="cpu"))({"piece": todo})
    assert sorted(again["status"]) == ["failed", "kept", "kept", "kept"]
    assert not [request for request in bucket.server.requests if request.startswith("PUT")]


def test_addresses_go_together_as_paths_do() -> None:
    remote = Remote("s3://bucket/deep/a.b.png")
    assert (remote.name, remote.stem, remote.suffix) == ("a.b.png", "a.b", ".png")
    assert str(remote.parent / "c.png") == "s3://bucket/deep/c.png"
    assert str(Remote("s3://bucket/") / Path("x", "y.png")) == "s3://bucket/x/y.png"
    assert Remote("https://host/a%20b.png?size=1.5").name == "a b.png"
    assert stores.place("S3://bucket/A.png") == Remote("s3://bucket/A.png")
    assert stores.place("s3/a.png") == Path("s3/a.png")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def absent(*arguments: object, **options: object) -> None:
        raise ImportError("s3fs")

    monkeypatch.setattr(fsspec, "filesystem", absent)
    stores._store.cache_clear()
    with pytest.raises(UpscaleError, match=r"pip install 'srgan-infer\[s3\]'"):
        Remote("s3://bucket/a.png").size()
