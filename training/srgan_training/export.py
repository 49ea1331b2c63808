"""Turn a training run into a model folder: ``python -m srgan_training.export RUN FOLDER``.

The folder (``config.json``, ``model.safetensors``, ``README.md``) is what
srgan_infer loads and the Hub shows. The card is written from the run itself:
its configuration, its pictures, its steps and time, and an evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from srgan_infer import weights
from srgan_infer.errors import UpscaleError
from srgan_infer.network.generator import Generator
from srgan_training.card import make_card
from srgan_training.generator import TrainingGenerator, deploy
from srgan_training.runs import RunError, Stage, count_pictures, read_licences, read_stages
from srgan_training.scores import BICUBIC

PARITY = 1e-4


class ExportError(Exception):
    """A run cannot be exported; the message says what to do."""


def folded(stage: Stage) -> Generator:
    """The averaged generator in deployment form, checked against the training form.

    Raises
    ------
    ExportError
        If a weight is not finite, or the two differ by more than 10⁻⁴ on random pictures.
    """
    broken = [name for name, tensor in stage.average.items() if not tensor.isfinite().all()]
    if broken:
        raise ExportError(f"{broken[0]} holds values that are not finite; train again.")
    model = TrainingGenerator(stage.config.generator, batch_norm=stage.config.batch_norm)
    model.load_state_dict(stage.average)
    generator = deploy(model.eval())
    worst = parity(model, generator)
    if not worst <= PARITY:
        raise ExportError(f"folding batch norm changed the result by {worst:.2e}; train longer.")
    return generator


@torch.no_grad()
def parity(model: TrainingGenerator, generator: Generator) -> float:
    """Largest difference of the two forms on random pictures, float32 on the CPU."""
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
    ExportError
        If the evaluation is not of these weights.
    """
    names = [name for name, digest in evaluation["models"].items() if digest == sha256]
    if not names:
        raise ExportError("the evaluation is of other weights; evaluate this model, export again.")
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

    Returns
    -------
    Weights
        As read back from the folder.

    Raises
    ------
    RunError
        If the run cannot be read.
    ExportError
        If it fails the parity check, or the evaluation is of other weights.
    """
    stages = read_stages(run)
    generator = folded(stages[-1])
    name = name or folder.resolve().name
    described: dict[str, Any] = {
        "parameters": sum(tensor.numel() for tensor in generator.state_dict().values()),
        "machine": machine or hardware(),
        "folders": count_pictures(stages[-1].config, read_licences(licences)),
    }
    config, state = generator.config, generator.state_dict()
    card = make_card(name, stages, means=None, **described)
    weights.save(folder, config, state, card, half)
    written = weights.read(folder, name)
    if evaluation is not None:
        means = results(json.loads(evaluation.read_text(encoding="utf-8")), written.sha256)
        card = make_card(name, stages, means=means, **described)
        weights.save(folder, config, state, card, half)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m srgan_training.export", description=__doc__.splitlines()[0]
    )
    parser.add_argument("run", type=Path, help="folder of a training run, or its checkpoint")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--name", help="of the model (default: the folder's)")
    parser.add_argument("--evaluation", type=Path, metavar="JSON", help="results for the card")
    parser.add_argument("--licences", type=Path, metavar="TOML", help="of the training folders")
    parser.add_argument("--hardware", help="what it was trained on (default: this machine)")
    parser.add_argument("--half", action="store_true", help="store float16, half the size")
    options = parser.parse_args(arguments)
    try:
        written = export(
            options.run,
            options.folder,
            name=options.name,
            evaluation=options.evaluation,
            licences=options.licences,
            machine=options.hardware,
            half=options.half,
        )
    except (ExportError, RunError, UpscaleError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{options.folder} ({written.sha256})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
