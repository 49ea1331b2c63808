"""Long lists of images: streamed, in parts, with a record that later runs believe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import Run, command, paint, size

from srgan_infer.cli.jobs import Shard, UsageError
from srgan_infer.cli.lists import Lists, plan_lazily
from srgan_infer.cli.manifest import Manifest, Records

Runs = Callable[..., Run]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def run(bundled: Path, capsys: pytest.CaptureFixture[str]) -> Runs:
    return lambda *arguments: Run(capsys, arguments)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def written(lines: str | list[str], name: str = "list.txt") -> Lists:
    text = lines if isinstance(lines, str) else "".join(f"{line}\n" for line in lines)
    Path(name).write_text(text)
    return Lists(file=name)


def planned(lists: Lists, output: str | None = "large", **options: Any) -> dict[str, str]:
    """Source → target of what is to be done, or else why not."""
    return {
        job.name: job.problem or job.skipped or Path(str(job.target)).as_posix()
        for job in plan_lazily(lists, output, **options)
    }


def recorded(path: str = "manifest.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


class TestNames:
    def test_results_keep_the_folders_of_the_list(self) -> None:
        assert planned(written(["a.png", "deep/a.png", "x.ico"])) == {
            "a.png": "large/a.png",
            "deep/a.png": "large/deep/a.png",
            "x.ico": "large/x.png",
        }

    def test_what_the_names_are_relative_to(self) -> None:
        inside, outside = os.path.abspath("in/deep/a.png"), os.path.abspath("b.png")
        lists = written([inside, outside, "c.png"])
        assert planned(Lists(file="list.txt", root="in")) == {
            inside: "large/deep/a.png",
            outside: "large/b.png",
            str(Path("in/c.png")): "large/c.png",
        }
        assert planned(lists)[inside] == "large/a.png"

    @pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "/etc/a.png", "./a.png"])
    def test_no_result_leaves_the_folder(self, name: str) -> None:
        assert list(planned(written([name])).values()) == ["large/a.png"]

    def test_lines_of_any_kind(self) -> None:
        lists = written("a b.png\r\n\n  c.png\nläst.png")
        assert list(planned(lists)) == ["a b.png", "  c.png", "läst.png"]
        Path("list.txt").write_bytes(b"caf\xe9.png\n")
        assert list(planned(lists)) == [os.fsdecode(b"caf\xe9.png")]

    def test_folders_and_patterns(self) -> None:
        touch("in/a.png", "in/deep/b.png", "in/notes.txt", "in/.c.png", "in/large/d.png", "e.png")
        everything = Lists(["in", "*.png"], recursive=True)
        assert planned(everything, "in/large") == {
            str(Path("in/a.png")): "in/large/a.png",
            str(Path("in/deep/b.png")): "in/large/deep/b.png",
            "e.png": "in/large/e.png",
            "in": "1 file passed over: .txt (1).",
        }
        Path("in/notes.txt").unlink()
        assert set(planned(written(["in"]), "other")) == {str(Path("in/a.png"))}

    def test_what_leads_nowhere_fails_alone(self) -> None:
        touch("empty/notes.txt", "a.png")
        found = planned(Lists(["empty", "*.gif", "a.png"]))
        assert "no image in this folder" in found["empty"]
        assert "No image matches" in found["*.gif"]
        assert found["a.png"] == "large/a.png"

    def test_other_addresses(self) -> None:
        for lists in (Lists(["ftp://host/a.png"]), written(["ftp://host/a.png"])):
            assert "web address" in planned(lists)["ftp://host/a.png"]

    def test_a_closed_folder_fails_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        touch("in/a.png", "in/closed/b.png")
        scandir = os.scandir

        def refusing(path: Path) -> Any:
            if path.name == "closed":
                raise PermissionError(13, "Permission denied")
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)  # nothing is closed to root
        found = planned(Lists(["in"], recursive=True))
        assert found[str(Path("in/a.png"))] == "large/a.png"
        assert "cannot be listed" in found[str(Path("in/closed"))]

    def test_videos(self) -> None:
        assert planned(written(["a.mp4"]))["a.mp4"] == "large/a.mp4"
        assert "is for images" in planned(written(["a.mp4"]), format="png")["a.mp4"]
        assert planned(Lists(["a.mp4"]), "out.mkv")["a.mp4"] == "out.mkv"

    def test_beside_the_sources_and_not_again(self) -> None:
        touch("in/a.png", "in/a_upscaled.png")
        assert planned(Lists(["in"]), None, overwrite=True) == {
            str(Path("in/a.png")): "in/a_upscaled.png",
            str(Path("in/a_upscaled.png")): "It is the result of another input.",
        }


class TestContradictions:
    def test_two_results_of_one_name_fail_the_second(self) -> None:
        touch("a.png", "a.jpg", "x/a.png", "y/a.png")
        for lists in (Lists(["a.png", "a.jpg"]), Lists(["x", "y"])):
            first, second = planned(lists, format="png", overwrite=True).values()
            assert first == "large/a.png"
            assert "both become" in second

    def test_a_name_twice_is_one_image(self) -> None:
        touch("a.png")
        assert list(planned(written(["a.png", "./a.png", os.path.abspath("a.png")]))) == ["a.png"]

    def test_a_source_is_not_replaced(self) -> None:
        touch("a.png")
        assert "replace the source" in planned(Lists(["a.png"]), ".", suffix="")["a.png"]

    def test_results_that_exist(self) -> None:
        touch("a.png", "large/a.png", "b.png", "large/b.png/c.png")
        lists = written(["a.png"])
        assert "--overwrite" in planned(lists)["a.png"]
        assert planned(lists, overwrite=True)["a.png"] == "large/a.png"
        assert planned(lists, skip_existing=True)["a.png"] == "The result exists."
        assert "is a folder" in planned(Lists(["b.png"]), "large/", overwrite=True)["b.png"]

    @pytest.mark.parametrize(
        ("lists", "output"),
        [
            (Lists(["-"]), "large"),
            (Lists(["a.png"]), "-"),
            (Lists(["a.png", "b.png"]), "out.png"),
            (Lists(["in"]), "out.png"),
            (Lists(["*.png"]), "out.png"),
            (Lists(file="list.txt"), "out.png"),
            (Lists(file="missing.txt"), "large"),
            (Lists(["a.png"], root="in"), "large"),
            (Lists(["s3://bucket/a.png"]), None),
            (Lists(["s3://user:secret@bucket/a.png"]), "large"),
            (Lists(["a.png"]), "https://host/large"),
            (Lists(["a.png"]), "list.txt"),
        ],
    )
    def test_are_refused_at_once(self, lists: Lists, output: str | None) -> None:
        touch("in/a.png", "a.png", "list.txt")
        with pytest.raises(UsageError) as caught:
            plan_lazily(lists, output)
        assert str(caught.value).endswith(".")
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        "options",
        [
            ("--retry-failed",),
            ("--root", "in"),
            ("--shard", "2/2"),
            ("--shard", "1"),
            ("--from-file", "missing.txt"),
            ("--manifest", "in"),
        ],
    )
    def test_on_the_command_line(self, run: Runs, options: tuple[str, ...]) -> None:
        paint("in/a.png")
        done = run("in", "-o", "large", *options)
        assert done.status == 2
        assert done.err
        assert not Path("large").exists()

    def test_two_photographs_from_the_shell(self, run: Runs) -> None:
        paint("a.png")
        kept = paint("b.png").read_bytes()
        assert run("a.png", "b.png", "--overwrite", "--manifest", "m.jsonl").status == 2
        assert Path("b.png").read_bytes() == kept


class TestShards:
    NAMES = st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1), min_size=1)

    @settings(deadline=None)
    @given(NAMES, st.integers(1, 9))
    def test_each_image_is_in_one(self, names: list[str], count: int) -> None:
        shards = [Shard(index, count) for index in range(count)]
        for name in names:
            inner = Path("deep", f"x{name}.png")
            assert sum(inner in shard for shard in shards) == 1

    def test_results_of_one_name_meet(self) -> None:
        for index in range(50):
            shard = Shard(index % 7, 7)
            assert (Path(f"d/{index}.png") in shard) == (Path(f"d/{index}.jpeg") in shard)

    def test_stay_as_they_were_published(self) -> None:
        # A run may go on with a later version of this package.
        parts = [[n for n in range(12) if Path(f"p/{n}.jpg") in Shard(i, 3)] for i in range(3)]
        assert parts == [[5, 6, 7, 8, 9], [3, 4], [0, 1, 2, 10, 11]]

    @pytest.mark.parametrize("streamed", [False, True])
    def test_together_they_do_everything_once(self, run: Runs, streamed: bool) -> None:
        names = [f"in/{folder}/{index}.png" for folder in "ab" for index in range(5)]
        for name in names:
            paint(name, (2, 2))
        done = []
        for index in range(3):
            more = ("--manifest", f"{index}.jsonl") if streamed else ()
            one = run("in", "-r", "-o", "large", "--json", "--shard", f"{index}/3", *more)
            assert one.status == 0
            done += [line["input"] for line in one.lines]
        assert sorted(done) == sorted(str(Path(name)) for name in names)
        assert len(list(Path("large").rglob("*.png"))) == 10


class TestManifest:
    LINES = st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), max_size=8)

    def test_one_line_an_image(self, run: Runs) -> None:
        paint("a.png")
        Path("bad.png").write_bytes(b"no image")
        done = run("a.png", "bad.png", "missing.png", "-o", "large", "--manifest", "m/a.jsonl")
        assert done.status == 1
        a, bad, missing = recorded("m/a.jsonl")
        assert (a["input"], a["status"], a["output_size"]) == ("a.png", "done", [24, 20])
        assert a["output_bytes"] == Path("large/a.png").stat().st_size
        assert (bad["input"], bad["status"]) == ("bad.png", "failed")
        assert bad["reason"].startswith("bad.png")
        assert missing["input"] == "missing.png"

    def test_the_summary_names_reasons(self, run: Runs) -> None:
        for index in range(3):
            paint(f"{index}.png", (2, 2))
            Path(f"bad{index}.png").write_bytes(b"no image")
        run("0.png", "-o", "large/")
        names = [f"{kind}{index}.png" for kind in ("", "bad") for index in range(3)]
        done = run(*names, "-o", "large", "--manifest", "m.jsonl", "--skip-existing")
        end = done.err.splitlines()[-2:]
        assert end[0] == "2 done, 1 skipped, 3 failed"
        assert end[1].startswith("  3 failed: … ")

    @settings(deadline=None)
    @given(LINES, st.integers(0, 100), LINES)
    def test_a_torn_line_costs_no_other(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        before: list[dict[str, Any]],
        cut: int,
        after: list[dict[str, Any]],
    ) -> None:
        path = tmp_path_factory.mktemp("torn") / "m.jsonl"
        for index, lines in enumerate((before, after)):
            manifest = Manifest(path)
            for line in lines:
                manifest.add(line)
            manifest.close()
            if index == 0:
                whole = json.dumps({"input": "torn", "status": "done", "output": "x"}).encode()
                with path.open("ab") as file:
                    file.write(whole[: min(cut, len(whole) - 1)])
        found = []
        for text in path.read_text().splitlines():
            try:
                found.append(json.loads(text))
            except ValueError:
                continue
        assert found == before + after
        assert Records(path)["torn"] is None

    def test_many_writers(self) -> None:
        def write(writer: int) -> None:
            manifest = Manifest("m.jsonl")
            for index in range(200):
                manifest.add({"input": f"{writer} {index}", "text": "x" * 300})
            manifest.close()

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({line["input"] for line in recorded("m.jsonl")}) == 800

    @settings(deadline=None)
    @given(st.binary(max_size=60))
    def test_rubbish_is_passed_over(
        self, tmp_path_factory: pytest.TempPathFactory, rubbish: bytes
    ) -> None:
        path = tmp_path_factory.mktemp("rubbish") / "m.jsonl"
        path.write_bytes(b'[1]\n{"input": 3, "status": "done", "output": {}}\n' + rubbish)
        manifest = Manifest(path)
        manifest.add({"input": "a", "status": "failed", "output": None})
        manifest.close()
        record = Records(path)["a"]
        assert record is not None
        assert record.status == "failed"

    @pytest.mark.slow
    def test_kills_at_any_moment_lose_nothing(self, model_folder: Path) -> None:
        names = [str(paint(f"in/{index:03}.png", (9, 7))) for index in range(120)]
        again = command(
            *("--model", str(model_folder), "--from-file", "-", "-o", "large"),
            *("--manifest", "m.jsonl", "--skip-existing"),
        )
        listed = "".join(f"{name}\n" for name in names)
        random = Random(0)
        finished: dict[Path, int] = {}
        for kill in range(4):
            lines = Path("m.jsonl").read_bytes().count(b"\n") if kill else 0
            # The list does not end, so neither does the process.
            process = subprocess.Popen(again, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
            assert process.stdin is not None
            process.stdin.write(listed.encode())
            process.stdin.flush()
            wanted = lines + random.randint(1, 6)
            while not Path("m.jsonl").exists() or (
                Path("m.jsonl").read_bytes().count(b"\n") < wanted
                and len(list(Path("large").rglob("*.png"))) < len(names)
            ):
                assert process.poll() is None
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.01))
            process.kill()
            process.wait()
            process.stdin.close()
            found = {path: path.stat().st_mtime_ns for path in Path("large").rglob("*.png")}
            assert finished.items() <= found.items(), "what was done is not touched again"
            assert all(size(path) == (36, 28) for path in found), "a result is there whole"
            finished = found
            with Path("m.jsonl").open("ab") as file:  # a write that a full disk cut short
                file.write(b'{"input": "in/119.png", "status": "done", "outp')
        done = subprocess.run(again, input=listed.encode(), capture_output=True, check=True)
        left = len(names) - len(finished)
        assert left, "it was killed before all was done"
        assert done.stderr.decode().splitlines()[-1] == f"{left} done, {len(finished)} skipped"
        found = {path: path.stat().st_mtime_ns for path in Path("large").rglob("*.png")}
        assert finished.items() <= found.items()
        assert sorted(found) == [Path("large", name) for name in names]
        assert all(size(path) == (36, 28) for path in found)
        record = Path("m.jsonl").read_text().splitlines()
        told = [json.loads(line)["input"] for line in record if line.endswith("}")]
        assert len(told) == len(set(told)), "no image was done twice"
        # Between a result and its line, a kill costs the line.
        assert set(names) - set(told) <= {str(path.relative_to("large")) for path in finished}
        assert sum(not line.endswith("}") for line in record) == 4

    def test_only_what_failed_is_done_again(self, run: Runs) -> None:
        paint("in/a.png")
        Path("in/b.png").write_bytes(b"no image")
        again = ("in", "-o", "large", "--manifest", "m.jsonl")
        assert run(*again).status == 1
        paint("in/b.png")
        paint("in/new.png")
        done = run(*again, "--retry-failed", "--json")
        assert done.status == 0
        assert [line["input"] for line in done.lines] == [str(Path("in/b.png"))]
        assert run(*again, "--retry-failed", "--json").lines == []
        assert sorted(os.listdir("large")) == ["a.png", "b.png"]

    def test_a_result_of_another_size_is_done_again(self, run: Runs) -> None:
        for name in ("in/a.png", "in/b.png", "in/c.png"):
            paint(name)
        again = ("in", "-o", "large", "--manifest", "m.jsonl")
        assert run(*again).status == 0
        Path("large/b.png").write_bytes(Path("large/b.png").read_bytes()[:50])
        Path("large/c.png").unlink()
        kept = Path("large/a.png").stat().st_mtime_ns
        done = run(*again, "--skip-existing", "--json")
        status = {Path(line["input"]).name: line["status"] for line in done.lines}
        assert status == {"a.png": "skipped", "b.png": "done", "c.png": "done"}
        assert size("large/b.png") == size("large/c.png") == (24, 20)
        assert Path("large/a.png").stat().st_mtime_ns == kept
        assert sorted(os.listdir("large")) == ["a.png", "b.png", "c.png"]

    def test_a_result_that_is_not_recorded_is_left(self, run: Runs) -> None:
        paint("a.png")
        touch("large/a.png")
        run("a.png", "-o", "large", "--manifest", "m.jsonl", "--skip-existing")
        assert Path("large/a.png").read_bytes() == b""

    def test_a_record_that_cannot_be_kept_ends_the_run(self, run: Runs) -> None:
        if not Path("/dev/full").exists():
            pytest.skip("needs /dev/full, a file that is always full")
        names = [f"{number}.png" for number in range(60)]
        for name in names:
            paint(name)
        done = run(*names, "-o", "large", "--manifest", "/dev/full")
        assert done.status != 0
        assert "--manifest" in done.err
        # A few were taken ahead, the others not.
        assert not Path("large/59.png").exists()


class TestStreaming:
    def test_a_list_on_standard_input(self, model_folder: Path) -> None:
        paint("in/a.png")
        paint("in/b c.png")
        done = subprocess.run(
            command("--model", str(model_folder), "--from-file", "-", "-o", "large"),
            input=b"in/a.png\nin/b c.png\n",
            capture_output=True,
            check=True,
        )
        assert b"2 done" in done.stderr
        assert size("large/in/a.png") == size("large/in/b c.png") == (24, 20)

    def test_a_result_comes_before_the_list_ends(self, model_folder: Path) -> None:
        paint("a.png")
        with subprocess.Popen(
            command("--model", str(model_folder), "--json", "--from-file", "-", "-o", "large"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("a.png\n" + "missing.png\n" * 3000)  # more than a pipe's buffer
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["status"] == "done"
            process.stdin.close()
            process.stdout.read()
        assert process.returncode == 1

    def test_several_devices_share_it(self, run: Runs) -> None:
        names = [str(paint(f"in/{index}.png", (2, 2))) for index in range(9)]
        written([*names, "missing.png"])
        done = run("--from-file", "list.txt", "-o", "large", "--device", "cpu,cpu", "--json")
        assert done.status == 1
        assert len(done.lines) == 10
        assert len(os.listdir("large/in")) == 9

    def test_dry_run(self, run: Runs) -> None:
        paint("a.png")
        written(["a.png", "missing.png"])
        done = run("--from-file", "list.txt", "-o", "large", "--dry-run", "--manifest", "m.jsonl")
        assert done.status == 1
        assert "1 planned, 1 failed" in done.err
        assert not Path("large").exists()
        assert not Path("m.jsonl").exists()

    def test_memory_does_not_grow_with_the_list(self) -> None:
        # Planning alone, in a process of its own; the list is never in memory as a whole.
        code = """
            import resource, sys
            from srgan_infer.cli.lists import Lists, plan_lazily
            peaks = []
            for index, job in enumerate(plan_lazily(Lists(file="list.txt"), "large")):
                if index in (10_000, 49_999):
                    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            print(peaks[1] - peaks[0])
        """
        pytest.importorskip("resource", reason="Windows does not tell the peak of the memory")
        written([f"folder {index % 100}/image number {index}.png" for index in range(50_000)])
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=True
        )
        grown = int(done.stdout) * (1 if sys.platform == "darwin" else 1024)
        assert grown < 8 * 2**20
