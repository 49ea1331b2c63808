"""The page as programs see it: its API, its limits, what it keeps and deletes."""

from __future__ import annotations

import asyncio
import io
import os
import re
import resource
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from web_server import Held, ask, running, upload

from srgan_infer import SuperResolver, UpscaleError, weights
from srgan_infer.cli.main import main
from srgan_infer.network.generator import Generator, GeneratorConfig
from srgan_infer.web import LIMITS, _delete_old, app, serve, view
from srgan_infer.web.service import CancelError, Options, Service

pytest.importorskip("gradio", reason="the extra [web] is not installed")
import gradio_client


@pytest.fixture(scope="module")
def page(bundled_for_all: Path) -> Iterator[str]:
    """Address of a page with the limits that it has for strangers, a small queue among them."""
    with running(app(max_pixels=1_000_000, max_upload=2_000_000, queue=2)) as address:
        yield address


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    exif = Image.Exif()
    exif[0x010E] = "a cup"
    Image.fromarray(pixels).save(path, quality=92, exif=exif, dpi=(300, 300))
    return path


def client(address: str) -> gradio_client.Client:
    return gradio_client.Client(address, verbose=False, analytics_enabled=False)


def test_the_api_gives_the_very_file_that_the_library_writes(page: str, photo: Path) -> None:
    image = gradio_client.handle_file(photo)
    result, report = client(page).predict([image], model="srresnet", api_name="/upscale")
    SuperResolver.from_pretrained("srresnet").upscale_file(photo, photo.with_name("same.jpg"))
    assert Path(result).read_bytes() == photo.with_name("same.jpg").read_bytes()
    assert Path(result).name == "photo_upscaled.jpg"
    (done,) = report["done"]
    assert done["size"] == [128, 96]
    assert not report["failed"]
    assert not report["cancelled"]


def test_options_reach_the_library(page: str, photo: Path) -> None:
    result, _ = client(page).predict(
        [gradio_client.handle_file(photo)],
        model="srgan",
        strength=0.5,
        width=50,
        format="WEBP",
        quality=70,
        api_name="/upscale",
    )
    expected = io.BytesIO()
    SuperResolver.from_pretrained(strength=0.5).upscale_file(
        photo, expected, format="webp", quality=70, size=(50, None)
    )
    assert Path(result).read_bytes() == expected.getvalue()
    with Image.open(result) as image:
        assert image.size == (50, 38)


def test_many_images_come_as_a_zip_with_the_failed_ones_named(
    page: str, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "again").mkdir()
    twin = tmp_path / "again" / "photo.jpg"
    twin.write_bytes(photo.read_bytes() + b"\n")
    images = [photo, tmp_path / "notes.txt", twin]
    files = [gradio_client.handle_file(image) for image in images]
    result, report = client(page).predict(files, api_name="/upscale")
    with zipfile.ZipFile(result) as file:
        names = sorted(file.namelist())
        assert names == ["not-upscaled.txt", "photo_upscaled-2.jpg", "photo_upscaled.jpg"]
        assert file.read("not-upscaled.txt").decode().startswith("notes.txt: notes.txt ")
    assert [one["name"] for one in report["failed"]] == ["notes.txt"]
    assert len(report["done"]) == 2


def test_what_is_too_large_is_refused_in_one_sentence(page: str, tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (20000, 10000)).save(path)  # 200 megapixels in a few kilobytes
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result, report = client(page).predict([gradio_client.handle_file(path)], api_name="/upscale")
    assert result is None
    (failed,) = report["failed"]
    assert failed["reason"].startswith("huge.png ")
    assert "20000×10000 pixels" in failed["reason"]
    assert tmp_path.as_posix() not in failed["reason"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start < 100_000  # KiB


def test_a_small_image_may_not_be_asked_for_at_a_huge_size(page: str, tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    Image.new("RGB", (400, 400)).save(path)
    _, report = client(page).predict(
        [gradio_client.handle_file(path)], outscale=16, api_name="/upscale"
    )
    assert "smaller" in report["failed"][0]["reason"]


def test_an_option_that_means_nothing_has_the_librarys_sentence(page: str, photo: Path) -> None:
    _, report = client(page).predict(
        [gradio_client.handle_file(photo)], width=100_000, api_name="/upscale"
    )
    assert "16 times at most" in report["failed"][0]["reason"]


def test_a_file_that_is_too_large_is_refused_while_it_comes(page: str) -> None:
    with pytest.raises(OSError, match=r"413|Broken pipe|Connection reset|400"):
        upload(page, "large.png", bytes(2_100_000))
    with pytest.raises(OSError, match=r"413|Broken pipe|Connection reset"):
        upload(page, "larger.png", bytes(30_000_000))


def test_json_that_is_too_large_or_none_is_refused(page: str) -> None:
    join = f"{page}/gradio_api/queue/join"
    assert ask(join, ["x" * 2_000_000])[0] == 413
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    assert ask(join, deep)[0] in (400, 422)


@pytest.mark.parametrize("place", ["queue/join", "call/upscale"])
@pytest.mark.parametrize("nested", [False, True])
def test_an_address_that_a_stranger_gives_is_never_fetched(
    page: str, place: str, nested: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as secret:
        secret.settimeout(0.3)
        address = f"http://127.0.0.1:{secret.getsockname()[1]}/photo.png"
        file: Any = {"path": address, "meta": {"_type": "gradio.FileData"}}
        data = [[{"deeper": [file]}] if nested else [file], "srgan", 1, 4, 0, 0, "source"]
        content = {"data": [*data, 0], "fn_index": 2, "session_hash": "abc"}
        status, text = ask(f"{page}/gradio_api/{place}", content)
        assert status == 403
        assert "no addresses" in text
        with pytest.raises(TimeoutError):
            secret.accept()


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../../etc/passwd", __file__, "ftp://127.0.0.1/x", "//127.0.0.1/x", 7, None],
)
def test_files_that_were_not_uploaded_are_neither_read_nor_given(page: str, name: object) -> None:
    file = {"path": name, "meta": {"_type": "gradio.FileData"}}
    content = {"data": [[file], "srgan", 1, 4, 0, 0, "source", 0]}
    assert ask(f"{page}/gradio_api/call/upscale", content)[0] == 403
    if isinstance(name, str):
        assert ask(f"{page}/gradio_api/file={name}")[0] == 403


@pytest.mark.parametrize(
    "place",
    [
        *("/gradio_api/proxy=http://127.0.0.1:9/", "/monitoring", "/gradio_api/deep_link"),
        *("/gradio_api/run/upscale", "/docs", "/openapi.json", "/gradio_api/vibe-code"),
        *("/gradio_api/stream/a/1/2/playlist.m3u8", "/login", "/gradio_api/dev/reload"),
    ],
)
def test_the_rest_of_gradio_is_not_there(page: str, place: str) -> None:
    assert ask(f"{page}{place}")[0] == 404
    assert ask(f"{page}{place}", {"data": []})[0] == 404


def test_one_visitor_after_the_other_and_no_more_than_may_wait(
    page: str, photo: Path, held: Held
) -> None:
    image = gradio_client.handle_file(photo)
    jobs = []
    for _ in range(4):
        jobs.append(client(page).submit([image], api_name="/upscale"))
        assert held.started.wait(10)
        time.sleep(0.3)
    _, report = jobs[3].result(timeout=10)
    assert report["failed"][0]["reason"].startswith("The queue is full: 2 are waiting")
    words = jobs[2].status().progress_data
    assert words
    assert words[0].desc == "waiting, 1 before yours"
    assert ask(f"{page}/health") == (200, '{"status":"ok"}')
    held.go.set()
    assert all(job.result(timeout=20)[1]["done"] for job in jobs[:3])
    assert held.most_at_once == 1


def test_a_cancelled_job_stops_the_network_and_leaves_its_place(
    page: str, photo: Path, held: Held
) -> None:
    job = client(page).submit([gradio_client.handle_file(photo)], api_name="/upscale")
    assert held.started.wait(10)
    assert held.at_once == 1
    job.cancel()
    for _ in range(200):
        if not held.at_once:
            break
        time.sleep(0.01)
    assert held.at_once == 0
    held.go.set()
    image = gradio_client.handle_file(photo)
    assert client(page).predict([image], api_name="/upscale")[1]["done"]


def test_it_can_be_mounted_into_another_application_with_all_limits(
    bundled_for_all: Path, photo: Path
) -> None:
    from fastapi import FastAPI

    outer = FastAPI()
    outer.mount("/upscale", app(max_pixels=700, max_upload=100_000))
    with running(outer) as address:
        image = gradio_client.handle_file(photo)
        inner = f"{address}/upscale"
        _, report = client(inner).predict([image], api_name="/upscale")
        assert "more than the 700" in report["failed"][0]["reason"]
        small = photo.with_name("small.png")
        Image.new("RGB", (20, 20), "red").save(small)
        result, _ = client(inner).predict([gradio_client.handle_file(small)], api_name="/upscale")
        with Image.open(result) as big:
            assert big.size == (80, 80)
        assert ask(f"{inner}/health")[0] == 200
        assert ask(f"{inner}/gradio_api/file=/etc/passwd")[0] == 403
        file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
        assert ask(f"{inner}/gradio_api/call/upscale", {"data": [[file]]})[0] == 403
        with pytest.raises(OSError, match=r"413|Broken pipe|Connection reset"):
            upload(inner, "large.png", bytes(2_000_000))


def test_nothing_is_sent_elsewhere(bundled_for_all: Path, photo: Path) -> None:
    """In a process whose sockets reach this machine only, and which has no proxies."""
    code = f"""
import socket, sys
real = socket.socket.connect
def connect(self, address):
    host = address[0] if isinstance(address, tuple) else address
    if host not in ("127.0.0.1", "::1"):
        print("CALLED", address, flush=True)
        raise OSError("not allowed")
    return real(self, address)
socket.socket.connect = connect
resolve = socket.getaddrinfo
def getaddrinfo(host, *rest, **named):
    if host not in ("127.0.0.1", "localhost", "::1", None):
        print("CALLED", host, flush=True)
    return resolve(host, *rest, **named)
socket.getaddrinfo = getaddrinfo
sys.path.insert(0, {str(Path(__file__).parent)!r})
from web_server import ask, running
from srgan_infer.web import app
import gradio_client
with running(app()) as page:
    assert ask(page)[0] == 200
    image = gradio_client.handle_file({str(photo)!r})
    client = gradio_client.Client(page, verbose=False, analytics_enabled=False)
    assert client.predict([image], api_name="/upscale")[1]["done"]
print("END")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["END"], done.stderr
    assert "CALLED" not in done.stdout


def test_files_are_deleted_after_an_hour_and_at_the_end(
    bundled_for_all: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with running(app()) as address:
        path = Path(upload(address, "photo.jpg", photo.read_bytes()))
        (folder,) = tmp_path.glob("srgan-infer-web-*")
        assert folder in path.parents
        result, _ = client(address).predict([gradio_client.handle_file(photo)], api_name="/upscale")
        assert Path(result).exists()
        now = time.time()
        os.utime(path, (now - 3601, now - 3601))
        _delete_old(folder, now - 3600)
        assert not path.exists()
        assert list(folder.rglob("photo_upscaled.jpg")), "it is new"
    assert not list(tmp_path.glob("srgan-infer-web-*"))


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["--serve"]) == 2
    assert "pip install 'srgan-infer[web]'" in capsys.readouterr().err


def test_a_model_of_another_scale(photo: Path, tmp_path: Path) -> None:
    config = GeneratorConfig(channels=4, blocks=1, scale=2)
    weights.save(tmp_path / "half", config, Generator(config).state_dict(), "", False)
    image = gradio_client.handle_file(photo)
    with running(app(model=str(tmp_path / "half"))) as address:
        result, report = client(address).predict([image], api_name="/upscale")
    assert report["done"][0]["size"] == [64, 48]
    with Image.open(result) as big:
        assert big.size == (64, 48)


def test_a_port_that_is_taken_is_said(bundled_for_all: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UpscaleError, match=f"port {port}.*--port"):
            serve(port=port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_and_ends_in_order(
    tmp_path: Path, photo: Path, number: signal.Signals
) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "srgan_infer", "--serve", "--port", "0", "--queue", "3"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=Path(__file__).parents[1],
    )
    assert server.stderr
    line = server.stderr.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, line
    assert ask(found[0])[0] == 200
    upload(found[0], "photo.jpg", photo.read_bytes())
    assert list(tmp_path.rglob("photo.jpg"))
    with urllib.request.urlopen(f"{found[0]}/gradio_api/heartbeat/abc"):  # a page that is open
        server.send_signal(number)
        assert server.wait(30) in (130, -number)
    assert server.stderr.read() == ""
    assert not [path for path in tmp_path.glob("srgan-infer-web-*/*")]


@pytest.mark.parametrize(
    ("words", "limits"),
    [
        ([], (None, None, None)),
        (["--host", "localhost"], (None, None, None)),
        (["--host", "::1", "--queue", "4"], (None, None, 4)),
        (["--host", "0.0.0.0"], (16_000_000, 20_000_000, 20)),
        (["--host", "example.org"], (16_000_000, 20_000_000, 20)),
        (
            ["--host", "0.0.0.0", "--max-pixels", "2.5M", "--max-upload", "1GB"],
            (2_500_000, 1_000_000_000, 20),
        ),
    ],
)
def test_limits_are_on_where_others_can_come(
    monkeypatch: pytest.MonkeyPatch, words: list[str], limits: tuple[int | None, ...]
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("srgan_infer.web.serve", lambda **options: given.update(options))
    assert main(["--serve", *words]) == 0
    assert (given["max_pixels"], given["max_upload"], given["queue"]) == limits


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.png"], "takes no images"),
        (["--max-upload", "much"], "no number such as 16M"),
        (["--model", "no-such-folder"], "no-such-folder"),
    ],
)
def test_what_cannot_be_served_is_said(
    bundled_for_all: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status: object
    try:
        status = main(["--serve", *words])
    except SystemExit as end:  # argparse
        status = end.code
    assert status == 2
    assert said in capsys.readouterr().err


def test_a_space_is_the_page_with_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[1] / "space"
    given: dict[str, Any] = {}
    monkeypatch.setattr("srgan_infer.web.serve", lambda **options: given.update(options))
    runpy.run_path(str(folder / "app.py"), run_name="__main__")
    assert given == {"host": "0.0.0.0", "port": 7860, **LIMITS}
    head = (folder / "README.md").read_text(encoding="utf-8").split("---")[1]
    facts = dict(line.split(": ", 1) for line in head.strip().splitlines())
    assert facts["sdk"] == "gradio"
    assert facts["sdk_version"].startswith("6.")
    assert (folder / facts["app_file"]).exists()


@pytest.mark.parametrize("size", [(20, 15), (31, 17)])
@pytest.mark.parametrize("center", [(0.5, 0.5), (0, 0), (1, 1), (0.9, 0.2)])
def test_a_detail_is_that_part_of_the_result(
    bundled_for_all: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    center: tuple[float, float],
) -> None:
    monkeypatch.setattr(view, "DETAIL_EDGE", 40)
    pixels = np.random.default_rng(0).integers(0, 255, (size[1] * 10, size[0] * 10, 3), np.uint8)
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(pixels).save(source)
    resolver = SuperResolver.from_pretrained(dtype="float32")
    whole = resolver.upscale_file(source, target).size
    # Saved without loss here, so that pixels can be compared.
    monkeypatch.setattr(view, "_save", lambda image, file, folder: _png(image, folder))
    pair = view.detail(resolver, source, whole, center, tmp_path)
    after = np.asarray(Image.open(pair.after))
    big = np.asarray(Image.open(target))
    assert after.shape == (40, 40, 3)
    # Another cut may round another way.
    places = np.lib.stride_tricks.sliding_window_view(big[::4, ::4, 0].astype(int), (10, 10))
    close = np.abs(places - after[::4, ::4, 0]).max(axis=(2, 3)) <= 1
    ((top, left),) = np.argwhere(close) * 4
    assert np.abs(after.astype(int) - big[top : top + 40, left : left + 40]).max() <= 1
    middle = np.array([left + 20, top + 20]) / whole
    expected = np.clip(center, np.divide(20, whole), 1 - np.divide(20, whole))
    assert np.abs(middle - expected).max() < 4 / min(whole)


def _png(image: Image.Image, folder: Path) -> Path:
    path = folder / f"{id(image)}.png"
    image.save(path)
    return path


def test_before_and_after_have_the_same_size_and_kind(
    bundled_for_all: Path, tmp_path: Path
) -> None:
    resolver = SuperResolver.from_pretrained()
    sources = {
        "rgba.png": Image.new("RGBA", (20, 10), (255, 0, 0, 128)),
        "grey.png": Image.new("I;16", (20, 10), 40000),
        "cmyk.tif": Image.new("CMYK", (20, 10), (0, 255, 255, 0)),
    }
    for name, image in sources.items():
        image.save(tmp_path / name)
        target = tmp_path / f"big-{name}"
        resolver.upscale_file(tmp_path / name, target)
        pair = view.pair(tmp_path / name, target, tmp_path)
        with Image.open(pair.before) as before, Image.open(pair.after) as after:
            assert before.size == after.size == pair.size == (80, 40)
            assert after.format in view.BROWSER_FORMATS
            assert pair.transparent == (name == "rgba.png")
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=90)
    resolver.upscale_file(tmp_path / "a.gif", tmp_path / "b.gif")
    pair = view.pair(tmp_path / "a.gif", tmp_path / "b.gif", tmp_path)
    assert pair.animated
    with Image.open(pair.before) as before:
        assert getattr(before, "n_frames", 1) == 3


def test_thirty_clients_are_served_or_told_and_memory_is_level(
    bundled_for_all: Path, photo: Path
) -> None:
    content = photo.read_bytes()

    def visit(address: str, number: int) -> str:
        path = upload(address, f"photo-{number}.jpg", content)
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        data = [[file], "srgan", 1, 4, 0, 0, "source", 0]
        status, text = ask(f"{address}/gradio_api/call/upscale", {"data": data})
        assert status == 200
        event = text.split('"')[3]
        _, answer = ask(f"{address}/gradio_api/call/upscale/{event}")
        assert f"photo-{number}_upscaled.jpg" in answer or "The queue is full" in answer, answer
        return "done" if "_upscaled" in answer else "full"

    with running(app(queue=8)) as address, ThreadPoolExecutor(30) as pool:
        seen = []
        for _ in range(4):
            answers = list(pool.map(visit, [address] * 30, range(30), timeout=120))
            assert "done" in answers
            seen.append(_resident())
        assert seen[-1] - seen[1] < 20_000_000, seen


def _resident() -> int:
    """Bytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_a_batch_lets_others_in_between(bundled_for_all: Path, photo: Path, tmp_path: Path) -> None:
    """Who has one image does not wait for all of somebody else's."""
    order = []

    async def go() -> None:
        service = Service(tmp_path, ["cpu"])

        async def visit(visitor: str, count: int) -> None:
            for_all = await service.upscale(
                [photo] * count, Options(), visitor, lambda done, words: None
            )
            assert all(result.target for result in for_all)
            order.append(visitor)

        await asyncio.gather(visit("many", 6), visit("one", 1))

    asyncio.run(go())
    assert order == ["one", "many"]


def test_who_leaves_while_waiting_is_forgotten(
    bundled_for_all: Path, photo: Path, tmp_path: Path
) -> None:
    async def go() -> None:
        service = Service(tmp_path, ["cpu"])
        device = service.devices.pop()  # in use
        visit = asyncio.ensure_future(
            service.upscale([photo], Options(), "visitor", lambda done, words: None)
        )
        await asyncio.sleep(0.05)
        service.stop("visitor")
        with pytest.raises(CancelError):
            await visit
        service.devices.append(device)
        others = await service.upscale([photo], Options(), "x", lambda done, words: None)
        assert others[0].target

    asyncio.run(go())
