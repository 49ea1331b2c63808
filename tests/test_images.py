"""Reading: every mode and depth on its true scale, upright, with clear errors."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, ImageOps, features

from srgan_infer.errors import ImageError
from srgan_infer.images import png
from srgan_infer.images.exif import Tree, encode_directory
from srgan_infer.images.metadata import Metadata
from srgan_infer.images.pillow import from_pil, to_pil
from srgan_infer.images.read import SourceImage, open_file
from srgan_infer.images.rows import DecodedImage, SpooledRows
from srgan_infer.images.write import create

Array = npt.NDArray[Any]


def pixels_of(image: DecodedImage) -> Array:
    color = image.color[0 : image.color.shape[0]]
    return color if image.alpha is None else np.dstack([color, image.alpha[:]])


def read(file: Any) -> tuple[SourceImage, Array]:
    opened = open_file(file)
    (image,) = opened.frames()
    pixels = pixels_of(image)
    assert pixels.shape == (opened.size[1], opened.size[0], opened.channels)
    assert pixels.dtype == opened.dtype
    return opened, pixels


def saved(image: Image.Image, format: str, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file


def photo(mode: str = "RGB", size: tuple[int, int] = (23, 17)) -> Image.Image:
    y, x = np.mgrid[: size[1], : size[0]]
    planes = [x * 11 % 256, y * 13 % 256, (x + y) * 6 % 256]
    return Image.fromarray(np.dstack(planes).astype(np.uint8)).convert(mode)


MODES = {
    "1": ("L", "L"),
    "L": ("L", "L"),
    "LA": ("LA", "LA"),
    "La": ("LA", "La"),
    "P": ("RGB", "RGB"),
    "PA": ("RGBA", "RGBA"),
    "RGB": ("RGB", "RGB"),
    "RGBX": ("RGB", "RGB"),
    "RGBA": ("RGBA", "RGBA"),
    "RGBa": ("RGBA", "RGBa"),
    "CMYK": ("RGB", "RGB"),
    "YCbCr": ("RGB", "YCbCr"),
    "HSV": ("RGB", "HSV"),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_of_images_in_memory(mode: str) -> None:
    pixel_mode, returned_mode = MODES[mode]
    source = photo("LA") if mode == "La" else photo("RGBA") if mode == "RGBa" else photo()
    image = source.convert(mode)
    decoded, metadata = from_pil(image)
    pixels = pixels_of(decoded)
    expected = np.asarray(image.convert(pixel_mode)).reshape(pixels.shape)
    assert np.array_equal(pixels, expected)
    back = to_pil(pixels, mode, metadata)
    assert (back.mode, back.size) == (returned_mode, image.size)
    if mode == returned_mode:
        difference = np.asarray(back).astype(int) - np.asarray(image)
        assert np.abs(difference).max() <= (0 if mode[0] not in "YH" else 8)


def test_lab_goes_through_its_profile() -> None:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab: Any = ImageCms.profileToProfile(photo(), *profiles, outputMode="LAB")
    image, metadata = from_pil(lab)
    pixels = pixels_of(image)
    assert np.abs(pixels.astype(int) - np.asarray(photo())).mean() < 3
    assert to_pil(pixels, "LAB", metadata).mode == "LAB"


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_sixteen_bit_grey_in_memory(mode: str) -> None:
    values = np.array([[0, 1, 256, 4660], [32767, 32768, 65534, 65535]], np.uint16)
    if mode == "I":
        image = Image.fromarray(values.astype(np.int32))
    else:
        order = ">u2" if mode == "I;16B" else "<u2"
        image = Image.frombytes(mode, (4, 2), values.astype(order).tobytes())
    decoded, metadata = from_pil(image)
    assert np.array_equal(pixels_of(decoded)[..., 0], values)
    back = to_pil(pixels_of(decoded), mode, metadata)
    assert np.array_equal(np.asarray(back).astype(np.uint16), values)


def test_floats_in_memory_are_on_pillows_scale() -> None:
    image = Image.fromarray(np.array([[0, 51, 255]], np.float32))
    decoded, metadata = from_pil(image)
    assert pixels_of(decoded)[0, :, 0].tolist() == pytest.approx([0, 0.2, 1])
    assert np.asarray(to_pil(pixels_of(decoded), "F", metadata)) == pytest.approx(
        np.array([[0, 51, 255]])
    )


@pytest.mark.parametrize(("mode", "value"), [("I", 65536), ("I", -1), ("F", 256.0), ("F", np.nan)])
def test_values_out_of_range_are_not_clipped_in_silence(mode: str, value: float) -> None:
    image = Image.fromarray(np.full((2, 2), value, np.int32 if mode == "I" else np.float32))
    decoded, _ = from_pil(image)
    with pytest.raises(ImageError, match="leave the range"):
        pixels_of(decoded)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_and_reset(turn: int, format: str) -> None:
    exif = Image.Exif()
    exif[274], exif[271] = turn, "Maker"
    file = saved(photo(), format, exif=exif, quality=100, lossless=True)
    with Image.open(file) as image:
        expected = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    opened, pixels = read(file)
    assert np.array_equal(pixels, expected)
    after = Image.Exif()
    after.load(b"Exif\0\0" + opened.metadata.exif)
    assert after.get(274, 1) == 1
    assert after[271] == "Maker"


@pytest.mark.parametrize("turn", range(1, 9))
def test_rows_of_a_turned_image_come_in_any_order(turn: int) -> None:
    exif = Image.Exif()
    exif[274] = turn
    (image,) = open_file(saved(photo(), "PNG", exif=exif)).frames()
    height = image.color.shape[0]
    whole = image.color[0:height]
    for top, bottom in ((0, 1), (3, 9), (height - 2, height), (0, height)):
        rows = image.color[top:bottom]
        assert np.array_equal(rows, whole[top:bottom])
        assert rows.flags.writeable


def test_orientation_of_an_image_in_memory_is_left_alone() -> None:
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(saved(photo(), "PNG", exif=exif)) as image:
        decoded, metadata = from_pil(image)
        back = to_pil(pixels_of(decoded), "RGB", metadata)
        assert back.size == image.size
        assert back.getexif()[274] == 6


def test_a_palette_with_transparency_becomes_rgba() -> None:
    image = photo("P")
    opened, pixels = read(saved(image, "PNG", transparency=bytes(range(0, 256))))
    assert opened.channels == 4
    assert len(np.unique(pixels[..., 3])) > 2


@pytest.mark.parametrize(("bits", "key"), [(1, 1), (2, 2), (4, 9), (8, 77)])
def test_a_transparent_grey_of_few_bits(bits: int, key: int) -> None:
    # Pillow widens the pixels of such a file, but not the transparent value.
    values = np.arange(1 << bits, dtype=np.uint8)
    line = np.packbits(np.unpackbits(values[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes()
    file = io.BytesIO()
    file.write(png.SIGNATURE)
    png.write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0))
    png.write_chunk(file, b"tRNS", struct.pack(">H", key))
    png.write_chunk(file, b"IDAT", zlib.compress(b"\0" + line))
    png.write_chunk(file, b"IEND", b"")
    opened, pixels = read(file)
    assert opened.channels == 2
    assert np.flatnonzero(pixels[0, :, 1] == 0).tolist() == [key]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_sixteen_bit_files_keep_every_bit(channels: int, format: str) -> None:
    random = np.random.default_rng(0)
    values = random.integers(1, 65536, (9, 11, channels), np.uint16)
    file = io.BytesIO()
    with create(file, format=format, size=(11, 9), channels=channels, dtype=np.uint16) as output:
        output.write(values)
    opened, pixels = read(file)
    assert opened.warnings == ()
    assert opened.dtype == np.uint16
    if pixels.shape[2] == 4 and channels == 2:
        pixels = pixels[..., 2:]
    assert np.array_equal(pixels, values)


def test_twelve_bit_tiff_is_widened_and_white_is_zero_inverted() -> None:
    values = np.array([[0, 1, 2048, 4095]], np.uint16)
    packed = bytes([0x00, 0x00, 0x01, 0x80, 0x0F, 0xFF])

    def grey_tiff(bits: int, photometric: int, data: bytes) -> io.BytesIO:
        directory: Tree = {
            tag: (3, 1, struct.pack("<H", value))
            for tag, value in {
                **{256: 4, 257: 1, 258: bits, 259: 1, 262: photometric},
                **{273: 8, 277: 1, 278: 1, 279: len(data), 339: 1},
            }.items()
        }
        head = struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data
        return io.BytesIO(head + encode_directory(directory, len(head), False))

    _, pixels = read(grey_tiff(12, 1, packed))
    assert pixels[0, :, 0].tolist() == [0, 16, 32776, 65535]
    _, pixels = read(grey_tiff(16, 0, (values * 16).astype("<u2").tobytes()))
    assert pixels[0, :, 0].tolist() == [65535, 65519, 32767, 15]


def test_cmyk_without_a_usable_profile_is_converted_plainly() -> None:
    cmyk = photo("CMYK")
    _, plain = read(saved(cmyk, "TIFF"))
    assert np.array_equal(plain, np.asarray(cmyk.convert("RGB")))
    broken = b"\0" * 16 + b"CMYK" + b"\0" * 108
    opened, pixels = read(saved(cmyk, "TIFF", icc_profile=broken))
    assert np.array_equal(pixels, plain)
    assert "profile" in opened.warnings[0]
    assert opened.metadata.icc == b""


def cmyk_profile(ink: dict[tuple[int, ...], tuple[int, int, int]]) -> bytes:
    """A minimal ICC profile: Lab (8 bits) of each combination of full inks, white by default."""
    corners = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    ramp = bytes(range(256))
    one = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x10000)
    table = b"mft1" + struct.pack(">I4B9i", 0, 4, 3, 2, 0, *one) + ramp * 4
    table += b"".join(bytes(ink.get(corner, (255, 128, 128))) for corner in corners) + ramp * 3
    table += bytes(-len(table) % 4)
    white = b"XYZ " + struct.pack(">I3i", 0, 0xF6D6, 0x10000, 0xD32D)
    header = bytes(4) + b"    " + struct.pack(">I", 0x02400000) + b"prtrCMYKLab " + bytes(12)
    header += b"acsp" + bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D) + bytes(48)
    start = 132 + 2 * 12
    tags = struct.pack(">I", 2)
    tags += b"wtpt" + struct.pack(">II", start, len(white))
    tags += b"A2B0" + struct.pack(">II", start + len(white), len(table))
    profile = header + tags + white + table
    return struct.pack(">I", len(profile)) + profile[4:]


@pytest.mark.parametrize("format", ["TIFF", "JPEG"])
def test_cmyk_is_converted_through_its_profile(format: str) -> None:
    # Full cyan is Lab (55, -37, -50) here, as it is on paper; by formula it is (0, 255, 255).
    profile = cmyk_profile({(1, 0, 0, 0): (140, 91, 78), (0, 0, 0, 1): (0, 128, 128)})
    image = Image.new("CMYK", (16, 8), (255, 0, 0, 0))
    image.paste((0, 0, 0, 0), (8, 0, 16, 8))
    opened, pixels = read(saved(image, format, icc_profile=profile))
    assert opened.warnings == ()
    assert opened.metadata.icc == b""
    red, green, blue = pixels[4, 3].astype(int)
    assert red < 40
    assert abs(green - 144) < 12
    assert abs(blue - 215) < 12
    assert (pixels[4, 12] >= 253).all()


def test_profiles_that_do_not_fit_are_dropped() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert open_file(saved(photo(), "PNG", icc_profile=icc)).metadata.icc == icc
    assert open_file(saved(photo("L"), "JPEG", icc_profile=icc)).metadata.icc == b""
    assert open_file(saved(photo("P"), "PNG", icc_profile=icc)).metadata.icc == icc


def test_comments_texts_and_resolution_are_read() -> None:
    file = saved(photo(), "JPEG", comment=b"a remark", dpi=(300, 300))
    metadata = open_file(file).metadata
    assert (metadata.comment, metadata.dpi) == (b"a remark", (300, 300))
    file = saved(photo("P"), "GIF", comment=b"hello")
    assert open_file(file).metadata.comment == b"hello"


def test_text_behind_the_pixels_of_a_png_is_read() -> None:
    data = saved(photo(), "PNG").getvalue()
    file = io.BytesIO()
    file.write(data[:-12])
    png.write_chunk(file, b"tEXt", b"Software\0late")
    file.write(data[-12:])
    assert [text.value for text in open_file(file).metadata.text] == ["late"]


def test_the_embedded_thumbnail_is_dropped_and_details_stay() -> None:
    exif = Image.Exif()
    exif[271] = "Maker"
    exif[34665] = {33434: 0.01, 37500: b"maker's own", 40962: 23, 40963: 17}
    exif[34853] = {1: "N", 2: (51.0, 30.0, 0.0)}
    metadata = open_file(saved(photo(), "JPEG", exif=exif)).metadata.resized((92, 68))
    after = Image.Exif()
    after.load(b"Exif\0\0" + metadata.exif)
    details = after.get_ifd(34665)
    assert details[37500] == b"maker's own"
    assert (details[40962], details[40963]) == (92, 68)
    assert after.get_ifd(34853)[2] == (51.0, 30.0, 0.0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_costs_only_the_exif() -> None:
    file = saved(photo(), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05garbage")
    opened, pixels = read(file)
    assert pixels.shape == (17, 23, 3)
    assert opened.metadata.exif == b""


@pytest.mark.parametrize("quality", [20, 50, 75, 95])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(quality: int) -> None:
    for progressive in (False, True):
        file = io.BytesIO()
        Image.new("RGB", (9, 9)).save(file, "JPEG", quality=quality, progressive=progressive)
        assert open_file(file).jpeg_quality == quality
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "PNG")
    assert open_file(file).jpeg_quality is None


def test_pages_after_the_first_are_told_of() -> None:
    file = saved(photo(), "TIFF", save_all=True, append_images=[photo(size=(5, 5))])
    opened, pixels = read(file)
    assert pixels.shape == (17, 23, 3)
    assert "2 pages" in opened.warnings[0]


def test_frames_of_an_animation_all_come_as_rgba() -> None:
    frames = [photo("P"), ImageOps.mirror(photo()).convert("P"), photo().rotate(180).convert("P")]
    file = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=[20, 50, 90])
    opened = open_file(file)
    decoded = [pixels_of(image) for image in opened.frames()]
    assert opened.metadata.durations == (20, 50, 90)
    assert [frame.shape for frame in decoded] == [(17, 23, 4)] * 3
    for frame, source in zip(decoded, frames, strict=True):
        assert np.array_equal(frame[..., :3], np.asarray(source.convert("RGB")))


@pytest.mark.parametrize("kind", ["path", "text", "stream", "pipe"])
def test_sources(tmp_path: Path, kind: str) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: Any) -> int:
            raise io.UnsupportedOperation("seek")

    data = saved(photo(), "PNG").getvalue()
    path = tmp_path / "100% ü 日本.png"
    path.write_bytes(data)
    source: Any = {
        "path": path,
        "text": str(path),
        "stream": io.BytesIO(data),
        "pipe": Pipe(data),
    }[kind]
    _, pixels = read(source)
    assert np.array_equal(pixels, np.asarray(photo()))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"hello " * 99), "not an image"),
        (lambda path: path.write_bytes(saved(photo(), "PNG").getvalue()[:-40]), "cut short"),
    ],
)
def test_errors_name_the_file_and_the_reason(tmp_path: Path, make: Any, sentence: str) -> None:
    path = tmp_path / "some name.png"
    make(path)
    with pytest.raises(ImageError, match=sentence) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.97])
def test_truncated_files_are_errors(format: str, kept: float) -> None:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow is built without AVIF")
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    data = saved(Image.fromarray(noise), format).getvalue()
    with pytest.raises(ImageError):
        read(io.BytesIO(data[: int(len(data) * kept)]))


def test_a_header_that_claims_too_much() -> None:
    data = bytearray(saved(photo(), "BMP").getvalue())
    data[18:26] = struct.pack("<ii", 500_000, 500_000)
    with pytest.raises(ImageError, match="500000×500000"):
        open_file(io.BytesIO(bytes(data)))


def test_pillows_limit_does_not_stop_a_large_image_and_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    file = saved(photo(), "TIFF")
    _, pixels = read(file)
    assert pixels.shape == (17, 23, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert not recwarn.list


def test_several_threads_may_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = saved(photo(), "PNG").getvalue()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                read(io.BytesIO(data))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert Image.MAX_IMAGE_PIXELS == 100


def test_metadata_is_empty_where_the_file_is_silent() -> None:
    assert open_file(saved(photo(), "PNG")).metadata == Metadata(size=(23, 17))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "I;16"])
def test_a_large_image_waits_on_disk(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    image = photo("L") if mode == "I;16" else photo(mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    file = saved(image, "TIFF")
    _, expected = read(file)
    monkeypatch.setattr("srgan_infer.images.rows.SPOOL_PIXELS", 1)
    monkeypatch.setattr("srgan_infer.images.rows.BAND_BYTES", 100)
    opened, pixels = read(file)
    assert np.array_equal(pixels, expected)
    (decoded,) = opened.frames()
    assert isinstance(decoded.color, SpooledRows)
    assert np.array_equal(decoded.color[5:9], expected[5:9])
    assert decoded.color[9:5].shape[0] == 0


def test_without_room_for_temporary_files_the_memory_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("srgan_infer.images.rows.SPOOL_PIXELS", 1)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    _, pixels = read(saved(photo(), "PNG"))
    assert np.array_equal(pixels, np.asarray(photo()))
