"""Models: a name becomes verified tensors."""

from __future__ import annotations

import os
import re
from pathlib import Path

from srgan_infer.errors import WeightsError
from srgan_infer.weights.convert import convert
from srgan_infer.weights.export import export
from srgan_infer.weights.folder import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    Weights,
    blend,
    build,
    bundled,
    bundled_folder,
    read,
    save,
    store,
)
from srgan_infer.weights.hub import TIMEOUT, fetch, push

__all__ = [
    "CARD_FILE",
    "CONFIG_FILE",
    "DEFAULT",
    "FAITHFUL",
    "PERCEPTUAL",
    "PHOTO",
    "TIMEOUT",
    "WEIGHTS_FILE",
    "Weights",
    "blend",
    "build",
    "bundled",
    "convert",
    "export",
    "fetch",
    "load",
    "push",
    "read",
    "save",
    "store",
]

DEFAULT = "srgan"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FAITHFUL, PERCEPTUAL, PHOTO = "srresnet", "srgan", "srgan-photo"


def load(
    model: str | Path = DEFAULT,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    timeout: float = TIMEOUT,
) -> Weights:
    """Find a model, check it and read it.

    Parameters
    ----------
    model
        A bundled name (``"srgan"``, ``"srresnet"``, ``"srgan-photo"``), a folder, or a Hub
        repository ``"user/repo"``; looked for in this order.
    revision
        Branch, tag or commit of a Hub repository; the default branch if ``None``.
    cache_dir
        Where Hub files are kept; the Hub library's own cache if ``None``.
    token
        Access token for a private repository; ``None`` takes the stored login.
    local_files_only
        Use what the cache has, without asking the Hub.
    force_download
        Fetch from the Hub even if the cache has the files.
    timeout
        Seconds that fetching may take in all, whatever the Hub does.

    Returns
    -------
    Weights
        Verified: SHA-256, tensor names and shapes.

    Raises
    ------
    WeightsError
        If the model cannot be found, fetched, verified or understood.
    """
    name = os.fspath(model)
    if isinstance(model, str) and model in bundled():
        return read(bundled_folder(model), name)
    folder = Path(os.path.expanduser(name))
    if os.path.isdir(folder):
        return read(folder, name)
    if os.path.isfile(folder):
        raise WeightsError(
            f"{name} is a file, but a model is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}; "
            "give the folder."
        )
    if isinstance(model, str) and HUB_NAME.fullmatch(model):
        folder = fetch(
            model,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
            timeout=timeout,
        )
        return read(folder, name, "load it again with force_download=True")
    raise WeightsError(
        f"There is no model {name[:200]!r}; bundled are {', '.join(bundled()) or 'none'}, "
        "anything else is a folder that exists or a Hub repository 'user/repo'."
    )
