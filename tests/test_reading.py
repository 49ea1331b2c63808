"""Files as they lie on real disks: limits, pipes, damage, foreign kinds, and what Pillow says."""

from __future__ import annotations

import array
import copy
import io
import mmap
import os
import pickle
import re
import struct
import tempfile
import threading
import tracemalloc
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import PIL
import pytest
import tifffile
from conformance import Made, chunk, picture, psd, saved, sound
from helpers import make_model
from PIL import EpsImagePlugin, Image, UnidentifiedImageError
from test_sweep import packed_rows, raw_tiff

from srgan_infer import ImageError, ImageWarning, SuperResolver
from srgan_infer.images import jpeg
from srgan_infer.images.blocks import png_chunks
from srgan_infer.images.kinds import BEGINNINGS, PLUGINS, READ
from srgan_infer.images.pil_source import check_source
from srgan_infer.images.read import open_file

Array = npt.NDArray[Any]
posix = pytest.mark.skipif(os.name == "nt", reason="named pipes are of POSIX")


@pytest.fixture(scope="module")
def sr(tmp_path_factory: pytest.TempPathFactory) -> SuperResolver:
    return SuperResolver.from_pretrained(make_model(tmp_path_factory.mktemp("model")))


def gif(width: int, height: int, frames: int) -> bytes:
    """A GIF whose frames fill one pixel of a large screen."""
    frame = b"\x21\xf9\x04\0\x02\0\0\0\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    head = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return b"GIF89a" + head + (frame + b"\x02\x02\x44\x01\0") * frames + b";"


def png_of(width: int, height: int) -> bytes:
    """The header of a PNG of any size, and the rows of a black one."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


LARGE = {
    "gif": gif(16384, 16384, 6),
    "png": png_of(16384, 16384),
    "apng": saved(
        Image.new("1", (4096, 4096)),
        "PNG",
        save_all=True,
        append_images=[Image.new("1", (4096, 4096), 1)],
    ),
    "webp": saved(Image.new("RGB", (8192, 8192)), "WEBP"),
    "jpg": saved(Image.new("L", (16000, 16000)), "JPEG", quality=1),
    "tif": saved(Image.new("1", (16384, 16384)), "TIFF", compression="group4"),
    "lzw.tif": saved(Image.new("L", (8192, 8192)), "TIFF", compression="tiff_lzw"),
    "jp2": saved(Image.new("L", (4096, 4096)), "JPEG2000"),
}


class TestMaxPixels:
    @pytest.mark.parametrize("name", LARGE)
    def test_opening_takes_no_memory_of_pixels(self, name: str) -> None:
        pixels = 0
        tracemalloc.start()
        try:
            file = open_file(LARGE[name])
            pixels = file.size[0] * file.size[1]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert pixels >= 4096 * 4096
        assert peak < 1_000_000 + 2 * len(LARGE[name])

    @pytest.mark.parametrize("name", LARGE)
    def test_larger_files_are_refused_before_they_are_decoded(
        self, name: str, sr: SuperResolver
    ) -> None:
        with pytest.raises(ImageError, match="more than the 1000000 that max_pixels allows"):
            sr.upscale_file(LARGE[name], io.BytesIO(), format="png", max_pixels=10**6)

    def test_it_counts_all_frames(self, sr: SuperResolver) -> None:
        data = gif(10, 10, 5)
        with pytest.raises(ImageError, match="10×10 pixels in 5 frames"):
            sr.upscale_file(data, io.BytesIO(), format="gif", max_pixels=499)
        assert sr.upscale_file(data, io.BytesIO(), format="gif", max_pixels=500).frames == 5

    def test_a_frame_beyond_the_screen_counts_with_it(self) -> None:
        data = gif(10, 10, 2).replace(
            struct.pack("<HHHHB", 0, 0, 1, 1, 0), struct.pack("<HHHHB", 0, 0, 9999, 9999, 0)
        )
        with pytest.raises(ImageError, match="9999×9999"):
            open_file(data, max_pixels=10**6)

    def test_given_at_construction_it_holds_for_every_call(self, tmp_path: Path) -> None:
        limited = SuperResolver.from_pretrained(make_model(tmp_path / "model"), max_pixels=50)
        small, large = picture(3, size=(7, 7)), picture(3, size=(8, 7))
        assert limited(small).shape == (28, 28, 3)
        for image in (large, Image.fromarray(large), saved(Image.fromarray(large), "PNG")):
            with pytest.raises(ImageError, match="max_pixels allows"):
                limited(image)
            limited(image, max_pixels=56)
        with pytest.raises(ImageError, match="max_pixels allows"):
            limited.plan_file(saved(Image.fromarray(large), "PNG"))

    @pytest.mark.parametrize("limit", [0, -5])
    def test_a_limit_that_means_nothing(self, limit: int, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="max_pixels must be"):
            SuperResolver.from_pretrained(make_model(tmp_path / "model"), max_pixels=limit)

    def test_the_limit_of_the_program_around_holds(
        self, sr: SuperResolver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = saved(Image.fromarray(picture()), "PNG")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(ImageError, match="more than the 100"):
            sr.upscale_file(data, io.BytesIO(), format="png")
        sr.upscale_file(data, io.BytesIO(), format="png", max_pixels=1000)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        sr.upscale_file(data, io.BytesIO(), format="png")
        assert Image.MAX_IMAGE_PIXELS is None

    def test_an_icon_cannot_hold_a_huge_image(self) -> None:
        inner = png_of(30000, 30000)
        entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(inner), 22)
        data = struct.pack("<HHH", 0, 1, 1) + entry + inner
        with pytest.raises(ImageError, match="30000×30000"):
            open_file(data, max_pixels=10**6)


FOREIGN = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n",
    "PDF": b"%PDF-1.7\n",
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "web page": b"<!DOCTYPE html><html>",
    "CR2": b"II*\0\x10\0\0\0CR\x02\0",
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "RAF": b"FUJIFILMCCD-RAW 0201",
    "MP4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
    "OpenEXR": b"v/1\x01\x02\0\0\0",
    "ZIP": b"PK\x03\x04\x14\0",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
    "XCF": b"gimp xcf v011\0",
    "PSB": psd(picture(3), version=2),
    "PSD with 16 bits": psd(picture(3), depth=16),
    "layers only": psd(picture(3), merged=False),
}


class TestKinds:
    @pytest.mark.parametrize("name", FOREIGN)
    def test_a_sound_file_of_another_kind_is_named(self, name: str) -> None:
        with pytest.raises(ImageError, match=name) as caught:
            open_file(FOREIGN[name] + bytes(500))
        assert "damaged" not in str(caught.value)

    @pytest.mark.parametrize("mark", BEGINNINGS, ids=[mark.kind for mark in BEGINNINGS])
    def test_every_known_beginning_is_refused(self, mark: Any) -> None:
        for magic in mark.marks:
            with pytest.raises(ImageError) as caught:
                open_file(bytes(mark.start) + magic + bytes(500))
            assert mark.kind in str(caught.value)

    def test_no_program_is_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ran: list[Any] = []
        monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: ran.append(a))
        monkeypatch.setattr("subprocess.Popen", lambda *a, **k: ran.append(a))
        for name in ("photo.jpg", "photo.eps", "photo.wmf"):
            path = tmp_path / name
            path.write_bytes(FOREIGN["PostScript"] + b"%%EOF\n")
            with pytest.raises(ImageError, match="PostScript"):
                list(open_file(path).frames())
        assert not ran

    @pytest.mark.parametrize("format", ["EPS", "SGI", "SPIDER", "XBM", "MSP"])
    def test_what_pillow_would_open_beyond_the_list_is_not(self, format: str) -> None:
        image = Image.new(
            "1" if format in ("XBM", "MSP") else "F" if format == "SPIDER" else "L", (8, 8)
        )
        with pytest.raises(ImageError):
            open_file(saved(image, format))
        assert format not in READ

    def test_every_format_on_the_list_is_tried(self) -> None:
        read = {open_file(made.data).format for made in sound()}
        alone = {"DIB", "CUR", "MPO"}  # a BMP or an ICO by another name, and a kind of JPEG
        assert read == set(READ) - alone
        dib = saved(Image.fromarray(picture()), "DIB")
        assert open_file(dib).format == "DIB"
        assert len(READ | PLUGINS) == 21

    def test_a_photo_with_a_second_view_is_a_jpeg(self) -> None:
        first, second = (Image.fromarray(picture(shift=shift)) for shift in (0, 1))
        data = saved(first, "MPO", save_all=True, append_images=[second], quality=100)
        file = open_file(data)
        assert file.format == "JPEG"
        (image,) = file.frames()
        near = np.abs(image.color[0:13].astype(int) - picture()).mean()
        assert near < 12

    def test_the_best_image_of_an_icon_is_taken(self) -> None:
        best = Image.fromarray(picture(4, size=(32, 32)))
        poor = best.convert("RGB").quantize(2)
        entries, images, at = b"", b"", 6 + 2 * 16
        for image, bits in ((poor, 1), (best, 32)):
            data = saved(image, "PNG")
            entries += struct.pack("<BBBBHHII", 32, 32, 0, 0, 1, bits, len(data), at)
            images, at = images + data, at + len(data)
        file = open_file(struct.pack("<HHH", 0, 1, 2) + entries + images)
        (taken,) = file.frames()
        assert np.array_equal(taken.color[0:32], picture(3, size=(32, 32)))


class Pipe(io.RawIOBase):
    """Bytes that come once."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


class TestSources:
    data = saved(Image.fromarray(picture()), "PNG")

    @posix
    def test_a_named_pipe_is_read_once(self, tmp_path: Path, sr: SuperResolver) -> None:
        pipe = tmp_path / "pipe.png"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(self.data,), daemon=True)
        writer.start()
        result = sr.upscale_file(pipe, tmp_path / "out.png")
        writer.join(10)
        assert result.size == (76, 52)

    @posix
    def test_a_pipe_by_its_number_is_read_once(self, tmp_path: Path, sr: SuperResolver) -> None:
        if not Path("/dev/fd").exists():
            return
        reader, writer = os.pipe()
        os.write(writer, self.data)
        os.close(writer)
        result = sr.upscale_file(f"/dev/fd/{reader}", tmp_path / "out.png")
        os.close(reader)
        assert result.size == (76, 52)

    @pytest.mark.parametrize(
        "kind",
        [
            *(bytes, bytearray, memoryview, io.BytesIO, Pipe),
            lambda data: array.array("B", data),
            lambda data: np.frombuffer(data, np.uint8),
            lambda data: memoryview(data).cast("b"),
        ],
    )
    def test_bytes_and_streams(self, kind: Any, sr: SuperResolver) -> None:
        assert sr.upscale_file(kind(self.data), io.BytesIO()).size == (76, 52)

    def test_memory_that_is_mapped(self, tmp_path: Path, sr: SuperResolver) -> None:
        path = tmp_path / "in.png"
        path.write_bytes(self.data)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            assert sr.upscale_file(data, io.BytesIO()).size == (76, 52)  # type: ignore[arg-type]
            assert sr(data).size == (76, 52)  # type: ignore[call-overload]

    @pytest.mark.parametrize(
        ("file", "sentence"),
        [
            (5, "a file is a path, bytes or a binary file object, not int"),
            (None, "a file is a path, bytes or a binary file object, not NoneType"),
            (picture(), "an array of pixels is no file"),
            (io.StringIO("text"), "opened as text; open it with mode 'rb'"),
        ],
    )
    def test_what_is_no_file(self, file: Any, sentence: str) -> None:
        with pytest.raises(ImageError, match=sentence):
            open_file(file)

    @pytest.mark.parametrize("size", [100, 10**6], ids=["on disk", "in memory"])
    def test_a_spooled_file_of_python_3_10(self, size: int, sr: SuperResolver) -> None:
        class Old:
            """As tempfile.SpooledTemporaryFile was: it does not say that it can seek."""

            def __init__(self, file: Any) -> None:
                self.read, self.seek, self.tell = file.read, file.seek, file.tell

        with tempfile.SpooledTemporaryFile(max_size=size) as file:
            file.write(self.data)
            assert sr.upscale_file(Old(file), io.BytesIO()).size == (76, 52)  # type: ignore[arg-type]

    @pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "WEBP", "PPM", "GIF", "TIFF", "AVIF"])
    def test_more_images_in_a_pipe_are_mentioned(self, format: str, sr: SuperResolver) -> None:
        data = saved(Image.fromarray(picture()), format)
        for source, warned in ((data, False), (data * 3, True), (data + bytes(99), False)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ImageWarning)
                pipe: Any = Pipe(source)
                result = sr.upscale_file(pipe, io.BytesIO(), format="png")
            assert bool(result.warnings) == warned
            assert not warned or "follows the first one" in result.warnings[0]

    @pytest.mark.parametrize("kind", [bytes, io.BytesIO, Pipe])
    def test_more_images_are_mentioned_wherever_the_bytes_come_from(self, kind: Any) -> None:
        other = saved(Image.fromarray(picture()), "JPEG")
        (warning,) = open_file(kind(self.data + other)).warnings
        assert warning == "Another image (JPEG) follows the first one; it is not read."

    @pytest.mark.parametrize("tile", [None, (16, 16)])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_tiff_files_one_behind_the_other(self, order: str, tile: Any) -> None:
        file = io.BytesIO()
        how = {"tile": tile, "byteorder": order, "photometric": "rgb", "bigtiff": order == ">"}
        tifffile.imwrite(file, picture(), compression="zlib", description="words" * 9, **how)
        data = file.getvalue()
        assert not [text for text in open_file(data).warnings if "follows" in text]
        assert [text for text in open_file(data * 2).warnings if "image (TIFF) follows" in text]

    def test_a_text_file_object_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "in.png").write_bytes(self.data)
        with (tmp_path / "in.png").open(encoding="latin-1") as file, pytest.raises(ImageError):
            open_file(file)  # type: ignore[arg-type]


def dng() -> bytes:
    """A thumbnail, and the tag that says that it is a camera's."""
    file = io.BytesIO()
    small = Image.fromarray(picture())
    small.save(file, "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    return file.getvalue()


def cr2() -> bytes:
    """A thumbnail behind the beginning that Canon's cameras write."""
    data = saved(Image.fromarray(picture()), "TIFF")
    (place,) = struct.unpack_from("<I", data, 4)
    # The directory goes to the end, so that there is room for the mark.
    (count,) = struct.unpack_from("<H", data, place)
    table = data[place : place + 2 + 12 * count + 4]
    moved = bytearray(data + bytes(len(data) % 2) + table)
    moved[4:8] = struct.pack("<I", len(moved) - len(table))
    moved[8:12] = b"CR\x02\0"
    return bytes(moved)


def planes() -> bytes:
    """A TIFF of 16 bits in planes, which Pillow makes noise of."""
    file = io.BytesIO()
    pixels = np.ascontiguousarray(picture().transpose(2, 0, 1)).astype(np.uint16) * 257
    tifffile.imwrite(file, pixels, photometric="rgb", planarconfig="separate")
    return file.getvalue()


def deep_jp2() -> bytes:
    """A JPEG 2000 of 16 bits, of which Pillow makes white black."""
    return bytes(imagecodecs.jpeg2k_encode(picture().astype(np.uint16) * 257, level=0))


PILLOW_IS_WRONG = {
    "a.dng": (dng(), "a camera raw file (DNG)"),
    "a.cr2": (cr2(), "a camera raw file (CR2)"),
    "a.tif": (planes(), "a TIFF of 16 bits in planes"),
    "a.jp2": (deep_jp2(), "a JPEG 2000 with 16 bits"),
    "a.psd": (psd(picture(3), merged=False), "layers only"),
}


def pickled(image: Image.Image) -> Image.Image:
    copied: Image.Image = pickle.loads(pickle.dumps(image))
    return copied


# One of each kind is enough.
STILLS = [*{made.name.rpartition(".")[2]: made for made in sound() if made.frames == 1}.values()]
STILLS = [made for made in STILLS if not made.name.endswith("icns")]
STILLS += [made for made in sound() if made.name in ("grey.tif", "cmyk.tif", "palette.tif")]


class TestPilImages:
    """One that leads to a file which Pillow gets wrong is refused; all others are taken."""

    @pytest.mark.parametrize("name", PILLOW_IS_WRONG)
    @pytest.mark.parametrize("loaded", [False, True])
    def test_what_pillow_gets_wrong_is_refused(
        self, name: str, loaded: bool, tmp_path: Path, sr: SuperResolver
    ) -> None:
        data, words = PILLOW_IS_WRONG[name]
        path = tmp_path / name
        path.write_bytes(data)
        with Image.open(path) as image:
            if loaded:
                image.load()
            with pytest.raises(ImageError, match=re.escape(words)) as caught:
                sr(image)
        assert str(path) in str(caught.value)
        if name in ("a.tif", "a.jp2"):
            assert "pass the path or the bytes of the file, not a PIL image" in str(caught.value)
            assert sr(path).size == sr(data).size == (76, 52)

    @pytest.mark.parametrize("name", PILLOW_IS_WRONG)
    def test_so_it_is_in_memory(self, name: str, sr: SuperResolver) -> None:
        data, words = PILLOW_IS_WRONG[name]
        stream = io.BytesIO(data)
        image = Image.open(stream)
        place = stream.tell()
        for _ in range(2):
            with pytest.raises(ImageError, match=re.escape(words)):
                sr(image)
            assert stream.tell() == place
        assert sr(image.copy()).size == (76, 52)  # which leads nowhere

    @pytest.mark.parametrize("name", ["a.dng", "a.tif"])
    def test_tags_are_left_where_the_file_is_gone(self, name: str, sr: SuperResolver) -> None:
        image = Image.open(io.BytesIO(PILLOW_IS_WRONG[name][0]))
        image.load()
        with pytest.raises(ImageError, match=re.escape(PILLOW_IS_WRONG[name][1])):
            sr(image)

    @pytest.mark.parametrize("loaded", [False, True])
    def test_images_of_sound_files_are_taken(self, loaded: bool, tmp_path: Path) -> None:
        refused = set()
        for made in sound():
            path = tmp_path / made.name
            path.write_bytes(made.data)
            with suppress(UnidentifiedImageError, SyntaxError), Image.open(path) as image:
                try:
                    if loaded:
                        image.load()
                    check_source(image)
                except ImageError:
                    refused.add(made.name)
        planes = {"rgb16-planar.tif"}
        # Loaded, their pixels and what of them is transparent are on different scales.
        keyed = {
            f"type{kind}-{way}transparent.png"
            for kind in ("0-2", "0-4", "2-16")
            for way in ("", "interlaced-")
        }
        assert refused == (planes | keyed if loaded else planes)

    @pytest.mark.parametrize("made", STILLS, ids=[made.name for made in STILLS])
    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
    def test_copies_are_taken_like_the_image(
        self, made: Made, copied: Any, sr: SuperResolver, tmp_path: Path
    ) -> None:
        """Such as a loader of data gets from its workers."""
        path = tmp_path / made.name
        path.write_bytes(made.data)
        try:
            image = Image.open(path)
            image.load()
            right = sr(image)
        except (OSError, ImageError):
            return
        assert np.array_equal(np.asarray(sr(copied(image))), np.asarray(right))

    @pytest.mark.parametrize("kind", ["planes", "white is 0", "12 bits"])
    def test_a_pickled_tiff_has_lost_its_tags(
        self, kind: str, tmp_path: Path, sr: SuperResolver
    ) -> None:
        numbers = np.arange(11 * 21, dtype=np.uint32).reshape(11, 21, 1)
        path = tmp_path / "a.tif"
        if kind == "planes":
            path.write_bytes(planes())
        else:
            bits = 12 if kind == "12 bits" else 16
            tags = {258: [bits], 262: [0 if kind == "white is 0" else 1]}
            path.write_bytes(raw_tiff(packed_rows(numbers, bits), tags))
        with Image.open(path) as image:
            if kind != "planes":
                assert sr(image).size == (84, 44)
            with pytest.raises(ImageError, match="Pillow gets wrong; pass the path"):
                sr(pickled(image))

    @pytest.mark.parametrize("format", ["png", "tif", "avif", "ppm"])
    def test_what_pillow_cut_is_said(self, format: str, sr: SuperResolver) -> None:
        pixels = picture().astype(np.uint16) * 257
        file = io.BytesIO()
        if format == "tif":
            tifffile.imwrite(file, pixels, photometric="rgb", compression="zlib")
        elif format == "png":
            file.write(imagecodecs.png_encode(pixels))
        elif format == "ppm":
            file.write(b"P6 19 13 65535\n" + pixels.astype(">u2").tobytes())
        else:
            file.write(imagecodecs.avif_encode(pixels >> 6, level=100, bitspersample=10))
        with pytest.warns(ImageWarning, match="pass the path or the bytes of the file"):
            big = sr(Image.open(file))
        assert big.size == (76, 52)

    def test_another_file_at_its_place_is_not_looked_at(
        self, tmp_path: Path, sr: SuperResolver
    ) -> None:
        path = tmp_path / "a.png"
        Image.fromarray(picture()).save(path)
        image = Image.open(path)
        image.load()
        path.write_bytes(planes())
        assert sr(image).size == (76, 52)
        path.unlink()
        assert sr(image).size == (76, 52)


JPEGS = [made for made in sound() if made.name.endswith(".jpg") and "turned" not in made.name]
jpegs = pytest.mark.parametrize("made", JPEGS, ids=[made.name for made in JPEGS])


class TestTga:
    @pytest.mark.parametrize("attributes", [0, 8])
    @pytest.mark.parametrize("alpha", [0, 1, 255])
    def test_what_would_be_empty_is_opaque_if_its_header_says_so(
        self, alpha: int, attributes: int
    ) -> None:
        image = Image.fromarray(picture())
        image.putalpha(alpha)
        data = bytearray(saved(image, "TGA"))
        data[17] = data[17] & 0xF0 | attributes
        (found,) = open_file(data).frames()
        assert found.alpha is not None
        opaque = alpha == attributes == 0
        assert (found.alpha[0:13] == (255 if opaque else alpha)).all()
        assert bool(found.warnings) == opaque
        if alpha or opaque:
            assert np.array_equal(found.color[0:13], picture())


class TestCutJpeg:
    @jpegs
    @pytest.mark.parametrize("missing", [1, 2])
    def test_without_its_end_marker_it_is_whole(self, made: Made, missing: int) -> None:
        (right,) = open_file(made.data).frames()
        (image,) = open_file(made.data[:-missing]).frames()
        assert np.array_equal(image.color[0:13], right.color[0:13])
        assert image.warnings == ("It lacks its end marker; all pixels are there.",)

    @jpegs
    def test_cut_in_its_pixels_it_is_refused_or_kept(self, made: Made) -> None:
        end = jpeg.extent(made.data)
        assert end.end == len(made.data)
        for kept in (0.5, 0.8, 0.95):
            scans = made.data.index(b"\xff\xda")
            data = made.data[: scans + int((len(made.data) - scans) * kept)]
            with pytest.raises(ImageError, match="damaged='keep'"):
                list(open_file(data).frames())
            (image,) = open_file(data, damaged="keep").frames()
            assert image.color.shape[:2] == (13, 19)
            assert "It is cut short: of 13 rows about" in image.warnings[0]

    def test_the_result_says_so(self, sr: SuperResolver) -> None:
        large = Image.fromarray(np.kron(picture(), np.ones((8, 8, 1), np.uint8)))
        data = saved(large, "JPEG")
        with pytest.warns(ImageWarning, match="cut short"):
            result = sr.upscale_file(
                data[: len(data) * 9 // 10], io.BytesIO(), format="png", damaged="keep"
            )
        assert result.size == (4 * large.width, 4 * large.height)
        with pytest.raises(ValueError, match="damaged must be"):
            open_file(data, damaged="some")


PNGS = [made for made in sound() if made.name.startswith("type")]


class TestPngWithoutItsLastRows:
    @pytest.mark.parametrize("made", PNGS, ids=[made.name for made in PNGS])
    def test_it_is_refused(self, made: Made) -> None:
        """All checksums are right, and Pillow makes the missing rows black."""
        file = io.BytesIO(made.data)
        parts, rows = [], b""
        for kind, at, length in png_chunks(file):
            content = made.data[at : at + length]
            if kind == b"IDAT":
                rows += content
            else:
                parts.append((kind, content))
        short = zlib.compress(zlib.decompress(rows)[:-1])
        head, end = parts[:-1], parts[-1]
        data = made.data[:8] + b"".join(chunk(*part) for part in (*head, (b"IDAT", short), end))
        with pytest.raises(ImageError, match="cut short: rows are missing"):
            list(open_file(data).frames())


class TestWhatPillowSays:
    def tiff(self) -> bytes:
        """With 3000 tags that lie outside of the file; in a layout that Pillow has to read."""
        data = saved(Image.new("RGB", (8, 8)), "TIFF", compression="jpeg")
        (place,) = struct.unpack("<I", data[4:8])
        (count,) = struct.unpack("<H", data[place : place + 2])
        bad = b"".join(struct.pack("<HHII", 40000 + i, 7, 10**5, 10**7) for i in range(3000))
        table = data[place + 2 : place + 2 + 12 * count]
        directory = struct.pack("<H", count + 3000) + table + bad + bytes(4)
        return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory

    def test_it_becomes_few_sentences(self, recwarn: pytest.WarningsRecorder) -> None:
        file = open_file(self.tiff())
        said = [text for text in file.warnings if "Pillow says" in text]
        assert len(said) == 1
        # Earlier releases say it once.
        assert "more like it" in said[0] or int(PIL.__version__.split(".")[0]) < 13
        assert not recwarn.list

    def test_threads_do_not_mix_what_is_said(self) -> None:
        plain = saved(Image.new("RGB", (8, 8), "red"), "TIFF", compression="jpeg")
        found: list[tuple[bool, int]] = []

        def work(data: bytes, loud: bool) -> None:
            for _ in range(5):
                said = [text for text in open_file(data).warnings if "Pillow says" in text]
                found.append((loud, len(said)))

        before = warnings.showwarning, list(warnings.filters)
        noisy = self.tiff()
        threads = [
            threading.Thread(target=work, args=(noisy if loud else plain, loud))
            for loud in (True, False, True, False)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [(False, 0)] * 10 + [(True, 1)] * 10
        assert (warnings.showwarning, list(warnings.filters)) == before

    def test_warnings_of_others_go_where_they_went(self) -> None:
        from srgan_infer.images.notices import gathered

        with pytest.warns(UserWarning, match="of somebody else"), gathered() as lines:
            warnings.warn("of somebody else", stacklevel=1)
        assert lines == []


class TestGrey:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    @pytest.mark.parametrize("alpha", [False, True])
    def test_grey_stored_as_colour_stays_grey(
        self, dtype: Any, alpha: bool, sr: SuperResolver
    ) -> None:
        grey = np.where(np.indices((12, 17)).sum(0) % 3, 0, 255).astype(np.uint8)[..., None]
        planes = [grey, grey, grey, np.full_like(grey, 200)][: 4 if alpha else 3]
        image = np.concatenate(planes, axis=2)
        top = 1 if dtype == np.float32 else np.iinfo(dtype).max
        image = (image / 255 * top).astype(dtype)
        big = sr(image)
        assert np.array_equal(big[..., 0], big[..., 1])
        assert np.array_equal(big[..., 0], big[..., 2])
        alone = sr(image[..., [0, 3]] if alpha else image[..., 0])
        assert np.array_equal(big[..., 0], alone[..., 0] if alpha else alone)

    def test_one_pixel_of_colour_makes_it_colour(self, sr: SuperResolver) -> None:
        image = np.repeat(picture(1), 3, axis=2)
        image[7, 9, 1] += 1
        big = sr(image)
        assert (big[..., 0] != big[..., 2]).any()


class TestLossless:
    @pytest.mark.parametrize("lossless", [False, True])
    @pytest.mark.parametrize("frames", [1, 3])
    def test_webp_stays_what_it_was(self, lossless: bool, frames: int, sr: SuperResolver) -> None:
        first, *others = [Image.fromarray(picture(shift=shift)) for shift in range(frames)]
        data = saved(first, "WEBP", save_all=frames > 1, append_images=others, lossless=lossless)
        out = io.BytesIO()
        sr.upscale_file(data, out, format="webp")
        assert open_file(data).lossless == lossless
        assert open_file(out).lossless == lossless

    def test_a_quality_that_is_asked_for_is_taken(self, sr: SuperResolver) -> None:
        data = saved(Image.fromarray(picture()), "WEBP", lossless=True)
        out = io.BytesIO()
        sr.upscale_file(data, out, format="webp", quality=80)
        assert not open_file(out).lossless

    def test_jpeg_is_written_without_thinning_the_colours(self, sr: SuperResolver) -> None:
        out = io.BytesIO()
        data = saved(Image.fromarray(picture()), "JPEG", subsampling="4:2:0", quality=60)
        sr.upscale_file(data, out, format="jpg")
        result = open_file(out)
        assert result.jpeg_quality == 95
        with Image.open(out) as image:
            assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


def test_the_page_on_reading_lists_every_format_with_its_reason() -> None:
    page = (Path(__file__).parents[1] / "docs" / "reading.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| (\w+) \| (.+) \|$", page, re.MULTILINE))
    assert listed.pop("format")
    assert listed == READ
