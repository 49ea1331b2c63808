"""Data sets on a real Ray cluster of two nodes, with a worker and a driver killed."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import make_model
from PIL import Image

from srgan_infer.errors import UpscaleError
from srgan_infer.ray import Options, Worker, image_column, pieces, result_name
from srgan_infer.ray import main as ray_main

NEEDED = "needs the extra ray"
ray = pytest.importorskip("ray", reason=NEEDED)
pytest.importorskip("ray.data", reason=NEEDED)
psutil = pytest.importorskip("psutil", reason="needs psutil, to find the worker to kill")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROOT = Path(__file__).parents[1]
MODEL = "./tiny-model"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / MODEL)


def encoded(size: tuple[int, int] = (6, 5), seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def size(data: bytes | Path) -> tuple[int, int]:
    with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
        image.load()
        return image.size


def folder(count: int, sizes: tuple[int, int] = (6, 5)) -> list[str]:
    names = [f"{'deep/' if index % 2 else ''}{index:03d}.png" for index in range(count)]
    for index, name in enumerate(names):
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        Path("in", name).write_bytes(encoded(sizes, index))
    return sorted(names)


def table(path: str, column: str = "image", rows: int = 5, **options: Any) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    images = [encoded(seed=row) if row != 1 else b"no image" for row in range(rows)]
    values = [{"bytes": data, "path": None} for data in images] if column == "image" else images
    pq.write_table(pa.table({column: values, "id": list(range(rows))}), path, **options)


def archive(path: str, names: list[str]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for index, name in enumerate(names):
            data = encoded(seed=index) if name.endswith(".png") else b"{}"
            data = b"no image" if name.startswith("bad") and name.endswith(".png") else data
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def written(root: str = "out") -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in Path(root).rglob("*") if p.is_file())


def results() -> list[str]:
    """The images in the target, without those that are being written."""
    return [name for name in written() if name.endswith(".png")]


class TestPieces:
    """Without a cluster: what one worker does."""

    def work(self, source: str = "in", count: int = 2, **options: Any) -> list[dict[str, Any]]:
        worker = Worker(Options(MODEL, device="cpu", **options))
        told = []
        for piece in pieces(source, "out", count):
            out = worker({"piece": [json.dumps(vars(piece))]})
            told += [
                dict(zip(out, values, strict=True)) for values in zip(*out.values(), strict=True)
            ]
        return told

    def test_images(self) -> None:
        names = folder(5)
        Path("in/bad.png").write_bytes(b"no image")
        Path("in/notes.txt").write_text("no image")
        others: Counter[str] = Counter()
        list(pieces("in", "out", others=others))
        assert others == {".txt": 1}
        told = self.work()
        assert sorted(row["name"] for row in told) == sorted([*names, "bad.png"])
        assert {row["name"] for row in told if row["status"] == "failed"} == {"bad.png"}
        assert written() == names
        assert size(Path("out", names[0])) == (24, 20)
        assert {row["status"] for row in self.work()} == {"kept", "failed"}

    def test_a_single_image(self) -> None:
        folder(1)
        assert [row["status"] for row in self.work("in/000.png")] == ["done"]
        assert written() == ["000.png"]

    @pytest.mark.parametrize("column", ["image", "bytes"])
    def test_tables(self, column: str) -> None:
        table("in/deep/a.parquet", column, row_group_size=3)
        told = self.work()
        assert [row["status"] for row in told].count("failed") == 1
        assert written() == [
            f"deep/a-{group:05d}-{start:07d}.parquet" for group, start in ((0, 0), (0, 2), (1, 0))
        ]
        rows = [row for name in written() for row in pq.read_table(f"out/{name}").to_pylist()]
        assert [row["id"] for row in rows] == list(range(5))
        for row in rows:
            data = row[column]["bytes"] if column == "image" else row[column]
            if row["id"] == 1:
                assert data is None
                assert row["error"].endswith(".")
            else:
                assert size(data) == (24, 20)
                assert row["error"] is None
        assert {row["status"] for row in self.work()} == {"kept"}

    def test_a_column_of_another_name(self) -> None:
        table("in/a.parquet", "photo")
        assert "--column" in self.work()[0]["error"]
        assert self.work(column="photo")[0]["status"] == "done"
        with pytest.raises(UpscaleError, match="photo, id"):
            image_column(["photo", "id"], "a.parquet")

    def test_archives(self) -> None:
        archive("in/a.tar", ["x.png", "x.json", "bad.png", "bad.json", "z.png"])
        told = self.work(format="webp")
        assert [row["status"] for row in told] == ["done", "failed", "done"]
        with tarfile.open("out/a.tar") as tar:
            names = tar.getnames()
            assert names == ["x.webp", "x.json", "bad.png.error", "bad.json", "z.webp"]
            file = tar.extractfile("x.webp")
            assert file is not None
            assert size(file.read()) == (24, 20)
        assert [row["status"] for row in self.work()] == ["kept"]

    @pytest.mark.parametrize("name", ["a.parquet", "a.tar"])
    def test_a_damaged_file_fails_alone(self, name: str) -> None:
        folder(1)
        Path("in", name).write_bytes(b"rubbish" * 100)
        status = {row["name"]: row["status"] for row in self.work()}
        assert status == {"000.png": "done", f"in/{name}": "failed"}
        assert written() == ["000.png"]

    def test_nothing_to_do(self) -> None:
        Path("in").mkdir()
        for source in ("in", "missing"):
            with pytest.raises(UpscaleError):
                list(pieces(source, "out"))

    def test_names_of_results(self) -> None:
        assert result_name("x/a.JPG", None) == "x/a.JPG"
        assert result_name("a.b.ico", None) == "a.b.png"
        assert result_name("a.jpeg", "jpg") == "a.jpeg"
        assert result_name("a.png", "jpg") == "a.jpg"


# What follows is slow: a cluster has to be started.


# What Python runs first in each process of the cluster: one image ends its process.
DEADLY = """
import os
from srgan_infer.batch import UpscaleBatch
encoded = UpscaleBatch._encoded
UpscaleBatch._encoded = lambda *args: os._exit(1) if args[1] == b"deadly" else encoded(*args)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of two nodes on this machine, of one processor each."""
    from ray.cluster_utils import Cluster

    first = tmp_path_factory.mktemp("first")
    (first / "sitecustomize.py").write_text(DEADLY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (first, ROOT))))
        patch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        small = {"num_cpus": 1, "object_store_memory": 200 * 2**20}
        nodes = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
        nodes.add_node(**small)
        nodes.wait_for_nodes()
        ray.init(address=nodes.address, log_to_driver=False)
        yield str(nodes.address)
        ray.shutdown()
        nodes.shutdown()


def actors() -> list[Any]:
    """Processes of this cluster in which the model runs."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "Worker" in " ".join(process.cmdline()) and "ray::" in process.cmdline()[0]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


@pytest.mark.slow
class TestCluster:
    COMMAND = ("in", "out", "--model", MODEL, "--cpus", "1", "--device", "cpu", "--piece", "4")

    def start(self, cluster: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "srgan_infer.ray", *self.COMMAND],
            env={**os.environ, "RAY_ADDRESS": cluster},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )

    def test_two_workers_share_a_folder(
        self, cluster: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        names = folder(20)
        Path("in/bad.png").write_bytes(b"no image")
        Path("in/000.ico").write_bytes(encoded())  # which would become 000.png
        Path("in/notes.txt").write_text("no image")
        assert ray_main(self.COMMAND) == 1
        assert "20 done, 2 failed, 1 not taken" in capsys.readouterr().err
        assert written() == sorted([*names, "failed.jsonl"])
        failed = [json.loads(line) for line in Path("out/failed.jsonl").read_text().splitlines()]
        assert {line["input"] for line in failed} in (
            {"000.png", "bad.png"},
            {"000.ico", "bad.png"},
        )
        assert any("do them apart" in line["reason"] for line in failed)

    def test_a_worker_is_killed(self, cluster: str) -> None:
        names = folder(60, (120, 90))
        table("in/t.parquet", rows=9)
        archive("in/t.tar", [f"{index}.png" for index in range(9)])
        process = self.start(cluster)
        wait_for(lambda: len(results()) > 8)
        victims = actors()
        assert victims
        victims[0].send_signal(signal.SIGKILL)
        before = len(written())
        assert process.stderr is not None
        err = process.stderr.read()
        assert process.wait() == 1, err  # the table has a damaged row
        assert before < len(names)
        images = [name for name in written() if name.endswith(".png")]
        assert images == names
        assert all(size(Path("out", name)) == (480, 360) for name in images)
        tables = [name for name in written() if name.endswith(".parquet")]
        rows = [row["id"] for name in tables for row in pq.read_table(f"out/{name}").to_pylist()]
        assert sorted(rows) == list(range(9))
        with tarfile.open("out/t.tar") as tar:
            assert sorted(tar.getnames()) == [f"{index}.png" for index in range(9)]
        assert not [name for name in os.listdir("out") if name.endswith(".part")]

    def test_an_image_that_kills_its_worker_each_time(
        self, cluster: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        names = folder(4)
        Path("in/deadly.png").write_bytes(b"deadly")
        assert ray_main((*self.COMMAND, "--piece", "1")) == 1
        assert "4 done, 1 failed" in capsys.readouterr().err
        assert written() == sorted([*names, "failed.jsonl"])
        failed = json.loads(Path("out/failed.jsonl").read_text())
        assert failed["input"] == "deadly.png"
        assert "worker died" in failed["reason"]

    def test_the_driver_is_killed(self, cluster: str) -> None:
        names = folder(60, (120, 90))
        process = self.start(cluster)
        wait_for(lambda: len(results()) > 8)
        process.kill()
        process.wait()
        finished = {name: Path("out", name).stat().st_mtime_ns for name in results()}
        assert 8 < len(finished) < len(names)
        # Workers of the first run may be on their last images while the second one begins.
        process = self.start(cluster)
        assert process.stderr is not None
        err = process.stderr.read()
        assert process.wait() == 0, err
        counts = re.search(r"(\d+) done, (\d+) kept", err)
        assert counts is not None, err
        done, kept = map(int, counts.groups())
        assert done + kept == len(names)
        assert kept >= len(finished)
        assert results() == names
        assert all(Path("out", n).stat().st_mtime_ns == t for n, t in finished.items())

    def test_a_wrong_model_is_refused(
        self, cluster: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder(1)
        assert ray_main(("in", "out", "--model", "./nowhere")) == 2
        assert "nowhere" in capsys.readouterr().err
        assert not Path("out").exists()

    def test_a_column_with_map_batches(self, cluster: str) -> None:
        from srgan_infer.batch import UpscaleBatch

        rows = [{"bytes": encoded(seed=index), "id": index} for index in range(6)]
        rows[3]["bytes"] = b"no image"
        out = (
            ray.data.from_items(rows)
            .map_batches(
                UpscaleBatch,
                fn_constructor_kwargs={"model": os.path.abspath(MODEL), "device": "cpu"},
                compute=ray.data.ActorPoolStrategy(size=1),
                num_cpus=1,
                batch_size=2,
            )
            .take_all()
        )
        assert sorted(row["id"] for row in out) == list(range(6))
        for row in out:
            assert (row["error"] is None) == (row["id"] != 3)
            assert row["id"] == 3 or size(row["upscaled"]) == (24, 20)
