"""Makes the images in this folder.

    python docs/images/make.py sample PATH/TO/coffee.png     # sample.png and original.png
    python docs/images/make.py comparisons                   # comparison.png, compressed.png
    python docs/images/make.py page http://127.0.0.1:7860    # page.png, of a page that is served

The photograph is scikit-image's ``coffee`` (see LICENSE.md); any copy of that
package has it as ``skimage/data/coffee.png``.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from srgan_infer import SuperResolver

HERE = Path(__file__).parent
SCALE = 4
# Left, top, right, bottom of the detail, in pixels of the sample.
DETAIL = (68, 14, 108, 84)
JPEG_QUALITY = 50


def make_sample(photograph: Path) -> None:
    """A quarter of the photograph's size, and the photograph cut to match."""
    with Image.open(photograph) as image:
        original = image.convert("RGB")
    width, height = (length // SCALE * SCALE for length in original.size)
    original = original.crop((0, 0, width, height))
    original.save(HERE / "original.jpg", quality=92)
    sample = original.resize((width // SCALE, height // SCALE), Image.Resampling.BICUBIC)
    sample.save(HERE / "sample.png", optimize=True)


def make_comparisons() -> None:
    """The detail four times as large: as it is, and from a strongly compressed sample."""
    with Image.open(HERE / "sample.png") as image:
        sample = image.convert("RGB")
    save_sheet("comparison.png", sample, ("srresnet", "srgan"))
    file = io.BytesIO()
    sample.save(file, "JPEG", quality=JPEG_QUALITY)
    with Image.open(file) as image:
        save_sheet("compressed.png", image.convert("RGB"), ("srgan", "srgan-photo"))


def make_page(address: str) -> None:
    """A screenshot of the page after the sample was upscaled, in Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1180, "height": 770})
        page.goto(address)
        page.set_input_files("#images input[type=file]", HERE / "sample.png")
        page.wait_for_selector("#forecast .forecast")
        page.click("#run")
        page.wait_for_selector("#viewer .after")
        page.wait_for_timeout(1000)  # until the images are drawn
        page.mouse.move(0, 0)
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=HERE / "page.png")
        browser.close()


def save_sheet(name: str, sample: Image.Image, models: Sequence[str]) -> None:
    """Side by side: bicubic, models, the original."""
    with Image.open(HERE / "original.jpg") as image:
        original = image.convert("RGB")
    images = [
        ("bicubic", sample.resize(original.size, Image.Resampling.BICUBIC)),
        *((model, SuperResolver.from_pretrained(model)(sample)) for model in models),
        ("original", original),
    ]
    left, top, right, bottom = (SCALE * edge for edge in DETAIL)
    width, height = right - left, bottom - top
    gap, label = 8, 28
    sheet = Image.new("RGB", (len(images) * (width + gap) - gap, height + label), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=18)
    for index, (title, decoded) in enumerate(images):
        column = index * (width + gap)
        sheet.paste(decoded.crop((left, top, right, bottom)), (column, label))
        draw.text((column, 2), title, fill="black", font=font)
    sheet.save(HERE / name, optimize=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["sample", photograph]:
            make_sample(Path(photograph))
        case ["comparisons"]:
            make_comparisons()
        case ["page", address]:
            make_page(address)
        case _:
            sys.exit(__doc__)
