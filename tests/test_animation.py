"""Animations: every frame, its time and its transparency, and never all frames in memory."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, features

from srgan_infer.images.metadata import Metadata
from srgan_infer.images.write import create

Array = npt.NDArray[Any]


def written(frames: list[Array], format: str, metadata: Metadata, bands: list[int]) -> io.BytesIO:
    height, width, channels = frames[0].shape
    rows = np.concatenate(frames)
    output = io.BytesIO()
    with create(
        output,
        format=format,
        size=(width, height),
        channels=channels,
        metadata=metadata,
        n_frames=len(frames),
    ) as writer:
        top, turn = 0, 0
        while top < rows.shape[0]:
            writer.write(rows[top : top + bands[turn % len(bands)]])
            top += bands[turn % len(bands)]
            turn += 1
    return output


def read(file: io.BytesIO, mode: str) -> tuple[list[Array], list[float], Any]:
    """Every frame as it is shown, its duration, and the loop count."""
    with Image.open(file) as image:
        frames, durations = [], []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            pixels = np.asarray(image.convert(mode))
            frames.append(pixels if pixels.ndim == 3 else pixels[..., None])
            durations.append(float(image.info.get("duration", 0)))
        return frames, durations, image.info.get("loop")


@st.composite
def animations(draw: st.DrawFn, values: list[int], channels: list[int]) -> list[Array]:
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.sampled_from(channels)))
    first = draw(arrays(np.uint8, shape, elements=st.sampled_from(values)))
    frames = [first]
    for _ in range(draw(st.integers(1, 4))):
        # Some frames differ in one pixel, some in all, some in none.
        frame = frames[-1].copy()
        y, x = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        change = draw(st.sampled_from(["nothing", "a pixel", "all"]))
        if change == "a pixel":
            frame[y, x] = draw(arrays(np.uint8, shape[2], elements=st.sampled_from(values)))
        elif change == "all":
            frame = draw(arrays(np.uint8, shape, elements=st.sampled_from(values)))
        frames.append(frame)
    return frames


@settings(max_examples=80, deadline=None)
@given(
    frames=animations(list(range(256)), [1, 2, 3, 4]),
    data=st.data(),
    loop=st.one_of(st.none(), st.integers(0, 100)),
)
def test_apng_is_exact(frames: list[Array], data: Any, loop: int | None) -> None:
    times = st.integers(0, 70000)
    durations = tuple(data.draw(st.lists(times, min_size=len(frames), max_size=len(frames))))
    bands = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    metadata = Metadata(loop=loop, durations=durations)
    file = written(frames, "PNG", metadata, bands)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[frames[0].shape[2]]
    found, times_found, loop_found = read(file, mode)
    assert len(found) == len(frames)
    for one, frame in zip(found, frames, strict=True):
        assert np.array_equal(one, frame)
    assert times_found == pytest.approx([min(time, 65535) for time in durations])
    assert loop_found == (1 if loop is None else loop)


@settings(max_examples=60, deadline=None)
@given(frames=animations([0, 60, 255], [1, 3, 4]), data=st.data())
def test_gif_is_exact_with_few_colours(frames: list[Array], data: Any) -> None:
    for frame in frames:
        if frame.shape[2] == 4:
            frame[..., 3] = np.where(frame[..., 3] > 100, 255, 0)
    times = st.integers(0, 655).map(lambda value: 10 * value)
    durations = tuple(data.draw(st.lists(times, min_size=len(frames), max_size=len(frames))))
    bands = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    file = written(frames, "GIF", Metadata(loop=5, durations=durations), bands)
    found, times_found, loop = read(file, "RGBA")
    assert len(found) == len(frames)
    for one, frame in zip(found, frames, strict=True):
        color = frame[..., :3] if frame.shape[2] > 1 else frame.repeat(3, axis=2)
        alpha = frame[..., 3] if frame.shape[2] == 4 else np.full(frame.shape[:2], 255)
        assert np.array_equal(one[..., 3], alpha)
        assert np.array_equal(one[..., :3][alpha > 0], color[alpha > 0])
    assert times_found == list(durations)
    assert loop == 5


@pytest.mark.parametrize("channels", [3, 4])
def test_frames_of_a_gif_are_as_good_as_a_still(channels: int) -> None:
    """A sky of many tones with a ball that moves; with transparency, its corner is empty."""
    y, x = np.mgrid[:96, :128]
    frames = []
    for number in range(3):
        sky = np.dstack([80 + y * 1.1, 130 + y * 0.9, 220 - y * 0.25 + x * 0.15, x * 0 + 255])
        sky[(y - 48) ** 2 + (x - 40 - 16 * number) ** 2 < 400, :3] = (200, 120, 60)
        sky[(y < 20) & (x < 20), 3] = 0
        frames.append(sky[..., :channels].astype(np.uint8))

    def error(found: Array, frame: Array) -> float:
        seen = frame[..., 3] > 0 if channels == 4 else np.ones(frame.shape[:2], bool)
        return float(np.square(found[seen][:, :3] - frame[seen][:, :3].astype(float)).mean())

    animated, _, _ = read(written(frames, "GIF", Metadata(), [96]), "RGBA")
    for found, frame in zip(animated, frames, strict=True):
        (still,), _, _ = read(written([frame], "GIF", Metadata(), [96]), "RGBA")
        assert error(found, frame) < 1.26 * error(still, frame)  # within a decibel
        assert error(found, frame) < 25
        if channels == 4:
            assert np.array_equal(found[..., 3], frame[..., 3])


def test_a_still_part_of_an_apng_is_written_once() -> None:
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (64, 64, 3), dtype=np.uint8)]
    for index in range(1, 10):
        frames.append(frames[-1].copy())
        frames[-1][30 : 30 + index, 20:24] = index
    one = written(frames[:2], "PNG", Metadata(), [64]).getbuffer().nbytes
    all_of_them = written(frames, "PNG", Metadata(), [64]).getbuffer().nbytes
    assert all_of_them < 1.5 * one


def test_a_long_comment_of_a_gif() -> None:
    frames = [np.full((3, 3, 3), value, np.uint8) for value in (0, 255)]
    file = written(frames, "GIF", Metadata(comment=b"long " * 200), [3])
    with Image.open(file) as image:
        assert image.info["comment"] == b"long " * 200


MEMORY = """
import resource, sys
import numpy as np
from srgan_infer.images.write import create

def highest():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def write(count):
    frame = np.zeros((600, 800, 4), np.uint8)
    frame[..., 3] = 255
    with create(sys.argv[1], size=(800, 600), channels=4, n_frames=count) as writer:
        for index in range(count):
            frame[100 + index : 140 + index, 100:200, 1] = index
            writer.write(frame)

write(4)
before = highest()
write(60)
print(highest() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux counts it")
@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_frames_are_never_all_in_memory(tmp_path: Path, suffix: str) -> None:
    if suffix == "webp" and not features.check(suffix):
        pytest.skip(f"this Pillow is built without {suffix}")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / f"a.{suffix}")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    all_frames = 60 * 600 * 800 * 4
    assert int(done.stdout) < all_frames / 2
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{suffix}"]
