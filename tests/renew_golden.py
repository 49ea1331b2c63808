"""Records what the bundled models make of the golden image; run it when weights change.

python tests/renew_golden.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, PngImagePlugin

from srgan_infer import SuperResolver, weights
from srgan_infer.cli.doctor import GOLDEN_FOLDER, GOLDEN_INPUT, WEIGHTS_KEY

SAMPLE = Path(__file__).parents[1] / "docs" / "images" / "sample.png"
# The rim of the cup, where errors show.
DETAIL = (80, 16, 112, 40)


def main() -> None:
    GOLDEN_FOLDER.mkdir(exist_ok=True)
    with Image.open(SAMPLE) as sample:
        image = sample.convert("RGB").crop(DETAIL)
    image.save(GOLDEN_INPUT, optimize=True)
    for name in weights.bundled():
        sr = SuperResolver.from_pretrained(name, device="cpu", dtype="float32")
        text = PngImagePlugin.PngInfo()
        text.add_text(WEIGHTS_KEY, sr.sha256)
        sr(image).save(GOLDEN_FOLDER / f"{name}.png", optimize=True, pnginfo=text)


if __name__ == "__main__":
    main()
