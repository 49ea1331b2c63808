"""The page that runs the network in the browser, in a real one."""

from __future__ import annotations

import functools
import http.server
import io
import runpy
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srgan_infer import SuperResolver

ROOT = Path(__file__).parents[1]
LONG = 120_000  # milliseconds; a busy machine may take its time

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm"),
]
expect: Any = playwright.expect


class Plain(http.server.SimpleHTTPRequestHandler):
    """Serves files as most servers do."""

    def log_message(self, *args: object) -> None:
        pass


class Isolated(Plain):
    """Serves files isolated from other pages, so that they may use threads."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


@contextmanager
def serving(folder: Path, kind: type[Plain]) -> Iterator[str]:
    handler = functools.partial(kind, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as it comes with the documentation's site."""
    out = tmp_path_factory.mktemp("site")
    build = runpy.run_path(str(ROOT / "docs" / "conf.py"))["make_demo"]
    try:
        build(SimpleNamespace(tags={"demo"}, outdir=out), None)
    except subprocess.CalledProcessError as reason:
        pytest.skip(f"npm gives no onnxruntime-web: {reason}")
    return out / "demo"


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    with serving(built, Plain) as address:
        yield address


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    with Image.open(ROOT / "docs" / "images" / "original.jpg") as image:
        return image.convert(mode).crop((200, 100, 200 + width, 100 + height))


def file(image: Image.Image, name: str = "photo.png") -> dict[str, Any]:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": stream.getvalue()}


def upscaled(page: Any, image: Image.Image, tmp_path: Path) -> Image.Image:
    """What the page offers for download when it is done with an image."""
    page.set_input_files("#file", file(image))
    expect(page.locator("#status")).to_contain_text(
        f"{image.width} × {image.height} became", timeout=LONG
    )
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "photo_x4.png"
    download.value.save_as(tmp_path / "out.png")
    return Image.open(tmp_path / "out.png")


def levels(found: Image.Image, image: Image.Image) -> int:
    """Largest difference to what the library makes of an image, in 8-bit levels."""
    expected = SuperResolver.from_pretrained(device="cpu", dtype="float32")(image)
    assert found.size == expected.size
    difference = np.asarray(found.convert("RGB"), np.int16) - np.asarray(expected, np.int16)
    return int(np.abs(difference).max())


def test_the_sample_is_there_at_once(page: Any, address: str) -> None:
    page.goto(address)
    expect(page.locator("#status")).to_contain_text("150 × 100 became 600 × 400")
    expect(page.locator("#download")).to_be_hidden()
    handle = page.get_by_role("slider")
    handle.focus()
    page.keyboard.press("ArrowRight")
    assert handle.get_attribute("aria-valuenow") == "52"
    page.keyboard.press("Home")
    assert handle.get_attribute("aria-valuenow") == "0"
    box = page.locator("#view").bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 20)
    assert handle.get_attribute("aria-valuenow") == "75"


def test_the_result_is_the_librarys(page: Any, address: str, tmp_path: Path) -> None:
    page.goto(address)
    image = photo(60, 40)
    assert levels(upscaled(page, image, tmp_path), image) <= 2
    expect(page.locator("#status")).to_contain_text("240 × 160")
    # The canvas shows it at its natural size.
    assert page.locator("#after").evaluate("canvas => [canvas.width, canvas.height]") == [240, 160]


def test_tiles_show_no_seams(page: Any, address: str, tmp_path: Path) -> None:
    page.goto(f"{address}?edge=90&device=wasm")
    image = photo(105, 30)
    assert levels(upscaled(page, image, tmp_path), image) <= 2


def test_progress_is_seen(page: Any, address: str, tmp_path: Path) -> None:
    page.goto(f"{address}?edge=90&device=wasm")
    expect(page.locator("#status")).to_contain_text("The sample")
    page.evaluate("""() => {
        window.seen = [];
        const look = () => window.seen.push(
            [document.getElementById("status").textContent,
             parseFloat(document.getElementById("fill").style.width) || 0,
             document.getElementById("bar").hidden]);
        new MutationObserver(look).observe(document.getElementById("status"), {childList: true});
    }""")
    image = photo(105, 20)
    upscaled(page, image, tmp_path)
    seen = page.evaluate("window.seen")
    told = [text for text, _, _ in seen]
    assert any(text.startswith("Loading the network: ") for text in told)
    assert "Upscaling 105 × 20 with WebAssembly …" in told
    tiles = [line for line in seen if line[0].startswith("Upscaling: tile ")]
    assert tiles
    assert all(" to go" in text and 0 < width < 100 and not hidden for text, width, hidden in tiles)
    assert tiles == sorted(tiles, key=lambda line: line[1])
    expect(page.locator("#bar")).to_be_hidden()
    # The result can be compared with what it was made from.
    expect(page.get_by_role("slider")).to_be_visible()


def test_an_isolated_page_uses_threads(page: Any, built: Path, tmp_path: Path) -> None:
    image = photo(16, 12)
    with serving(built, Isolated) as address:
        page.goto(f"{address}?device=wasm")
        assert levels(upscaled(page, image, tmp_path), image) <= 2
    threads = page.evaluate("navigator.hardwareConcurrency")
    told = f"WebAssembly, {threads} threads" if threads > 1 else "WebAssembly"
    expect(page.locator("#status")).to_contain_text(told)


def test_windows_cover_every_pixel_with_its_halo(page: Any, address: str) -> None:
    page.goto(address)
    wrong = page.evaluate("""async () => {
        const { windows } = await import("./tiles.js");
        const wrong = [];
        for (const halo of [0, 1, 7, 40]) for (const more of [1, 2, 5, 24, 176])
        for (let length = 1; length < 600; length += 1) {
            const edge = 2 * halo + more;
            let done = 0;
            for (const { start, size, from, to } of windows(length, edge, halo)) {
                const low = start === 0 || from - start >= halo;
                const high = start + size === length || start + size - to >= halo;
                const fits = start >= 0 && start + size <= length && size <= edge;
                if (from !== done || to <= from || !low || !high || !fits) {
                    wrong.push([length, edge, halo]);
                }
                done = to;
            }
            if (done !== length) wrong.push([length, edge, halo]);
        }
        return wrong;
    }""")
    assert wrong == []


def test_transparency_is_kept(page: Any, address: str, tmp_path: Path) -> None:
    page.goto(address)
    image = photo(30, 20, "RGBA")
    image.putalpha(Image.new("L", image.size, 255))
    image.paste((0, 0, 0, 0), (0, 0, 10, 20))
    found = np.asarray(upscaled(page, image, tmp_path))
    assert found.shape == (80, 120, 4)
    assert (found[:, :30, 3] == 0).all()
    assert (found[:, 50:, 3] == 255).all()
    # The colours under what is transparent leave no dark rim.
    visible = np.asarray(image.convert("RGB"))[:, 10:].min(axis=(0, 1))
    assert (found[8:-8, 48:56, :3].min(axis=(0, 1)) >= visible.astype(int) - 40).all()


def test_a_large_image_gives_the_part_that_is_framed(
    page: Any, address: str, tmp_path: Path
) -> None:
    page.goto(address)
    page.set_input_files("#file", file(photo(60, 40).resize((3000, 2000))))
    expect(page.locator("#status")).to_contain_text("3000 × 2000 pixels are too many")
    frame = page.get_by_role("application")
    before = frame.bounding_box()
    page.mouse.move(before["x"] + 30, before["y"] + 30)
    page.mouse.down()
    page.mouse.move(0, 0)
    page.mouse.up()
    after, view = frame.bounding_box(), page.locator("#view").bounding_box()
    assert abs(after["x"] - view["x"]) <= 1, "it stays within the image"
    assert abs(after["y"] - view["y"]) <= 1
    page.click("#run")
    expect(page.locator("#status")).to_contain_text("Upscaling 512 × 512", timeout=LONG)
    page.click("#cancel")
    expect(page.locator("#status")).to_contain_text("The sample")


def test_a_file_that_is_chosen_before_the_page_is_ready_is_not_lost(
    page: Any, address: str, tmp_path: Path
) -> None:
    held: list[Any] = []
    # The first time it is the script that waits for it.
    page.route("**/model.json", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/model.json"):
        page.goto(address, wait_until="commit")
    page.set_input_files("#file", file(photo(12, 10)))
    held[0].continue_()
    expect(page.locator("#status")).to_contain_text("12 × 10 became", timeout=LONG)


def test_what_is_no_image_is_refused_in_a_sentence(page: Any, address: str) -> None:
    page.goto(address)
    bad = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"}
    page.set_input_files("#file", bad)
    expect(page.locator("#status")).to_have_text(
        "notes.txt is no image that this browser can read; try a JPEG, PNG or WebP."
    )


def test_nothing_is_sent_anywhere(page: Any, address: str, tmp_path: Path) -> None:
    hosts = set()
    page.on("request", lambda request: hosts.add((request.method, request.url.split("/")[2])))
    page.goto(address)
    upscaled(page, photo(12, 10), tmp_path)
    own = address.split("/")[2]
    assert {host for _, host in hosts} <= {own, ""}
    assert {method for method, _ in hosts} == {"GET"}
    refused = page.evaluate(
        "fetch('https://example.com', {method: 'POST', body: 'x'}).then(() => false, () => true)"
    )
    assert refused


def test_a_long_image_of_few_pixels_goes_whole(page: Any, address: str) -> None:
    page.goto(address)
    page.set_input_files("#file", file(photo(60, 40).resize((600, 400))))
    expect(page.locator("#status")).to_contain_text("Upscaling 600 × 400", timeout=LONG)
    page.click("#cancel")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(browser: Any, address: str, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.goto(address)
    expect(page.locator("#status")).to_contain_text("The sample")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for name in ("Choose a picture", "Run the sample", "1:1"):
        expect(page.get_by_text(name, exact=True)).to_be_visible()
    page.close()
