"""Imports run one way, and torch waits until it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "srgan_infer"

# From what users touch down to what knows nothing of the rest: a module imports
# only from lines below its own.
LAYERS = (
    {"cli"},
    {"doctor", "reports"},
    {"jobs"},
    {"resolver"},
    {"arrays"},
    {"weights", "images", "engine"},
    {"writer", "deep", "headers"},
    {"png", "tiff", "bands"},
    {"alpha", "generator", "jpeg", "metadata", "spool", "threads", "tiles"},
    {"errors", "rows", "version"},
)


def imported(module: Path) -> set[str]:
    """Modules of the package that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            path = "srgan_infer." * bool(node.level) + (node.module or "")
            parts = path.rstrip(".").split(".")
            if parts[0] == "srgan_infer":
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "srgan_infer" and len(parts) > 1:
                    found.add(parts[1])
    return found & {path.stem for path in PACKAGE.glob("*.py")}


@pytest.mark.parametrize(
    "module", sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
)
def test_imports_run_one_way(module: str) -> None:
    layer = {name: depth for depth, names in enumerate(LAYERS) for name in names}
    assert module in layer, f"{module} has no place in LAYERS"
    for other in imported(PACKAGE / f"{module}.py"):
        assert layer[other] > layer[module], f"{module} imports {other}"


def test_the_library_does_not_import_the_training() -> None:
    for path in PACKAGE.glob("*.py"):
        assert "srgan_training" not in path.read_text(encoding="utf-8")


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"torch", "numpy", "PIL", "huggingface_hub", "safetensors", "tqdm"}


@pytest.mark.parametrize(
    "code",
    [
        "import srgan_infer",
        "from srgan_infer import PictureError, UpscaleError, __version__",
        "import srgan_infer.cli\ntry: srgan_infer.cli.main(['--help'])\nexcept SystemExit: pass",
        "import srgan_infer.cli\ntry: srgan_infer.cli.main(['--version'])\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    assert not modules_after(code) & HEAVY


def test_bundled_models_do_without_the_hub_library(tmp_path: Path) -> None:
    code = f"""
from srgan_infer import weights, SuperResolver
from srgan_infer.generator import Generator, GeneratorConfig
config = GeneratorConfig(channels=8, blocks=1)
weights.save({str(tmp_path)!r}, config, Generator(config).state_dict(), "")
SuperResolver.from_pretrained({str(tmp_path)!r})
"""
    assert "huggingface_hub" not in modules_after(code)


def test_everything_public_can_be_imported() -> None:
    import srgan_infer

    for name in srgan_infer.__all__:
        assert hasattr(srgan_infer, name)
    assert set(srgan_infer.__all__) <= set(dir(srgan_infer))
    with pytest.raises(AttributeError, match="no attribute 'Upscaler'"):
        _ = srgan_infer.Upscaler
