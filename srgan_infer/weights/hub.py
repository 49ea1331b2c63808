"""Models on the Hugging Face Hub: fetched, pushed, and why not."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from srgan_infer.errors import WeightsError
from srgan_infer.weights.folder import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, Weights, store


def fetch(
    repo: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Bring a Hub repository's model files into the cache and return their folder.

    All files are taken from one commit, so that a push in between cannot mix
    an old config with new weights. Parameters and errors are those of :func:`load`.
    """
    from huggingface_hub import hf_hub_download

    def download(file: str, commit: str | None) -> Path:
        return Path(
            hf_hub_download(
                repo,
                file,
                revision=commit,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only,
                force_download=force_download,
                library_name="srgan-infer",
            )
        )

    try:
        config = download(CONFIG_FILE, revision)
        # The cache keeps files under snapshots/<commit>/.
        commit = config.parent.name
        download(WEIGHTS_FILE, commit)
    except Exception as error:
        # The Hub library raises its own errors, those of the HTTP library of its
        # version (requests, httpx) and OSErrors; all of them mean "not fetched".
        raise WeightsError(_hub_reason(repo, revision, error, local_files_only)) from error
    # A repository without a card is usable.
    with contextlib.suppress(_hub_errors().EntryNotFoundError):
        download(CARD_FILE, commit)
    return config.parent


def _hub_errors() -> Any:
    """The module with the Hub library's errors, the same in versions 0.24 to 2."""
    import huggingface_hub.utils

    return huggingface_hub.utils


def _status(error: BaseException | None) -> int | None:
    """HTTP status of an error that carries a response."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _hub_reason(repo: str, revision: str | None, error: Exception, local_files_only: bool) -> str:
    """One sentence on why a Hub download failed and what to do."""
    hub = _hub_errors()
    at = f"{repo} at revision {revision!r}" if revision else repo
    status = _status(error)
    if isinstance(error, hub.LocalEntryNotFoundError) and _status(error.__cause__):
        # The library hides what the Hub answered behind "not in the cache".
        return (
            f"The Hub answered {at} with HTTP status {_status(error.__cause__)}; try again later."
        )
    if isinstance(error, hub.LocalEntryNotFoundError):
        if local_files_only or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES"):
            return (
                f"{at} is not in the local cache and the Hub may not be asked; "
                "load it once without local_files_only and HF_HUB_OFFLINE."
            )
        return (
            f"{at} is not in the local cache and the Hub cannot be reached; "
            "check the network, or use a bundled model, which needs none."
        )
    if isinstance(error, hub.GatedRepoError):
        return (
            f"{repo} is gated: ask for access on its Hub page, then log in with "
            "`hf auth login` or pass token=."
        )
    if isinstance(error, hub.RepositoryNotFoundError) or status == 401:
        return (
            f"The Hub has no repository {repo}, or it is private (HTTP {status}): check the "
            "name, and log in with `hf auth login` or pass token=."
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}; check its branches and tags on the Hub."
    if isinstance(error, hub.EntryNotFoundError):
        return (
            f"{at} on the Hub lacks {CONFIG_FILE} or {WEIGHTS_FILE}, so it is no srgan-infer "
            "model; check the name."
        )
    if isinstance(error, hub.HfHubHTTPError):
        return f"The Hub answered {at} with HTTP status {status}; try again later."
    cause = " ".join(str(error).split()) or type(error).__name__
    return f"Fetching {at} from the Hub failed ({cause[:200]}); try again."


def push(
    weights: Weights,
    repo: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str,
) -> str:
    """Upload a model in one commit; see ``SuperResolver.push_to_hub``."""
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="srgan-infer")
    with tempfile.TemporaryDirectory() as folder:
        store(weights, Path(folder))
        try:
            url = api.create_repo(repo, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(url.repo_id, branch=revision, exist_ok=True)
            api.upload_folder(
                repo_id=url.repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
            )
        except Exception as error:  # as many kinds as in fetch
            raise WeightsError(_push_reason(repo, error)) from error
    return str(url)


def _push_reason(repo: str, error: Exception) -> str:
    """One sentence on why an upload failed and what to do."""
    status = _status(error)
    if status in (401, 403):
        return (
            f"The Hub does not let you write to {repo} (HTTP {status}): log in with "
            "`hf auth login`, or pass a token= that has write permission."
        )
    cause = f"HTTP status {status}" if status else " ".join(str(error).split())[:200]
    return f"Uploading to {repo} failed ({cause or type(error).__name__}); try again."
