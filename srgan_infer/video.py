"""Video files: every frame upscaled for itself, sound and subtitles copied.

It needs PyAV: ``pip install 'srgan-infer[video]'``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from srgan_infer.errors import ImageError
from srgan_infer.files import new_file
from srgan_infer.images.alpha import on_white
from srgan_infer.images.read import ImageFile
from srgan_infer.images.resize import Box, OutputSize, output_size

Array = npt.NDArray[Any]

# File name endings, and what FFmpeg calls the container.
CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mkv": "matroska",
    ".mov": "mov",
    ".webm": "webm",
}
# What a container gets unless a codec is named: of 8 bits, and of more.
CODECS = {"webm": ("libvpx-vp9", "libsvtav1")}
OTHER_CODECS = ("libx264", "libx265")
# Constant rate factors at which a second look finds no difference.
CRF = {"libx264": 16, "libx265": 18, "libvpx-vp9": 20, "libsvtav1": 20, "libaom-av1": 20}
OPTIONS = {
    "libx265": {"x265-params": "log-level=error"},
    "libvpx-vp9": {"b": "0", "row-mt": "1", "cpu-used": "4"},
}
# Numbers of ITU-T H.273.
UNSPECIFIED, BT709, BT601 = 2, 1, 6
PQ, CONSTANT_LUMINANCE = 16, 10
LIMITED, FULL = 1, 2
# Of FFmpeg: nothing of the stream is handed out.
DISCARD_ALL = 48
# Matrices that swscale knows.
MATRICES = (1, 4, 5, 6, 7, 9)
# Players take an untagged video of more rows than this to be BT.709.
SD_ROWS = 576
# swscale: bicubic chroma, rounded accurately, at full horizontal resolution.
ACCURATE = 4 | 0x40000 | 0x2000 | 0x4000
ONE = 65536  # in the fixed-point numbers of a display matrix

FLICKER = "Each frame is upscaled for itself; the model srresnet flickers least."


@dataclass(frozen=True)
class Clip:
    """What the head of a video file and its first frame say.

    Attributes
    ----------
    size
        (W, H) in pixels, upright.
    frames
        Number of frames; estimated where the file does not say, and 0 where nothing does.
    depth
        Bits of a component.
    pixel_format
        FFmpeg's name of it.
    matrix, full_range, primaries, transfer
        How colours are coded: numbers of ITU-T H.273. The matrix is the one that players
        use where the file says none.
    aspect
        Of a pixel, width by height, upright; None where the file does not say.
    transposed, flipped_x, flipped_y
        What turns a frame upright, in this order.
    transparent
        Whether the first frame has transparent pixels.
    """

    size: tuple[int, int]
    frames: int
    depth: int
    pixel_format: str
    matrix: int
    full_range: bool
    primaries: int
    transfer: int
    aspect: Fraction | None
    transposed: bool
    flipped_x: bool
    flipped_y: bool
    transparent: bool


@dataclass(frozen=True)
class VideoPlan:
    """What a video becomes.

    Attributes
    ----------
    clip
        The source.
    container, codec, pixel_format
        FFmpeg's names.
    crf
        The constant rate factor; None where the codec has none.
    output
        The size of the result, even where the pixel format needs that.
    warnings
        Sentences on what the result does not carry.
    """

    clip: Clip
    container: str
    codec: str
    pixel_format: str
    crf: int | None
    output: OutputSize
    warnings: tuple[str, ...]

    @property
    def frames(self) -> int:
        """Number of frames, as in :class:`Clip`."""
        return self.clip.frames

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) of the result in pixels."""
        return self.output.size

    def __str__(self) -> str:
        name = self.clip.pixel_format
        changed = "" if name == self.pixel_format else f" from {name}"
        passes = self.output.passes
        often = f" in {passes} passes of the network" if passes > 1 else ""
        return (
            f"{self.clip.size[0]}x{self.clip.size[1]} to {self.size[0]}x{self.size[1]}{often}, "
            f"{self.codec} {self.pixel_format}{changed}"
        )


def is_video(name: str | os.PathLike[str]) -> bool:
    """Whether a file name ends as those of videos do, or is such an ending."""
    text = os.fspath(name).lower()
    return text.endswith(tuple(CONTAINERS))


def plan_video(
    source: ImageFile,
    target: str | os.PathLike[str],
    scale: int,
    *,
    outscale: float | None = None,
    size: Box | None = None,
    megapixels: float | None = None,
    codec: str | None = None,
    crf: int | None = None,
    max_pixels: int | None = None,
) -> VideoPlan:
    """What a video becomes, told from its head and its first frame.

    Parameters
    ----------
    source, target, outscale, size, megapixels, codec, crf, max_pixels
        As for :meth:`SuperResolver.upscale_video`.
    scale
        Of the network.

    Raises
    ------
    ImageError
        If the source cannot be read or the target not be made of it.
    ValueError
        If an option has a value that means nothing.
    """
    with _opened(source) as container:
        clip = _examine(container, source)
        width, height = clip.size
        if max_pixels is not None and width * height * max(clip.frames, 1) > max_pixels:
            raise ImageError(
                f"{_name(source)} has {clip.frames} frames of {width}x{height}, more than the "
                f"{max_pixels} pixels that max_pixels allows."
            )
        output = output_size(clip.size, scale, outscale=outscale, size=size, megapixels=megapixels)
        return _plan(container, clip, output, target, codec, crf)


def convert(
    source: ImageFile,
    target: str | os.PathLike[str],
    plan: VideoPlan,
    upscale: Callable[[Array], Array],
    *,
    overwrite: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, int]:
    """Make the video that was planned.

    Parameters
    ----------
    source, target, overwrite
        As for :meth:`SuperResolver.upscale_video`.
    plan
        Of :func:`plan_video`.
    upscale
        Makes (H', W', 3) pixels of the planned size from (H, W, 3); uint8 or uint16 RGB.
    progress
        Called with the number of frames done and (estimated) in total.

    Returns
    -------
    tuple
        The file that was written, and the number of its frames.

    Raises
    ------
    ImageError
        If a frame cannot be decoded, or the file not be written.
    """
    done = 0
    with ExitStack() as stack:
        container = stack.enter_context(_opened(source))
        stack.enter_context(_one_sentence(target, "written"))
        new = stack.enter_context(new_file(target, overwrite))
        out = stack.enter_context(_av().open(new.stream, "w", format=plan.container))
        video = _video_stream(container, source)
        video.thread_type = "AUTO"
        encoder = _encoder(out, video, plan)
        copies = _copies(container, out, video)
        durations: dict[int, int] = {}
        for packet in container.demux([video, *copies]):
            if packet.stream is not video:
                if packet.dts is not None:  # the last one of a stream is empty
                    packet.stream = copies[packet.stream]
                    out.mux(packet)
                continue
            with _one_sentence(source, "read"):
                frames = packet.decode()
            for frame in frames:
                made = _frame(upscale(_pixels(frame, plan.clip, source)), plan)
                made.pts, made.time_base = frame.pts, frame.time_base
                if duration := getattr(frame, "duration", None) or packet.duration:
                    durations[frame.pts] = duration
                _mux(out, encoder.encode(made), durations)
                done += 1
                if progress:
                    progress(done, max(done, plan.frames))
        _mux(out, encoder.encode(), durations)
    if progress and done < plan.frames:
        progress(done, done)
    return new.path, done


def _av() -> Any:
    """PyAV, imported when a video is first seen."""
    try:
        import av
    except ImportError as error:
        raise ImageError("Videos need PyAV: pip install 'srgan-infer[video]'.") from error
    return av


@contextmanager
def _opened(source: ImageFile) -> Iterator[Any]:
    """The source as a container that is read from its start."""
    av = _av()
    if isinstance(source, (str, os.PathLike)):
        file: Any = os.fspath(source)
        if not os.path.exists(file):
            raise ImageError(f"{file} does not exist.")
    else:
        file = io.BytesIO(source) if isinstance(source, (bytes, bytearray, memoryview)) else source
        if not file.seekable():
            file = io.BytesIO(file.read())
        file.seek(0)
    with _one_sentence(source, "read"):
        container = av.open(file)
    with container:
        if container.format.name.endswith(("_pipe", "image2")):
            raise ImageError(f"{_name(source)} is a still image; give the result an image's name.")
        yield container


@contextmanager
def _one_sentence(file: Any, what: str) -> Iterator[None]:
    """Turn what FFmpeg raises into an ``ImageError``."""
    try:
        yield
    except _av().error.FFmpegError as error:
        reason = str(error.strerror or error).rstrip(".")
        raise ImageError(f"{_name(file)} cannot be {what} as a video: {reason}.") from error


def _name(file: Any) -> str:
    if isinstance(file, (str, os.PathLike)):
        return os.fspath(file)
    return getattr(file, "name", None) or "The video"


def _video_stream(container: Any, source: Any) -> Any:
    """The first stream of moving pictures; a cover is none."""
    for stream in container.streams.video:
        if "attached_pic" not in _dispositions(stream):
            return stream
    raise ImageError(f"{_name(source)} has no video in it.")


def _dispositions(stream: Any) -> str:
    return str(getattr(stream, "disposition", ""))


def _examine(container: Any, source: Any) -> Clip:
    """Read the first frame; refuse what would come out wrong."""
    stream = _video_stream(container, source)
    with _one_sentence(source, "read"):
        frame = next(container.decode(stream), None)
    if frame is None:
        raise ImageError(f"{_name(source)} has no frame that can be decoded.")
    context = stream.codec_context
    _refuse_interlaced(frame, source)
    transfer = int(context.color_trc)
    if transfer == PQ or stream.codec_context.codec_tag in ("dvh1", "dvhe", "dav1"):
        raise ImageError(
            f"{_name(source)} is HDR (PQ or Dolby Vision), whose brightness would be lost; "
            "convert it to SDR or HLG first."
        )
    matrix = int(frame.colorspace)
    if matrix == CONSTANT_LUMINANCE:
        raise ImageError(
            f"{_name(source)} is coded with constant luminance, which cannot be kept; "
            "convert it to BT.709 first."
        )
    is_rgb = frame.format.is_rgb or frame.format.name == "pal8"
    if matrix not in MATRICES:
        large = frame.height > SD_ROWS or frame.width >= 1280
        matrix = BT709 if large else BT601
    name = frame.format.name
    transposed, flipped_x, flipped_y = _orientation(frame, source)
    aspect = stream.sample_aspect_ratio or None
    if aspect and transposed:
        aspect = 1 / aspect
    return Clip(
        size=(frame.height, frame.width) if transposed else (frame.width, frame.height),
        frames=_count(stream, container),
        depth=8 if name == "pal8" else max(part.bits for part in frame.format.components),
        pixel_format=name.replace("yuvj", "yuv"),
        matrix=matrix,
        full_range=not is_rgb and (int(frame.color_range) == FULL or name.startswith("yuvj")),
        primaries=int(context.color_primaries),
        transfer=transfer,
        aspect=aspect,
        transposed=transposed,
        flipped_x=flipped_x,
        flipped_y=flipped_y,
        transparent=_is_transparent(frame),
    )


def _count(stream: Any, container: Any) -> int:
    """Number of frames, as well as the file says."""
    if stream.frames:
        return int(stream.frames)
    rate = stream.average_rate or stream.guessed_rate
    if stream.duration and rate:
        return max(int(stream.duration * stream.time_base * rate + Fraction(1, 2)), 1)
    if container.duration and rate:
        return max(int(container.duration * rate / 1_000_000 + Fraction(1, 2)), 1)
    return 0


def _refuse_interlaced(frame: Any, source: Any) -> None:
    if frame.interlaced_frame:
        raise ImageError(
            f"{_name(source)} is interlaced; deinterlace it first, as with "
            "ffmpeg -i IN -vf bwdif OUT."
        )


def _orientation(frame: Any, source: Any) -> tuple[bool, bool, bool]:
    """What a display matrix asks for: transpose, then flip left-right, then top-bottom."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    if (b, c) == (0, 0) and abs(a) == abs(d) == ONE:
        return False, a < 0, d < 0
    if (a, d) == (0, 0) and abs(b) == abs(c) == ONE:
        return True, c < 0, b < 0
    raise ImageError(
        f"{_name(source)} is turned by an angle that is no multiple of 90°; turn it upright first."
    )


def _is_transparent(frame: Any) -> bool:
    """Whether a frame has pixels that are not opaque."""
    name = frame.format.name
    if name != "pal8" and not any(part.is_alpha for part in frame.format.components):
        return False
    return bool((frame.reformat(format="rgba").to_ndarray()[..., 3] < 255).any())


def _plan(
    container: Any,
    clip: Clip,
    output: OutputSize,
    target: str | os.PathLike[str],
    codec: str | None,
    crf: int | None,
) -> VideoPlan:
    av = _av()
    suffix = Path(target).suffix.lower()
    if suffix not in CONTAINERS:
        raise ImageError(
            f"{os.fspath(target)} is no name for a video; choose one of "
            f"{', '.join(name[1:] for name in CONTAINERS)}."
        )
    name = CONTAINERS[suffix]
    codec = codec or CODECS.get(name, OTHER_CODECS)[clip.depth > 8]
    try:
        encoder = av.Codec(codec, "w")
    except ValueError as error:
        raise ImageError(f"This PyAV has no encoder {codec!r}; choose another codec.") from error
    if encoder.type != "video":
        raise ImageError(f"The codec {codec} encodes no video; choose another one.")
    if crf is not None and not (codec in CRF and 0 <= crf <= 63):
        raise ImageError(
            f"crf is a number from 0 to 63 of {', '.join(CRF)}; {crf} does not go with {codec}."
        )
    supported = _supported(name)
    if encoder.canonical_name not in supported:
        raise ImageError(f"{suffix[1:]} files cannot carry {codec}; choose another codec or name.")
    pixel_format = _pixel_format(encoder, clip)
    size = _whole_chroma(output.size, pixel_format)
    warnings = []
    if clip.transparent:
        warnings.append("Videos have no transparency: the frames are put on white.")
    made = av.VideoFormat(pixel_format, 2, 2)
    bits = max(part.bits for part in made.components)
    if bits < clip.depth:
        warnings.append(f"{codec} gets {bits} bits of {clip.depth}: the finer steps are lost.")
    if size != output.size:
        warnings.append(f"The size becomes {size[0]}x{size[1]}: {pixel_format} needs even numbers.")
    kept = _video_stream(container, target)
    for stream in container.streams:
        carried = _is_carried(stream, supported) or _holds_chapters(stream)
        if stream is not kept and not carried:
            warnings.append(
                f"{suffix[1:]} files cannot carry {_described(stream)}: it is left out."
            )
    even = replace(output, width=size[0], height=size[1])
    crf = CRF.get(codec) if crf is None else crf
    return VideoPlan(clip, name, codec, pixel_format, crf, even, tuple(warnings))


def _supported(container: str) -> set[str]:
    """The codecs that a container can carry."""
    with _av().open(os.devnull, "w", format=container) as out:
        return set(out.supported_codecs)


def _pixel_format(encoder: Any, clip: Clip) -> str:
    """The source's own if the encoder takes it, else what most players show."""
    offered = [video_format.name for video_format in encoder.video_formats or ()]
    wanted = [clip.pixel_format]
    if clip.depth > 10:
        wanted += ["yuv420p12le"]
    if clip.depth > 8:
        wanted += ["yuv420p10le", "yuv422p10le"]
    wanted += ["yuv420p", *offered]
    alpha = ("yuva", "rgba", "bgra", "gbrap", "argb", "abgr", "ya", "pal")
    return next(n for n in wanted if n in offered and not n.startswith(("yuvj", *alpha)))


def _whole_chroma(size: tuple[int, int], pixel_format: str) -> tuple[int, int]:
    """The size, cut to what subsampled chroma covers."""
    made = _av().VideoFormat(pixel_format, 16, 16)
    steps = (16 // made.chroma_width(16), 16 // made.chroma_height(16))
    width, height = (max(edge // step * step, step) for edge, step in zip(size, steps, strict=True))
    return width, height


def _is_carried(stream: Any, supported: set[str]) -> bool:
    """Whether a stream beside the video is copied."""
    return (
        stream.type in ("audio", "subtitle")
        and stream.codec_context is not None
        and stream.codec_context.codec.canonical_name in supported
    )


def _holds_chapters(stream: Any) -> bool:
    """Whether it is where MP4 and MOV keep chapters, which FFmpeg reads and then passes over."""
    return stream.type == "data" and getattr(stream, "discard", None) == DISCARD_ALL


def _described(stream: Any) -> str:
    """A stream in words."""
    if "attached_pic" in _dispositions(stream):
        return f"the cover (stream {stream.index})"
    kind = {"audio": "sound", "subtitle": "subtitles", "video": "further video"}.get(
        stream.type, stream.type
    )
    context = stream.codec_context
    codec = f", {context.codec.canonical_name}" if context is not None else ""
    return f"the {kind} (stream {stream.index}{codec})"


def _encoder(out: Any, video: Any, plan: VideoPlan) -> Any:
    """The stream that frames are encoded into, with the tags of the source."""
    clip = plan.clip
    options = dict(OPTIONS.get(plan.codec, {}))
    if plan.crf is not None:
        options["crf"] = str(plan.crf)
    rate = video.average_rate or video.guessed_rate or 25
    stream = out.add_stream(plan.codec, rate=rate, options=options)
    stream.width, stream.height = plan.size
    stream.pix_fmt = plan.pixel_format
    context = stream.codec_context
    context.time_base = video.time_base
    context.colorspace = clip.matrix
    context.color_range = FULL if clip.full_range else LIMITED
    context.color_primaries, context.color_trc = clip.primaries, clip.transfer
    if clip.aspect:
        context.sample_aspect_ratio = clip.aspect
    if plan.codec == "libx265" and plan.container in ("mp4", "mov"):
        context.codec_tag = "hvc1"  # the only name under which Apple plays it
    return stream


def _copies(container: Any, out: Any, video: Any) -> dict[Any, Any]:
    """The streams that are copied, and what they become; the head of the file is told too."""
    supported = set(out.supported_codecs)
    copies = {}
    for stream in container.streams:
        if stream is video or not _is_carried(stream, supported):
            continue
        copies[stream] = copy = out.add_stream_from_template(stream)
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition.value
    container_own = ("major_brand", "minor_version", "compatible_brands", "encoder")
    out.metadata.update({k: v for k, v in container.metadata.items() if k not in container_own})
    if hasattr(container, "chapters"):
        out.set_chapters(container.chapters())
    return copies


def _pixels(frame: Any, clip: Clip, source: Any) -> Array:
    """A frame as upright (H, W, 3) RGB; uint8, or uint16 of more than 8 bits."""
    _refuse_interlaced(frame, source)
    stored = clip.size[::-1] if clip.transposed else clip.size
    if (frame.width, frame.height) != stored:
        raise ImageError(
            f"{_name(source)} changes its size from {stored[0]}x{stored[1]} to "
            f"{frame.width}x{frame.height}; cut it there and upscale the parts."
        )
    kind = "rgb48le" if clip.depth > 8 else "rgba" if clip.transparent else "rgb24"
    frame.colorspace = clip.matrix
    pixels = frame.reformat(
        format=kind,
        src_color_range=FULL if clip.full_range else LIMITED,
        dst_color_range=FULL,
        interpolation=ACCURATE,
    ).to_ndarray()
    if clip.transparent and clip.depth == 8:
        pixels = on_white(pixels)
    if clip.transposed:
        pixels = pixels.swapaxes(0, 1)
    if clip.flipped_x:
        pixels = pixels[:, ::-1]
    if clip.flipped_y:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _frame(pixels: Array, plan: VideoPlan) -> Any:
    """(H, W, 3) RGB as a frame that the encoder takes."""
    clip = plan.clip
    kind = "rgb48le" if pixels.dtype == np.uint16 else "rgb24"
    frame = _av().VideoFrame.from_ndarray(pixels, format=kind)
    frame.colorspace = clip.matrix
    return frame.reformat(
        format=plan.pixel_format,
        src_color_range=FULL,
        dst_color_range=FULL if clip.full_range else LIMITED,
        interpolation=ACCURATE,
    )


def _mux(out: Any, packets: Any, durations: dict[int, int]) -> None:
    """Hand packets on with the durations of their frames, which encoders forget."""
    for packet in packets:
        duration = durations.pop(packet.pts, None)
        if duration is not None:
            packet.duration = duration
        out.mux(packet)
