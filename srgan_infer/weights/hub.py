"""Models on the Hugging Face Hub: fetched, pushed, and why not."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any, TypeVar

from srgan_infer.errors import WeightsError
from srgan_infer.weights.folder import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, Weights, store

Result = TypeVar("Result")

# Seconds: a model of some hundred megabytes on a slow line takes minutes.
TIMEOUT = 300.0
CARD_SECONDS = 5.0


def fetch(
    repo: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    timeout: float = TIMEOUT,
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

    def model() -> Path:
        # One after the other: snapshot_download does it in threads that Python waits for
        # when it ends, however long the Hub keeps them.
        folder = download(CONFIG_FILE, revision).parent
        download(WEIGHTS_FILE, folder.name)  # the cache keeps files under snapshots/<commit>/
        return folder

    try:
        folder = _within(timeout, model)
    except Exception as error:
        # The Hub library raises its own errors, those of the HTTP library of its
        # version (requests, httpx) and OSErrors; all of them mean "not fetched".
        raise WeightsError(_hub_reason(repo, revision, error)) from error
    # A model without a card is as good, whatever became of it.
    with contextlib.suppress(Exception):
        _within(CARD_SECONDS, lambda: download(CARD_FILE, folder.name))
    return folder


def _within(seconds: float, work: Callable[[], Result]) -> Result:
    """Do some work, for so long at most.

    The Hub library limits each wait for data, not their number, nor how long it sleeps when
    the Hub says so. Its thread cannot be stopped; it is left behind, and holds up nothing.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    end = time.monotonic() + seconds
    while True:  # in short spells, since Windows delivers Ctrl-C only in between
        try:
            return future.result(min(0.2, max(end - time.monotonic(), 0)))
        except FutureTimeout:
            if future.done():  # the work's own
                raise
            if time.monotonic() >= end:
                raise TimeoutError(f"there was no end after {seconds:g} s") from None


def _status(error: BaseException | None) -> int | None:
    """HTTP status of an error, or of its cause, that carries a response."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return int(status)
        error = error.__cause__
    return None


def _hub_reason(repo: str, revision: str | None, error: Exception) -> str:
    """One sentence on why a Hub download failed and what to do."""
    # The module with the Hub library's errors, the same in versions 0.24 to 2.
    hub: Any = importlib.import_module("huggingface_hub.utils")
    at = f"{repo} at revision {revision!r}" if revision else repo
    status = _status(error)
    if isinstance(error, hub.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}; check its branches and tags on the Hub."
    if isinstance(error, hub.EntryNotFoundError) and not isinstance(
        error, hub.LocalEntryNotFoundError
    ):
        return (
            f"{at} on the Hub lacks {CONFIG_FILE} or {WEIGHTS_FILE}, so it is no srgan-infer "
            "model; check the name."
        )
    if isinstance(error, hub.RepositoryNotFoundError) or status in (401, 403):
        return (
            f"The Hub has no repository {repo}, or it is private or gated (HTTP {status}): check "
            "the name, ask for access on its page if it is gated, and log in with "
            "`hf auth login` or pass token=."
        )
    if isinstance(error, hub.LocalEntryNotFoundError) and status is None:
        return (
            f"{at} is not in the local cache, and the Hub cannot be reached or may not be asked; "
            "check the network, local_files_only and HF_HUB_OFFLINE, or use a bundled model."
        )
    cause = f"HTTP status {status}" if status else " ".join(str(error).split())[:200]
    return f"Fetching {at} from the Hub failed ({cause or type(error).__name__}); try again."


def push(
    weights: Weights,
    repo: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str,
    create_pr: bool = False,
) -> str:
    """Upload a model in one commit; see ``SuperResolver.push_to_hub``."""
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="srgan-infer")

    def upload(folder: str) -> str:
        # A pull request is for repositories that others made and may write to.
        url = repo if create_pr else api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None and not create_pr:
            api.create_branch(repo, branch=revision, exist_ok=True)
        made = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )
        return str(made.pr_url if create_pr else url)

    with tempfile.TemporaryDirectory() as folder:
        store(weights, Path(folder))
        try:
            return _within(TIMEOUT, lambda: upload(folder))
        except Exception as error:  # as many kinds as in fetch
            raise WeightsError(_push_reason(repo, error)) from error


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
