"""The command: statuses, messages, streams, interruptions."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Hub, noise
from PIL import Image

from srgan_infer import SuperResolver, __version__
from srgan_infer.cli.main import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def paint(name: str, size: tuple[int, int] = (6, 5)) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise((size[1], size[0], 3), seed=len(name))).save(path)
    return path


def size(path: str | Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


class Run:
    """One run of the command inside this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
        try:
            self.status = main(arguments)
        except SystemExit as end:  # as argparse ends
            self.status = int(end.code or 0)
        captured = capsys.readouterr()
        self.out, self.err = captured.out, captured.err
        assert "Traceback" not in self.err

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def run(bundled: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *arguments: Run(capsys, arguments)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestSize:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (("--outscale", "2"), (40, 20)),
            (("--outscale=6",), (120, 60)),
            (("--size", "50x"), (50, 25)),
            (("--size", "x50"), (100, 50)),
            (("--size", "50x10"), (20, 10)),
            (("--megapixels", "0.0018"), (60, 30)),
        ],
    )
    def test_sizes(self, run: Any, options: tuple[str, ...], expected: tuple[int, int]) -> None:
        paint("in.png", (20, 10))
        planned = run("in.png", "out.png", *options, "--dry-run", "--json").lines[0]
        assert not Path("out.png").exists()
        done = run("in.png", "out.png", *options, "--json").lines[0]
        assert size("out.png") == tuple(done["output_size"]) == expected
        assert planned["output_size"] == done["output_size"]
        assert planned["passes"] == done["passes"] == (2 if expected[0] > 80 else 1)

    def test_it_says_that_the_network_runs_twice(self, run: Any) -> None:
        paint("in.png")
        assert "2 passes of the network" in run("in.png", "out.png", "--outscale", "5").err
        assert "passes" not in run("in.png", "small.png", "--outscale", "3").err

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (("--outscale", "0"), "at most 16, not 0.0"),
            (("--outscale", "17"), "at most 16, not 17.0"),
            (("--outscale", "-2"), "-2.0"),
            (("--size", "0x"), "above 0"),
            (("--size", "big"), "1600x1200, 1600x or x1200, not 'big'"),
            (("--size", "10x", "--outscale", "2"), "give one"),
            (("--megapixels", "nan"), "above 0"),
        ],
    )
    def test_what_means_nothing(self, run: Any, options: tuple[str, ...], sentence: str) -> None:
        paint("in.png")
        refused = run("in.png", "out.png", *options)
        assert refused.status == 2
        assert sentence in refused.err
        assert not Path("out.png").exists()

    def test_too_large_for_one_image_only(self, run: Any) -> None:
        paint("small.png", (6, 5))
        paint("large.png", (60, 50))
        done = run("small.png", "large.png", "-o", "out", "--size", "300x")
        assert done.status == 1
        assert "small.png: An image of 6x5 pixels is upscaled 16 times at most" in done.err
        assert size("out/large.png") == (300, 250)


class TestPipeline:
    def test_results_are_those_of_single_runs_and_told_in_order(self, run: Any) -> None:
        # The first takes longest: the others are decoded, computed and encoded meanwhile.
        names = [f"{n}-{suffix}.{suffix}" for n in range(5) for suffix in ("png", "webp", "tif")]
        for index, name in enumerate(names):
            paint(name, (60 - 3 * index, 40))
        done = run(*names, "-o", "large", "--json", "--format", "png")
        assert [line["input"] for line in done.lines] == names
        assert done.status == 0

    def test_images_larger_than_the_shared_memory_go_alone(
        self, run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("srgan_infer.cli.main.SHARED_BYTES", 1)
        for number in range(6):
            paint(f"{number}.png")
        assert run(*[f"{n}.png" for n in range(6)], "-o", "large").status == 0
        assert len(list(Path("large").iterdir())) == 6


class TestNames:
    def test_an_address_is_named_as_it_was_given(self, run: Any) -> None:
        paint("in.png")
        done = run("ftp://example.com/a.png", "in.png", "-o", "out")
        assert done.status == 1
        assert "ftp://example.com/a.png is a web address" in done.err
        assert size("out/in.png") == (24, 20)

    @pytest.mark.parametrize("arguments", [("--version",), ("--help",)])
    def test_the_package_is_a_command(self, arguments: tuple[str, ...]) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "srgan_infer", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        assert done.stdout.startswith(("srgan-infer", "usage: srgan-upscale"))


class TestOneImage:
    def test_two_names(self, run: Any) -> None:
        paint("in.png")
        done = run("in.png", "out.png")
        assert done.status == 0
        assert size("out.png") == (24, 20)
        assert done.out == ""
        assert "out.png" in done.err

    def test_the_pixels_are_those_of_the_class(self, run: Any) -> None:
        paint("in.png")
        run("in.png", "out.png", "--model", "srresnet")
        with Image.open("in.png") as image, Image.open("out.png") as out:
            expected = SuperResolver.from_pretrained("srresnet")(image)
            assert np.array_equal(np.asarray(out), np.asarray(expected))

    def test_a_new_folder(self, run: Any) -> None:
        paint("in.png")
        assert run("in.png", "new/deeper/out.png").status == 0
        assert size("new/deeper/out.png") == (24, 20)

    @pytest.mark.parametrize(
        "name", ["a b.png", "50%.png", "%s {0}.png", "äöü 漢字.png", "[x].png"]
    )
    def test_unusual_names(self, run: Any, name: str) -> None:
        paint(name)
        assert run(name, f"out {name}").status == 0
        assert size(f"out {name}") == (24, 20)

    def test_leading_dashes(self, run: Any) -> None:
        paint("-in.png")
        assert run("--", "-in.png", "-out.png").status == 0
        assert size("-out.png") == (24, 20)
        assert run("--output=--x.png", "--", "-in.png").status == 0
        assert size("--x.png") == (24, 20)
        assert run("./-in.png", "--suffix=-x4").status == 0
        assert size("-in-x4.png") == (24, 20)

    def test_a_name_that_is_no_text(self, run: Any) -> None:
        name = os.fsdecode(b"caf\xe9.png")
        paint("plain.png").rename(name)
        done = run(name, "-o", "large", "--json")
        assert done.status == 0
        assert done.lines[0]["input"] == name

    def test_options_between_names(self, run: Any) -> None:
        paint("a.png")
        paint("b.png")
        assert run("a.png", "--tile", "4", "-o", "large", "b.png").status == 0
        assert size("large/a.png") == size("large/b.png") == (24, 20)

    def test_options_reach_the_class(self, run: Any) -> None:
        paint("in.png", (20, 20))
        assert run("in.png", "a.png", "--strength", "0").status == 0
        assert run("in.png", "b.png", "--model", "srresnet").status == 0
        assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
        assert run("in.png", "c.jpg", "--quality", "20", "--dtype", "float32").status == 0
        assert run("in.png", "d.jpg", "--quality", "95", "--tile", "whole").status == 0
        assert Path("c.jpg").stat().st_size < Path("d.jpg").stat().st_size
        done = run("in.png", "-o", "large", "--format", "webp", "--suffix=-x", "--tile", "8")
        assert done.status == 0
        with Image.open("large/in-x.webp") as image:
            assert image.format == "WEBP"


class TestBadUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("--nonsense",),
            ("in.png", "out.png", "--tile", "big"),
            ("in.png", "out.png", "--tile", "-3"),
            ("in.png", "out.png", "--strength", "2"),
            ("in.png", "out.png", "--strength", "0.5", "--model", "srresnet"),
            ("in.png", "out.png", "--max-memory", "lots"),
            ("in.png", "out.png", "--max-memory", "1KB"),
            ("in.png", "out.png", "--device", "abacus"),
            ("in.png", "out.png", "--dtype", "float8"),
            ("in.png", "out.png", "--quality", "0"),
            ("in.png", "out.png", "--quality", "fine"),
            ("in.png", "out.xyz"),
            ("in.png", "out.png", "--format", "xyz"),
            ("in.png", "out.png", "--overwrite", "--skip-existing"),
            ("in.png", "in.png", "--overwrite"),
            ("in.png", "-", "--json"),
            ("in.png", "out.png", "--model", "sgran"),
            ("in.png", "out.png", "--model", "./nowhere"),
        ],
    )
    def test_is_refused_before_anything_is_done(self, run: Any, arguments: tuple[str, ...]) -> None:
        paint("in.png")
        done = run(*arguments)
        assert done.status == 2
        assert done.err.strip()
        assert done.out == ""
        assert os.listdir() == ["in.png"]

    def test_an_unknown_model_lists_the_bundled_ones(self, run: Any) -> None:
        paint("in.png")
        done = run("in.png", "out.png", "--model", "sgran")
        assert "srgan" in done.err
        assert "srresnet" in done.err

    def test_a_hub_model_that_is_not_there(self, run: Any, hub: Hub) -> None:
        paint("in.png")
        done = run("in.png", "out.png", "--model", "user/nothing")
        assert done.status == 2
        assert "user/nothing" in done.err
        assert len(done.err.strip().splitlines()) == 1

    def test_a_image_on_a_terminal(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        paint("in.png")
        monkeypatch.setattr(sys, "stdout", Terminal())
        assert run("in.png", "-").status == 2


class TestExistingResults:
    def test_are_kept(self, run: Any) -> None:
        paint("in.png")
        Path("out.png").write_bytes(b"mine")
        done = run("in.png", "out.png")
        assert done.status == 2
        assert "--overwrite" in done.err
        assert Path("out.png").read_bytes() == b"mine"

    def test_are_replaced_on_demand(self, run: Any) -> None:
        paint("in.png")
        for _ in range(2):
            assert run("in.png", "out.png", "--overwrite").status == 0
        Path("out.png").write_bytes(b"mine")
        assert run("in.png", "out.png", "--overwrite").status == 0
        assert size("out.png") == (24, 20)

    def test_two_photographs_from_the_shell_are_not_input_and_output(self, run: Any) -> None:
        paint("a.png")
        kept = paint("b.png").read_bytes()
        done = run("a.png", "b.png", "--overwrite")
        assert done.status == 2
        assert "-o" in done.err
        assert Path("b.png").read_bytes() == kept
        assert run("a.png", "-o", "b.png", "--overwrite").status == 0
        assert size("b.png") == (24, 20)

    def test_a_stopped_batch_goes_on(self, run: Any) -> None:
        for name in ("in/a.png", "in/b.png"):
            paint(name)
        run("in/a.png", "-o", "large/")
        before = Path("large/a.png").stat().st_mtime_ns
        done = run("in", "-o", "large", "--skip-existing", "--json")
        assert done.status == 0
        assert {Path(line["input"]).name: line["status"] for line in done.lines} == {
            "a.png": "skipped",
            "b.png": "done",
        }
        assert Path("large/a.png").stat().st_mtime_ns == before
        done = run("in", "-o", "large", "--skip-existing")
        assert done.status == 0
        assert "2 skipped" in done.err

    def test_results_are_not_upscaled_again(self, run: Any) -> None:
        paint("in/a.png")
        for _ in range(2):
            assert run("in", "--overwrite").status == 0
        assert sorted(os.listdir("in")) == ["a.png", "a_upscaled.png"]
        assert size("in/a_upscaled.png") == (24, 20)


class TestBatch:
    def test_a_mirrored_tree(self, run: Any) -> None:
        paint("in/a.png")
        paint("in/deep/b.jpg")
        Path("in/notes.txt").write_text("no image")
        assert run("in", "-o", "large", "--recursive").status == 0
        assert size("large/a.png") == size("large/deep/b.jpg") == (24, 20)
        assert not Path("large/notes.txt").exists()

    def test_one_bad_image_does_not_end_it(self, run: Any) -> None:
        paint("a.png")
        Path("b.png").write_bytes(b"no image")
        paint("c.png", (300, 200))
        Path("c.png").write_bytes(Path("c.png").read_bytes()[:20000])
        paint("d.png")
        done = run("a.png", "b.png", "c.png", "missing.png", "d.png", "*.gif", "-o", "large")
        assert done.status == 1
        assert sorted(os.listdir("large")) == ["a.png", "d.png"]
        for name in ("b.png", "c.png", "missing.png", "*.gif"):
            assert done.err.count(f"srgan-upscale: {name}") == 1
        assert "2 done, 4 failed" in done.err

    def test_a_defect_of_ours_does_not_end_it(
        self, run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paint("a.png")
        paint("b.png")
        real = SuperResolver.upscale_file

        def defective(self: SuperResolver, source: Path, *rest: Any, **options: Any) -> Any:
            if source.name == "a.png":
                raise KeyError("oops")
            return real(self, source, *rest, **options)

        monkeypatch.setattr(SuperResolver, "upscale_file", defective)
        done = run("a.png", "b.png", "-o", "large")
        assert done.status == 1
        assert "Internal error" in done.err
        assert size("large/b.png") == (24, 20)

    def test_colliding_results_are_found_beforehand(self, run: Any) -> None:
        paint("a.png")
        paint("a.jpg")
        done = run("a.png", "a.jpg", "-o", "large", "--format", "png")
        assert done.status == 2
        assert not Path("large").exists()

    def test_several_devices_share_it(self, run: Any) -> None:
        for index in range(5):
            paint(f"in/{index}.png")
        Path("in/bad.png").write_bytes(b"")
        done = run("in", "-o", "large", "--device", "cpu,cpu", "--json")
        assert done.status == 1
        assert len(done.lines) == 6
        assert sorted(os.listdir("large")) == [f"{index}.png" for index in range(5)]
        run("in", "-o", "alone")
        for index in range(5):
            one, two = (Path(folder, f"{index}.png").read_bytes() for folder in ("large", "alone"))
            assert one == two

    def test_an_unwritable_folder(self, run: Any) -> None:
        paint("a.png")
        Path("plain").touch()
        done = run("a.png", "-o", "plain/large/")
        assert done.status == 1
        assert "plain" in done.err


class TestReports:
    def test_quiet(self, run: Any) -> None:
        paint("a.png")
        Path("b.png").write_bytes(b"no image")
        assert run("a.png", "out.png", "--quiet").err == ""
        done = run("a.png", "b.png", "-o", "large", "--quiet")
        assert done.err.startswith("srgan-upscale: b.png is ")
        assert len(done.err.splitlines()) == 1

    def test_json(self, run: Any) -> None:
        paint("a.png")
        Path("b.png").write_bytes(b"no image")
        done = run("a.png", "b.png", "-o", "large", "--json")
        a, b = done.lines
        assert (a["input"], a["status"], a["output_size"], a["frames"]) == (
            "a.png",
            "done",
            [24, 20],
            1,
        )
        assert a["output"] == str(Path("large/a.png"))
        assert a["device"] == "cpu"
        assert a["seconds"] > 0
        assert b["status"] == "failed"
        assert b["reason"].endswith(".")

    @pytest.mark.parametrize("way", [(), ("--manifest", "m.jsonl"), ("--dry-run",)])
    def test_what_is_not_taken_is_counted(self, run: Any, way: tuple[str, ...]) -> None:
        paint("in/a.png")
        for name in ("in/b.DNG", "in/deep/c.dng", "in/deep/notes.txt", "in/Makefile"):
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).touch()
        Path("empty").mkdir()
        Path("empty/d.xyz").touch()
        arguments = ("in", "empty", "-o", "large", "--recursive", *way)
        lines = {line["input"]: line for line in run(*arguments, "--json").lines}
        assert lines["in"]["status"] == "skipped"
        assert lines["in"]["not_taken"] == {".dng": 2, ".txt": 1, "": 1}
        assert lines["empty"]["status"] == "failed"
        assert lines["empty"]["not_taken"] == {".xyz": 1}
        assert "not_taken" not in lines[str(Path("in/a.png"))]
        said = run(*arguments, "--overwrite").err
        assert "in: skipped. 4 files passed over: .dng (2), " in said
        done = "1 planned" if "--dry-run" in way else "1 done"
        assert f"{done}, 1 failed, 5 not taken\n" in said

    def test_warnings_are_passed_on(self, run: Any) -> None:
        Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save("sprite.png")
        done = run("sprite.png", "flat.jpg")
        assert done.status == 0
        assert "sprite.png: warning: " in done.err
        assert "transparency" in done.err
        assert "ImageWarning" not in done.err

    def test_a_model_for_compressed_images_is_named_once(self, run: Any) -> None:
        for name, quality in (("a.jpg", 40), ("b.jpg", 40), ("c.jpg", 95)):
            Image.new("RGB", (16, 16)).save(name, quality=quality)
        line = "a.jpg: this JPEG is heavily compressed; try --model srgan-photo"
        for arguments in (("-o", "large"), ("-o", "other", "--dry-run")):
            done = run("a.jpg", "b.jpg", "c.jpg", *arguments)
            assert [text for text in done.err.splitlines() if "--model" in text] == [line]
        done = run("a.jpg", "c.jpg", "-o", "third", "--json")
        assert [told["suggested_model"] for told in done.lines] == ["srgan-photo", None]
        for options in (["--quiet"], ["--model", "srgan-photo"], ["--model", "srresnet"]):
            done = run("a.jpg", "d.jpg", "--overwrite", *options)
            assert done.status == 0
            assert "--model" not in done.err

    def test_dry_run(self, run: Any) -> None:
        paint("a.png", (50, 40))
        Path("b.png").write_bytes(b"no image")
        done = run("a.png", "b.png", "-o", "large", "--dry-run", "--json", "--tile", "16")
        assert done.status == 1
        assert not Path("large").exists()
        a, b = done.lines
        assert a["status"] == "planned"
        assert a["input_size"] == [50, 40]
        assert a["output_size"] == [200, 160]
        assert a["steps"] == 16  # 4 columns by 3 bands, and a step for the rows held back
        assert a["memory_bytes"] > 0
        assert a["estimated_seconds"] >= 0
        assert b["status"] == "failed"
        done = run("a.png", "out.png", "--dry-run")
        assert "200x160" in done.err
        assert "MiB" in done.err

    def test_dry_run_sees_what_cannot_be_written(self, run: Any) -> None:
        frames = [Image.new("L", (4, 4), value) for value in (0, 255)]
        frames[0].save("a.gif", save_all=True, append_images=frames[1:])
        done = run("a.gif", "out.jpg", "--dry-run")
        assert done.status == 1
        assert "animation" in done.err

    def test_bars_on_a_terminal_only(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        paint("a.png", (30, 30))
        paint("b.png", (30, 30))
        assert "%|" not in run("a.png", "b.png", "-o", "plain").err
        for quiet in (False, True):
            screen = Terminal()
            monkeypatch.setattr(sys, "stderr", screen)
            run("a.png", "b.png", "-o", f"large{quiet}", *["--quiet"] * quiet)
            seen = screen.getvalue()
            if quiet:
                assert seen == ""
            else:
                assert "Images: 100%|" in seen
                assert "a.png: " in seen

    def test_version_and_help(self, run: Any) -> None:
        assert run("--version").out == f"srgan-infer {__version__}\n"
        shown = run("--help")
        assert shown.status == 0
        for option in (
            *("--output", "--recursive", "--model", "--strength", "--device", "--dtype", "--tile"),
            *("--max-memory", "--format", "--quality", "--suffix", "--overwrite"),
            *("--skip-existing", "--dry-run", "--quiet", "--json", "--doctor"),
        ):
            assert option in shown.out

    def test_doctor_without_its_golden_image(self, run: Any) -> None:
        done = run("--doctor")
        assert done.status == 1
        assert "torch" in done.out
        assert "FAILED" in done.out
        report = run("--doctor", "--json", "--device", "cpu").lines[0]
        assert report["sound"] is False
        assert set(report["models"]) == {"srgan", "srgan-photo", "srresnet"}
        assert report["packages"]["torch"]


# What follows needs a process of its own: its streams, its signals, its limits.

START = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}]
import torch
torch.set_num_threads(1)
from srgan_infer.cli.main import main
sys.exit(main())
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", START, *arguments]


@pytest.fixture
def tiny(bundled: Path) -> str:
    return str(bundled / "srgan")


class TestStreams:
    def test_from_stdin_to_stdout(self, tiny: str) -> None:
        data = paint("in.png").read_bytes()
        done = subprocess.run(
            command("-", "--model", tiny, "--quiet"), input=data, capture_output=True
        )
        assert done.returncode == 0
        assert done.stderr == b""
        with Image.open(io.BytesIO(done.stdout)) as image:
            assert (image.format, image.size) == ("PNG", (24, 20))

    def test_to_stdout_in_another_format(self, tiny: str) -> None:
        paint("in.png")
        done = subprocess.run(
            command("in.png", "-", "--model", tiny, "--format", "tif"), capture_output=True
        )
        assert done.returncode == 0
        with Image.open(io.BytesIO(done.stdout)) as image:
            assert (image.format, image.size) == ("TIFF", (24, 20))

    def test_from_stdin_to_a_file(self, tiny: str) -> None:
        data = paint("in.png").read_bytes()
        done = subprocess.run(command("-", "out.jpg", "--model", tiny), input=data)
        assert done.returncode == 0
        assert size("out.jpg") == (24, 20)

    def test_rubbish_on_stdin(self, tiny: str) -> None:
        done = subprocess.run(
            command("-", "out.jpg", "--model", tiny), input=b"rubbish", capture_output=True
        )
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr


def unfinished() -> list[str]:
    """Everything in the output folder beside finished results."""
    return [name for name in os.listdir("large") if not name.endswith(".png") or name[0] == "."]


class TestInterruptions:
    @pytest.fixture
    def batch(self, tiny: str) -> list[str]:
        paint("in/0.png")
        for index in range(1, 4):
            Image.new("RGB", (2500, 1500), (200, 100, index)).save(f"in/{index}.png")
        return command("in", "-o", "large", "--model", tiny, "--json", "--tile", "32")

    @pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise on Windows")
    @pytest.mark.parametrize(
        ("number", "devices"), [(signal.SIGINT, "cpu"), (signal.SIGTERM, "cpu,cpu")]
    )
    def test_ctrl_c_in_a_image(self, batch: list[str], number: int, devices: str) -> None:
        process = subprocess.Popen(
            [*batch, "--device", devices], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["status"] == "done"
        while len(os.listdir("large")) < 2:  # the next image has begun
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert b"Traceback" not in errors
        assert unfinished() == []
        assert size("large/0.png") == (24, 20)
        assert not Path("large/3.png").exists()

    @pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise on Windows")
    def test_kill_leaves_no_half_image(self, batch: list[str]) -> None:
        process = subprocess.Popen(batch, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        while len(os.listdir("large")) < 2:
            time.sleep(0.01)
        process.kill()
        process.communicate(timeout=60)
        done = [name for name in os.listdir("large") if name[0] != "."]
        assert done == ["0.png"]
        # A batch goes on where it stopped, the remains do not matter.
        for index in range(1, 4):
            paint(f"in/{index}.png")
        assert subprocess.run([*batch, "--skip-existing"], capture_output=True).returncode == 0
        assert len([name for name in os.listdir("large") if name[0] != "."]) == 4

    @pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
    def test_a_full_disk(self, tiny: str) -> None:
        paint("a.png", (60, 60))
        paint("b.png")
        Path("large").mkdir()

        import resource

        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

        done = subprocess.run(
            command("a.png", "b.png", "-o", "large", "--model", tiny),
            capture_output=True,
            preexec_fn=limit,
        )
        assert done.returncode == 1
        assert b"a.png" in done.stderr
        assert b"Traceback" not in done.stderr
        assert os.listdir("large") == ["b.png"]

    def test_a_reader_that_leaves(self, tiny: str) -> None:
        for index in range(3):
            paint(f"in/{index}.png")
        process = subprocess.Popen(
            command("in", "-o", "large", "--model", tiny, "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
        assert process.wait(timeout=60) != 0
        assert b"Traceback" not in errors
        assert unfinished() == []
