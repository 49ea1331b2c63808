"""Models of this library in programs that load theirs through spandrel, such as ComfyUI.

>>> import srgan_infer.spandrel
>>> srgan_infer.spandrel.install()
>>> spandrel.ModelLoader().load_from_file("folder/model.safetensors")

The tensors do not say whether an upscaled input is added to the output, and the like.
It is read from the ``config.json`` that lies beside ``model.safetensors`` in a model
folder. Programs that take single files, and ComfyUI, which hands spandrel nothing but
tensors, want the file that ``srgan-upscale --export NAME.safetensors`` writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from srgan_infer.errors import WeightsError
from srgan_infer.network.generator import Generator
from srgan_infer.weights import CONFIG_FILE, WEIGHTS_FILE, read
from srgan_infer.weights.export import CONFIG_TENSOR, config_of, config_tensor
from srgan_infer.weights.folder import ARCHITECTURE

NAME = "SRGAN-infer"
NAMES = ("stem.weight", "blocks.0.conv1.weight", "trunk.weight", "upsample.0.conv.weight")


def install() -> None:
    """Make spandrel know this library's models, in this process; again does nothing more."""
    from spandrel import MAIN_REGISTRY, Architecture, ArchSupport, ImageModelDescriptor, ModelLoader

    if NAME in MAIN_REGISTRY:
        return

    class SRGAN(Architecture[Generator]):  # type: ignore[misc, unused-ignore]
        """The generator of this library."""

        def __init__(self) -> None:
            super().__init__(id=NAME, detect=lambda state: all(name in state for name in NAMES))

        def load(self, state_dict: dict[str, Any]) -> ImageModelDescriptor[Generator]:
            """The network that the state and its description give."""
            generator, state = build(state_dict)
            config = generator.config
            return ImageModelDescriptor(
                generator,
                state,
                architecture=self,
                purpose="SR",
                tags=[f"{config.channels}nf", f"{config.blocks}nb"],
                supports_half=True,
                supports_bfloat16=True,
                scale=config.scale,
                input_channels=3,
                output_channels=3,
            )

    load = ModelLoader.load_state_dict_from_file

    def load_with_config(self: ModelLoader, path: str | Path) -> dict[str, Any]:
        return folder_state(Path(path)) or load(self, path)

    MAIN_REGISTRY.add(ArchSupport.from_architecture(SRGAN()))
    # spandrel gives an architecture no path, so what lies beside a file is read here.
    ModelLoader.load_state_dict_from_file = load_with_config


def build(state: dict[str, Tensor]) -> tuple[Generator, dict[str, Tensor]]:
    """A network without its weights, and these, from a state that has the description too."""
    if CONFIG_TENSOR not in state:
        raise WeightsError(
            f"The model has no description: keep {CONFIG_FILE} beside its {WEIGHTS_FILE}, or take "
            "the file that `srgan-upscale --export NAME.safetensors` writes."
        )
    config = config_of(state[CONFIG_TENSOR], "The model")
    return Generator(config), {key: state[key] for key in state if key != CONFIG_TENSOR}


def folder_state(path: Path) -> dict[str, Tensor] | None:
    """Verified tensors of a model folder with their description; ``None`` if it is no such file."""
    try:
        config = json.loads(path.with_name(CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(config, dict) and config.get("architecture") == ARCHITECTURE
    if path.name != WEIGHTS_FILE or not ours:
        return None
    weights = read(path.parent, str(path.parent))
    return {**weights.state, CONFIG_TENSOR: config_tensor(weights.config)}
