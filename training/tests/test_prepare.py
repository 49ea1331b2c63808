"""Fetching a data set from a server, and unpacking the part that is wanted."""

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from srgan_training import prepare
from srgan_training.errors import TrainingError
from srgan_training.main import main
from srgan_training.prepare import Archive

NUMBERS = (30, 9, 25, 581, 100)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """Five images in a zip on a server."""
    served = tmp_path / "served"
    served.mkdir()
    file = served / "train2014.zip"
    with zipfile.ZipFile(file, "w") as bundle:
        bundle.writestr("train2014/", "")
        for number in NUMBERS:
            bundle.writestr(f"train2014/COCO_{number:06}.jpg", bytes([number % 256]) * 4000)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    yield Archive(f"http://127.0.0.1:{server.server_port}/train2014.zip", digest)
    server.shutdown()
    server.server_close()


def test_the_first_images_by_name_are_unpacked_into_one_flat_folder(
    archive: Archive, tmp_path: Path
) -> None:
    folder = prepare.prepare(archive, tmp_path / "data", 3)
    assert folder == tmp_path / "data/train2014-3"
    found = sorted(path.name for path in folder.iterdir())
    assert found == ["COCO_000009.jpg", "COCO_000025.jpg", "COCO_000030.jpg"]
    assert (folder / "COCO_000009.jpg").read_bytes() == bytes([9]) * 4000

    # Nothing is fetched or written twice; what was cut short is written again.
    written = (folder / "COCO_000009.jpg").stat().st_mtime_ns
    (folder / "COCO_000025.jpg").write_bytes(b"cut")
    gone = Archive(archive.url.replace("127.0.0.1", "127.0.0.2"), archive.md5)
    assert prepare.prepare(gone, tmp_path / "data", 3) == folder
    assert (folder / "COCO_000009.jpg").stat().st_mtime_ns == written
    assert (folder / "COCO_000025.jpg").read_bytes() == bytes([25]) * 4000


@pytest.mark.parametrize("what", ["checksum", "missing"])
def test_what_cannot_be_had_is_said_in_one_line(
    archive: Archive, tmp_path: Path, what: str
) -> None:
    wrong = Archive(archive.url, "0" * 32)
    if what == "missing":
        wrong = Archive(archive.url.replace("2014", "2099"), archive.md5)
    with pytest.raises(TrainingError, match="could not be fetched") as caught:
        prepare.prepare(wrong, tmp_path / "data", 3)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data/train2014-3").exists()


def test_the_command_names_the_folder(
    archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(prepare, "COCO_TRAIN2014", archive)
    assert main(["prepare", "coco", str(tmp_path / "data"), "--images", "0"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'data/train2014-5'}\n"
    assert main(["prepare", "coco", str(tmp_path / "data"), "--images", "-1"]) == 1
