"""Turn a training run into a model folder.

The folder (``config.json``, ``model.safetensors``, ``README.md``) is what
srgan_infer loads and the Hub shows. The card is written from the run itself:
its configuration, its images, its steps and time, and an evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srgan_infer import weights
from srgan_infer.network.generator import Generator
from srgan_training.card import DATA_TITLE, make_card
from srgan_training.errors import TrainingError
from srgan_training.generator import TrainingGenerator, deploy
from srgan_training.runs import (
    Stage,
    card_facts,
    card_section,
    count_images,
    describe_teacher,
    read_licences,
    read_stages,
)
from srgan_training.scores import BICUBIC

PARITY = 1e-4


@dataclass(frozen=True)
class Blend:
    """A part of a run's weights and the rest of another model's.

    Attributes
    ----------
    share
        Of the run, 0…1.
    model
        The other: a bundled name, a folder or a Hub id.
    """

    share: float
    model: str


def folded(stage: Stage) -> Generator:
    """The averaged generator in deployment form, checked against the training form.

    Raises
    ------
    TrainingError
        If a weight is not finite, or the two differ by more than 10⁻⁴ on random images.
    """
    broken = [name for name, tensor in stage.average.items() if not tensor.isfinite().all()]
    if broken:
        raise TrainingError(f"{broken[0]} holds values that are not finite; train again.")
    model = TrainingGenerator(stage.config.generator, batch_norm=stage.config.batch_norm)
    model.load_state_dict(stage.average)
    generator = deploy(model.eval())
    worst = parity(model, generator)
    if not worst <= PARITY:
        raise TrainingError(f"folding batch norm changed the result by {worst:.2e}; train longer.")
    return generator


@torch.no_grad()
def parity(model: TrainingGenerator, generator: Generator) -> float:
    """Largest difference of the two forms on random images, float32 on the CPU."""
    rng = torch.Generator().manual_seed(0)
    worst = 0.0
    for shape in ((2, 3, 24, 24), (1, 3, 17, 31), (1, 3, 1, 5)):
        x = torch.rand(shape, generator=rng)
        worst = max(worst, float((model(x) - generator(x)).abs().max()))
    return worst


def hardware() -> str:
    """What this machine trains on: the GPUs, or the number of CPU cores."""
    count = torch.cuda.device_count()
    if count:
        return f"{count} × {torch.cuda.get_device_name(0)}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def results(evaluation: Mapping[str, Any], sha256: str) -> dict[str, dict[str, dict[str, Any]]]:
    """A model's means, and bicubic's, from an evaluation's JSON: set → version → means.

    Raises
    ------
    TrainingError
        If the evaluation is not of these weights.
    """
    names = [name for name, digest in evaluation["models"].items() if digest == sha256]
    if not names:
        raise TrainingError(
            "the evaluation is of other weights; evaluate this model, export again."
        )
    return {
        collection: {"bicubic": means[BICUBIC], "model": means[names[0]]}
        for collection, means in evaluation["means"].items()
    }


def export(
    run: Path,
    folder: Path,
    *,
    name: str | None = None,
    evaluation: Path | None = None,
    licences: Path | None = None,
    machine: str | None = None,
    half: bool = False,
    blend: Blend | None = None,
    version: str = "",
) -> weights.Weights:
    """Write a model folder from a training run.

    Parameters
    ----------
    run
        Folder of the run, or its checkpoint.
    folder
        Where the model goes.
    name
        Of the model; the folder's if None.
    evaluation
        ``evaluation.json`` of these very weights, for the card's results.
    licences
        TOML file with what the training folders hold and their licences.
    machine
        What the run was trained on; this machine if None.
    half
        Store float16.
    blend
        Store a blend with another model instead of the run's weights alone.
    version
        Name of this state of the model, such as ``"2"``, for its config and card.

    Returns
    -------
    Weights
        As read back from the folder.

    Raises
    ------
    TrainingError
        If the run cannot be read, it fails the parity check, or the evaluation is of
        other weights.
    srgan_infer.errors.WeightsError
        If the run and the model to blend with are different networks.
    """
    stages = read_stages(run)
    generator = folded(stages[-1])
    name = name or folder.resolve().name
    config, known = stages[-1].config, read_licences(licences)
    described: dict[str, Any] = {
        "parameters": sum(tensor.numel() for tensor in generator.state_dict().values()),
        "machine": machine or hardware(),
        "folders": count_images(config, known),
        "teacher": describe_teacher(config, known),
        "version": version,
    }
    state: Mapping[str, Tensor] = generator.state_dict()
    if blend is not None:
        described["blend"] = Path(blend.model).name
        described["share"] = blend.share
        state = blended(generator, blend)
    if start := stages[0].config.start:
        described |= earlier_training(start)
    card = make_card(name, stages, means=None, **described)
    weights.save(folder, generator.config, state, card, half, version)
    written = weights.read(folder, name)
    if evaluation is not None:
        scores = json.loads(evaluation.read_text(encoding="utf-8"))
        means = results(scores, written.sha256)
        card = make_card(name, stages, means=means, features=scores["features"], **described)
        weights.save(folder, generator.config, state, card, half, version)
    return written


def blended(generator: Generator, blend: Blend) -> Mapping[str, Tensor]:
    """The weights between a model's and the generator's (arXiv 1809.00219)."""
    other = weights.load(blend.model)
    ours = replace(other, name="this run", config=generator.config, state=generator.state_dict())
    return weights.blend(other, ours, blend.share).state


def earlier_training(start: str) -> dict[str, Any]:
    """What the card of a published model, which a run started from, tells of its own runs."""
    folder = weights.load(start).folder
    if folder is None:
        return {}
    stages = card_facts(folder).get("stages", [])
    return {
        "earlier": [{**stage, "model": Path(start).name} for stage in stages],
        "earlier_data": card_section(folder, DATA_TITLE),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", type=Path, help="folder of a training run, or its checkpoint")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--name", help="of the model (default: the folder's)")
    parser.add_argument("--evaluation", type=Path, metavar="JSON", help="results for the card")
    parser.add_argument("--licences", type=Path, metavar="TOML", help="of the training folders")
    parser.add_argument("--hardware", help="what it was trained on (default: this machine)")
    parser.add_argument("--half", action="store_true", help="store float16, half the size")
    parser.add_argument(
        "--weights-version", default="", metavar="TEXT", help="of the weights, such as 2"
    )
    parser.add_argument(
        "--blend",
        metavar="SHARE:MODEL",
        help="store this share of the run's weights and the rest of another model's",
    )


def command(options: argparse.Namespace) -> int:
    """Export; returns the exit status."""
    written = export(
        options.run,
        options.folder,
        name=options.name,
        evaluation=options.evaluation,
        licences=options.licences,
        machine=options.hardware,
        half=options.half,
        blend=parse_blend(options.blend) if options.blend else None,
        version=options.weights_version,
    )
    sys.stdout.write(f"{options.folder} ({written.sha256})\n")
    return 0


def parse_blend(text: str) -> Blend:
    """``0.8:srresnet`` as a blend.

    Raises
    ------
    TrainingError
        If it is something else.
    """
    share, _, model = text.partition(":")
    try:
        blend = Blend(float(share), model)
    except ValueError:
        blend = Blend(-1, model)
    if not 0 <= blend.share <= 1 or not model:
        raise TrainingError(f"--blend takes SHARE:MODEL, such as 0.8:srresnet, not {text!r}.")
    return blend
