"""Builds the page that runs the network in the browser.

    python docs/demo/build.py OUT

writes a folder that any static web server can serve. It exports the bundled ``srgan`` to
ONNX (the extra ``srgan-infer[export]``), lets the library upscale the sample, and takes
ONNX Runtime Web from npm, which must be installed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import onnx

from srgan_infer import SuperResolver

HERE = Path(__file__).parent
PAGE = ("index.html", "style.css", "demo.js", "worker.js", "tiles.js", "icon.svg")
RUNTIME = "onnxruntime-web@1.30.0"
# The runtime for WebGPU and the one for WebAssembly alone, each with what it loads.
RUNTIME_FILES = (
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)


def build(out: Path, model: str = "srgan") -> None:
    """Write the page, the network, the sample and the runtime to a folder."""
    (out / "model").mkdir(parents=True, exist_ok=True)
    for name in PAGE:
        shutil.copy(HERE / name, out / name)
    sr = SuperResolver.from_pretrained(model, device="cpu", dtype="float32")
    file = out / "model" / f"{Path(model).name}-x{sr.scale}.onnx"
    sr.export(file)
    facts = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    facts |= {"file": file.name, "runtime": RUNTIME.partition("@")[2]}
    numbers = {key: int(facts[key]) for key in ("scale", "halo")}
    (out / "model" / "model.json").write_text(json.dumps({**facts, **numbers}), encoding="utf-8")
    shutil.copy(HERE.parent / "images" / "sample.png", out / "sample.png")
    sr.upscale_file(out / "sample.png", out / "sample_x4.png")
    runtime(out / "ort")


def runtime(folder: Path) -> None:
    """ONNX Runtime Web's files from npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is not installed; the page needs it for ONNX Runtime Web.")
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(
            [npm, "pack", "--silent", RUNTIME], cwd=temporary, check=True, stdout=subprocess.DEVNULL
        )
        (archive,) = Path(temporary).glob("*.tgz")
        with tarfile.open(archive) as package:
            for name in RUNTIME_FILES:
                content = package.extractfile(f"package/dist/{name}")
                assert content is not None
                (folder / name).write_bytes(content.read())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="srgan", help="a bundled name or a folder")
    options = parser.parse_args()
    build(options.out, options.model)
