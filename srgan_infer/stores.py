"""Images in object stores and on the web: fetched before they are read, put when they are whole.

A file that fsspec writes to a store appears when it is closed, after an error too. A result
is therefore finished in a local file and then put.
"""

from __future__ import annotations

import errno
import functools
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

from srgan_infer.errors import ImageError, UpscaleError

T = TypeVar("T")

# What a name begins with, and the extra that brings the library.
EXTRAS = {"s3": "s3", "gs": "gcs", "https": "http", "http": "http"}
WRITABLE = ("s3", "gs")

# Seconds before each further attempt, on the average; the libraries' own come on top.
PAUSES = (0.5, 1.0, 2.0)
CONNECT_SECONDS = 15
SILENT_SECONDS = 30

# Names that a store is asked for at once; it gives no more than a thousand.
PAGE = 1000

# What is no better the next time.
LASTING = (LookupError, ValueError, TypeError, ImportError, FileNotFoundError, PermissionError)
LASTING_NUMBERS = {errno.EINVAL, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.EFBIG}
PASSING_STATUSES = {408, 425, 429}


@dataclass(frozen=True)
class Remote:
    """The address of an image or a folder in a store; it goes together as a path does.

    Attributes
    ----------
    url
        ``s3://bucket/key``, ``gs://bucket/key``, or ``https://host/path``, which can
        only be fetched.
    """

    url: str

    def __post_init__(self) -> None:
        if "@" in urlsplit(self.url).netloc:
            raise ValueError(
                f"{urlsplit(self.url).scheme}:// addresses with a password are not taken; "
                "credentials come from the environment."
            )

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, inner: PurePath | str) -> Remote:
        inner = PurePath(inner).as_posix()
        return self if inner == "." else Remote(f"{self.url.rstrip('/')}/{inner}")

    @property
    def scheme(self) -> str:
        """What stands before ``://``."""
        return self.url.split("://")[0]

    @property
    def writable(self) -> bool:
        """Whether results can be put there."""
        return self.scheme in WRITABLE

    @property
    def name(self) -> str:
        """The last part, without what follows a question mark on the web."""
        path = self.url if self.writable else unquote(urlsplit(self.url).path)
        return path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        """The last part without its extension."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The extension."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Remote:
        """The folder that it is in."""
        return Remote(self.url.rstrip("/").rsplit("/", 1)[0])

    def fetch(self, file: Path) -> None:
        """Copy it into a local file.

        Raises
        ------
        ImageError
            If it is not there, not allowed, or the store keeps failing.
        """
        store = _store(self.scheme)
        _repeated(lambda: store.get_file(self.url, str(file)), self, "fetched")

    def open(self) -> BinaryIO:
        """Open it for reading here and there, of which only what is read is fetched.

        Raises
        ------
        ImageError
            If it is not there, not allowed, or the store keeps failing.
        """
        store = _store(self.scheme)
        opened: BinaryIO = _repeated(lambda: store.open(self.url, "rb"), self, "opened")
        return opened

    def put(self, file: Path) -> None:
        """Copy a local file there; it appears whole or not at all.

        Raises
        ------
        ImageError
            If it is not allowed or the store keeps failing.
        """
        store = _store(self.scheme)
        _repeated(lambda: store.put_file(str(file), self.url), self, "written")

    def size(self) -> int | None:
        """Length in bytes; ``None`` if nothing is there.

        Raises
        ------
        ImageError
            If it cannot be told.
        """
        store = _store(self.scheme)

        def look() -> int | None:
            try:
                facts = store.info(self.url)
            except FileNotFoundError:
                return None
            return None if facts["type"] == "directory" else int(facts["size"] or 0)

        return _repeated(look, self, "looked at")

    def walk(self, recursive: bool) -> Iterator[Remote]:
        """Everything in the folder, a page of names at a time.

        Raises
        ------
        ImageError
            If it cannot be listed.
        """
        bucket, _, key = self.url.partition("://")[2].partition("/")
        prefix = f"{key.rstrip('/')}/" if key else ""
        list_page = {"s3": _s3_page, "gs": _gs_page}.get(self.scheme)
        if list_page is None:
            raise ImageError(f"{self} cannot be listed; name the images themselves.")
        store = _store(self.scheme)
        token: str | None = None
        while True:
            page = functools.partial(list_page, store, bucket, prefix, recursive, token)
            names, token = _repeated(page, self, "listed")
            for name in names:
                if not name.endswith("/"):
                    yield Remote(f"{self.scheme}://{bucket}/{name}")
            if not token:
                return


Place = Path | Remote


def place(name: str) -> Place:
    """A path, or an address if the name begins as one.

    Raises
    ------
    ValueError
        If the address has credentials in it.
    """
    if not is_remote(name):
        return Path(name)
    scheme, _, rest = name.partition("://")
    return Remote(f"{scheme.lower()}://{rest}")


def is_remote(name: str) -> bool:
    """Whether a name is an address in a store or on the web."""
    scheme, separator, _ = name.partition("://")
    return bool(separator) and scheme.lower() in EXTRAS


@contextmanager
def local_files(
    source: Place | None, target: Place | None
) -> Iterator[tuple[Path | None, Path | None]]:
    """Local files in the place of remote ones, for the time of the block.

    The source is fetched beforehand; the target is put if the block ends without an
    exception. Messages of the block name the addresses.

    Raises
    ------
    ImageError
        If a store fails.
    """
    if not isinstance(source, Remote) and not isinstance(target, Remote):
        yield source, target
        return
    with tempfile.TemporaryDirectory(prefix="srgan-infer-") as folder:
        here = _local(source, folder, "source")
        there = _local(target, folder, "target")
        if isinstance(source, Remote) and here is not None:
            source.fetch(here)
        try:
            yield here, there
        except UpscaleError as error:
            sentence = str(error)
            for local, remote in ((here, source), (there, target)):
                sentence = sentence.replace(str(local), str(remote))
            raise type(error)(sentence) from error
        if isinstance(target, Remote) and there is not None and there.exists():
            target.put(there)


def _local(file: Place | None, folder: str, name: str) -> Path | None:
    return Path(folder, f"{name}{file.suffix}") if isinstance(file, Remote) else file


@functools.cache
def _store(scheme: str) -> Any:
    """The file system of fsspec; credentials and endpoints come from the environment."""
    options: dict[str, Any] = {"use_listings_cache": False}
    try:
        import fsspec

        if scheme == "s3":
            # One attempt each: the repeating is ours.
            options["config_kwargs"] = {"retries": {"total_max_attempts": 1, "mode": "standard"}}
        elif scheme in ("http", "https"):
            from aiohttp import ClientTimeout

            # No limit on the whole, which the length of a file decides.
            patience = ClientTimeout(None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
            options["client_kwargs"] = {"timeout": patience}
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise UpscaleError(
            f"{scheme}:// needs a further package: pip install 'srgan-infer[{EXTRAS[scheme]}]'."
        ) from error


def _s3_page(
    store: Any, bucket: str, prefix: str, recursive: bool, token: str | None
) -> tuple[list[str], str | None]:
    """Some keys, and where the next ones begin; fsspec's own listing holds all of them."""
    options: dict[str, Any] = {} if recursive else {"Delimiter": "/"}
    if token:
        options["ContinuationToken"] = token
    page = store.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=PAGE, **options)
    return [entry["Key"] for entry in page.get("Contents", ())], page.get("NextContinuationToken")


def _gs_page(
    store: Any, bucket: str, prefix: str, recursive: bool, token: str | None
) -> tuple[list[str], str | None]:
    options: dict[str, Any] = {"maxResults": PAGE, **({} if recursive else {"delimiter": "/"})}
    if token:
        options["pageToken"] = token
    page = store.call("GET", "b/{}/o", bucket, prefix=prefix, json_out=True, **options)
    return [entry["name"] for entry in page.get("items", ())], page.get("nextPageToken")


def _repeated(attempt: Callable[[], T], where: Remote, what: str) -> T:
    """Try again after a while, unless it cannot help."""
    for pause in (*PAUSES, None):
        try:
            return attempt()
        except FileNotFoundError as error:
            if what == "written":
                raise ImageError(f"{where} cannot be written: there is no such bucket.") from error
            raise ImageError(f"There is no {where}.") from error
        except PermissionError as error:
            raise ImageError(
                f"{where} cannot be {what}: the store does not allow it; "
                "credentials come from the environment."
            ) from error
        except Exception as error:
            if pause is None or _is_lasting(error):
                reason = " ".join((str(error) or type(error).__name__).split()).rstrip(".")
                raise ImageError(f"{where} cannot be {what}: {reason}.") from error
            time.sleep(pause * random.uniform(0.5, 1.5))
    raise AssertionError("the last attempt ends the loop")


def _is_lasting(error: Exception) -> bool:
    """Whether a further attempt would fail too."""
    if isinstance(error, LASTING) or getattr(error, "errno", None) in LASTING_NUMBERS:
        return True
    kind = type(error).__name__  # botocore's have no class in common that says this
    if "Credential" in kind or "Token" in kind or "ParamValidation" in kind:
        return True
    status = getattr(error, "status", getattr(error, "code", None))
    return isinstance(status, int) and 400 <= status < 500 and status not in PASSING_STATUSES
