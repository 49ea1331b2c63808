"""The one command: ``srgan-train``, or ``python -m srgan_training``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from srgan_infer.errors import UpscaleError
from srgan_training import (
    evaluate,
    export,
    pairs,
    prepare,
    publish,
    results,
    smoke,
    throughput,
    train,
)
from srgan_training.errors import TrainingError

COMMANDS = {
    "prepare": prepare,
    "pairs": pairs,
    "run": train,
    "evaluate": evaluate,
    "export": export,
    "results": results,
    "publish": publish,
    "smoke": smoke,
    "throughput": throughput,
}


def make_parser() -> argparse.ArgumentParser:
    """All subcommands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="srgan-train", description="Train, evaluate, export and publish weights."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        about = (module.__doc__ or "").splitlines()[0]
        module.add_arguments(commands.add_parser(name, help=about, description=about))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status, 1 where it cannot go on."""
    options = make_parser().parse_args(arguments)
    try:
        status: int = COMMANDS[options.command].command(options)
        return status
    except (TrainingError, UpscaleError, OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
