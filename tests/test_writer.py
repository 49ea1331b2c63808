"""Output files: the right format, whole or not at all, nothing lost in silence."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers import noise
from PIL import Image, ImageCms, ImageFilter, ImageSequence, features

from srgan_infer.errors import ImageError
from srgan_infer.images.blocks import INCH, Density
from srgan_infer.images.formats import FORMATS, check_output
from srgan_infer.images.metadata import Metadata
from srgan_infer.images.palette import indexed
from srgan_infer.images.read import open_file
from srgan_infer.images.write import create

Array = npt.NDArray[Any]
STILL = ["png", "jpg", "webp", "tif", "avif", "bmp", "gif", "jp2", "ppm", "tga"]
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def needs(suffix: str) -> None:
    feature = {"webp": "webp", "avif": "avif", "jp2": "jpg_2000"}.get(suffix)
    if feature and not features.check(feature):
        pytest.skip(f"this Pillow is built without {feature}")


def gradient(channels: int, dtype: npt.DTypeLike = np.uint8, height: int = 24) -> Array:
    top = 1 if np.dtype(dtype) == np.float32 else np.iinfo(np.dtype(dtype)).max
    y, x = np.mgrid[:height, :32]
    planes = [(x + 1) / 32, (y + 1) / height, (x + y) / (31 + height), (x + 1) / 32]
    pixels = np.stack(
        planes[: channels - 1] + planes[-1:] if channels in (2, 4) else planes[:channels], 2
    )
    return (pixels * top).astype(dtype)


def write(file: Any, pixels: Array, band: int = 7, **options: Any) -> tuple[str, ...]:
    height, width, channels = pixels.shape
    with create(
        file, size=(width, height), channels=channels, dtype=pixels.dtype, **options
    ) as output:
        for top in range(0, height, band):
            output.write(pixels[top : top + band])
    return output.warnings


@pytest.mark.parametrize("suffix", STILL)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_format_takes_every_kind(tmp_path: Path, suffix: str, channels: int) -> None:
    needs(suffix)
    file = tmp_path / f"out.{suffix}"
    pixels = gradient(channels)
    warnings = write(file, pixels)
    with Image.open(file) as image:
        image.load()
        assert image.size == (32, 24)
        flat = suffix in ("jpg", "ppm", "bmp") and channels in (2, 4)
        assert bool(warnings) == flat
        shown = np.asarray(image.convert("RGBA")).astype(int)
    expected = pixels[..., [0, 0, 0] if channels < 3 else [0, 1, 2]].astype(int)
    if channels in (2, 4):
        alpha = pixels[..., -1:]
        if flat:
            expected = np.rint(expected * (alpha / 255) + 255 - alpha).astype(int)
            alpha = np.full_like(alpha, 255)
        if suffix == "gif":
            return  # one transparent colour, 255 others: looked at elsewhere
        assert np.abs(shown[..., 3:] - alpha).max() <= (0 if suffix != "avif" else 4)
        visible = alpha[..., 0] > 16
    else:
        visible = np.ones((24, 32), bool)
    lossy = {"jpg": 12, "webp": 24, "avif": 24, "gif": 40, "jp2": 2}.get(suffix, 0)
    assert np.abs(shown[..., :3] - expected)[visible].mean() <= lossy / 4
    assert lossy or np.array_equal(shown[..., :3], expected)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_rows_may_be_reused_by_the_caller(tmp_path: Path, suffix: str) -> None:
    pixels = noise((64, 50, 3))
    with create(tmp_path / f"out.{suffix}", size=(50, 64), channels=3) as output:
        rows = np.empty((8, 50, 3), np.uint8)
        for top in range(0, 64, 8):
            rows[...] = pixels[top : top + 8]
            output.write(rows)
        rows[...] = 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / f"out.{suffix}")), pixels)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_kept(tmp_path: Path, suffix: str, channels: int) -> None:
    file = tmp_path / f"out.{suffix}"
    pixels = gradient(channels, np.uint16)
    assert write(file, pixels) == ()
    image = next(open_file(file).frames())
    color = image.color[0:24]
    read = color if image.alpha is None else np.dstack([color, image.alpha[:]])
    assert read.dtype == np.uint16
    assert np.array_equal(read, pixels)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp"])
def test_sixteen_bits_into_eight_are_rounded_with_a_warning(tmp_path: Path, suffix: str) -> None:
    needs(suffix)
    file = tmp_path / f"out.{suffix}"
    (warning,) = write(file, np.full((24, 32, 3), 65535 * 100 // 255 + 128, np.uint16))
    assert "8 bits" in warning
    with Image.open(file) as image:
        assert np.abs(np.asarray(image).astype(int) - 100).max() <= 1


def test_floats_keep_their_values_in_tiff(tmp_path: Path) -> None:
    pixels = gradient(1, np.float32)
    write(tmp_path / "out.tif", pixels)
    image = next(open_file(tmp_path / "out.tif").frames())
    assert np.array_equal(image.color[0:24], pixels)


@pytest.mark.parametrize(
    ("name", "size", "choose"),
    [("a.jpg", (65501, 10), "PNG"), ("a.webp", (10, 16384), "PNG"), ("a.gif", (65536, 1), "TIFF")],
)
def test_limits_are_told_before_anything_is_written(
    tmp_path: Path, name: str, size: tuple[int, int], choose: str
) -> None:
    needs(name[2:])
    with (
        pytest.raises(ImageError, match=choose),
        create(tmp_path / name, size=size, channels=3),
    ):
        pytest.fail("the image was begun")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ImageError, match=choose):
        check_output(tmp_path / name, size=size, channels=3)


@pytest.mark.parametrize("name", ["out.xyz", "out", "out.mp4"])
def test_an_unknown_suffix_lists_what_is_possible(name: str) -> None:
    with pytest.raises(ImageError, match=r"png, jpg.*tif"):
        check_output(name, size=(1, 1), channels=3)


def test_the_format_can_be_named(tmp_path: Path) -> None:
    for name in ("PNG", "png", ".png"):
        write(tmp_path / "noname", gradient(3), format=name)
        with Image.open(tmp_path / "noname") as image:
            assert image.format == "PNG"
    with pytest.raises(ImageError, match="name the format"):
        check_output(io.BytesIO(), size=(1, 1), channels=3)


@pytest.mark.parametrize("quality", [0, 101, -3])
def test_quality_out_of_range(quality: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 100"):
        check_output("a.jpg", size=(1, 1), channels=3, quality=quality)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif"])
def test_quality_decides_the_size(tmp_path: Path, suffix: str) -> None:
    needs(suffix)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (64, 64, 3), np.uint8)
    sizes = []
    for quality in (20, None):
        write(tmp_path / f"a.{suffix}", pixels, quality=quality)
        sizes.append((tmp_path / f"a.{suffix}").stat().st_size)
    assert sizes[0] < sizes[1]


def test_webp_of_quality_100_is_lossless(tmp_path: Path) -> None:
    needs("webp")
    pixels = noise((64, 64, 3))
    write(tmp_path / "a.webp", pixels, quality=100)
    with Image.open(tmp_path / "a.webp") as image:
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("suffix", STILL)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file(tmp_path: Path, suffix: str, error: Any) -> None:
    needs(suffix)
    file = tmp_path / f"out.{suffix}"
    file.write_bytes(b"old")

    def fail() -> None:
        with create(file, size=(32, 24), channels=3) as output:
            output.write(gradient(3)[:12])
            raise error

    with pytest.raises(error):
        fail()
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_missing_rows_are_an_error_and_no_file(tmp_path: Path, suffix: str) -> None:
    with (
        pytest.raises(ValueError, match="12 of 24 rows"),
        create(tmp_path / f"out.{suffix}", size=(32, 24), channels=3) as output,
    ):
        output.write(gradient(3)[:12])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("format", ["png", "tif", "jpg"])
def test_a_full_disk_is_one_sentence(format: str) -> None:
    pixels = noise((400, 400, 3))
    with pytest.raises(ImageError, match="cannot be written"):
        write("/dev/full", pixels, format=format)


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    needs(suffix)
    file = tmp_path / f"out.{suffix}"
    file.write_bytes(b"old")
    script = f"""
import resource, signal, numpy as np
from srgan_infer.errors import ImageError
from srgan_infer.images.write import create
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
try:
    with create({str(file)!r}, size=(300, 300), channels=3) as output:
        output.write(pixels)
except ImageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == f"{file} cannot be written: File too large.\n"
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be written"):
        write(tmp_path / "none" / "a.png", gradient(3))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_permissions_are_those_of_a_new_file_or_of_the_old(tmp_path: Path) -> None:
    plain, new, old = tmp_path / "plain", tmp_path / "new.png", tmp_path / "old.png"
    plain.touch()
    write(new, gradient(3))
    assert new.stat().st_mode == plain.stat().st_mode
    old.touch()
    old.chmod(0o640)
    write(old, gradient(3))
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights on Windows")
def test_a_symbolic_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "real.png", tmp_path / "link.png"
    link.symlink_to(target)
    write(link, gradient(3))
    assert link.is_symlink()
    with Image.open(target) as image:
        assert image.size == (32, 24)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp", "gif"])
def test_a_pipe_gets_the_whole_file(suffix: str) -> None:
    needs(suffix)
    ends = os.pipe()
    with os.fdopen(ends[0], "rb") as reading:
        with os.fdopen(ends[1], "wb") as writing:
            write(writing, gradient(3), format=suffix)
        with Image.open(io.BytesIO(reading.read())) as image:
            image.load()
            assert image.size == (32, 24)


def test_odd_names(tmp_path: Path) -> None:
    for name in ("-dash.png", "100% ü 日本.png", "two words.png", "x" * 240 + ".png"):
        write(tmp_path / name, gradient(3))
        assert open_file(tmp_path / name).size == (32, 24)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_metadata_is_carried_over(tmp_path: Path, suffix: str) -> None:
    needs(suffix)
    exif = Image.Exif()
    exif[271], exif[256], exif[257] = "Maker", 8, 6
    exif[34665] = {40962: 8, 40963: 6, 33434: 0.01}
    metadata = Metadata(
        exif=exif.tobytes().removeprefix(b"Exif\0\0"),
        icc=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/" exif:PixelXDimension="8"/>',
        density=Density(Fraction(300), Fraction(300), INCH),
    )
    file = tmp_path / f"a.{suffix}"
    write(file, gradient(3), metadata=metadata)
    with Image.open(file) as image:
        image.load()
        read = image.getexif()
        assert (read[271], read[256], read[257]) == ("Maker", 32, 24)
        details = read.get_ifd(34665)
        assert (details[40962], details[40963]) == (32, 24)
        assert details[33434] == pytest.approx(0.01)
        assert image.info["icc_profile"] == metadata.icc
        assert b'exif:PixelXDimension="32"' in image.info["xmp"]
        if suffix in ("jpg", "png", "tif"):
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.02)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_animations(tmp_path: Path, suffix: str) -> None:
    needs(suffix)
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    frames = []
    for index, color in enumerate(colors):
        frame = np.zeros((24, 32, 4), np.uint8)
        frame[2:10, 8 * index : 8 * index + 8] = (*color, 255)
        if suffix != "gif":
            frame[10, 8 * index : 8 * index + 8] = (*color, 99)  # a soft edge
        frames.append(frame)
    file = tmp_path / f"a.{suffix}"
    metadata = Metadata(loop=3, durations=(40, 120, 250))
    with create(file, size=(32, 24), channels=4, metadata=metadata, n_frames=3) as output:
        rows = np.concatenate(frames)
        for top in range(0, 72, 11):  # bands that reach over frames
            output.write(rows[top : top + 11])
    read = open_file(file)
    assert read.n_frames == 3
    assert read.metadata.durations == (40, 120, 250)
    assert suffix == "avif" or read.metadata.loop == 3
    for image, frame in zip(read.frames(), frames, strict=True):
        assert image.alpha is not None
        assert np.abs(image.alpha[:].astype(int) - frame[..., 3]).max() <= 8
        opaque = frame[..., 3] == 255
        inner = np.asarray(image.color[0:24]).astype(int)
        lossy = 60 if suffix in ("webp", "avif") else 0
        assert np.abs(inner - frame[..., :3])[opaque].mean() <= lossy


def test_soft_edges_of_a_gif_are_cut_in_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((4, 256, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 200, np.arange(256)
    with create(tmp_path / "a.gif", size=(256, 4), channels=4) as output:
        output.write(pixels)
    with Image.open(tmp_path / "a.gif") as image:
        alpha = np.asarray(image.convert("RGBA"))[0, :, 3]
    assert alpha.tolist() == [0] * 128 + [255] * 128


def test_an_animation_does_not_become_a_still_image() -> None:
    with pytest.raises(ImageError, match="GIF"):
        check_output("a.jpg", size=(9, 9), channels=3, n_frames=4)


def test_every_listed_format_is_one_that_pillow_or_we_write() -> None:
    Image.init()
    for kind in FORMATS:
        if not kind.feature or features.check(kind.feature):
            assert kind.name in Image.SAVE


def sky(shift: int = 0) -> Array:
    """(96, 128, 3): a slope behind a disc that moves."""
    y, x = np.mgrid[:96, :128]
    pixels = np.dstack([80 + y * 1.1, 130 + y * 0.9, 220 - y * 0.25 + x * 0.15])
    pixels[(y - 48) ** 2 + (x - 40 - 16 * shift) ** 2 < 400] = (200, 120, 60)
    return pixels.astype(np.uint8)


def gif_of(frames: list[Array]) -> list[Array]:
    """Frames through a GIF file, as RGBA."""
    file = io.BytesIO()
    height, width, channels = frames[0].shape
    with create(
        file, format="gif", size=(width, height), channels=channels, n_frames=len(frames)
    ) as writer:
        for frame in frames:
            writer.write(frame)
    with Image.open(file) as image:
        return [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]


def decibel(one: Array, other: Array) -> float:
    return float(10 * np.log10(255**2 / max(np.square(one.astype(int) - other).mean(), 1e-9)))


class TestGifColours:
    def test_an_animation_is_as_good_as_a_still(self) -> None:
        (still,) = gif_of([sky()])
        animated = gif_of([sky(shift) for shift in range(3)])
        for shift, frame in enumerate(animated):
            assert decibel(frame[..., :3], sky(shift)) > decibel(still[..., :3], sky()) - 0.6
            assert len(np.unique(frame.reshape(-1, 4), axis=0)) > 200

    def test_so_it_is_with_transparency(self) -> None:
        (opaque,) = gif_of([sky()])
        frames = [np.dstack([sky(shift), np.full((96, 128), 255, np.uint8)]) for shift in range(3)]
        for frame in frames:
            frame[:20, :30, 3] = 0
            frame[20:30, :30, 3] = 127  # hidden
            frame[30:40, :30, 3] = 128  # visible
        for found, right in zip(gif_of(frames), frames, strict=True):
            visible = right[..., 3] >= 128
            assert np.array_equal(found[..., 3] == 255, visible)
            good = decibel(opaque[visible][:, :3], sky()[visible])
            assert decibel(found[visible][:, :3], right[visible][:, :3]) > good - 0.6

    def test_few_colours_are_exact(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 4, (40, 40, 3), np.uint8) * 85
        for frame in gif_of([pixels, pixels[::-1], pixels[:, ::-1]]):
            assert len(np.unique(frame.reshape(-1, 4), axis=0)) == 64
        assert np.array_equal(gif_of([pixels, pixels[::-1]])[1][..., :3], pixels[::-1])
        grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
        assert np.array_equal(gif_of([grey])[0][..., :1], grey)

    def test_what_stands_still_keeps_its_colours(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 6, (40, 40, 3), np.uint8) * 50
        pixels[:20] = np.random.default_rng(1).integers(0, 256, (20, 40, 3), np.uint8)
        other = pixels.copy()
        other[:5, :5] = pixels[25:30, :5]
        first, second = gif_of([pixels, other])
        assert np.array_equal(first[20:], second[20:])

    def test_broad_slopes_are_dithered_and_photographs_are_not(self) -> None:
        x, y = np.meshgrid(np.linspace(20, 255, 256), np.linspace(10, 140, 200))
        slopes = np.dstack([x, y, np.full_like(x, 90)]).astype(np.uint8)
        found = indexed(slopes).image
        plain = Image.fromarray(slopes).quantize(256, Image.Quantize.MEDIANCUT)
        blurred = [
            np.asarray(image.convert("RGB").filter(ImageFilter.GaussianBlur(1.5)))
            for image in (Image.fromarray(slopes), found, plain)
        ]
        assert decibel(blurred[1], blurred[0]) > decibel(blurred[2], blurred[0]) + 5
        with Image.open(Path(__file__).parents[1] / "docs" / "images" / "sample.png") as photograph:
            pixels = np.asarray(photograph.convert("RGB"))
        plain = Image.fromarray(pixels).quantize(256, Image.Quantize.MEDIANCUT)
        assert np.array_equal(
            np.asarray(indexed(pixels).image.convert("RGB")), np.asarray(plain.convert("RGB"))
        )
