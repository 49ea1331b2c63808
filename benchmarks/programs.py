"""Run the exported model in other programs, and write how far each is from this library.

    pip install '.[export]' torchvision spandrel opencv-python-headless ncnn pnnx playwright
    pip install google-re2 sanic            # what chaiNNer's code imports
    git clone --depth 1 https://github.com/chaiNNer-org/chaiNNer
    python -m benchmarks.programs --chainner chaiNNer

Writes docs/programs/differences.md. Needs npm, and a Chromium on the PATH, for ONNX Runtime
Web. The image is docs/images/original.jpg or a part of it, the model the bundled srgan.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.__main__ import machine, note
from srgan_infer import SuperResolver

ROOT = Path(__file__).parent.parent
HALO, SCALE = 40, 4

Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[[Array], Array]  # 1×3×H×W float32 RGB in [0, 1] → 1×3×4H×4W


class Row(NamedTuple):
    """One line of the table; values are parts of white, and of all 8-bit values."""

    program: str
    version: str
    image: str
    largest: float | None
    differ: float
    levels: int


def part(width: int, height: int) -> Array:
    """The middle of the image, 1×3×H×W in [0, 1]."""
    with Image.open(ROOT / "docs/images/original.jpg") as image:
        left, top = (image.width - width) // 2, (image.height - height) // 2
        pixels = np.asarray(image.convert("RGB").crop((left, top, left + width, top + height)))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)


@functools.cache
def expected(width: int, height: int) -> Array:
    """What the library makes of that part, in float32."""
    sr = SuperResolver.from_pretrained(device="cpu", dtype="float32")
    return sr(torch.from_numpy(part(width, height))).numpy()


def row(program: str, release: str, size: tuple[int, int], found: Array, inside: int = 0) -> Row:
    """Compare a result with the library's, at least so many low-resolution pixels inside."""
    cut = slice(inside * SCALE, -inside * SCALE or None)
    window = (..., cut, cut)
    found, wanted = found[window], expected(*size)[window]
    eight, eight_wanted = (np.rint(values * 255).astype(int) for values in (found, wanted))
    off = np.abs(eight - eight_wanted)
    name = "whole, 600×400" if size == (600, 400) else f"{size[0]}×{size[1]}"
    largest = float(np.abs(found - wanted).max())
    line = Row(program, release, name, largest, float((off > 0).mean()), int(off.max()))
    note(f"{program} {release}, {name}: {line.largest:.1e}, {line.differ:.4%} by {line.levels}")
    return line


def in_tiles(run: Run, x: Array, edge: int, pad: int) -> Array:
    """The result of tiles of edge×edge pixels with a pad around each, within the image."""
    _, _, height, width = x.shape
    out = np.empty((1, 3, SCALE * height, SCALE * width), np.float32)
    for top in range(0, height, edge):
        for left in range(0, width, edge):
            bottom, right = min(top + edge, height), min(left + edge, width)
            first, start = max(top - pad, 0), max(left - pad, 0)
            tile = run(np.ascontiguousarray(x[:, :, first : bottom + pad, start : right + pad]))
            rows = slice(SCALE * (top - first), SCALE * (bottom - first))
            columns = slice(SCALE * (left - start), SCALE * (right - start))
            area = (..., slice(SCALE * top, SCALE * bottom), slice(SCALE * left, SCALE * right))
            out[area] = tile[..., rows, columns]
    return out


def onnx_runtime(full: Path, half: Path) -> Iterator[Row]:
    """ONNX Runtime on the processor."""
    import onnxruntime

    def runner(path: Path) -> Run:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda x: session.run(["output"], {"input": x})[0]

    name, release, size = "[ONNX Runtime](onnxruntime.md), CPU", version("onnxruntime"), (600, 400)
    x, run = part(*size), runner(full)
    yield row(name, release, size, run(x))
    yield row("the same in tiles of 256 with the halo", "", size, in_tiles(run, x, 256, HALO))
    yield row("the same with `--half`", "", size, runner(half)(x))


def opencv(full: Path, half: Path) -> Iterator[Row]:
    """OpenCV's dnn on the processor."""
    import cv2

    def run(path: Path, x: Array) -> Array:
        net = cv2.dnn.readNetFromONNX(str(path))
        net.setInput(x, "input")
        return np.asarray(net.forward("output"))

    release, size = version("opencv-python-headless"), (150, 100)
    yield row("[OpenCV dnn](opencv.md), CPU", release, (600, 400), run(full, part(600, 400)))
    yield row("the same with `--half`", "", size, run(half, part(*size)))


def ncnn(full: Path) -> Iterator[Row]:
    """The files that pnnx makes, in ncnn on the processor."""
    import ncnn

    def runner(*options: str) -> Run:
        folder = Path(tempfile.mkdtemp(dir=full.parent))
        shutil.copy(full, folder)
        pnnx = Path(sys.executable).parent / "pnnx"
        subprocess.run(
            [pnnx, full.name, *options], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        net = ncnn.Net()
        # As a matrix product, a 9×9 convolution takes many gigabytes.
        net.opt.use_sgemm_convolution = False
        (param,), (weights,) = folder.glob("*.ncnn.param"), folder.glob("*.ncnn.bin")
        net.load_param(str(param))
        net.load_model(str(weights))

        def run(x: Array) -> Array:
            extractor = net.create_extractor()
            extractor.input("in0", ncnn.Mat(x[0]).clone())
            return np.array(extractor.extract("out0")[1])[None]

        return run

    release, size = version("ncnn"), (150, 100)
    run = runner("fp16=0")
    program = f"[ncnn](ncnn.md), from pnnx {version('pnnx')}, CPU"
    yield row(program, release, size, run(part(*size)))
    yield row("the same without `fp16=0`", "", size, runner()(part(*size)))
    size = (240, 160)
    for pad in (10, HALO):
        tiled = in_tiles(run, part(*size), 100, pad)
        yield row(f"the same in tiles of 100 with a pad of {pad}", "", size, tiled)


def spandrel(folder: Path) -> Iterator[Row]:
    """The single file in spandrel."""
    import spandrel as loader

    import srgan_infer.spandrel

    srgan_infer.spandrel.install()
    SuperResolver.from_pretrained(device="cpu").export(folder / "srgan-x4.safetensors")
    model = loader.ModelLoader("cpu").load_from_file(folder / "srgan-x4.safetensors")
    size = (150, 100)
    with torch.inference_mode():
        found = model(torch.from_numpy(part(*size))).numpy()
    release = f"{version('spandrel')}, PyTorch {torch.__version__.partition('+')[0]}"
    yield row("[spandrel](comfyui.md), CPU", release, size, found)


def chainner(checkout: Path, full: Path) -> Iterator[Row]:
    """chaiNNer's own code for ONNX, without its window."""
    git = ["git", "-C", str(checkout), "log", "-1", "--format=%cs"]
    release = subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    sys.path.insert(0, str(checkout / "backend" / "src"))
    from nodes.impl.onnx.auto_split import onnx_auto_split
    from nodes.impl.onnx.load import load_onnx_model
    from nodes.impl.onnx.session import create_inference_session
    from nodes.impl.upscale.tiler import MaxTileSize

    model = load_onnx_model(full.read_bytes())
    if model.info.scale_width != SCALE:
        raise RuntimeError(f"chaiNNer finds ×{model.info.scale_width}.")
    session = create_inference_session(model, 0, "CPUExecutionProvider")
    size = (320, 200)
    blue_first = np.ascontiguousarray(part(*size)[0].transpose(1, 2, 0)[..., ::-1])
    for edge in (512, 128):
        found = onnx_auto_split(
            blue_first, session, False, MaxTileSize(edge), size_req=model.info.size_req
        )
        found = found[..., ::-1].transpose(2, 0, 1)[None]
        name = f"[chaiNNer](chainner.md)'s code for ONNX in tiles of {edge}, CPU"
        yield row(f"{name}, but for {HALO} pixels at the border", release, size, found, HALO)
    yield row("the same with the border", "", size, found)


def in_browser(folder: Path) -> Iterator[Row]:
    """The page of docs/demo in Chromium, with WebAssembly and with WebGPU in software."""
    from playwright.sync_api import sync_playwright

    site = folder / "site"
    subprocess.run([sys.executable, ROOT / "docs/demo/build.py", site], check=True)
    release = re.search(r'"runtime": "([\d.]+)"', (site / "model/model.json").read_text())
    assert release is not None
    size = (60, 50)
    pixels = np.rint(part(*size)[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "in.png")
    webgpu = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    with serving(site) as address, sync_playwright() as driver:
        for device, flags in (("wasm", []), ("webgpu", webgpu)):
            browser = driver.chromium.launch(
                executable_path=executable, args=["--no-sandbox", *flags]
            )
            page = browser.new_page()
            page.goto(f"{address}?device={device}")
            page.set_input_files("#file", folder / "in.png")
            page.get_by_text(" became 240 × 200").wait_for(timeout=300_000)
            told = page.locator("#status").inner_text().rstrip(".").partition(" s, ")[2]
            with page.expect_download() as download:
                page.click("#download")
            download.value.save_as(folder / "out.png")
            chromium = browser.version.partition(".")[0]
            browser.close()
            with Image.open(folder / "out.png") as image:
                found = np.asarray(image.convert("RGB")).transpose(2, 0, 1)[None] / 255
            name = f"[onnxruntime-web](onnxruntime-web.md), {told} in Chromium {chromium}"
            if device == "webgpu":
                if told != "WebGPU":
                    raise RuntimeError("Chromium has no WebGPU here.")
                name += " (in software)"
            # It gives a PNG of 8 bits, whose values cannot say more.
            yield row(name, release[1], size, found)._replace(largest=None)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A web server on loopback; its pages are isolated, so that they may use threads."""

    class Isolated(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Isolated, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()


def table(rows: list[Row], sha256: str) -> str:
    """The page of the documentation."""
    lines = []
    for line in rows:
        largest = "–" if line.largest is None else f"{line.largest:.1e}".replace("e-0", "e-")
        levels = f"{line.differ:.3%}, by {line.levels} at most" if line.levels else "none"
        cells = (line.program, line.version, line.image, largest, levels)
        lines.append("| " + " | ".join(cells) + " |\n")
    facts = machine()
    return f"""# Differences measured

Written by `python -m benchmarks.programs`: what other programs make of the file that
`srgan-upscale --export` writes, beside what this library makes of the same pixels in float32 on
the processor. The image is `docs/images/original.jpg`, or its middle of the size that is named.

- Model: the bundled `srgan`, SHA-256 `{sha256}`.
- {date.today().isoformat()}, {facts["processor"]}, PyTorch {version("torch").partition("+")[0]}.

| program | version | image | largest difference, 1 is white | 8-bit values that differ |
| --- | --- | --- | --- | --- |
{"".join(lines)}"""


def main() -> None:
    """Run all programs and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chainner", type=Path, required=True, help="a checkout of chaiNNer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        full, half = folder / "srgan-x4.onnx", folder / "srgan-x4-half.onnx"
        sr = SuperResolver.from_pretrained(device="cpu", dtype="float32")
        sr.export(full)
        sr.export(half, half=True)
        rows = [
            *onnx_runtime(full, half),
            *opencv(full, half),
            *ncnn(full),
            *spandrel(folder),
            *chainner(options.chainner.resolve(), full),
            *in_browser(folder),
        ]
    page = ROOT / "docs/programs/differences.md"
    page.write_text(table(rows, str(sr.sha256)), encoding="utf-8")
    note(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
