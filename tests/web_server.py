"""Serves the page in a thread, for tests."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def running(application: Any) -> Iterator[str]:
    """Run an ASGI application on a free port of this machine; gives its address."""
    import uvicorn

    config = uvicorn.Config(application, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server has ended"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def ask(address: str, content: Any = None) -> tuple[int, str]:
    """Status and text of an answer to GET, or to POST if there is content (JSON)."""
    data = None if content is None else json.dumps(content).encode()
    headers = {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data, headers)) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def upload(address: str, name: str, content: bytes) -> str:
    """Upload a file as the page does; gives its path on the server."""
    border = "border-of-the-parts"
    body = (
        f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    body += content + f"\r\n--{border}--\r\n".encode()
    request = urllib.request.Request(
        f"{address}/gradio_api/upload",
        body,
        {"Content-Type": f"multipart/form-data; boundary={border}"},
    )
    with urllib.request.urlopen(request) as answer:
        path: str = json.loads(answer.read())[0]
    return path


class Held:
    """A network that takes as long as a test wants: put in the place of ``upscale_file``.

    Attributes
    ----------
    started
        Set when the first image is begun.
    go
        Lets all images be done.
    """

    def __init__(self, upscale_file: Any) -> None:
        self.started, self.go = threading.Event(), threading.Event()
        self._upscale_file = upscale_file
        self.at_once = self.most_at_once = 0

    def __call__(self, *values: Any, progress: Any = lambda *_: None, **options: Any) -> Any:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.started.set()
            progress(1, 4)
            while not self.go.wait(0.02):
                progress(1, 4)
            return self._upscale_file(*values, progress=progress, **options)
        finally:
            self.at_once -= 1
