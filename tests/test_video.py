"""Videos: times, sound, colours, depth, shape and rotation stay; what cannot be kept is said."""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from srgan_infer import ImageError, SuperResolver, weights
from srgan_infer.cli.main import main
from srgan_infer.errors import ImageWarning
from srgan_infer.network.generator import Generator, GeneratorConfig

av: Any = pytest.importorskip("av", reason="the extra [video] is not installed")

Array = npt.NDArray[Any]

# Numbers of ITU-T H.273, and the weights of red and blue in luma.
BT709, BT601, BT2020 = 1, 6, 9
LUMA = {BT709: (0.2126, 0.0722), BT601: (0.299, 0.114), BT2020: (0.2627, 0.0593)}
SPOKEN = ((0, b"A first line"), (120, b"and a second one"))
COLORS = [(200, 30, 30), (30, 180, 60), (40, 60, 220), (128, 128, 128)]


@pytest.fixture(scope="module")
def sr(tmp_path_factory: pytest.TempPathFactory) -> SuperResolver:
    """A network that interpolates, so that what colours become is known."""
    folder = tmp_path_factory.mktemp("model")
    config = GeneratorConfig(channels=4, blocks=1, input_skip="bilinear")
    state = {
        name: torch.zeros_like(value) for name, value in Generator(config).state_dict().items()
    }
    weights.save(folder, config, state, "---\nlicense: mit\n---\n", False)
    return SuperResolver.from_pretrained(folder, dtype="float32")


def yuv_of(rgb: tuple[int, ...], matrix: int, full: bool, bits: int) -> list[int]:
    """A colour of 8 bits as Y, Cb, Cr; ITU-T H.273, equations 46 to 51."""
    red, green, blue = (value / 255 for value in rgb)
    kr, kb = LUMA[matrix]
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    step = 1 << (bits - 8)
    if full:
        top = (1 << bits) - 1
        return [round(y * top), round(cb * top + 128 * step), round(cr * top + 128 * step)]
    return [
        round((219 * y + 16) * step),
        round((224 * cb + 128) * step),
        round((224 * cr + 128) * step),
    ]


def rgb_of(yuv: list[float], matrix: int, full: bool, bits: int) -> tuple[float, ...]:
    """The other way round."""
    kr, kb = LUMA[matrix]
    step = 1 << (bits - 8)
    if full:
        top = (1 << bits) - 1
        y, cb, cr = yuv[0] / top, (yuv[1] - 128 * step) / top, (yuv[2] - 128 * step) / top
    else:
        y = (yuv[0] / step - 16) / 219
        cb, cr = (yuv[1] / step - 128) / 224, (yuv[2] / step - 128) / 224
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return red * 255, green * 255, blue * 255


def planes(size: tuple[int, int], yuv: list[int], bits: int) -> Any:
    """A frame of one colour, 4:2:0."""
    width, height = size
    name = "yuv420p" if bits == 8 else f"yuv420p{bits}le"
    frame = av.VideoFrame(width, height, name)
    kind = np.uint8 if bits == 8 else np.dtype("<u2")
    for plane, value in zip(frame.planes, yuv, strict=True):
        values = np.full((plane.height, plane.line_size // np.dtype(kind).itemsize), value, kind)
        plane.update(values.tobytes())
    return frame


def clip(
    path: Path,
    *,
    size: tuple[int, int] = (32, 24),
    times: tuple[int, ...] = (0, 100, 200),
    color: Callable[[int], list[int]] | None = None,
    bits: int = 8,
    codec: str = "libx264",
    sound: bool = False,
    subtitles: str | None = None,  # the codec; which PyAV can begin from 17 on
    chapters: list[dict[str, Any]] | None = None,
    tags: dict[str, int] | None = None,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Frames of one colour each, shown at ``times`` in milliseconds."""
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "A clip"
        video: Any = out.add_stream(codec, rate=10, options=options or {"crf": "1"})
        video.width, video.height = size
        video.pix_fmt = "yuv420p" if bits == 8 else f"yuv420p{bits}le"
        context = video.codec_context
        context.time_base = Fraction(1, 1000)
        for name, value in (tags or {}).items():
            setattr(context, name, value)
        if aspect:
            context.sample_aspect_ratio = aspect
        audio: Any = out.add_stream("aac", rate=48000) if sound else None
        text: Any = None
        if subtitles:
            text = out.add_stream(subtitles)
            text.codec_context.subtitle_header = b""
        if chapters:
            out.set_chapters(chapters)
        for index, time in enumerate(times):
            yuv = color(index) if color else yuv_of(COLORS[index % 4], BT601, False, bits)
            frame = planes(size, yuv, bits)
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        for start, words in SPOKEN if subtitles else ():
            length = struct.pack(">H", len(words)) if subtitles == "mov_text" else b""
            packet = av.Packet(length + words)
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = start
            packet.duration = 50
            out.mux(packet)
        if audio is not None:
            wave = np.sin(np.arange(48000) / 20) * 8000
            samples = av.AudioFrame.from_ndarray(
                wave.astype(np.int16)[None], format="s16", layout="mono"
            )
            samples.sample_rate, samples.pts = 48000, 0
            out.mux(audio.encode(samples))
            out.mux(audio.encode())
    return path


def frames_of(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def packets_of(path: Path, kind: str) -> list[tuple[float, bytes]]:
    """Time and content of every packet of a stream."""
    with av.open(str(path)) as container:
        (stream,) = (s for s in container.streams if s.type == kind)
        return [
            (float((packet.pts or 0) * packet.time_base), bytes(packet))
            for packet in container.demux(stream)
            if packet.dts is not None
        ]


def middle(frame: Any, bits: int) -> list[float]:
    """Y, Cb, Cr in the middle of a frame."""
    kind = np.uint8 if bits == 8 else np.dtype("<u2")
    found = []
    for plane in frame.planes:
        values = np.frombuffer(bytes(plane), kind).reshape(plane.height, -1)
        found.append(float(values[plane.height // 2, plane.width // 2]))
    return found


class TestTimes:
    @pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "webm"])
    def test_times_of_a_varying_rate_stay(
        self, sr: SuperResolver, tmp_path: Path, suffix: str
    ) -> None:
        times = (0, 40, 120, 600, 633, 1500)
        clip(tmp_path / "in.mp4", times=times)
        result = sr.upscale_video(tmp_path / "in.mp4", tmp_path / f"out.{suffix}")
        frames = frames_of(tmp_path / f"out.{suffix}")
        assert (result.size, result.frames) == ((128, 96), 6)
        assert [(frame.width, frame.height) for frame in frames] == [(128, 96)] * 6
        assert [frame.time for frame in frames] == pytest.approx(
            [time / 1000 for time in times], abs=0.001
        )

    def test_a_gif_becomes_a_video(self, sr: SuperResolver, tmp_path: Path) -> None:
        images = [Image.new("RGB", (20, 10), color) for color in COLORS]
        durations = [50, 300, 100, 80]
        images[0].save(
            tmp_path / "in.gif", save_all=True, append_images=images[1:], duration=durations
        )
        sr.upscale_video(tmp_path / "in.gif", tmp_path / "out.mp4")
        frames = frames_of(tmp_path / "out.mp4")
        assert [round(frame.time * 1000) for frame in frames] == [0, 50, 350, 450]
        for frame, color in zip(frames, COLORS, strict=True):
            assert frame.colorspace == BT601
            shown = rgb_of(middle(frame, 8), BT601, False, 8)
            assert shown == pytest.approx(color, abs=6)

    def test_a_still_image_is_refused(self, sr: SuperResolver, tmp_path: Path) -> None:
        Image.new("RGB", (9, 9)).save(tmp_path / "in.png")
        with pytest.raises(ImageError, match="still image"):
            sr.upscale_video(tmp_path / "in.png", tmp_path / "out.mp4")


class TestSound:
    @pytest.mark.parametrize("suffix", ["mp4", "mkv"])
    def test_sound_is_copied(self, sr: SuperResolver, tmp_path: Path, suffix: str) -> None:
        source = clip(tmp_path / "in.mp4", sound=True)
        sr.upscale_video(source, tmp_path / f"out.{suffix}")
        before, after = packets_of(source, "audio"), packets_of(tmp_path / f"out.{suffix}", "audio")
        assert [data for _, data in after] == [data for _, data in before]
        starts = [[time for time, _ in packets] for packets in (before, after)]
        assert starts[1] == pytest.approx(starts[0], abs=0.03)
        with av.open(str(tmp_path / f"out.{suffix}")) as container:
            assert container.metadata.get("title", container.metadata.get("TITLE")) == "A clip"

    def test_what_a_container_cannot_carry_is_named_before_the_start(
        self, sr: SuperResolver, tmp_path: Path
    ) -> None:
        source = clip(tmp_path / "in.mp4", sound=True, subtitles="mov_text")
        for suffix, lost in (("mkv", ["mov_text"]), ("webm", ["aac", "mov_text"]), ("mp4", [])):
            plan = sr.plan_video(source, tmp_path / f"out.{suffix}")
            assert len(plan.warnings) == len(lost)
            for sentence, codec in zip(plan.warnings, lost, strict=True):
                assert f"{suffix} files cannot carry" in sentence
                assert codec in sentence
        with pytest.warns(ImageWarning, match="mov_text"):
            result = sr.upscale_video(source, tmp_path / "out.mkv")
        with av.open(str(tmp_path / "out.mkv")) as container:
            assert [stream.type for stream in container.streams] == ["video", "audio"]
        assert len(result.warnings) == 1
        sr.upscale_video(source, tmp_path / "out.mp4")
        with av.open(str(tmp_path / "out.mp4")) as container:
            kinds = [stream.type for stream in container.streams]
            assert sorted(kinds) == ["audio", "subtitle", "video"]

    @pytest.mark.parametrize(
        ("suffix", "into", "codec"),
        [("mp4", "mp4", "mov_text"), ("mp4", "mov", "mov_text"), ("mkv", "mkv", "srt")],
    )
    def test_subtitles_are_copied_with_their_times(
        self, sr: SuperResolver, tmp_path: Path, suffix: str, into: str, codec: str
    ) -> None:
        source = clip(tmp_path / f"in.{suffix}", subtitles=codec)
        result = sr.upscale_video(source, tmp_path / f"out.{into}")
        assert result.warnings == ()

        def spoken(path: Path) -> list[tuple[float, bytes]]:
            found = packets_of(path, "subtitle")
            texts = [(time, data[2:] if codec == "mov_text" else data) for time, data in found]
            return [(time, data) for time, data in texts if data]  # not the silence between

        wanted = [(start / 1000, words) for start, words in SPOKEN]
        for path in (source, tmp_path / f"out.{into}"):
            assert [words for _, words in spoken(path)] == [words for _, words in wanted]
            times = [time for time, _ in spoken(path)]
            assert times == pytest.approx([time for time, _ in wanted], abs=0.002)

    @pytest.mark.parametrize("suffix", ["mp4", "mkv"])
    def test_chapters_are_copied(self, sr: SuperResolver, tmp_path: Path, suffix: str) -> None:
        def chapter(number: int, start: int, end: int, title: str) -> dict[str, Any]:
            ends = {"start": start, "end": end, "time_base": Fraction(1, 1000)}
            return {"id": number, "metadata": {"title": title}, **ends}

        def told(path: Path) -> list[tuple[float, float, str]]:
            with av.open(str(path)) as container:
                return [
                    (
                        float(one["start"] * one["time_base"]),
                        float(one["end"] * one["time_base"]),
                        one["metadata"]["title"],
                    )
                    for one in container.chapters()
                ]

        made = [chapter(1, 0, 100, "Dawn"), chapter(2, 100, 300, "Noon")]
        source = clip(tmp_path / f"in.{suffix}", chapters=made)
        assert told(source) == [(0, 0.1, "Dawn"), (0.1, 0.3, "Noon")]
        assert sr.upscale_video(source, tmp_path / f"out.{suffix}").warnings == ()
        assert told(tmp_path / f"out.{suffix}") == told(source)


class TestColours:
    @pytest.mark.parametrize("full", [False, True])
    @pytest.mark.parametrize("matrix", [BT709, BT601, BT2020])
    @pytest.mark.parametrize("bits", [8, 10])
    def test_known_colours_and_tags_stay(
        self, sr: SuperResolver, tmp_path: Path, matrix: int, full: bool, bits: int
    ) -> None:
        tags = {
            "colorspace": matrix,
            "color_range": 2 if full else 1,
            "color_primaries": matrix,
            "color_trc": 14 if matrix == BT2020 else matrix,
        }
        source = clip(
            tmp_path / "in.mp4",
            times=(0, 100, 200, 300),
            color=lambda index: yuv_of(COLORS[index], matrix, full, bits),
            bits=bits,
            codec="libx264" if bits == 8 else "libx265",
            options={"crf": "1", "x265-params": "log-level=error"} if bits > 8 else None,
            tags=tags,
        )
        result = sr.upscale_video(source, tmp_path / "out.mp4", crf=1)
        assert result.warnings == ()
        with av.open(str(tmp_path / "out.mp4")) as container:
            context = container.streams.video[0].codec_context
            assert {name: int(getattr(context, name)) for name in tags} == tags
        frames = frames_of(tmp_path / "out.mp4")
        for frame, color in zip(frames, COLORS, strict=True):
            found = {name: int(getattr(frame, name)) for name in ("colorspace", "color_range")}
            assert found == {name: tags[name] for name in found}
            assert max(part.bits for part in frame.format.components) == bits
            shown = rgb_of(middle(frame, bits), matrix, full, bits)
            assert shown == pytest.approx(color, abs=3)

    def test_the_network_sees_the_right_colours(
        self, sr: SuperResolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[float, ...]] = []
        run = sr._engine.run

        def look(source: Any, *rest: Any) -> Any:
            seen.append(tuple(np.asarray(source[4:8]).mean(axis=(0, 1))))
            return run(source, *rest)

        monkeypatch.setattr(sr._engine, "run", look)
        source = clip(
            tmp_path / "in.mkv",
            times=(0, 100, 200, 300),
            color=lambda index: yuv_of(COLORS[index], BT709, False, 8),
            tags={"colorspace": BT709, "color_range": 1},
        )
        sr.upscale_video(source, tmp_path / "out.mkv")
        colored = [color for color in COLORS if len(set(color)) > 1]
        for found, color in zip(seen, colored, strict=False):
            assert found == pytest.approx(color, abs=2)

    @pytest.mark.parametrize(("size", "matrix"), [((64, 48), BT601), ((1280, 16), BT709)])
    def test_without_tags_colours_are_as_players_take_them_and_are_tagged(
        self, sr: SuperResolver, tmp_path: Path, size: tuple[int, int], matrix: int
    ) -> None:
        source = clip(
            tmp_path / "in.mkv",
            size=size,
            color=lambda index: yuv_of(COLORS[index], matrix, False, 8),
        )
        sr.upscale_video(source, tmp_path / "out.mkv", crf=1, outscale=2)
        for frame, color in zip(frames_of(tmp_path / "out.mkv"), COLORS, strict=False):
            assert frame.colorspace == matrix
            assert rgb_of(middle(frame, 8), matrix, False, 8) == pytest.approx(color, abs=3)

    def test_ten_bits_into_a_codec_of_eight_are_told(
        self, sr: SuperResolver, tmp_path: Path
    ) -> None:
        source = clip(tmp_path / "in.mkv", bits=10)
        plan = sr.plan_video(source, tmp_path / "out.mp4", codec="mpeg4")
        assert any("8 bits of 10" in sentence for sentence in plan.warnings)
        webm = sr.plan_video(source, tmp_path / "out.webm")
        assert (webm.pixel_format, webm.warnings) == ("yuv420p10le", ())

    @pytest.mark.parametrize("suffix", ["mkv", "mp4", "webm"])
    def test_hdr_of_the_hlg_kind_stays_hlg(
        self, sr: SuperResolver, tmp_path: Path, suffix: str
    ) -> None:
        hlg = 18
        tags = {"colorspace": BT2020, "color_primaries": BT2020, "color_trc": hlg}
        source = clip(
            tmp_path / "in.mp4",
            times=(0, 100, 200, 300),
            color=lambda index: yuv_of(COLORS[index], BT2020, False, 10),
            bits=10,
            codec="libx265",
            options={"crf": "1", "x265-params": "log-level=error"},
            tags=tags,
        )
        target = tmp_path / f"out.{suffix}"
        assert sr.upscale_video(source, target, crf=1).warnings == ()
        with av.open(str(target)) as container:
            context = container.streams.video[0].codec_context
            assert {name: int(getattr(context, name)) for name in tags} == tags
        for frame, color in zip(frames_of(target), COLORS, strict=True):
            assert int(frame.color_trc) == hlg
            assert max(part.bits for part in frame.format.components) == 10
            shown = rgb_of(middle(frame, 10), BT2020, False, 10)
            assert shown == pytest.approx(color, abs=3)

    def test_hdr_that_cannot_be_kept_is_refused(self, sr: SuperResolver, tmp_path: Path) -> None:
        tags = {"colorspace": BT2020, "color_primaries": BT2020, "color_trc": 16}
        source = clip(tmp_path / "in.mkv", bits=10, tags=tags)
        with pytest.raises(ImageError, match="HDR"):
            sr.upscale_video(source, tmp_path / "out.mkv")
        assert not (tmp_path / "out.mkv").exists()


class TestShape:
    def test_the_shape_of_pixels_stays(self, sr: SuperResolver, tmp_path: Path) -> None:
        source = clip(tmp_path / "in.mp4", aspect=Fraction(4, 3))
        sr.upscale_video(source, tmp_path / "out.mp4")
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)

    @pytest.mark.parametrize(
        ("matrix", "turned"),
        [
            ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
            ((0, -1, 1, 0), lambda image: np.rot90(image)),
            ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
            ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
            ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ],
    )
    def test_a_rotation_is_applied(
        self,
        sr: SuperResolver,
        tmp_path: Path,
        matrix: tuple[int, ...],
        turned: Callable[[Array], Array],
    ) -> None:
        picture = np.zeros((24, 32, 3), np.uint8)
        picture[:8, :8], picture[:8, -8:], picture[-8:, :8] = 255, 160, 80
        with av.open(str(tmp_path / "plain.mp4"), "w") as out:
            video = out.add_stream("libx264", rate=10, options={"crf": "1"})
            video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
            video.codec_context.sample_aspect_ratio = Fraction(4, 3)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(video.encode())
        data = (tmp_path / "plain.mp4").read_bytes()
        a, b, c, d = (value << 16 for value in matrix)
        place = data.index(b"tkhd") + 44  # version 0: behind times, layer and volume
        head = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        (tmp_path / "in.mp4").write_bytes(data[:place] + head + data[place + 36 :])
        result = sr.upscale_video(tmp_path / "in.mp4", tmp_path / "out.mp4", crf=1)
        (frame,) = frames_of(tmp_path / "out.mp4")
        expected = turned(picture)
        assert result.size == (4 * expected.shape[1], 4 * expected.shape[0])
        small = frame.to_image().resize((expected.shape[1], expected.shape[0]))
        found = np.asarray(small).astype(int)
        inner = np.abs(found - expected)[2:-2, 2:-2]
        assert np.median(inner) <= 3
        assert inner.mean() <= 12
        assert frame.rotation == 0
        with av.open(str(tmp_path / "out.mp4")) as container:
            aspect = Fraction(3, 4) if matrix[0] == 0 else Fraction(4, 3)
            assert container.streams.video[0].sample_aspect_ratio == aspect

    def test_sizes(self, sr: SuperResolver, tmp_path: Path) -> None:
        source = clip(tmp_path / "in.mp4", size=(40, 30))
        for asked, size in (
            ({"outscale": 2}, (80, 60)),
            ({"size": (100, None)}, (100, 74)),
            ({"outscale": 5}, (200, 150)),
        ):
            plan = sr.plan_video(source, tmp_path / "out.mp4", **asked)
            assert plan.size == size
            assert any("even numbers" in s for s in plan.warnings) == (size[1] == 74)
        with pytest.warns(ImageWarning, match="even numbers"):
            sr.upscale_video(source, tmp_path / "out.mp4", size=(100, None))
        frame = frames_of(tmp_path / "out.mp4")[0]
        assert (frame.width, frame.height) == (100, 74)

    @pytest.mark.parametrize("scale", [2, 8])
    def test_networks_of_other_scales(self, scale: int, tmp_path: Path) -> None:
        config = GeneratorConfig(channels=4, blocks=1, scale=scale)
        weights.save(tmp_path / "model", config, Generator(config).state_dict(), "", False)
        source = clip(tmp_path / "in.mp4", sound=True)
        other = SuperResolver.from_pretrained(tmp_path / "model")
        result = other.upscale_video(source, tmp_path / "out.mp4")
        assert result.size == (32 * scale, 24 * scale)
        frames = frames_of(tmp_path / "out.mp4")
        assert [(frame.width, frame.height) for frame in frames] == 3 * [result.size]

    def test_interlaced_video_is_refused(self, sr: SuperResolver, tmp_path: Path) -> None:
        source = clip(tmp_path / "in.mp4", size=(64, 64), options={"flags": "+ildct+ilme"})
        with pytest.raises(ImageError, match="interlaced; deinterlace it first"):
            sr.upscale_video(source, tmp_path / "out.mp4")

    def test_max_pixels_counts_all_frames(self, sr: SuperResolver, tmp_path: Path) -> None:
        source = clip(tmp_path / "in.mp4")
        with pytest.raises(ImageError, match="3 frames of 32x24, more than the 2000 pixels"):
            sr.upscale_video(source, tmp_path / "out.mp4", max_pixels=2000)
        sr.upscale_video(source, tmp_path / "out.mp4", max_pixels=3 * 32 * 24)


class TestFiles:
    def test_a_failure_leaves_nothing(self, sr: SuperResolver, tmp_path: Path) -> None:
        source = clip(tmp_path / "in.mp4")
        target = tmp_path / "out.mp4"
        target.write_bytes(b"old")
        for error in (RuntimeError, KeyboardInterrupt):

            def fail(done: int, total: int, error: type[BaseException] = error) -> None:
                assert total == 3
                if done == 2:
                    raise error

            with pytest.raises(error):
                sr.upscale_video(source, target, progress=fail)
            assert target.read_bytes() == b"old"
            assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]

    def test_progress_ends_at_the_number_of_frames(self, sr: SuperResolver, tmp_path: Path) -> None:
        steps: list[tuple[int, int]] = []
        source = clip(tmp_path / "in.mkv", times=(0, 10, 20, 900))
        sr.upscale_video(source, tmp_path / "out.mkv", progress=lambda *step: steps.append(step))
        assert [done for done, _ in steps if done <= 4][:4] == [1, 2, 3, 4]
        assert steps[-1] == (4, 4)

    def test_an_existing_file_may_stay(self, sr: SuperResolver, tmp_path: Path) -> None:
        source = clip(tmp_path / "in.mp4")
        (tmp_path / "out.mp4").write_bytes(b"old")
        with pytest.warns(ImageWarning, match="stays"):
            result = sr.upscale_video(source, tmp_path / "out.mp4", overwrite=False)
        assert (tmp_path / "out.mp4").read_bytes() == b"old"
        assert result.target is not None
        assert len(frames_of(result.target)) == 3

    def test_bytes(self, sr: SuperResolver, tmp_path: Path) -> None:
        data = clip(tmp_path / "in.mp4").read_bytes()
        sr.upscale_video(data, tmp_path / "a.mkv")
        sr.upscale_video(io.BytesIO(data), tmp_path / "b.mkv")
        assert len(frames_of(tmp_path / "a.mkv")) == len(frames_of(tmp_path / "b.mkv")) == 3

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"codec": "abacus"}, "no encoder 'abacus'"),
            ({"codec": "aac"}, "encodes no video"),
            ({"crf": 64}, "from 0 to 63"),
            ({"codec": "ffv1", "crf": 3}, "does not go with ffv1"),
            ({"codec": "libx264", "name": "out.webm"}, "cannot carry libx264"),
            ({"name": "out.avi"}, "no name for a video; choose one of mp4"),
        ],
    )
    def test_what_cannot_be_is_refused(
        self, sr: SuperResolver, tmp_path: Path, options: dict[str, Any], sentence: str
    ) -> None:
        source = clip(tmp_path / "in.mkv")
        name = options.pop("name", "out.mkv")
        with pytest.raises(ImageError, match=sentence):
            sr.upscale_video(source, tmp_path / name, **options)
        assert not (tmp_path / name).exists()

    def test_what_is_no_video(self, sr: SuperResolver, tmp_path: Path) -> None:
        (tmp_path / "in.mp4").write_bytes(b"no video at all" * 99)
        for name, sentence in (("in.mp4", "cannot be read as a video"), ("gone.mp4", "not exist")):
            with pytest.raises(ImageError, match=sentence):
                sr.upscale_video(tmp_path / name, tmp_path / "out.mp4")


class TestCommand:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundled: Path) -> None:
        monkeypatch.chdir(tmp_path)

    def test_a_video(self, capsys: pytest.CaptureFixture[str]) -> None:
        clip(Path("in.mp4"), sound=True)
        assert main(["in.mp4", "out.mkv", "--outscale", "2", "--crf", "30"]) == 0
        frames = frames_of(Path("out.mkv"))
        assert [(frame.width, frame.height) for frame in frames] == [(64, 48)] * 3
        assert "out.mkv, 64x48, 3 frames" in capsys.readouterr().err

    def test_beside_it_and_into_a_folder(self) -> None:
        clip(Path("in.mov"))
        assert main(["in.mov"]) == 0
        assert main(["in.mov", "-o", "large/"]) == 0
        assert Path("in_upscaled.mov").is_file()
        assert Path("large/in.mov").is_file()

    def test_dry_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        clip(Path("in.mp4"), sound=True, subtitles="mov_text")
        assert main(["in.mp4", "out.mkv", "--dry-run"]) == 0
        said = capsys.readouterr().err
        assert "out.mkv, 128x96, 3 frames: 32x24 to 128x96, libx264 yuv420p, less than 1 s" in said
        assert "mov_text" in said
        assert "Each frame is upscaled for itself; the model srresnet flickers least." in said
        assert not Path("out.mkv").exists()
        assert main(["in.mp4", "out.mkv", "--dry-run", "--json"]) == 0
        line = json.loads(capsys.readouterr().out)
        assert (line["frames"], line["output_size"]) == (3, [128, 96])

    def test_folders_never_take_videos_unasked(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("photos").mkdir()
        clip(Path("photos/in.mp4"))
        Image.new("RGB", (5, 4)).save("photos/a.png")
        assert main(["photos", "-o", "large", "--recursive"]) == 0
        assert [path.name for path in Path("large").iterdir()] == ["a.png"]

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("in.mp4", "out.png"), "out.png is no name for a video"),
            (("in.mp4", "-o", "-"), "A video goes into a file"),
            (("in.mp4", "out.mkv", "--format", "png"), "--format PNG is for images"),
            (("in.mp4", "-o", "d/", "--format", "png"), "--format PNG is for images"),
            (("a.png", "out.mkv"), "a.png is a still image"),
        ],
    )
    def test_what_does_not_go_together(
        self,
        capsys: pytest.CaptureFixture[str],
        arguments: tuple[str, ...],
        sentence: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        clip(Path("in.mp4"))
        Image.new("RGB", (5, 4)).save("a.png")
        assert main(arguments) in (1, 2)
        assert sentence in capsys.readouterr().err

    def test_without_pyav_a_sentence_says_what_to_install(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clip(Path("in.mp4"))
        monkeypatch.setitem(sys.modules, "av", None)
        assert main(["in.mp4", "out.mkv"]) == 1
        assert "pip install 'srgan-infer[video]'" in capsys.readouterr().err
