"""Upload a model folder to the Hugging Face Hub: ``python -m srgan_training.publish``.

An upload that failed is simply repeated: large files that have arrived are
not sent again, and where nothing differs no commit is made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi

from srgan_infer import weights
from srgan_infer.errors import UpscaleError


class PublishError(Exception):
    """A folder is not ready to be published; the message says what to do."""


def checked(folder: Path) -> weights.Weights:
    """Read a model folder that is to go to the Hub.

    Raises
    ------
    PublishError
        If the card is missing or has no front matter.
    srgan_infer.errors.WeightsError
        If the model does not load.
    """
    model = weights.read(folder, str(folder), "export the model again")
    card = folder / weights.CARD_FILE
    if not card.is_file() or not card.read_text(encoding="utf-8").startswith("---\n"):
        raise PublishError(
            f"{card} is no model card with YAML front matter; export the model again."
        )
    return model


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m srgan_training.publish", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="a model folder, as written by export")
    parser.add_argument("repo", help="user/name on the Hub")
    parser.add_argument("--revision", help="branch (default: the repository's)")
    parser.add_argument("--private", action="store_true", help="if the repository is made")
    parser.add_argument("--message", default="Upload model", help="of the commit")
    parser.add_argument("--dry-run", action="store_true", help="show what would go, send nothing")
    options = parser.parse_args(arguments)
    try:
        model = checked(options.folder)
        if options.dry_run:
            sys.stdout.write(f"would go to {HfApi().endpoint}/{options.repo}:\n")
            for name in (weights.CONFIG_FILE, weights.WEIGHTS_FILE, weights.CARD_FILE):
                size = (options.folder / name).stat().st_size
                sys.stdout.write(f"{size:>12,} bytes  {name}\n")
            return 0
        url = weights.push(
            model,
            options.repo,
            private=options.private,
            revision=options.revision,
            commit_message=options.message,
        )
    except (PublishError, UpscaleError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{url}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
