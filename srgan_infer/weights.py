"""Models on disk and on the Hub: a name becomes verified tensors.

A model is a folder with ``config.json``, ``model.safetensors`` and
``README.md``. The layout is the same whether the folder is bundled with the
package, lies on the user's disk or is a repository on the Hugging Face Hub.
Weights are read from safetensors only, never from a pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import Tensor

from srgan_infer.errors import WeightsError
from srgan_infer.generator import Generator, GeneratorConfig

ARCHITECTURE = "srgan-generator"
FORMAT = 1
DEFAULT = "srgan"
FAITHFUL, PERCEPTUAL, PHOTO = "srresnet", "srgan", "srgan-photo"

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
BUNDLED_FOLDER = Path(__file__).parent / "pretrained"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_STORED_TYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Weights:
    """A model that was read and verified, or a blend of two.

    Attributes
    ----------
    name
        What the user asked for: a bundled name, a folder or a Hub repository.
    config
        The network that the tensors belong to.
    state
        Tensor name → float32 tensor, exactly the names and shapes of ``config``.
    sha256
        Hexadecimal SHA-256 of ``model.safetensors``; of both, joined by ``+``, for a blend.
    folder
        Where the files lie; ``None`` for a blend.
    """

    name: str
    config: GeneratorConfig
    state: Mapping[str, Tensor]
    sha256: str
    folder: Path | None


def bundled() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    return tuple(sorted(path.parent.name for path in BUNDLED_FOLDER.glob(f"*/{CONFIG_FILE}")))


def load(
    model: str | Path = DEFAULT,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
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
        return read(BUNDLED_FOLDER / model, name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return read(folder, name)
    if folder.is_file():
        raise WeightsError(
            f"{name} is a file, but a model is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}; "
            "give the folder."
        )
    if isinstance(model, str) and _HUB_NAME.fullmatch(model):
        folder = fetch(
            model,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        return read(folder, name, "load it again with force_download=True")
    raise WeightsError(
        f"There is no model {name!r}; bundled are {', '.join(bundled()) or 'none'}, "
        "anything else is a folder that exists or a Hub repository 'user/repo'."
    )


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


def read(folder: Path, name: str, remedy: str = "fetch the folder again") -> Weights:
    """Read and verify one model folder.

    Parameters
    ----------
    folder
        Holds ``config.json`` and ``model.safetensors``.
    name
        How messages call the model.
    remedy
        What a message advises when the files are damaged.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, or describes another kind of model.
    """
    config, sha256 = _read_config(folder, name)
    path = folder / WEIGHTS_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        others = sorted(p.name for p in folder.iterdir() if p.suffix in (".pth", ".pt", ".bin"))
        hint = f" ({others[0]} is not read: pickles can run code)" if others else ""
        raise WeightsError(f"{name} has no {WEIGHTS_FILE}{hint}; {remedy}.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        what = "is cut short" if _is_truncated(data) else "is damaged or was replaced"
        raise WeightsError(
            f"{path} {what} (SHA-256 {found[:12]}…, {CONFIG_FILE} says {sha256[:12]}…); {remedy}."
        )
    try:
        state = safetensors_torch.load(data)
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"{path} is not a safetensors file ({error}); {remedy}.") from error
    _check_tensors(path, config, state)
    return Weights(name, config, {k: v.float() for k, v in state.items()}, found, folder)


def _is_truncated(data: bytes) -> bool:
    """Whether safetensors data ends before its header says."""
    header = 8 + int.from_bytes(data[:8], "little")
    if len(data) < max(header, 8):
        return True
    try:
        entries: dict[str, Any] = json.loads(data[8:header])
        ends = [v["data_offsets"][1] for k, v in entries.items() if k != "__metadata__"]
        return len(data) < header + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False


def _read_config(folder: Path, name: str) -> tuple[GeneratorConfig, str]:
    """The network's description and the SHA-256 its weights must have."""
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(
            f"{name} has no {CONFIG_FILE}, so it is no srgan-infer model; check the name."
        ) from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise WeightsError(f"{path} is not valid JSON ({error}); fetch it again.") from error
    if not isinstance(values, dict) or values.get("architecture") != ARCHITECTURE:
        kind = values.get("architecture") if isinstance(values, dict) else None
        found = f"says {kind!r}" if kind is not None else "names none"
        raise WeightsError(
            f"{name} is of a foreign architecture ({CONFIG_FILE} {found}, srgan-infer reads "
            f"{ARCHITECTURE!r}); choose another model."
        )
    version = values.get("format")
    if type(version) is not int or version > FORMAT:
        raise WeightsError(
            f"{name} has format {version!r}, newer than this srgan-infer reads ({FORMAT}); "
            "run `pip install -U srgan-infer`."
        )
    sha256 = values.get("sha256")
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise WeightsError(
            f"{path} lacks the SHA-256 of {WEIGHTS_FILE}, so the weights cannot be checked; "
            "export the model again."
        )
    try:
        config = GeneratorConfig.from_dict(values["generator"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} does not describe a generator ({error}); "
            "run `pip install -U srgan-infer` or export the model again."
        ) from error
    return config, sha256


def _check_tensors(path: Path, config: GeneratorConfig, state: Mapping[str, Tensor]) -> None:
    """Names, shapes and types must be those of the described network."""
    # An absurd number of blocks in a config must not build an absurd network first.
    if config.blocks > len(state):
        raise WeightsError(
            f"{path} has {len(state)} tensors, too few for the {config.blocks} blocks that its "
            f"{CONFIG_FILE} describes; export the model again."
        )
    with torch.device("meta"):
        expected = Generator(config).state_dict()
    for problem, names in (
        ("lacks", expected.keys() - state.keys()),
        ("has the unknown", state.keys() - expected.keys()),
    ):
        if names:
            raise WeightsError(
                f"{path} {problem} tensor {min(names)} ({len(names)} such), so it does not fit "
                f"its {CONFIG_FILE}; export the model again."
            )
    for key, tensor in state.items():
        if tensor.shape != expected[key].shape:
            raise WeightsError(
                f"{path}: tensor {key} is {tuple(tensor.shape)} instead of "
                f"{tuple(expected[key].shape)}, so it does not fit its {CONFIG_FILE}; "
                "export the model again."
            )
        if tensor.dtype not in _STORED_TYPES:
            raise WeightsError(
                f"{path}: tensor {key} is {tensor.dtype}, but weights are stored as float32 or "
                "float16; export the model again."
            )


def build(weights: Weights) -> Generator:
    """The network with its weights, on the CPU, in evaluation mode."""
    with torch.device("meta"):
        generator = Generator(weights.config)
    generator.load_state_dict(dict(weights.state), assign=True)
    return generator.eval().requires_grad_(False)


def blend(faithful: Weights, perceptual: Weights, strength: float) -> Weights:
    """Interpolate linearly between two networks of one topology.

    Source: Wang et al., "ESRGAN", arXiv 1809.00219, section 3.4 (network interpolation).

    Parameters
    ----------
    faithful, perceptual
        The ends, at strength 0 and 1.
    strength
        In [0, 1].

    Raises
    ------
    ValueError
        If ``strength`` is outside [0, 1].
    WeightsError
        If the two describe different networks.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie between 0 and 1, not {strength!r}.")
    if faithful.config != perceptual.config:
        raise WeightsError(
            f"{faithful.name} and {perceptual.name} describe different networks, so they cannot "
            "be blended; leave strength out."
        )
    if strength in (0, 1):
        return perceptual if strength else faithful
    state = {
        key: tensor * (1 - strength) + perceptual.state[key] * strength
        for key, tensor in faithful.state.items()
    }
    return replace(
        faithful,
        name=f"{faithful.name}+{perceptual.name} at strength {strength:g}",
        state=state,
        sha256=f"{faithful.sha256}+{perceptual.sha256}",
        folder=None,
    )


def save(
    folder: str | Path,
    config: GeneratorConfig,
    state: Mapping[str, Tensor],
    card: str,
    half: bool = False,
) -> None:
    """Write a model folder in the layout that :func:`load` reads.

    Each file appears whole or not at all. A crash between two of them leaves
    a folder whose hash does not match, which :func:`load` reports.

    Parameters
    ----------
    folder
        Created if need be.
    config, state
        The network and its tensors.
    card
        Text of ``README.md``: Markdown behind YAML front matter.
    half
        Store float16 instead of float32: half the size, read back as float32.

    Raises
    ------
    WeightsError
        If the tensors do not fit the config.
    """
    folder = Path(folder)
    dtype = torch.float16 if half else torch.float32
    stored = {k: v.detach().to("cpu", dtype).contiguous() for k, v in state.items()}
    _check_tensors(folder / WEIGHTS_FILE, config, stored)
    data = safetensors_torch.save(stored, {"format": "pt"})
    description = {
        "architecture": ARCHITECTURE,
        "format": FORMAT,
        "generator": config.to_dict(),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / WEIGHTS_FILE, data)
    _replace(folder / CONFIG_FILE, (json.dumps(description, indent=2) + "\n").encode())
    _replace(folder / CARD_FILE, card.encode())


def _replace(path: Path, data: bytes) -> None:
    """Write a file beside the target, then put it in the target's place."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def store(weights: Weights, folder: Path) -> None:
    """Write a loaded model to a folder: a copy of its files, or a blend as a model of its own."""
    if weights.folder is None:
        save(folder, weights.config, weights.state, _blend_card(weights))
        return
    files = {
        name: (weights.folder / name).read_bytes()
        for name in (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE)
        if (weights.folder / name).is_file()
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        _replace(folder / name, data)


def _blend_card(weights: Weights) -> str:
    return f"""---
license: mit
library_name: srgan-infer
pipeline_tag: image-to-image
tags:
- super-resolution
- srgan
---

# {weights.name}

A ×{weights.config.scale} super-resolution generator made by network interpolation: every weight is
the weighted mean of two models that srgan-infer bundles (SHA-256 {weights.sha256}).
Strength 0 is the faithful srresnet, 1 the perceptual srgan. Their model cards state data,
training and results.

```python
from srgan_infer import SuperResolver

sr = SuperResolver.from_pretrained("this-folder-or-repository")
```
"""


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
