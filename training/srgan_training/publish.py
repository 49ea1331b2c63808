"""Upload a model folder to the Hugging Face Hub: ``python -m srgan_training.publish``.

All files go into one commit, so a repository never holds an old config with
new weights. An upload that failed is simply repeated: large files that have
arrived are not sent again, and where nothing differs no commit is made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi

from srgan_infer import weights
from srgan_infer.errors import UpscaleError

FILES = (weights.CONFIG_FILE, weights.WEIGHTS_FILE, weights.CARD_FILE)


class PublishError(Exception):
    """A model could not be uploaded; the message says what to do."""


def checked(folder: Path) -> list[Path]:
    """The files of a model folder that go to the Hub.

    Raises
    ------
    PublishError
        If the card is missing or has no front matter.
    srgan_infer.errors.WeightsError
        If the model does not load.
    """
    weights.read(folder, str(folder), "export the model again")
    card = folder / weights.CARD_FILE
    if not card.is_file() or not card.read_text(encoding="utf-8").startswith("---\n"):
        raise PublishError(
            f"{card} is no model card with YAML front matter; export the model again."
        )
    return [folder / name for name in FILES]


def publish(
    folder: Path,
    repo: str,
    *,
    revision: str = "main",
    private: bool = False,
    message: str = "Upload model",
) -> str:
    """Upload a model folder in one commit; the repository is made if need be.

    Parameters
    ----------
    folder
        As written by ``export``; it is checked first.
    repo
        ``"user/name"``.
    revision
        Branch.
    private
        Of a repository that is made.
    message
        Of the commit.

    Returns
    -------
    str
        Address of the commit.

    Raises
    ------
    PublishError
        If the Hub refuses or cannot be reached.
    srgan_infer.errors.WeightsError
        If the folder's model does not load.
    """
    operations = [
        CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file) for file in checked(folder)
    ]
    api = HfApi(library_name="srgan-training")
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.create_commit(repo, operations, commit_message=message, revision=revision)
    except ValueError as error:
        # A name that the Hub does not allow, or front matter that it does not accept.
        raise PublishError(f"{repo} was not uploaded: {_on_one_line(error)}") from error
    except Exception as error:
        # The Hub library passes on the errors of its HTTP library, which
        # differs between its versions, and wraps others in RuntimeError.
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            remedy = "log in with `hf auth login` with a token that may write to it"
        else:
            remedy = "run the same command again, what has arrived is not sent twice"
        reason = f"HTTP status {status}" if status else _deepest(error)
        raise PublishError(f"The upload to {repo} failed ({reason}); {remedy}.") from error
    return str(commit.commit_url)


def _deepest(error: BaseException) -> str:
    """The first cause of a chain of errors, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _on_one_line(error)


def _on_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m srgan_training.publish", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="a model folder, as written by export")
    parser.add_argument("repo", help="user/name on the Hub")
    parser.add_argument("--revision", default="main", help="branch (default: %(default)s)")
    parser.add_argument("--private", action="store_true", help="if the repository is made")
    parser.add_argument("--message", default="Upload model", help="of the commit")
    parser.add_argument("--dry-run", action="store_true", help="show what would go, send nothing")
    options = parser.parse_args(arguments)
    try:
        if options.dry_run:
            address = f"{HfApi().endpoint}/{options.repo}"
            sys.stdout.write(f"would go to {address} ({options.revision}):\n")
            for file in checked(options.folder):
                sys.stdout.write(f"{file.stat().st_size:>12,} bytes  {file.name}\n")
            return 0
        url = publish(
            options.folder,
            options.repo,
            revision=options.revision,
            private=options.private,
            message=options.message,
        )
    except (PublishError, UpscaleError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{url}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
