"""The page as people use it, in Chromium: only what is visible is asserted."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import MAKER_NOTE, display_p3, save_as_phone
from PIL import ExifTags, Image
from web_server import Held, running

from srgan_infer import SuperResolver
from srgan_infer.web import app, view

pytest.importorskip("gradio", reason="the extra [web] is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

expect: Any = playwright.expect
expect.set_options(timeout=20_000)
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def address(bundled_for_all: Path) -> Iterator[str]:
    with running(app(max_pixels=2_000_000, max_upload=1_000_000, queue=1)) as place:
        yield place


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with images of several kinds, and what is none."""
    random = np.random.default_rng(0)

    def noise(width: int, height: int, channels: int) -> Image.Image:
        small = random.integers(0, 255, (height // 4, width // 4, channels), np.uint8)
        return Image.fromarray(small).resize((width, height))

    noise(60, 40, 3).save(tmp_path / "photo.png", dpi=(300, 300))
    noise(48, 64, 3).save(tmp_path / "other.png")
    noise(60, 40, 3).save(tmp_path / "compressed.jpg", quality=20)
    noise(60, 40, 4).save(tmp_path / "transparent.png")
    frames = [noise(40, 40, 3) for _ in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=80)
    Image.new("1", (20000, 10000)).save(tmp_path / "huge.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "heavy.png").write_bytes(bytes(1_200_000))
    (tmp_path / "broken.png").write_bytes((tmp_path / "photo.png").read_bytes()[:-200])
    return tmp_path


class Visit:
    """A visitor with a tab of their own."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.tab = self.context.new_page()
        self.asked: list[str] = []
        self.problems: list[str] = []
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("pageerror", lambda error: self.problems.append(str(error)))
        self.tab.goto(address)
        expect(self.tab.get_by_role("button", name="Upscale")).to_be_visible()

    def choose(self, *files: Path) -> None:
        self.tab.set_input_files("#images input[type=file]", [str(file) for file in files])

    def upscale(self) -> None:
        self.tab.get_by_role("button", name="Upscale").click()

    def sizes(self, place: str = "#viewer") -> list[list[int]]:
        """Natural sizes of the images before and after, once both are there."""
        expect(self.tab.locator(f"{place} .after")).to_be_visible()
        script = """selector => Promise.all([...document.querySelectorAll(selector)].map(
            image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])))"""
        sizes: list[list[int]] = self.tab.evaluate(script, f"{place} .stage img")
        return sizes

    def download(self) -> bytes:
        with self.tab.expect_download() as waiting:
            self.tab.locator("#download").click()
        return Path(waiting.value.path()).read_bytes()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Any]:
    visits: list[Visit] = []

    def begin(**context: Any) -> Visit:
        visits.append(Visit(browser, address, **context))
        return visits[-1]

    yield begin
    for one in visits:
        assert not one.problems
        assert not [url for url in one.asked if not url.startswith((address, "data:", "blob:"))]
        expect(one.tab.get_by_test_id("toast-body")).to_have_count(0)
        one.context.close()


def written(source: Path, **options: Any) -> bytes:
    """What the library writes."""
    result = io.BytesIO()
    SuperResolver.from_pretrained().upscale_file(source, result, **options)
    return result.getvalue()


def test_from_the_image_to_the_download(visit: Any, images: Path) -> None:
    one = visit()
    one.choose(images / "photo.png")
    estimate = one.tab.locator("#forecast")
    expect(estimate).to_contain_text("60×40 → 240×160 PNG")
    expect(estimate).to_contain_text("less than a second")
    expect(estimate).to_contain_text("MB of memory")
    one.upscale()
    assert one.sizes() == [[240, 160], [240, 160]]
    expect(one.tab.locator("#status")).to_contain_text("Done: photo_upscaled.png")
    names = one.tab.locator("button").evaluate_all(
        "all => all.map(button => button.ariaLabel || button.innerText.trim() || button.title)"
    )
    assert all(names), "each button has a name that is read out"
    assert not [name for name in names if "common." in name]
    assert one.download() == written(images / "photo.png")


def test_the_estimate_follows_what_is_chosen(visit: Any, images: Path) -> None:
    one = visit()
    one.choose(images / "photo.png")
    estimate = one.tab.locator("#forecast")
    expect(estimate).to_contain_text("240×160 PNG")
    one.tab.get_by_text("Output").click()
    one.tab.get_by_label("Fit into width").fill("90")
    expect(estimate).to_contain_text("60×40 → 90×60 PNG")
    one.tab.get_by_label("Format").click()
    one.tab.get_by_role("option", name="WEBP").click()
    expect(estimate).to_contain_text("90×60 WEBP")
    one.upscale()
    assert one.sizes() == [[90, 60], [90, 60]]
    assert one.download() == written(images / "photo.png", format="webp", size=(90, None))


def test_progress_is_seen_and_cancel_ends_it(visit: Any, images: Path, held: Held) -> None:
    one = visit()
    one.choose(images / "photo.png")
    one.upscale()
    expect(one.tab.locator("#status")).to_contain_text("photo.png")
    expect(one.tab.locator("#status")).to_contain_text("25")
    expect(one.tab.get_by_role("button", name="Upscale")).to_be_disabled()
    assert held.at_once == 1
    one.tab.get_by_role("button", name="Cancel").click()
    expect(one.tab.locator("#status")).to_contain_text("Cancelled.")
    assert held.at_once == 0
    expect(one.tab.get_by_role("button", name="Upscale")).to_be_enabled()
    expect(one.tab.locator("#download")).to_be_hidden()
    held.go.set()
    one.upscale()
    assert one.sizes() == [[240, 160], [240, 160]]


def test_who_closes_the_page_stops_the_network(visit: Any, images: Path, held: Held) -> None:
    one = visit()
    one.choose(images / "photo.png")
    one.upscale()
    assert held.started.wait(20)
    one.tab.goto("about:blank")
    one.asked.clear()
    other = visit()
    other.choose(images / "other.png")
    held.started.clear()
    other.upscale()
    assert held.started.wait(20), "the device is free again"
    assert held.most_at_once == 1


def test_a_batch_with_a_broken_file(visit: Any, images: Path) -> None:
    one = visit()
    names = ["photo.png", "broken.png", "notes.txt", "other.png"]
    one.choose(*[images / name for name in names])
    expect(one.tab.locator("#forecast")).to_contain_text("notes.txt is")
    one.upscale()
    status = one.tab.locator("#status")
    expect(status).to_contain_text("2 of 4 done")
    expect(status).to_contain_text("broken.png cannot be used")
    expect(status).to_contain_text("notes.txt is")
    with zipfile.ZipFile(io.BytesIO(one.download())) as file:
        assert file.read("photo_upscaled.png") == written(images / "photo.png")
        assert file.read("other_upscaled.png") == written(images / "other.png")
        failed = file.read("not-upscaled.txt").decode().splitlines()
        assert [line.split(":")[0] for line in failed] == ["broken.png", "notes.txt"]
    assert one.sizes() == [[240, 160], [240, 160]]
    one.tab.get_by_label("Look at").click()
    one.tab.get_by_role("option", name="other.png").click()
    expect(one.tab.locator("#viewer figcaption")).to_have_text("192×256")
    assert one.sizes() == [[192, 256], [192, 256]]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("huge.png", "20000×10000 pixels"),
        ("notes.txt", "is"),
        ("heavy.png", "at most 1 MB are taken"),
    ],
)
def test_what_is_not_taken_is_told_in_the_page(
    visit: Any, images: Path, name: str, words: str
) -> None:
    one = visit()
    one.choose(images / name)
    told = one.tab.locator("#images ~ * .note.problem, #forecast .note.problem, #sizes .note")
    expect(told.first).to_contain_text(name)
    expect(told.first).to_contain_text(words)
    assert str(images) not in told.first.inner_text()


def test_no_image_is_told_too(visit: Any) -> None:
    one = visit()
    one.upscale()
    expect(one.tab.get_by_role("alert")).to_have_text("Choose at least one image first.")


def test_a_full_queue_is_told(visit: Any, images: Path, held: Held) -> None:
    visits = [visit() for _ in range(3)]
    for one in visits[:2]:
        one.choose(images / "photo.png")
        one.upscale()
        expect(one.tab.locator("#status")).to_contain_text(
            "photo.png" if one is visits[0] else "wa"
        )
    visits[2].choose(images / "other.png")
    visits[2].upscale()
    expect(visits[2].tab.get_by_role("alert")).to_contain_text("The queue is full: 1 are waiting")
    held.go.set()
    for one in visits[:2]:
        expect(one.tab.locator("#status")).to_contain_text("Done")


def test_two_visitors_get_their_own(visit: Any, images: Path, held: Held) -> None:
    one, other = visit(), visit()
    for visitor, name in ((one, "photo.png"), (other, "other.png")):
        visitor.choose(images / name)
        visitor.upscale()
    held.go.set()
    assert one.sizes() == [[240, 160], [240, 160]]
    assert other.sizes() == [[192, 256], [192, 256]]
    assert one.download() == written(images / "photo.png")
    assert other.download() == written(images / "other.png")


def test_a_compressed_photograph_gets_advice(visit: Any, images: Path) -> None:
    one = visit()
    one.choose(images / "compressed.jpg")
    advice = one.tab.locator("#forecast .advice")
    expect(advice).to_contain_text("srgan-photo will look better")
    one.tab.get_by_label("srgan-photo").check()
    expect(advice).to_have_count(0)
    expect(one.tab.locator("#strength")).to_be_hidden()


@pytest.mark.parametrize(
    ("name", "caption"),
    [("transparent.png", "240×160, transparent"), ("moving.gif", "160×160, animated, transparent")],
)
def test_what_is_special_is_shown_as_such(
    visit: Any, images: Path, name: str, caption: str
) -> None:
    one = visit()
    one.choose(images / name)
    one.upscale()
    expect(one.tab.locator("#viewer figcaption")).to_have_text(caption)
    assert len({tuple(size) for size in one.sizes()}) == 1
    assert "conic-gradient" in one.tab.locator(".stage").evaluate(
        "stage => getComputedStyle(stage).backgroundImage"
    )


def test_a_large_result_is_looked_at_in_parts(
    visit: Any, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "WHOLE_PIXELS", 100 * 100)
    monkeypatch.setattr(view, "DETAIL_EDGE", 80)
    one = visit()
    one.choose(images / "photo.png")
    one.upscale()
    assert one.sizes("#detail") == [[80, 80], [80, 80]]
    expect(one.tab.locator("#overview")).to_contain_text("240×160, a reduced view")
    first = one.tab.locator("#detail .after").get_attribute("src")
    one.tab.locator("#overview img").click(position={"x": 3, "y": 3})
    expect(one.tab.locator("#detail .after")).not_to_have_attribute("src", first)
    second = one.tab.locator("#detail .after").get_attribute("src")
    one.tab.get_by_label("Detail: left to right").last.focus()
    one.tab.keyboard.press("End")
    expect(one.tab.locator("#detail .after")).not_to_have_attribute("src", second)
    assert one.sizes("#detail") == [[80, 80], [80, 80]]
    assert one.download() == written(images / "photo.png")


def test_a_photograph_of_a_phone(visit: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (76, 101, 3), np.uint8)
    path = tmp_path / "phone.jpg"
    save_as_phone(Image.fromarray(pixels).resize((1008, 756)), path)
    one = visit()
    one.choose(path)
    expect(one.tab.locator("#forecast")).to_contain_text("756×1008 → 3024×4032 JPEG")
    one.upscale()
    expect(one.tab.locator("#status")).to_contain_text("Done", timeout=120_000)
    # Above twelve megapixels it is looked at in part, upright.
    assert one.sizes("#detail") == [[1024, 1024], [1024, 1024]]
    expect(one.tab.locator("#overview")).to_contain_text("3024×4032, a reduced view")
    overview = one.tab.locator("#overview img").evaluate("i => [i.naturalWidth, i.naturalHeight]")
    assert overview == [756, 1008], "small enough to be shown as it is"
    found = one.download()
    assert found == written(path)
    with Image.open(io.BytesIO(found)) as big, Image.open(path) as small:
        assert big.info["icc_profile"] == small.info["icc_profile"] == display_p3()
        kept, before = big.getexif(), small.getexif()
        assert kept[0x0112] == 1, "it stands upright now"
        assert kept.get_ifd(ExifTags.IFD.GPSInfo) == before.get_ifd(ExifTags.IFD.GPSInfo)
        assert kept.get_ifd(ExifTags.IFD.Exif)[0x927C] == MAKER_NOTE
        assert before.get_ifd(ExifTags.IFD.IFD1)
        assert not kept.get_ifd(ExifTags.IFD.IFD1), "a thumbnail of the small one"


def looked_at(one: Visit) -> dict[str, float]:
    """What part of the result is on the screen, and where the divider is."""
    values: dict[str, float] = one.tab.locator("#viewer").evaluate(
        """viewer => {
            const stage = viewer.querySelector('.stage').getBoundingClientRect();
            const image = viewer.querySelector('.after').getBoundingClientRect();
            const line = viewer.querySelector('.line').getBoundingClientRect();
            return {
                zoom: image.width / stage.width,
                left: (stage.left - image.left) / image.width,
                top: (stage.top - image.top) / image.height,
                divider: (line.left + line.width / 2 - stage.left) / stage.width,
            };
        }"""
    )
    return values


def test_the_keyboard_moves_all_and_the_zoom_stays(visit: Any, images: Path) -> None:
    one = visit()
    one.choose(images / "photo.png", images / "transparent.png")
    one.upscale()
    one.sizes()
    stage = one.tab.get_by_role("group", name="Before and after")
    stage.focus()
    for key in ("+", "+", "ArrowRight", "ArrowDown"):
        one.tab.keyboard.press(key)
    placed = looked_at(one)
    assert placed["zoom"] == pytest.approx(2.25, rel=0.01)
    assert placed["left"] > 0.3
    assert placed["divider"] == pytest.approx(0.5, abs=0.01)
    divider = one.tab.get_by_role("slider", name="Divider")
    divider.focus()
    for _ in range(20):
        one.tab.keyboard.press("ArrowLeft")
    expected = pytest.approx({**placed, "divider": 0.3}, abs=0.01)
    assert looked_at(one) == expected
    one.tab.get_by_label("Look at").click()
    one.tab.get_by_role("option", name="transparent.png").click()
    expect(one.tab.locator("#viewer figcaption")).to_have_text("240×160, transparent")
    one.sizes()
    assert looked_at(one) == expected
    expect(one.tab.get_by_role("slider", name="Divider")).to_have_value("30")
    one.tab.get_by_role("button", name="Fit").click()
    assert looked_at(one)["zoom"] == pytest.approx(1, abs=0.01)


def test_the_mouse_moves_the_divider_and_zooms(visit: Any, images: Path) -> None:
    one = visit()
    one.choose(images / "photo.png")
    one.upscale()
    one.sizes()
    box = one.tab.locator(".stage").bounding_box()
    y = box["y"] + box["height"] / 2
    one.tab.mouse.move(box["x"] + box["width"] / 2, y)
    one.tab.mouse.down()
    one.tab.mouse.move(box["x"] + box["width"] * 0.8, y, steps=4)
    one.tab.mouse.up()
    assert looked_at(one)["divider"] == pytest.approx(0.8, abs=0.08)
    point = (box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25)
    one.tab.mouse.dblclick(*point)
    zoomed = looked_at(one)
    assert zoomed["zoom"] >= 2
    # What was under the pointer still is.
    assert zoomed["left"] + 0.25 / zoomed["zoom"] == pytest.approx(0.25, abs=0.02)
    one.tab.mouse.move(*point)
    one.tab.mouse.down()
    one.tab.mouse.move(point[0] - 30, point[1], steps=3)
    one.tab.mouse.up()
    assert looked_at(one)["left"] > zoomed["left"]


def test_a_phone(visit: Any, images: Path) -> None:
    one = visit(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=3)
    one.choose(images / "photo.png")
    one.upscale()
    assert one.sizes() == [[240, 160], [240, 160]]
    for name in ("Upscale", "Zoom in", "Full screen"):
        box = one.tab.get_by_role("button", name=name).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
        assert box["height"] >= 36
    assert one.tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(visit: Any, images: Path, scheme: str) -> None:
    one = visit(color_scheme=scheme)
    one.choose(images / "compressed.jpg")
    one.upscale()
    one.sizes()
    script = """selector => {
        const shades = color => (color.match(/[\\d.]+/g) ?? []).map(Number);
        const light = ([r, g, b]) => [r, g, b].map(value => value / 255).map(value =>
            value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
            .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
        const element = document.querySelector(selector);
        let behind = element, ground;
        do {
            ground = shades(getComputedStyle(behind).backgroundColor);
            behind = behind.parentElement;
        } while (behind && ground[3] === 0);
        const pair = [light(shades(getComputedStyle(element).color)), light(ground)].sort();
        return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    }"""
    for place in ("#title p", "#run", "#forecast b", ".advice p", "#status p", "figcaption"):
        assert one.tab.evaluate(script, place) >= 4.5, place
