"""The documentation site: ``sphinx-build -W docs docs/_build``."""

from __future__ import annotations

import io
import runpy
import sys
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from srgan_infer import SuperResolver, __version__  # noqa: E402

project = "srgan-infer"
author = "the authors of srgan-infer"
release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "_gallery"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]

html_theme = "furo"
html_title = f"srgan-infer {release}"
html_static_path: list[str] = []

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_ivar = True

# Notebooks are run anew; the site is not built if one fails.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

GALLERY = HERE / "_gallery"
MODELS = ("srgan", "srresnet", "srgan-photo")
STRENGTHS = (0.0, 0.5, 1.0)
QUALITY = 50
SCALE = 4


def make_gallery(app: Any) -> None:
    """What the bundled models make of the sample, as it is and compressed."""
    GALLERY.mkdir(exist_ok=True)
    with Image.open(HERE / "images" / "sample.png") as file:
        sample = file.convert("RGB")
    compressed = io.BytesIO()
    sample.save(compressed, "JPEG", quality=QUALITY)
    for kind, image in (("clean", sample), ("compressed", Image.open(compressed))):
        size = (SCALE * image.width, SCALE * image.height)
        image.resize(size, Image.Resampling.BICUBIC).save(GALLERY / f"{kind}-bicubic.png")
        for model in MODELS:
            SuperResolver.from_pretrained(model)(image).save(GALLERY / f"{kind}-{model}.png")
    for strength in STRENGTHS:
        big = SuperResolver.from_pretrained(strength=strength)(sample)
        big.crop((270, 50, 430, 210)).save(GALLERY / f"strength-{strength:g}.png")


def make_demo(app: Any, error: Exception | None) -> None:
    """The page that runs the network in the browser; it takes npm, so it is asked for."""
    if error is None and "demo" in app.tags:
        path = HERE / "demo" / "build.py"
        runpy.run_path(str(path))["build"](Path(app.outdir) / "demo")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", make_gallery)
    app.connect("build-finished", make_demo)
