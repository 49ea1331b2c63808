"""What stands in front of Gradio: only the page's own requests, and none that is too large.

Gradio fetches any address that is posted to it as a file's path, reads any file of the
machine once it is mounted into another application, and has routes that this page does
not use. It sees none of that.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

API = "/gradio_api"
FILE = f"{API}/file="
UPLOAD = f"{API}/upload"
READ = (
    *("/assets/", "/static/", "/svelte/", "/config", "/theme.css", f"{API}/theme.css"),
    *("/favicon.ico", "/robots.txt", "/manifest.json", "/health", f"{API}/info"),
    *(f"{API}/queue/data", f"{API}/heartbeat/", f"{API}/upload_progress", f"{API}/call/"),
    f"{API}/app_id",
)
POSTED = (UPLOAD, f"{API}/queue/join", f"{API}/call/", f"{API}/cancel", f"{API}/reset")

JOIN = f"{API}/queue/join"
SESSION = "srgan_infer.session"  # in the scope of a request that joins the queue: whose it is
STREAM_END = b'"msg":"close_stream"'
# What Gradio's page needs at most, on a busy machine, to take note of a stream's end.
SETTLE_SECONDS = 0.25

JSON_BYTES = 1_000_000
FILES_IN_ONE_UPLOAD = 10  # of the largest size; of smaller ones more
FREE_BYTES = 1_000_000_000

# The page needs nothing from elsewhere, so the browser need not ask elsewhere.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "object-src 'none'; base-uri 'self'"
)


class Lifespan(Protocol):
    """Starts an application once."""

    def is_left_to_the_server(self) -> None:
        """The server has taken it over."""

    async def begin(self) -> None:
        """Wait until the application has started."""


class RefusedError(Exception):
    """A request that is answered with one sentence.

    Parameters
    ----------
    status
        Of the HTTP answer.
    sentence
        Its text.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Guard:
    """An ASGI application that lets the page's own requests through to another.

    Parameters
    ----------
    inner
        The application with the page in it.
    lifespan
        Starts the inner application.
    folder
        Where uploads and results lie; a request may name files in it, no others.
    max_upload
        Bytes of the largest file that is taken; None for no limit.
    """

    def __init__(
        self,
        inner: Application,
        lifespan: Lifespan,
        folder: Path,
        max_upload: int | None,
    ) -> None:
        self._inner = inner
        self._lifespan = lifespan
        self._folder = folder
        self._max_upload = max_upload
        self._ended: dict[str, float] = {}  # sessions whose stream has just ended, and when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                self._lifespan.is_left_to_the_server()
                await self._inner(scope, receive, send)
            return
        await self._lifespan.begin()
        answered = ended = False

        async def read() -> Message:
            message = await checked()
            if message["type"] == "http.disconnect" and ended:
                # The browser leaves when it reads the end, and Gradio, if it is told before
                # it has ended by itself, drops whatever the visitor has begun since.
                await asyncio.Event().wait()
            return message

        async def answer(message: Message) -> None:
            nonlocal answered, ended
            answered = True
            if message["type"] == "http.response.start" and SESSION in scope:
                await self._settled(scope[SESSION])
            if STREAM_END in message.get("body", b""):
                ended = True
                self._note_end(scope)
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        try:
            checked = await self._checked(scope, receive)
            await self._inner(scope, read, answer)
        except RefusedError as refusal:
            if answered:
                raise
            await _say(send, refusal.status, str(refusal))

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """What the application is to read of a request that it may see."""
        path: str = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))
        if scope["method"] in ("GET", "HEAD"):
            if path.startswith(FILE):
                self._check_path(unquote(path.removeprefix(FILE)))
            elif path not in ("", "/") and not path.startswith(READ):
                raise RefusedError(404, "There is nothing here.")
            return receive
        if scope["method"] == "OPTIONS":
            return receive
        if scope["method"] != "POST" or not path.startswith(POSTED):
            raise RefusedError(404, "There is nothing here.")
        if path.startswith(UPLOAD):
            return self._upload(receive)
        body = await _whole(receive)
        try:
            content = json.loads(body or b"null")
        except (ValueError, RecursionError):
            raise RefusedError(400, "The request is not JSON.") from None
        for name in _paths(content):
            self._check_path(name)
        if path == JOIN and isinstance(content, dict):
            scope[SESSION] = str(content.get("session_hash"))
        return _replayed(body, receive)

    def _note_end(self, scope: Scope) -> None:
        now = time.monotonic()
        self._ended = {
            session: end for session, end in self._ended.items() if now - end < SETTLE_SECONDS
        }
        session = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
        self._ended[session] = now

    async def _settled(self, session: str) -> None:
        """Wait until a session's page must know that its stream has ended.

        The page looks whether it has one when it reads that it has joined the queue. If its
        stream ended in between unnoticed, it would open no other one and wait for ever.
        """
        end = self._ended.pop(session, None)
        if end is not None:
            await asyncio.sleep(max(0.0, end + SETTLE_SECONDS - time.monotonic()))

    def _check_path(self, name: object) -> None:
        """Files may only be named that were uploaded here or made here."""
        if isinstance(name, str) and "://" not in name:
            path = Path(name).resolve()
            if self._folder in path.parents:
                return
        raise RefusedError(403, "Only files that were uploaded here may be named, no addresses.")

    def _upload(self, receive: Receive) -> Receive:
        """The body of an upload for as long as there is room for it."""
        if shutil.disk_usage(self._folder).free < FREE_BYTES:
            raise RefusedError(507, "There is no room for more files here; try again later.")
        limit = self._max_upload and self._max_upload * FILES_IN_ONE_UPLOAD
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if limit and seen > limit:
                raise RefusedError(413, f"More than {limit / 1e6:g} MB at once; upload fewer.")
            return message

        return counted


def _paths(content: Any) -> list[object]:
    """Everything that a JSON value calls a path, at any depth."""
    found: list[object] = []
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            found += [value["path"]] if "path" in value else []
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


async def _whole(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > JSON_BYTES:
            raise RefusedError(413, "The request is too large.")
        if not message.get("more_body"):
            return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read already, then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _say(send: Send, status: int, sentence: str) -> None:
    body = sentence.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
