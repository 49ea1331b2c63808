"""One run's settings: dataclasses filled from TOML and ``--set key=value``."""

from __future__ import annotations

import dataclasses
import sys
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srgan_infer.network.generator import GeneratorConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class DataConfig:
    """Images, crops and the way from high to low resolution."""

    folders: tuple[str, ...] = ()  # of originals, searched recursively
    # Pairs: for each of the folders one of low-resolution images with the same relative
    # names, and perhaps one of what a teacher network makes of those. Else made on the fly.
    low: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    limit: int = 0  # take the first N images by name; 0 takes all
    validation: float = 0.2  # part of the images held back
    resident: bool = True  # decoded images stay on the device; else a DataLoader reads them
    workers: int = 4  # of the DataLoader, at most one a processor
    crop: int = 24  # edge of a low-resolution crop, pixels
    min_scale: float = 1.0  # an original's crop is first reduced by a factor drawn from [this, 1]
    flips: bool = True  # flips and quarter turns
    validation_crop: int = 48  # edge of a low-resolution validation crop, pixels
    validation_crops: int = 200  # at most, one an image
    # Degradation of the low-resolution side, each with a probability.
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.2, 1.0)  # low-resolution pixels
    noise: float = 0.0
    noise_sigma: tuple[float, float] = (1.0, 8.0)  # levels of 255
    jpeg: float = 0.0
    jpeg_quality: tuple[int, int] = (30, 95)
    # Or all of that twice, on the way down; strengths are drawn uniformly from mild to strong.
    second_order: float = 0.0


@dataclass(frozen=True)
class DiscriminatorConfig:
    """See `discriminator.Discriminator`."""

    layout: str = "paper"  # or "coco10k", "unet"
    width: int = 64
    norm: str = "batch"  # or "spectral", "none"; a U-Net is spectral
    patch: bool = False  # a U-Net scores pixels


@dataclass(frozen=True)
class LossConfig:
    """The generator's loss, a sum of weighted terms; see `losses.generator_losses`."""

    pixel: str = "l1"  # or "mse"
    pixel_weight: float = 1.0
    teacher_share: float = 0.5  # of the pixel term; the rest is on the original
    feature: str = "mse"  # or "l1"
    feature_weight: float = 0.0
    feature_network: str = "vgg19"  # fetched from the Hub, or a safetensors file
    feature_layers: dict[str, float] = field(default_factory=lambda: {"relu5_4": 1.0})
    before_activation: bool = False
    adversarial_weight: float = 0.0  # 0: no discriminator
    relativistic: bool = False
    artefact_weight: float = 0.0  # against what the averaged generator does not draw: LDL
    discriminator_first: int = 0  # steps in which the discriminator learns alone
    grid_weight: float = 0.0  # against a grid of low-resolution period, see losses.grid_loss
    shift: int = 0  # prediction and target are shifted alike by 0…N pixels before both networks


@dataclass(frozen=True)
class OptimizerConfig:
    """How both networks learn, and the learning rate over the run."""

    # The generator's convolutions; "muon" leaves the output convolution, biases and
    # slopes to Adam, which all of the discriminator always has.
    method: str = "adam"
    learning_rate: float = 1e-4
    discriminator_learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: str = "constant"  # or "cosine", "step", "decay"
    warmup: int = 0  # steps
    final: float = 0.0  # cosine: where it ends, as a part of learning_rate
    milestones: tuple[float, ...] = (0.5,)  # step: parts of the run
    factor: float = 0.1  # step: factor at each milestone
    decay: float = 1 / 11  # decay: the last part of the run, in which the rate falls to zero
    clip: float = 0.0  # largest gradient norm; 0: not clipped
    ema: float = 0.0  # decay of the averaged generator a step; 0: none


@dataclass(frozen=True)
class TrainConfig:
    """A whole stage."""

    name: str = "srresnet"
    seed: int = 0
    start: str = ""  # model name, folder or checkpoint whose generator is the start
    branch: str = ""  # a run whose checkpoint, optimizers and all, is gone on from
    steps: int = 1_000_000
    max_minutes: float = 0.0  # 0: no time budget; else the schedule is stretched to fit
    batch: int = 16  # crops a step over all processes
    precision: str = "auto"  # "no" or "bf16"; auto: bf16 where the device multiplies it
    compile: bool = False
    judge: str = ""  # the network that judges while training: "efficientnet-lite0", or none
    batch_norm: bool = True
    initial_gain: float = 1.0
    log_every: int = 50
    validate_every: int = 1000
    save_every: int = 1000
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    data: DataConfig = field(default_factory=DataConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        checks = {
            "loss.pixel": (self.loss.pixel, ("l1", "mse")),
            "loss.feature": (self.loss.feature, ("l1", "mse")),
            "discriminator.layout": (self.discriminator.layout, ("paper", "coco10k", "unet")),
            "discriminator.norm": (self.discriminator.norm, ("batch", "spectral", "none")),
            "optimizer.method": (self.optimizer.method, ("adam", "muon")),
            "optimizer.schedule": (
                self.optimizer.schedule,
                ("constant", "cosine", "step", "decay"),
            ),
            "precision": (self.precision, ("auto", "no", "bf16")),
        }
        for key, (value, choices) in checks.items():
            if value not in choices:
                raise ValueError(f"{key} must be one of {', '.join(choices)}, not {value!r}.")
        for name, folders in (("low", self.data.low), ("teacher", self.data.teacher)):
            if folders and len(folders) != len(self.data.folders):
                raise ValueError(f"data.{name} needs one folder for each of data.folders.")
        if self.data.teacher and not self.data.low:
            raise ValueError("data.teacher needs data.low, which the teacher was shown.")
        window = self.data.crop * self.generator.scale - self.loss.shift
        if window < 32:
            raise ValueError("loss.shift leaves less than 32 pixels of the crop; make it smaller.")


def from_dict(kind: type[Any], values: dict[str, Any], path: str = "") -> Any:
    """Fill a dataclass from nested dictionaries; an unknown key or a wrong type is a ValueError."""
    hints = typing.get_type_hints(kind)
    known = {entry.name for entry in dataclasses.fields(kind)}
    filled = {}
    for key, value in values.items():
        name = f"{path}{key}"
        if key not in known:
            raise ValueError(f"unknown setting {name}; known here: {', '.join(sorted(known))}.")
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise ValueError(f"{name} is a table of settings, not {value!r}.")
            filled[key] = from_dict(typing.cast(type, hint), value, f"{name}.")
        else:
            filled[key] = converted(name, hint, value)
    return kind(**filled)


def of_checkpoint(values: dict[str, Any]) -> TrainConfig:
    """The settings in a checkpoint; it may be older than this program.

    What is new since then has its default, what was renamed its new name.
    """
    data, discriminator = dict(values["data"]), dict(values["discriminator"])
    if "smallest_reduction" in data:
        data["min_scale"] = data.pop("smallest_reduction")
    if discriminator["layout"] == "seed":
        discriminator["layout"] = "coco10k"
    config: TrainConfig = from_dict(
        TrainConfig, {**values, "data": data, "discriminator": discriminator}
    )
    return config


def converted(name: str, hint: Any, value: Any) -> Any:
    """The TOML value as the field's type."""
    origin = typing.get_origin(hint)
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = typing.get_args(hint)[0]
        return tuple(converted(name, inner, item) for item in value)
    if origin is dict and isinstance(value, dict):
        return {str(key): float(item) for key, item in value.items()}
    if hint is float and type(value) in (int, float):
        return float(value)
    if type(value) is hint:
        return value
    raise ValueError(f"{name} must be {getattr(hint, '__name__', hint)}, not {value!r}.")


def load_config(path: str | Path, overrides: typing.Sequence[str] = ()) -> TrainConfig:
    """Read a TOML file and apply overrides such as ``optimizer.clip=0.5``."""
    with open(path, "rb") as file:
        return filled(tomllib.load(file), overrides)


def overridden(config: TrainConfig, overrides: typing.Sequence[str]) -> TrainConfig:
    """The settings with overrides, as of `load_config`."""
    return filled(dataclasses.asdict(config), overrides)


def filled(values: dict[str, Any], overrides: typing.Sequence[str]) -> TrainConfig:
    """Settings from nested dictionaries and overrides.

    The right side of an override is a TOML value; what does not parse as one
    is taken as a string.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"--set takes key=value, not {override!r}.")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        table = values
        *parents, last = key.strip().split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = value
    config: TrainConfig = from_dict(TrainConfig, values)
    return config
