"""Fetching a data set from a server that breaks off, knows no ranges, or sends the wrong file."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from srgan_training import prepare
from srgan_training.prepare import Archive, PrepareError


class PictureServer:
    """Serves one file; what it does wrong is set from outside.

    ``cut_after`` closes each of the next connections after that many bytes.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.ranges = True
        self.cut_after: list[int] = []
        self.requests: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.headers["Range"])
                if self.path != "/zips/train2014.zip":
                    self.send_error(404)
                    return
                body, start = outer.content, 0
                if self.headers["Range"] and outer.ranges:
                    start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                else:
                    self.send_response(200)
                body = body[start:]
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: outer.cut_after.pop(0)] if outer.cut_after else body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/zips/train2014.zip"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def bundle() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("train2014/", "")
        for number in (30, 9, 25, 581, 100):
            name = f"train2014/COCO_train2014_{number:012}.jpg"
            archive.writestr(name, bytes([number % 256]) * 40_000)
    return stream.getvalue()


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], PictureServer]]:
    servers = []

    def start(content: bytes) -> PictureServer:
        servers.append(PictureServer(content))
        return servers[-1]

    yield start
    for server in servers:
        server.server.shutdown()
        server.server.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgan_training.prepare.time.sleep", lambda _: None)


def described(url: str, content: bytes) -> Archive:
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return Archive(url=url, size=len(content), md5=digest, pictures=5)


def test_the_first_pictures_by_name_are_unpacked(
    serve: Callable[[bytes], PictureServer], bundle: bytes, tmp_path: Path
) -> None:
    server = serve(bundle)
    target = prepare.prepare(described(server.url, bundle), tmp_path, pictures=3)
    assert {file.name: file.read_bytes()[:1] for file in target.iterdir()} == {
        "COCO_train2014_000000000009.jpg": bytes([9]),
        "COCO_train2014_000000000025.jpg": bytes([25]),
        "COCO_train2014_000000000030.jpg": bytes([30]),
    }
    prepare.prepare(described(server.url, bundle), tmp_path, pictures=3)
    assert len(server.requests) == 1, "what is there is not fetched again"
    everything = prepare.prepare(described(server.url, bundle), tmp_path, pictures=None)
    assert len(list(everything.iterdir())) == 5


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    serve: Callable[[bytes], PictureServer], bundle: bytes, tmp_path: Path
) -> None:
    server = serve(bundle)
    server.cut_after = [50_000, 30_000]
    prepare.download(server.url, tmp_path / "a.zip", len(bundle))
    assert (tmp_path / "a.zip").read_bytes() == bundle
    assert server.requests == [None, "bytes=50000-", "bytes=80000-"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


def test_an_interrupted_run_goes_on_in_the_next(
    serve: Callable[[bytes], PictureServer], bundle: bytes, tmp_path: Path
) -> None:
    server = serve(bundle)
    server.cut_after = [70_000, 0, 0]
    with pytest.raises(PrepareError, match=r"70,000 of .* bytes that are there"):
        prepare.download(server.url, tmp_path / "a.zip", len(bundle), attempts=2)
    assert not (tmp_path / "a.zip").exists()
    prepare.download(server.url, tmp_path / "a.zip", len(bundle))
    assert server.requests[-1] == "bytes=70000-"
    assert (tmp_path / "a.zip").read_bytes() == bundle


def test_a_server_without_ranges_is_read_from_the_beginning(
    serve: Callable[[bytes], PictureServer], bundle: bytes, tmp_path: Path
) -> None:
    server = serve(bundle)
    server.ranges = False
    server.cut_after = [70_000]
    prepare.download(server.url, tmp_path / "a.zip", len(bundle))
    assert (tmp_path / "a.zip").read_bytes() == bundle


def test_a_file_of_another_length_is_refused(
    serve: Callable[[bytes], PictureServer], bundle: bytes, tmp_path: Path
) -> None:
    server = serve(bundle)
    with pytest.raises(PrepareError, match="bytes long"):
        prepare.download(server.url, tmp_path / "a.zip", len(bundle) + 1)
    (tmp_path / "a.zip.part").write_bytes(bundle[:1000])
    with pytest.raises(PrepareError, match="bytes long"):
        prepare.download(server.url, tmp_path / "a.zip", len(bundle) + 1)


def test_what_is_not_there_is_said_at_once(
    serve: Callable[[bytes], PictureServer], tmp_path: Path
) -> None:
    server = serve(b"zip")
    with pytest.raises(PrepareError, match="HTTP status 404"):
        prepare.download(server.url + "x", tmp_path / "a.zip", 3)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("wrong", "message"), [("md5", "wrong checksum"), ("crc", "damaged"), ("count", "5 pictures")]
)
def test_a_damaged_archive_is_named(
    bundle: bytes, tmp_path: Path, wrong: str, message: str
) -> None:
    content = bytearray(bundle)
    if wrong == "crc":
        content[60_000] ^= 1
    archive = described("http://127.0.0.1/train2014.zip", bytes(content))
    if wrong == "md5":
        content[60_000] ^= 1
    if wrong == "count":
        archive = Archive(archive.url, archive.size, archive.md5, pictures=6)
    file = tmp_path / "train2014.zip"
    file.write_bytes(content)
    with pytest.raises(PrepareError, match=message) as caught:
        prepare.check(file, archive)
    assert f"delete {file}" in str(caught.value)


def test_an_unpacking_that_was_cut_short_is_completed(bundle: bytes, tmp_path: Path) -> None:
    file = tmp_path / "train2014.zip"
    file.write_bytes(bundle)
    names = prepare.check(file, described("http://127.0.0.1/train2014.zip", bundle))
    prepare.unpack(file, names, tmp_path / "pictures")
    cut = tmp_path / "pictures/COCO_train2014_000000000025.jpg"
    cut.write_bytes(b"x")
    prepare.unpack(file, names, tmp_path / "pictures")
    assert cut.read_bytes() == bytes([25]) * 40_000


def test_the_command_says_what_went_wrong_in_one_line(
    serve: Callable[[bytes], PictureServer],
    bundle: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = serve(bundle)
    monkeypatch.setattr(prepare, "COCO_TRAIN2014", described(server.url, bundle))
    assert prepare.main(["coco", str(tmp_path / "ok"), "--pictures", "2"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "ok/train2014-2")
    monkeypatch.setattr(prepare, "COCO_TRAIN2014", described(server.url + "x", bundle))
    assert prepare.main(["coco", str(tmp_path / "bad")]) == 1
    assert "HTTP status 404" in capsys.readouterr().err
