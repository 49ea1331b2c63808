"""Imports run one way, and torch waits until it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "srgan_infer"

# Packages that only an extra brings; a module may import them inside a function.
EXTRAS = {"av", "fsspec", "gradio", "onnx", "onnxruntime", "onnxscript", "ray", "spandrel"}


def name_of(path: Path) -> str:
    """``srgan_infer.images.read`` for its file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(tree: ast.AST) -> set[str]:
    """Names of the modules that a piece of code imports, inside functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            inner = {f"{module}.{alias.name}" for alias in node.names}
            found |= inner & set(MODULES) or {module}
    return found


def needs(name: str) -> set[str]:
    return imported(ast.parse(MODULES[name].read_text(encoding="utf-8")))


def all_needs(name: str) -> set[str]:
    """What a module imports, and what that imports, and so on."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for other in needs(waiting.pop()) - found:
            found.add(other)
            waiting += [other] if other in MODULES else []
    return found


@pytest.mark.parametrize("name", [name for name in MODULES if ".images" in name])
def test_images_knows_no_torch(name: str) -> None:
    assert not {other for other in all_needs(name) if other.split(".")[0] == "torch"}


@pytest.mark.parametrize("name", [name for name in MODULES if ".network" in name])
def test_network_knows_no_images(name: str) -> None:
    strangers = ("srgan_infer.images", "srgan_infer.engine", "PIL")
    assert not {other for other in all_needs(name) if other.startswith(strangers)}


@pytest.mark.parametrize("name", [name for name in MODULES if ".cli" not in name])
def test_nobody_imports_the_command(name: str) -> None:
    if name != "srgan_infer.__main__":
        assert not {other for other in needs(name) if other.startswith("srgan_infer.cli")}


def test_one_module_names_the_kinds_of_devices() -> None:
    named = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("cuda", "mps")
    }
    assert named == {"srgan_infer.engine.devices"}


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_in_no_circle(name: str) -> None:
    within = {other for other in needs(name) if other in MODULES}
    for other in within - {"srgan_infer"}:
        # A package names its modules, and they may name it.
        if not (other.startswith(f"{name}.") or name.startswith(f"{other}.")):
            assert name not in all_needs(other), f"{other} comes back to {name}"


@pytest.mark.parametrize("name", MODULES)
def test_extras_are_imported_when_they_are_used(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    top = ast.Module([n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))], [])
    assert not {other.split(".")[0] for other in imported(top)} & EXTRAS


def test_the_library_does_not_import_the_training() -> None:
    for path in MODULES.values():
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
        "from srgan_infer import ImageError, UpscaleError, __version__",
        "from srgan_infer.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from srgan_infer.cli.main import main\ntry: main(['--version'])\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    assert not modules_after(code) & HEAVY


def test_bundled_models_do_without_the_hub_library(tmp_path: Path) -> None:
    code = f"""
from srgan_infer import weights, SuperResolver
from srgan_infer.network.generator import Generator, GeneratorConfig
config = GeneratorConfig(channels=8, blocks=1)
weights.save({str(tmp_path)!r}, config, Generator(config).state_dict(), "")
SuperResolver.from_pretrained({str(tmp_path)!r})
"""
    assert "huggingface_hub" not in modules_after(code)


def test_everything_public_can_be_imported() -> None:
    import srgan_infer

    assert set(srgan_infer.__all__) == {
        *("FilePlan", "FileResult", "ImageError", "ImageWarning", "OutOfMemoryError", "Plan"),
        *("SuperResolver", "UpscaleError", "WeightsError", "__version__"),
    }
    for name in srgan_infer.__all__:
        assert hasattr(srgan_infer, name)
    assert set(srgan_infer.__all__) <= set(dir(srgan_infer))
    with pytest.raises(AttributeError, match="no attribute 'Upscaler'"):
        _ = srgan_infer.Upscaler
