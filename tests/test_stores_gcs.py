"""Google's store: against an emulator on loopback; what does not differ is tested with S3."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from srgan_infer import stores
from srgan_infer.errors import ImageError
from srgan_infer.stores import Remote

NEEDED = "needs the extra gcs and gcp-storage-emulator"
emulator = pytest.importorskip("gcp_storage_emulator.server", reason=NEEDED)


@pytest.fixture(autouse=True)
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    # gcsfs otherwise asks Google by gRPC of what kind the bucket is; the emulator has none.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
    stores._store.cache_clear()
    yield
    stores._store.cache_clear()
    server.stop()


def test_files_are_put_listed_and_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PAGE", 2)
    file = tmp_path / "a.png"
    file.write_bytes(b"1234")
    urls = [f"gs://bucket/in/{index} x.png" for index in range(5)]
    for url in (*urls, "gs://bucket/in/deep/a.png"):
        Remote(url).put(file)
    assert Remote(urls[0]).size() == 4
    assert Remote("gs://bucket/in/9.png").size() is None
    assert [remote.url for remote in Remote("gs://bucket/in").walk(recursive=False)] == urls
    assert len(list(Remote("gs://bucket/in/").walk(recursive=True))) == 6
    Remote(urls[1]).fetch(tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == b"1234"
    with pytest.raises(ImageError, match=r"There is no gs://bucket/in/9.png."):
        Remote("gs://bucket/in/9.png").fetch(tmp_path / "c.png")
