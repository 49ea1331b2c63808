"""A page in the browser for those who do not program; extra ``web``.

>>> srgan-upscale --serve
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from srgan_infer import weights
from srgan_infer.errors import UpscaleError

# For visitors who are not the one who serves.
LIMITS = {"max_pixels": 16_000_000, "max_upload": 20_000_000, "queue": 20}
KEPT_SECONDS = 3600
SWEEP_SECONDS = 60
MISSING = "The page needs further packages: pip install 'srgan-infer[web]'"


def app(
    *,
    model: str = weights.DEFAULT,
    strength: float | None = None,
    device: str = "auto",
    max_pixels: int | None = LIMITS["max_pixels"],
    max_upload: int | None = LIMITS["max_upload"],
    queue: int | None = LIMITS["queue"],
    **loading: Any,
) -> Any:
    """Make the page as an ASGI application, with ``/health`` beside it.

    It can be run by any ASGI server, or mounted into another application. Files of
    visitors are deleted after an hour and when the process ends. Nothing is fetched
    from addresses that visitors give, and nothing is sent elsewhere.

    Parameters
    ----------
    model
        The model that is chosen at first: a bundled one, a folder or ``"user/repo"``.
    strength
        Of the default model, at first; in [0, 1].
    device
        As in :class:`srgan_infer.SuperResolver`; several separated by commas, each of
        which computes one image at a time.
    max_pixels
        Largest image that is taken, in pixels over all frames; None for no limit.
    max_upload
        Largest file that is taken, in bytes; None for no limit.
    queue
        Number of visitors who may wait for a device; None for no limit.
    **loading
        Further arguments of :meth:`srgan_infer.SuperResolver.from_pretrained`, such
        as ``dtype`` and ``max_memory``.

    Raises
    ------
    UpscaleError
        If the packages of the extra are missing, or the model cannot be loaded.
    """
    try:
        import gradio
        from fastapi import FastAPI
    except ImportError as error:
        raise UpscaleError(MISSING) from error

    from srgan_infer.web import page
    from srgan_infer.web.guard import Guard
    from srgan_infer.web.service import Options, Service

    # Deleted with the object, at the latest when the process ends.
    kept = tempfile.TemporaryDirectory(prefix="srgan-infer-web-")
    folder = Path(kept.name).resolve()
    devices = [name.strip() for name in device.split(",")]
    service = Service(folder, devices, loading, max_pixels, queue)
    service.any_resolver(Options(model, strength))

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(_sweep(folder))
        try:
            yield
        finally:
            sweeper.cancel()
            service.stop()
            kept.cleanup()

    outer = FastAPI(lifespan=lifespan, openapi_url=None)

    outer.add_api_route("/health", lambda: {"status": "ok"})
    # What Gradio asks the environment for when a page is made, files to keep among it.
    with _environment(
        GRADIO_TEMP_DIR=str(folder),
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_RUN_HISTORY="False",
    ):
        blocks = page.build(service, Options(model, strength), max_upload)
        gradio.mount_gradio_app(
            outer,
            blocks,
            path="/",
            css_paths=[page.CSS],
            theme=page.theme(),
            max_file_size=max_upload,
            footer_links=[],
            enable_monitoring=False,
            show_error=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
        )
    return Guard(outer, _Lifespan(outer), folder, max_upload)


def is_local(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


class _Lifespan:
    """Starts an application before its first request, unless its server does so.

    A server starts the application that it is given, and not what is mounted into it.
    """

    def __init__(self, application: Any) -> None:
        self._application = application
        self._started: asyncio.Future[None] | None = None
        self._life: asyncio.Task[None] | None = None

    def is_left_to_the_server(self) -> None:
        """The server has taken it over."""
        self._started = asyncio.get_running_loop().create_future()
        self._started.set_result(None)

    async def begin(self) -> None:
        """Wait until the application has started."""
        if self._started is None:
            self._started = asyncio.get_running_loop().create_future()
            self._life = asyncio.create_task(self._live(self._started))
        await asyncio.shield(self._started)

    async def _live(self, started: asyncio.Future[None]) -> None:
        """Until the event loop ends, and with it this task."""
        try:
            async with self._application.router.lifespan_context(self._application):
                started.set_result(None)
                await asyncio.Event().wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    ready: Callable[[str], None] = lambda address: None,
    **options: Any,
) -> None:
    """Serve the page until the process is interrupted.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one.
    ready
        Called with the page's address once it can be opened.
    **options
        Of :func:`app`.

    Raises
    ------
    UpscaleError
        If the packages of the extra are missing, or the port is taken.
    """
    application = app(**options)
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UpscaleError(
            f"The page cannot be served at {host}, port {port}: {error.strerror}; "
            "give another --port or --host."
        ) from error
    name = f"[{host}]" if ":" in host else host
    # A page that is open keeps its connections; they are neither waited for nor bewailed.
    config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1)
    logging.getLogger("uvicorn.error").addFilter(_is_of_interest)
    ready(f"http://{name}:{listening.getsockname()[1]}")
    with listening:
        uvicorn.Server(config).run(sockets=[listening])


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Whether a line of the server's log is more than that a connection was ended."""
    error = record.exc_info[1] if record.exc_info else None
    ended = isinstance(error, asyncio.CancelledError)
    return not (ended or record.getMessage().startswith("Cancel "))


async def _sweep(folder: Path) -> None:
    """Delete files an hour after they were written."""
    while True:
        await asyncio.to_thread(_delete_old, folder, time.time() - KEPT_SECONDS)
        await asyncio.sleep(SWEEP_SECONDS)


def _delete_old(folder: Path, before: float) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes first
        with contextlib.suppress(OSError):  # in use on Windows, or a folder with newer files
            if path.stat().st_mtime < before:
                path.rmdir() if path.is_dir() else path.unlink()


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables for a moment."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
