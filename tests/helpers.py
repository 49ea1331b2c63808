"""What several tests make: images of noise, tiny models, a stand-in for the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import http.server
import io
import socket
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

COMMITS = {"main": "a" * 40, "v1": "b" * 40}


class Hub(http.server.ThreadingHTTPServer):
    """Answers as the Hub does for ``/user/repo/resolve/revision/file``.

    ``files`` maps (repository, commit, file name) to content, ``mode`` says how it
    misbehaves, ``requests`` is what it was asked.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.reset()

    def reset(self) -> None:
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.mode = "well"
        self.requests: list[str] = []

    def add(self, repo: str, folder: Path, commit: str = COMMITS["main"]) -> None:
        for path in folder.iterdir():
            self.files[repo, commit, path.name] = path.read_bytes()


class Answer(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: object) -> None:
        pass

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.refuse(401, "Unauthorized")

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        if self.path.startswith("/api/"):
            return self.refuse(401, "Unauthorized")
        owner, name, _, revision, file = self.path.lstrip("/").split("/")
        repo = f"{owner}/{name}"
        if self.server.mode == "private":
            return self.refuse(401, "RepoNotFound")
        if self.server.mode == "gated":
            return self.refuse(403, "GatedRepo")
        if self.server.mode == "ill":
            return self.refuse(418, "Teapot")
        if self.server.mode == "token" and self.headers["Authorization"] != "Bearer hf_secret":
            return self.refuse(401, "RepoNotFound")
        if repo not in {key[0] for key in self.server.files}:
            return self.refuse(404, "RepoNotFound")
        commit = COMMITS.get(revision, revision)
        if (repo, commit) not in {key[:2] for key in self.server.files}:
            return self.refuse(404, "RevisionNotFound")
        content = self.server.files.get((repo, commit, file))
        if content is None:
            return self.refuse(404, "EntryNotFound")
        if owner == "slow" and not self.answer_slowly(name, file):
            return None
        start = 0
        if span := self.headers["Range"]:
            start = int(span.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{commit[:4]}-{file}-{len(content)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            cut = self.server.mode == "truncating" and file.endswith(".safetensors")
            self.wfile.write(content[start : len(content) // 2 if cut else None])
        return None

    def answer_slowly(self, manner: str, file: str) -> bool:
        """As Hubs in trouble do; whether the file is to be sent after all."""
        if manner == "retry-later":
            self.send_response(429)
            self.send_header("Retry-After", "3600")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif manner in ("trickling", "stalling"):
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMITS["main"])
            self.send_header("ETag", '"tag"')
            self.send_header("Content-Length", "5000")
            self.end_headers()
            with contextlib.suppress(OSError):  # the other side has left
                while self.command == "GET":
                    self.wfile.write(b" ")
                    time.sleep(0.05 if manner == "trickling" else 400)
        elif file == "README.md" and manner == "card-500":
            self.refuse(500, "Broken")
        elif file == "README.md" and manner == "card-reset":
            lingering = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)
            self.close_connection = True
            self.connection.close()
        else:
            return True
        return False


def noise(
    shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8, seed: int = 0
) -> npt.NDArray[Any]:
    """Random values over all the range of a dtype; floats in [0, 1)."""
    values = np.random.default_rng(seed).random(shape)
    if np.dtype(dtype).kind == "f":
        return values.astype(dtype)
    return (values * np.iinfo(np.dtype(dtype)).max).round().astype(dtype)


def make_model(folder: Path, seed: int = 0, half: bool = False) -> Path:
    from srgan_infer import weights
    from srgan_infer.network.generator import Generator, GeneratorConfig

    torch.manual_seed(seed)
    config = GeneratorConfig(channels=8, blocks=2, input_skip="bilinear")
    generator = Generator(config)
    weights.save(folder, config, generator.state_dict(), "---\nlicense: mit\n---\n", half)
    return folder


def display_p3() -> bytes:
    """An ICC profile of the colours that phones take photographs in."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def point(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(map(number, values))

    name = b"Display P3\0"
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256)) + bytes(2)
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(79),
        b"cprt": b"text" + bytes(4) + b"CC0\0",
        b"wtpt": point(0.9642, 1.0, 0.8249),
        b"rXYZ": point(0.51512, 0.2412, -0.00105),
        b"gXYZ": point(0.29198, 0.69225, 0.04189),
        b"bXYZ": point(0.1571, 0.06657, 0.78407),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, data = struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", 132 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = bytes(4) + struct.pack(">I", 0x02400000) + b"mntrRGB XYZ "
    head = bytes(4) + head + bytes(12) + b"acsp" + bytes(28)
    head += number(0.9642) + number(1) + number(0.8249) + bytes(48)
    return struct.pack(">I", len(head) + len(table) + len(data)) + head[4:] + table + data


MAKER_NOTE = b"Maker's own\0" + bytes(range(200))


def save_as_phone(image: Image.Image, path: Path) -> None:
    """Save as a phone does that was held upright: a JPEG that lies on its side.

    With a place, a maker's note, a thumbnail and the profile Display P3.
    """
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Maker", "Phone", 6
    exif.get_ifd(0x8769).update(
        {0x829A: 0.01, 0x927C: MAKER_NOTE, 0xA001: 65535, 0xA002: image.width, 0xA003: image.height}
    )
    exif.get_ifd(0x8825).update({1: "N", 2: (51.0, 30.0, 20.5), 3: "W", 4: (0.0, 7.0, 5.5)})
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    file = io.BytesIO()
    image.resize((160, 120)).save(file, "JPEG")
    thumbnail = file.getvalue()
    # Pillow writes no second directory, which is where a thumbnail is.
    assert block.startswith(b"MM")
    (count,) = struct.unpack_from(">H", block, 8)
    link = 10 + 12 * count
    second = struct.pack(">HHHIHH", 3, 259, 3, 1, 6, 0)
    second += struct.pack(">HHII", 513, 4, 1, len(block) + 42)
    second += struct.pack(">HHII", 514, 4, 1, len(thumbnail)) + bytes(4)
    block = block[:link] + struct.pack(">I", len(block)) + block[link + 4 :] + second + thumbnail
    image.save(path, quality=92, exif=b"Exif\0\0" + block, icc_profile=display_p3())
