"""The fuzz program finds what it looks for, and makes the same case again."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import fuzz
import pytest
from helpers import noise
from PIL import Image

from srgan_infer import ImageError, SuperResolver


def test_a_case_is_the_same_again() -> None:
    samples, model = {"a.png": bytes(range(200)), "b.gif": b"GIF89a" * 20}, {"config.json": b"{}"}
    cases = [fuzz.make_case(7, index, samples, model) for index in range(300)]
    assert cases == [fuzz.make_case(7, index, samples, model) for index in range(300)]
    assert cases != [fuzz.make_case(8, index, samples, model) for index in range(300)]
    assert {case.kind for case in cases} == {"png", "gif", fuzz.MODEL}


def test_png_chunks_are_damaged_with_checksums_that_are_right(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise((9, 9, 3))).save(buffer, "PNG")
    chance = random.Random(0)
    changed = {
        fuzz.mutate_chunks(buffer.getvalue(), chance, [buffer.getvalue()]) for _ in range(50)
    }
    assert len(changed) > 20
    for data in changed:
        assert fuzz.read_chunks(data)


class TestVerdicts:
    """What upscale_file may do wrong."""

    def verdict(self, tmp_path: Path, upscale_file: Any) -> str:
        class Resolver:
            pass

        resolver: Any = Resolver()
        resolver.upscale_file = upscale_file
        return fuzz.try_file(fuzz.Case("png", b"data", "png"), resolver, tmp_path / "case")[0]

    def test_another_exception(self, tmp_path: Path) -> None:
        def upscale_file(source: Path, target: Path) -> None:
            raise KeyError("tag")

        assert self.verdict(tmp_path, upscale_file) == "raw"

    def test_something_left_behind(self, tmp_path: Path) -> None:
        def upscale_file(source: Path, target: Path) -> None:
            target.with_name(".half.part").write_bytes(b"")
            raise ImageError("it is damaged.")

        assert self.verdict(tmp_path, upscale_file) == "litter"

    def test_a_result_that_is_none(self, tmp_path: Path) -> None:
        def upscale_file(source: Path, target: Path) -> None:
            target.write_bytes(b"\x89PNG")

        assert self.verdict(tmp_path, upscale_file) == "litter"

    def test_what_is_right(self, tmp_path: Path, model_folder: Path) -> None:
        resolver = SuperResolver.from_pretrained(model_folder)
        assert self.verdict(tmp_path, resolver.upscale_file) == "refused"
        Image.fromarray(noise((9, 9, 3))).save(tmp_path / "in.png")
        sound = fuzz.Case("png", (tmp_path / "in.png").read_bytes(), "jpg")
        assert fuzz.try_file(sound, resolver, tmp_path / "case") == ("done", "")


@pytest.mark.slow
def test_a_hang_and_a_crash_are_counted_and_kept(tmp_path: Path) -> None:
    code = f"""
import os, sys, time
from tests import fuzz
fuzz.SECONDS_A_CASE = 1.0
import subprocess
popen = subprocess.Popen
script = '''
import json, sys, time, os
start = int(sys.argv[1])
for index in range(start, start + 3):
    print(json.dumps({{"begin": index}}), flush=True)
    if index == 1: time.sleep(60)
    if index == 2: os._exit(7)
    print(json.dumps({{"end": index, "kind": "png", "verdict": "done", "said": "",
                      "seconds": 0.1, "memory": 0}}), flush=True)
time.sleep(60)
'''
subprocess.Popen = lambda command, **options: popen(
    [sys.executable, "-c", script, command[command.index("--start") + 1]], **options)
sys.exit(fuzz.run(6, 0, 1, fuzz.Path({str(tmp_path)!r})))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=fuzz.ROOT, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert {path.name.split("-")[2].split(".")[0] for path in tmp_path.iterdir()} == {
        "hang",
        "crash",
    }
