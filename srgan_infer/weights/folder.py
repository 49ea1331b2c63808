"""A model folder: config.json, model.safetensors, README.md; read, checked, written.

The layout is the same whether the folder is bundled with the package, lies on
the user's disk or is a repository on the Hugging Face Hub. Weights are read
from safetensors only, never from a pickle.
"""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import Tensor

from srgan_infer.errors import WeightsError
from srgan_infer.files import replace_file
from srgan_infer.network.generator import Generator, GeneratorConfig

ARCHITECTURE = "srgan-generator"
FORMAT = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
CONFIG_HASH = "config_sha256"
BUNDLED_FOLDER = Path(__file__).parents[1] / "pretrained"
_STORED_TYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Weights:
    """A model that was read and verified, or a blend of two.

    Attributes
    ----------
    name
        What the user asked for: a bundled name, a folder or a Hub repository.
    config
        The network that the tensors belong to.
    state
        Tensor name → float32 tensor, exactly the names and shapes of ``config``.
    sha256
        Hexadecimal SHA-256 of ``model.safetensors``; of both, joined by ``+``, for a blend.
    folder
        Where the files lie; ``None`` for a blend.
    version
        What its makers call this state of the model; empty if they say nothing.
    """

    name: str
    config: GeneratorConfig
    state: Mapping[str, Tensor]
    sha256: str
    folder: Path | None
    version: str = ""


def bundled() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    return tuple(sorted(path.parent.name for path in BUNDLED_FOLDER.glob(f"*/{CONFIG_FILE}")))


def bundled_folder(name: str) -> Path:
    """Where the files of a bundled model lie."""
    return BUNDLED_FOLDER / name


def read(folder: Path, name: str, remedy: str = "fetch the folder again") -> Weights:
    """Read and verify one model folder.

    Parameters
    ----------
    folder
        Holds ``config.json`` and ``model.safetensors``.
    name
        How messages call the model.
    remedy
        What a message advises when the files are damaged.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, or describes another kind of model.
    """
    values = _read_config(folder, name)
    config, sha256 = _description(values, folder / CONFIG_FILE, name)
    path = folder / WEIGHTS_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        others = sorted(p.name for p in folder.iterdir() if p.suffix in (".pth", ".pt", ".bin"))
        hint = f" ({others[0]} is not read: pickles can run code)" if others else ""
        raise WeightsError(f"{name} has no {WEIGHTS_FILE}{hint}; {remedy}.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except MemoryError as error:
        raise WeightsError(f"{path} is too large for the memory of this machine.") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise WeightsError(
            f"{path} is damaged, cut short or was replaced (SHA-256 {found[:12]}…, "
            f"{CONFIG_FILE} says {sha256[:12]}…); {remedy}."
        )
    try:
        state = safetensors_torch.load(data)
    except (SafetensorError, ValueError, RuntimeError, MemoryError) as error:
        raise WeightsError(
            f"{path} is not a safetensors file ({_brief(error)}); {remedy}."
        ) from error
    _check_tensors(path, config, state)
    # Last, so that what is said first is what is wrong.
    if values.get(CONFIG_HASH) != config_hash(values):
        raise WeightsError(
            f"{folder / CONFIG_FILE} was changed or is not the one that was written "
            f"({CONFIG_HASH} does not fit); {remedy}, or export the model again."
        )
    state = {key: tensor.float() for key, tensor in state.items()}
    return Weights(name, config, state, found, folder, str(values.get("version", "")))


def config_hash(values: Mapping[str, Any]) -> str:
    """SHA-256 of a description as JSON with sorted keys and no spaces, without its own hash.

    It covers the SHA-256 of the weights too, so config and weights are those that were
    written together.
    """
    rest = {key: value for key, value in values.items() if key != CONFIG_HASH}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    """The description of a model of ours, not yet looked at."""
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        config_hash(values if isinstance(values, dict) else {})
    except FileNotFoundError:
        raise WeightsError(
            f"{name} has no {CONFIG_FILE}, so it is no srgan-infer model; check the name."
        ) from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise WeightsError(
            f"{path} is not valid JSON ({_brief(error)}); fetch it again."
        ) from error
    if not isinstance(values, dict) or values.get("architecture") != ARCHITECTURE:
        kind = values.get("architecture") if isinstance(values, dict) else None
        found = f"says {reprlib.repr(kind)}" if kind is not None else "names none"
        raise WeightsError(
            f"{name} is of a foreign architecture ({CONFIG_FILE} {found}, srgan-infer reads "
            f"{ARCHITECTURE!r}); choose another model."
        )
    return values


def _description(values: Mapping[str, Any], path: Path, name: str) -> tuple[GeneratorConfig, str]:
    """The network, and the SHA-256 that its weights must have."""
    version = values.get("format")
    if type(version) is not int or version < 1:
        raise WeightsError(
            f"{path} has the format {reprlib.repr(version)}, which there is not; "
            "export the model again."
        )
    if version > FORMAT:
        raise WeightsError(
            f"{name} has format {reprlib.repr(version)}, newer than this srgan-infer reads "
            f"({FORMAT}); run `pip install -U srgan-infer`."
        )
    for key, what in (("sha256", WEIGHTS_FILE), (CONFIG_HASH, CONFIG_FILE)):
        if not re.fullmatch("[0-9a-f]{64}", str(values.get(key))):
            raise WeightsError(
                f"{path} lacks the SHA-256 of {what}, so the model cannot be checked; "
                "export it again."
            )
    try:
        return GeneratorConfig.from_dict(values["generator"]), str(values["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} does not describe a generator ({_brief(error)}); "
            "run `pip install -U srgan-infer` or export the model again."
        ) from error


def _brief(error: BaseException) -> str:
    """What an error says, in few words even if it quotes a file."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check_tensors(path: Path, config: GeneratorConfig, state: Mapping[str, Tensor]) -> None:
    """Names, shapes and types must be those of the described network."""
    # Absurd numbers in a config must not build an absurd network first.
    if config.blocks > len(state) or config.doublings > len(state):
        raise WeightsError(
            f"{path} has {len(state)} tensors, too few for the {config.blocks} blocks that its "
            f"{CONFIG_FILE} describes; export the model again."
        )
    try:
        with torch.device("meta"):
            expected = Generator(config).state_dict()
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path.with_name(CONFIG_FILE)} describes a network that cannot be "
            f"({_brief(error)}); export the model again."
        ) from error
    for problem, names in (
        ("lacks", expected.keys() - state.keys()),
        ("has the unknown", state.keys() - expected.keys()),
    ):
        if names:
            raise WeightsError(
                f"{path} {problem} tensor {min(names)} ({len(names)} such), so it does not fit "
                f"its {CONFIG_FILE}; export the model again."
            )
    for key, tensor in state.items():
        if tensor.shape != expected[key].shape:
            raise WeightsError(
                f"{path}: tensor {key} is {tuple(tensor.shape)} instead of "
                f"{tuple(expected[key].shape)}, so it does not fit its {CONFIG_FILE}; "
                "export the model again."
            )
        if tensor.dtype not in _STORED_TYPES:
            raise WeightsError(
                f"{path}: tensor {key} is {tensor.dtype}, but weights are stored as float32 or "
                "float16; export the model again."
            )
        if not torch.isfinite(tensor).all():
            raise WeightsError(
                f"{path}: tensor {key} has values that are infinite or no numbers; "
                "train or export the model again."
            )


def build(weights: Weights) -> Generator:
    """The network with its weights, on the CPU, in evaluation mode."""
    with torch.device("meta"):
        generator = Generator(weights.config)
    generator.load_state_dict(dict(weights.state), assign=True)
    return generator.eval().requires_grad_(False)


def blend(faithful: Weights, perceptual: Weights, strength: float) -> Weights:
    """Interpolate linearly between two networks of one topology.

    Source: Wang et al., "ESRGAN", arXiv 1809.00219, section 3.4 (network interpolation).

    Parameters
    ----------
    faithful, perceptual
        The ends, at strength 0 and 1.
    strength
        In [0, 1].

    Raises
    ------
    ValueError
        If ``strength`` is outside [0, 1].
    WeightsError
        If the two describe different networks.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie between 0 and 1, not {strength!r}.")
    if faithful.config != perceptual.config:
        raise WeightsError(
            f"{faithful.name} and {perceptual.name} describe different networks, so they cannot "
            "be blended; leave strength out."
        )
    if strength in (0, 1):
        return perceptual if strength else faithful
    state = {
        key: tensor * (1 - strength) + perceptual.state[key] * strength
        for key, tensor in faithful.state.items()
    }
    return replace(
        faithful,
        name=f"{faithful.name}+{perceptual.name} at strength {strength:g}",
        state=state,
        sha256=f"{faithful.sha256}+{perceptual.sha256}",
        folder=None,
        version="+".join(filter(None, (faithful.version, perceptual.version))),
    )


def save(
    folder: str | Path,
    config: GeneratorConfig,
    state: Mapping[str, Tensor],
    card: str,
    half: bool = False,
    version: str = "",
) -> None:
    """Write a model folder in the layout that :func:`load` reads.

    Each file appears whole or not at all. A crash between two of them leaves
    a folder whose hash does not match, which :func:`load` reports.

    Parameters
    ----------
    folder
        Created if need be.
    config, state
        The network and its tensors.
    card
        Text of ``README.md``: Markdown behind YAML front matter.
    half
        Store float16 instead of float32: half the size, read back as float32.
    version
        Name of this state of the model, such as ``"2"``; empty for none.

    Raises
    ------
    WeightsError
        If the tensors do not fit the config, or are not finite.
    """
    folder = Path(folder)
    dtype = torch.float16 if half else torch.float32
    stored = {k: v.detach().to("cpu", dtype).contiguous() for k, v in state.items()}
    _check_tensors(folder / WEIGHTS_FILE, config, stored)
    data = safetensors_torch.save(stored, {"format": "pt"})
    description: dict[str, Any] = {
        "architecture": ARCHITECTURE,
        "format": FORMAT,
        **({"version": version} if version else {}),
        "generator": config.to_dict(),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    description[CONFIG_HASH] = config_hash(description)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / WEIGHTS_FILE, data)
    replace_file(folder / CONFIG_FILE, (json.dumps(description, indent=2) + "\n").encode())
    replace_file(folder / CARD_FILE, card.encode())


def store(weights: Weights, folder: Path) -> None:
    """Write a loaded model to a folder: a copy of its files, or a blend as a model of its own."""
    if weights.folder is None:
        save(folder, weights.config, weights.state, _blend_card(weights))
        return
    files = {
        name: (weights.folder / name).read_bytes()
        for name in (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE)
        if (weights.folder / name).is_file()
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        replace_file(folder / name, data)


def _blend_card(weights: Weights) -> str:
    return f"""---
license: mit
library_name: srgan-infer
pipeline_tag: image-to-image
tags:
- super-resolution
- srgan
---

# {weights.name}

A ×{weights.config.scale} super-resolution generator made by network interpolation: every weight is
the weighted mean of two models that srgan-infer bundles (SHA-256 {weights.sha256}).
Strength 0 is the faithful srresnet, 1 the perceptual srgan. Their model cards state data,
training and results.

```python
from srgan_infer import SuperResolver

sr = SuperResolver.from_pretrained("this-folder-or-repository")
```
"""
