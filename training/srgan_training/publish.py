"""Upload a model folder to the Hugging Face Hub.

An upload that failed is simply repeated: large files that have arrived are
not sent again, and where nothing differs no commit is made.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from srgan_infer import weights
from srgan_training.errors import TrainingError

FILES = (weights.CONFIG_FILE, weights.WEIGHTS_FILE, weights.CARD_FILE)


def check(folder: Path) -> None:
    """See that a model folder may go to the Hub.

    Raises
    ------
    TrainingError
        If the card is missing or has no front matter.
    srgan_infer.errors.WeightsError
        If the model does not load.
    """
    weights.read(folder, str(folder), "export the model again")
    card = folder / weights.CARD_FILE
    if not card.is_file() or not card.read_text(encoding="utf-8").startswith("---\n"):
        raise TrainingError(
            f"{card} is no model card with YAML front matter; export the model again."
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, help="a model folder, as written by export")
    parser.add_argument("repo", help="user/name on the Hub")
    parser.add_argument("--revision", help="branch (default: the repository's)")
    parser.add_argument("--private", action="store_true", help="if the repository is made")
    parser.add_argument("--message", default="Upload model", help="of the commit")
    parser.add_argument("--dry-run", action="store_true", help="show what would go, send nothing")


def command(options: argparse.Namespace) -> int:
    """Upload, or say what would be; returns the exit status."""
    check(options.folder)
    api = HfApi()
    if options.dry_run:
        sys.stdout.write(f"would go to {api.endpoint}/{options.repo}:\n")
        for name in FILES:
            sys.stdout.write(f"{(options.folder / name).stat().st_size:>12,} bytes  {name}\n")
        return 0
    try:
        api.create_repo(options.repo, private=options.private, exist_ok=True)
        if options.revision:
            api.create_branch(options.repo, branch=options.revision, exist_ok=True)
        sent = api.upload_folder(
            repo_id=options.repo,
            folder_path=options.folder,
            allow_patterns=list(FILES),
            revision=options.revision,
            commit_message=options.message,
        )
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"{options.repo} could not be published ({reason}); log in with "
            "`hf auth login` if need be, and run the command again."
        ) from error
    sys.stdout.write(f"{sent.commit_url}\n")
    return 0
