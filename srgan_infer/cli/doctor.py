"""``srgan-upscale --doctor``: is this installation sound, and what can it use?"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from srgan_infer import weights
from srgan_infer.cli.reports import SCHEMA
from srgan_infer.engine.devices import devices, free_memory
from srgan_infer.errors import UpscaleError, printable
from srgan_infer.images.formats import FORMATS
from srgan_infer.resolver import SuperResolver
from srgan_infer.version import __version__

GOLDEN_FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN_INPUT = GOLDEN_FOLDER / "input.png"
# The golden image's text that names the weights that made it.
WEIGHTS_KEY = "weights-sha256"
# Largest difference in 8-bit levels: rounding in float32, noise in half precision.
TOLERANCE = {torch.float32: 1, torch.float16: 8, torch.bfloat16: 3}
PACKAGES = ("torch", "numpy", "pillow", "huggingface_hub", "safetensors")


@dataclass(frozen=True)
class SelfTest:
    """A model's answer to the golden image on one device.

    Attributes
    ----------
    model, device, dtype
        What ran.
    passed
        Whether the result is the recorded one.
    difference
        Largest difference from it, in 8-bit levels; ``None`` if nothing was compared.
    seconds
        For the golden image, the first run on the device included.
    problem
        What is wrong, or ``None``.
    """

    model: str
    device: str
    dtype: str
    passed: bool
    difference: int | None = None
    seconds: float = 0.0
    problem: str | None = None


def self_test(model: str, device: str) -> SelfTest:
    """Upscale the golden image and compare with what was recorded for these weights."""
    dtype = ""
    try:
        sr = SuperResolver.from_pretrained(model, device=device)
        dtype = str(sr.dtype).removeprefix("torch.")
        with Image.open(GOLDEN_FOLDER / f"{model}.png") as golden:
            made_by = golden.info.get(WEIGHTS_KEY)
            expected = np.asarray(golden.convert("RGB"))
        if made_by != sr.sha256:
            other = "the golden image was made by other weights; install the package again"
            return SelfTest(model, device, dtype, False, problem=other)
        start = time.perf_counter()
        with Image.open(GOLDEN_INPUT) as image:
            result = np.asarray(sr(image.convert("RGB")))
        seconds = time.perf_counter() - start
    except (UpscaleError, OSError, RuntimeError, ValueError) as error:
        return SelfTest(model, device, dtype, False, problem=" ".join(str(error).split()))
    difference = int(np.abs(result.astype(int) - expected).max())
    passed = difference <= TOLERANCE[sr.dtype]
    problem = None if passed else f"{difference} levels off; try --dtype float32 or --device cpu"
    return SelfTest(model, device, dtype, passed, difference, round(seconds, 3), problem)


def bundled_models() -> dict[str, str]:
    """Version and SHA-256 of each bundled model's weights, or what is wrong with them."""
    found = {}
    for name in weights.bundled():
        try:
            model = weights.load(name)
            found[name] = f"version {model.version or 'unnamed'}, SHA-256 {model.sha256}"
        except UpscaleError as error:
            found[name] = f"FAILED: {error}"
    return found


def examine(device: str = "auto", as_json: bool = False) -> int:
    """Print what was found; 0 if all is well, else 1.

    Parameters
    ----------
    device
        Devices to test, separated by commas; all there are if ``"auto"``.
    as_json
        One JSON object instead of lines.
    """
    there = devices()
    chosen = list(there) if device == "auto" else device.split(",")
    models = bundled_models()
    tests = [self_test(model, name) for name in chosen for model in models]
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "srgan-infer": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": versions,
        "devices": {
            name: f"{what}, {free_memory(torch.device(name)) / 2**30:.1f} GiB free"
            for name, what in there.items()
        },
        "writes": [kind.name for kind in FORMATS if kind.writable],
        "models": models,
        "self-tests": [asdict(test) for test in tests],
    }
    sound = bool(tests) and all(test.passed for test in tests)
    lines = [json.dumps({**facts, "sound": sound})] if as_json else _lines(facts, tests, sound)
    print("\n".join(map(printable, lines)))  # noqa: T201
    return 0 if sound else 1


def _lines(facts: dict[str, Any], tests: list[SelfTest], sound: bool) -> list[str]:
    lines = [f"srgan-infer  {facts['srgan-infer']}", f"python       {facts['python']}"]
    lines += [f"{name:12} {version}" for name, version in facts["packages"].items()]
    lines += [f"device       {name}: {what}" for name, what in facts["devices"].items()]
    lines += [f"writes       {', '.join(facts['writes'])}"]
    lines += [f"weights      {name}: {found}" for name, found in facts["models"].items()]
    for test in tests:
        what = f"self-test    {test.model} on {test.device}"
        if test.passed:
            lines.append(f"{what} ({test.dtype}): ok, {test.difference} levels off")
        else:
            lines.append(f"{what}: FAILED: {test.problem}")
    if not tests:
        lines.append("weights      FAILED: no model is bundled; install the package again")
    lines.append("All is well." if sound else "Something is wrong: see FAILED above.")
    return lines
